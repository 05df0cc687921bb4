package lineshaft_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	lineshaft "github.com/lineshaft/lineshaft/clients/go"
)

// large is the content of an artifact that does not fit into the buffers between a server and a client.
var large = bytes.Repeat([]byte("0123456789abcdef"), 1<<20)

// leave runs a task whose handler is this function.
func leave(t *testing.T, address string, run func(context.Context, *lineshaft.Attempt) error) *lineshaft.Task {
	t.Helper()
	stop := workFor(t, address, func(worker *lineshaft.Worker) {
		lineshaft.Handle(worker, "leave", func(ctx context.Context, _ any) (any, error) {
			return nil, run(ctx, lineshaft.CurrentAttempt(ctx))
		})
	})
	t.Cleanup(func() { _ = stop() })
	ctx := testContext(t)
	task := must[*lineshaft.Task](t)(newClient(t, address).Submit(ctx, "leave", nil))
	must[*lineshaft.TaskInfo](t)(task.Wait(ctx))
	return task
}

// leaveLarge runs a task that leaves the large content.
func leaveLarge(t *testing.T, address string) *lineshaft.Task {
	t.Helper()
	return leave(t, address, func(ctx context.Context, attempt *lineshaft.Attempt) error {
		return attempt.Artifact(ctx, "large.bin", bytes.NewReader(large))
	})
}

func open(t *testing.T, task *lineshaft.Task, name string) io.ReadCloser {
	t.Helper()
	return must[io.ReadCloser](t)(task.OpenArtifact(testContext(t), name))
}

func TestAHandlerLeavesArtifacts(t *testing.T) {
	server, ctx := startServer(t, remoteConfig), testContext(t)
	path := filepath.Join(t.TempDir(), "large")
	if err := os.WriteFile(path, large, 0o600); err != nil {
		t.Fatal(err)
	}
	task := leave(t, server.address, func(ctx context.Context, attempt *lineshaft.Attempt) error {
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		defer file.Close()
		return errors.Join(
			attempt.Artifact(ctx, "large.bin", file),
			attempt.Artifact(ctx, "一.csv", strings.NewReader("first")),
			attempt.Artifact(ctx, "一.csv", strings.NewReader("second"), lineshaft.WithContentType("text/x-csv")),
			attempt.Artifact(ctx, "empty.txt", strings.NewReader("")),
		)
	})
	if err := task.Result(ctx, nil); err != nil {
		t.Fatal(err)
	}
	expected := []struct{ name, contentType, content string }{
		{"empty.txt", "text/plain", ""},
		{"large.bin", "application/octet-stream", string(large)},
		{"一.csv", "text/x-csv", "second"},
	}
	artifacts := must[[]*lineshaft.Artifact](t)(task.Artifacts(ctx))
	if len(artifacts) != len(expected) {
		t.Fatalf("the artifacts are %v", artifacts)
	}
	for index, want := range expected {
		artifact, sum := artifacts[index], sha256.Sum256([]byte(want.content))
		if artifact.Name != want.name || artifact.ContentType != want.contentType || artifact.Sha256 != hex.EncodeToString(sum[:]) ||
			artifact.SizeBytes != int64(len(want.content)) || artifact.Link == "" {
			t.Errorf("artifact %d is %v", index, artifact)
		}
		if content := must[[]byte](t)(io.ReadAll(open(t, task, want.name))); string(content) != want.content {
			t.Errorf("%s has %d other bytes", want.name, len(content))
		}
	}
	var refused *lineshaft.Error
	if _, err := task.OpenArtifact(ctx, "x"); !errors.As(err, &refused) || refused.Reason != lineshaft.ReasonArtifactNotFound {
		t.Errorf("an unknown artifact returned %v", err)
	}
}

func TestALargeResultHasItsArtifacts(t *testing.T) {
	server, ctx := startServer(t, remoteConfig+"\n[limits]\npayload_bytes = \"4MiB\"\n"), testContext(t)
	workFor(t, server.address, func(worker *lineshaft.Worker) {
		lineshaft.Handle(worker, "leave", func(ctx context.Context, _ any) ([]byte, error) {
			return large[:2<<20], lineshaft.CurrentAttempt(ctx).Artifact(ctx, "x", strings.NewReader("x"))
		})
	})
	task := must[*lineshaft.Task](t)(server.client().Submit(ctx, "leave", nil))
	must[*lineshaft.TaskInfo](t)(task.Wait(ctx))
	if artifacts := must[[]*lineshaft.Artifact](t)(task.Artifacts(ctx)); len(artifacts) != 1 {
		t.Errorf("the artifacts are %v", artifacts)
	}
}

func TestAFailedAttemptLeavesNoArtifacts(t *testing.T) {
	server, ctx := startServer(t, remoteConfig), testContext(t)
	task := leave(t, server.address, func(ctx context.Context, attempt *lineshaft.Attempt) error {
		if err := attempt.Artifact(ctx, "kept", strings.NewReader("x")); err != nil {
			return err
		}
		return lineshaft.Permanent(attempt.Artifact(ctx, "../x", strings.NewReader("x")))
	})
	info := must[*lineshaft.TaskInfo](t)(task.Info(ctx))
	if !strings.Contains(info.GetFailure().GetMessage(), "`name` contains the character '/'") {
		t.Errorf("the failure is %v", info.GetFailure())
	}
	if artifacts := must[[]*lineshaft.Artifact](t)(task.Artifacts(ctx)); len(artifacts) != 0 {
		t.Errorf("the artifacts are %v", artifacts)
	}
}

