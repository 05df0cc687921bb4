package lineshaft

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	"google.golang.org/grpc"

	lineshaftv1 "github.com/lineshaft/lineshaft/clients/go/lineshaftv1"
)

// ErrChecksum means that the content of an artifact that was read does not have its SHA-256.
var ErrChecksum = errors.New("the content does not have the SHA-256 of the artifact")

// Artifacts returns the files that the task has left, by name, each with a link that needs no token. There are none unless the
// task has completed.
func (t *Task) Artifacts(ctx context.Context) ([]*Artifact, error) {
	ctx, cancel := limited(ctx)
	defer cancel()
	response, err := retry(ctx, func(ctx context.Context) (*lineshaftv1.ListArtifactsResponse, error) {
		return t.client.artifacts.ListArtifacts(ctx, &lineshaftv1.ListArtifactsRequest{TaskId: t.id})
	})
	return response.GetArtifacts(), err
}

// OpenArtifact reads a file that the task has left. Close the reader if you do not read it to its end.
//
// After a broken connection the reader goes on where it was, until the context ends. At the end it returns an error that wraps
// [ErrChecksum] instead of [io.EOF] if what it has returned does not have the SHA-256 of the artifact.
func (t *Task) OpenArtifact(ctx context.Context, name string) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancel(ctx)
	r := &artifactReader{
		ctx:      ctx,
		cancel:   cancel,
		service:  t.client.artifacts,
		request:  &lineshaftv1.ReadArtifactRequest{TaskId: t.id, Name: name},
		checksum: sha256.New(),
	}
	// The first message has the artifact, or the reason why there is none.
	for r.artifact == nil && r.err == nil {
		r.receive()
	}
	if r.artifact == nil {
		return nil, r.err
	}
	return r, nil
}

// artifactReader reads an artifact. Its position is in the request.
type artifactReader struct {
	ctx      context.Context
	cancel   context.CancelFunc
	service  lineshaftv1.ArtifactServiceClient
	request  *lineshaftv1.ReadArtifactRequest
	artifact *Artifact // nil: no message was received

	stream   grpc.ServerStreamingClient[lineshaftv1.ReadArtifactResponse] // nil: to be opened
	pending  []byte
	checksum hash.Hash
	pause    retryDelay
	err      error
}

func (r *artifactReader) Read(into []byte) (int, error) {
	if len(into) == 0 {
		return 0, nil
	}
	for len(r.pending) == 0 && r.err == nil {
		r.receive()
	}
	if len(r.pending) == 0 {
		return 0, r.err
	}
	count := copy(into, r.pending)
	r.pending = r.pending[count:]
	return count, nil
}

// Close ends the download. It does not verify what was read.
func (r *artifactReader) Close() error {
	r.cancel()
	r.pending, r.err = nil, errors.New("the reader is closed")
	return nil
}

// receive reads the next message, and opens a stream if there is none. It sets `err` at the end.
func (r *artifactReader) receive() {
	var message *lineshaftv1.ReadArtifactResponse
	var err error
	if r.stream == nil {
		r.stream, err = r.service.ReadArtifact(r.ctx, r.request)
	}
	if err == nil {
		message, err = r.stream.Recv()
	}
	switch {
	case err == nil:
		r.pause = retryDelay{}
		if r.artifact == nil {
			r.artifact = message.Artifact
		}
		r.pending = message.Data
		r.request.Offset += int64(len(message.Data))
		r.checksum.Write(message.Data)
	case errors.Is(err, io.EOF):
		r.err = r.verify()
		r.cancel()
	default:
		r.stream = nil
		if err = fromGRPC(r.ctx, err); !r.pause.again(r.ctx, err) {
			r.err = err
			r.cancel()
		}
	}
}

// verify returns io.EOF if what was read has the checksum of the artifact.
func (r *artifactReader) verify() error {
	if sum := hex.EncodeToString(r.checksum.Sum(nil)); sum != r.artifact.GetSha256() {
		return fmt.Errorf("artifact %q of task %s: %w: %d bytes with %s, must be %d bytes with %s", r.request.Name,
			r.request.TaskId, ErrChecksum, r.request.Offset, sum, r.artifact.GetSizeBytes(), r.artifact.GetSha256())
	}
	return io.EOF
}
