package lineshaft

import (
	"context"
	"errors"
	"fmt"
	"io"

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
// After a broken connection the upload begins anew, until the context ends, if the content is an [io.Seeker] such as an
// [os.File] or a [bytes.Reader]. Otherwise Artifact returns the error: what was read of the content is lost.
func (a *Attempt) Artifact(ctx context.Context, name string, content io.Reader, options ...ArtifactOption) error {
	if a == nil {
		return nil
	}
	upload := newUpload(content)
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
			u.seeker, u.start = seeker, start
		}
	}
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
		read, err := u.content.Read(part[count:])
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

func (u *upload) canRewind() bool { return !u.begun || u.seeker != nil }

func (u *upload) rewind() error {
	if !u.begun {
		return nil
	}
	_, err := u.seeker.Seek(u.start, io.SeekStart)
	return err
}