func TestContentThatCannotBeReadIsNoArtifact(t *testing.T) {
	server, ctx := startServer(t, remoteConfig), testContext(t)
	uploads := make(chan error, 1)
	// A reader of a compressed file that is cut off returns this error.
	truncated := io.MultiReader(bytes.NewReader(large), iotest.ErrReader(io.ErrUnexpectedEOF))
	task := leave(t, server.address, func(ctx context.Context, attempt *lineshaft.Attempt) error {
		uploads <- attempt.Artifact(ctx, "x", truncated)
		return nil
	})
	if err := <-uploads; !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the upload returned %v", err)
	}
	if artifacts := must[[]*lineshaft.Artifact](t)(task.Artifacts(ctx)); len(artifacts) != 0 {
		t.Errorf("the artifacts are %v", artifacts)
	}
}

// cutReader cuts the connections once, when half of the content was read.
type cutReader struct {
	*bytes.Reader
	proxy *proxy
	cut   int
}

func (r *cutReader) Read(into []byte) (int, error) {
	if r.cut == 0 && r.Len() <= len(large)/2 {
		r.cut = r.proxy.cut()
	}
	return r.Reader.Read(into)
}

func TestAnUploadBeginsAnewAfterABrokenConnection(t *testing.T) {
	server, ctx := startServer(t, remoteConfig), testContext(t)
	proxy := startProxy(t, server.address)
	t.Setenv("TMPDIR", t.TempDir())
	task := leave(t, proxy.address, func(ctx context.Context, attempt *lineshaft.Attempt) error {
		sought := &cutReader{Reader: bytes.NewReader(large), proxy: proxy}
		read := &cutReader{Reader: bytes.NewReader(large), proxy: proxy}
		// The content begins where the reader is.
		if _, err := sought.Seek(3, io.SeekStart); err != nil {
			return err
		}
		err := errors.Join(
			attempt.Artifact(ctx, "read", struct{ io.Reader }{read}),
			attempt.Artifact(ctx, "sought", sought),
		)
		if read.cut == 0 || sought.cut == 0 {
			t.Error("no connection was broken")
		}
		return err
	})
	if err := task.Result(ctx, nil); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]byte{"read": large, "sought": large[3:]} {
		if content := must[[]byte](t)(io.ReadAll(open(t, task, name))); !bytes.Equal(content, want) {
			t.Errorf("artifact %s has %d other bytes", name, len(content))
		}
	}
	if left := must[[]os.DirEntry](t)(os.ReadDir(os.TempDir())); len(left) != 0 {
		t.Errorf("%v is left", left)
	}
}

func TestAnUploadWithoutRoomForATemporaryFileIsMadeOnce(t *testing.T) {
	server, ctx := startServer(t, remoteConfig), testContext(t)
	proxy := startProxy(t, server.address)
	t.Setenv("TMPDIR", filepath.Join(t.TempDir(), "missing"))
	task := leave(t, proxy.address, func(ctx context.Context, attempt *lineshaft.Attempt) error {
		var broken *lineshaft.Error
		cut := struct{ io.Reader }{&cutReader{Reader: bytes.NewReader(large), proxy: proxy}}
		if err := attempt.Artifact(ctx, "lost", cut); !errors.As(err, &broken) {
			t.Errorf("a content that can be read once returned %v", err)
		}
		return attempt.Artifact(ctx, "whole", struct{ io.Reader }{bytes.NewReader(large)})
	})
	if err := task.Result(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if artifacts := must[[]*lineshaft.Artifact](t)(task.Artifacts(ctx)); len(artifacts) != 1 || artifacts[0].Name != "whole" {
		t.Errorf("the artifacts are %v", artifacts)
	}
}

func TestADownloadContinuesAfterABrokenConnection(t *testing.T) {
	server := startServer(t, remoteConfig)
	proxy := startProxy(t, server.address)
	var counted calls
	task := newClient(t, proxy.address, counted.option()).Task(leaveLarge(t, server.address).ID())
	reader := open(t, task, "large.bin")
	content := make([]byte, len(large)/2)
	if _, err := io.ReadFull(reader, content); err != nil {
		t.Fatal(err)
	}
	if proxy.cut() == 0 {
		t.Fatal("there was no connection to break")
	}
	content = append(content, must[[]byte](t)(io.ReadAll(reader))...)
	if !bytes.Equal(content, large) {
		t.Errorf("the content has %d other bytes", len(content))
	}
	if count := counted.of("ReadArtifact"); count < 2 {
		t.Errorf("the download was not broken: %d calls", count)
	}
}

func TestAClosedReaderEndsTheDownload(t *testing.T) {
	server := startServer(t, remoteConfig)
	reader := open(t, leaveLarge(t, server.address), "large.bin")
	if err := reader.Close(); err != nil {
		t.Error(err)
	}
	if count, err := reader.Read(make([]byte, 1)); count != 0 || err == nil || errors.Is(err, io.EOF) {
		t.Errorf("a read after Close returned %d, %v", count, err)
	}
}

func TestADamagedArtifactIsAnError(t *testing.T) {
	server := startServer(t, remoteConfig)
	task := leaveLarge(t, server.address)
	damaged := 0
	err := filepath.WalkDir(filepath.Join(server.dir, "data/artifacts"), func(path string, entry fs.DirEntry, err error) error {
		if info, _ := entry.Info(); err != nil || info.Size() != int64(len(large)) {
			return err
		}
		damaged++
		file := must[*os.File](t)(os.OpenFile(path, os.O_WRONLY, 0))
		defer file.Close()
		_, err = file.WriteAt([]byte("x"), 1<<20)
		return err
	})
	if err != nil || damaged != 1 {
		t.Fatalf("%d files were damaged: %v", damaged, err)
	}
	content, err := io.ReadAll(open(t, task, "large.bin"))
	if !errors.Is(err, lineshaft.ErrChecksum) || len(content) != len(large) {
		t.Errorf("reading returned %d bytes, %v", len(content), err)
	}
}
