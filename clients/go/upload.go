package lineshaft

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	lineshaftv1 "github.com/lineshaft/lineshaft/clients/go/lineshaftv1"
)

// uploadBytes is the content of an artifact in one message.
const uploadBytes = 256 << 10

// ArtifactOption sets something about an artifact that an attempt leaves.
type ArtifactOption func(*lineshaftv1.UploadArtifactRequest)

// WithContentType sets the content type. The default is that of the extension of the name.
func WithContentType(contentType string) ArtifactOption {
	return func(r *lineshaftv1.UploadArtifactRequest) { r.ContentType = contentType }
}

// Artifact uploads a file that the task leaves. It becomes an artifact of the task if the handler returns no error; one with
// the same name is replaced.
//
// After a broken connection the upload begins anew, until the context ends. For this, what was read of a content that cannot seek, such as
// a pipe, is kept in a temporary file; if there is no room for it, Artifact returns the error instead.
func (a *Attempt) Artifact(ctx context.Context, name string, content io.Reader, options ...ArtifactOption) error {
	if a == nil {
		return nil
	}
	upload := newUpload(content)
	defer upload.spool.close()
	var pause retryDelay
	for {
		artifact, err := a.upload(ctx, name, options, upload)
		if err == nil {
			a.left(artifact)
			return nil
		}
		if upload.failure != nil {
			return fmt.Errorf("content of artifact %q: %w", name, upload.failure)
		}
		if err = fromGRPC(ctx, err); !upload.canRewind() || !pause.again(ctx, err) {
			return err
		}
		if failure := upload.rewind(); failure != nil {
			return errors.Join(err, failure)
		}
	}
}

// upload makes the call once.
func (a *Attempt) upload(
	ctx context.Context, name string, options []ArtifactOption, content *upload,
) (*Artifact, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := a.worker.service.UploadArtifact(ctx)
	if err != nil {
		return nil, err
	}
	request := &lineshaftv1.UploadArtifactRequest{TaskId: a.assigned.TaskId, Token: a.assigned.Token, Name: name}
	for _, option := range options {
		option(request)
	}
	for hasMore := true; hasMore; {
		if request.Data, hasMore = content.next(); content.failure != nil {
			return nil, content.failure
		}
		// After an error of Send, CloseAndRecv returns the cause.
		if stream.Send(request) != nil {
			break
		}
		request = &lineshaftv1.UploadArtifactRequest{}
	}
	response, err := stream.CloseAndRecv()
	return response.GetArtifact(), err
}

// left adds an artifact to the result of the attempt.
func (a *Attempt) left(artifact *Artifact) {
	a.worker.mu.Lock()
	defer a.worker.mu.Unlock()
	if a.artifacts == nil {
		a.artifacts = map[string]*Artifact{}
	}
	a.artifacts[artifact.GetName()] = artifact
}

// upload is the content of an artifact, which may have to be sent again.
type upload struct {
	content io.Reader
	seeker  io.Seeker // nil: it can be read once
	start   int64
	spool   spool
	// What is read: the content, after a rewind behind what the spool has of it.
	reader io.Reader
	// Whether a part of it was read.
	begun bool
	// Why it cannot be read.
	failure error
}

func newUpload(content io.Reader) *upload {
	u := &upload{content: content}
	// A pipe is an os.File too, but cannot seek.
	if seeker, ok := content.(io.Seeker); ok {
		if start, err := seeker.Seek(0, io.SeekCurrent); err == nil {
			u.seeker, u.start, u.reader = seeker, start, content
			return u
		}
	}
	u.reader = io.TeeReader(content, &u.spool)
	return u
}

// next returns the next part and whether more can follow. A message can be used after it was sent, so that each has its own
// memory.
func (u *upload) next() (part []byte, hasMore bool) {
	part = make([]byte, uploadBytes)
	count := 0
	u.begun = true
	// Not io.ReadFull: an io.ErrUnexpectedEOF of the content itself is a failure.
	for count < len(part) {
		read, err := u.reader.Read(part[count:])
		count += read
		if err != nil {
			if !errors.Is(err, io.EOF) {
				u.failure = err
			}
			return part[:count], false
		}
	}
	return part, true
}

func (u *upload) canRewind() bool { return !u.begun || u.seeker != nil || !u.spool.failed }

func (u *upload) rewind() error {
	if !u.begun {
		return nil
	}
	if u.seeker != nil {
		_, err := u.seeker.Seek(u.start, io.SeekStart)
		return err
	}
	u.reader = io.MultiReader(u.spool.read(), io.TeeReader(u.content, &u.spool))
	return nil
}

// spool keeps what was read of a content that cannot seek, in a temporary file.
type spool struct {
	file   *os.File // nil: nothing was written
	bytes  int64
	failed bool
}

// Write returns no error: without room for it the upload goes on, but cannot begin anew.
func (s *spool) Write(data []byte) (int, error) {
	if s.failed {
		return len(data), nil
	}
	var err error
	if s.file == nil {
		s.file, err = os.CreateTemp("", "lineshaft-artifact-*")
	}
	if err == nil {
		var count int
		count, err = s.file.Write(data)
		s.bytes += int64(count)
	}
	s.failed = err != nil
	return len(data), nil
}

// read returns a reader of what has been written so far.
func (s *spool) read() io.Reader {
	if s.file == nil {
		return strings.NewReader("")
	}
	return io.NewSectionReader(s.file, 0, s.bytes)
}

func (s *spool) close() {
	if s.file != nil {
		_ = s.file.Close()
		_ = os.Remove(s.file.Name())
	}
}
