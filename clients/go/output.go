package lineshaft

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"

	lineshaftv1 "github.com/lineshaft/lineshaft/clients/go/lineshaftv1"
)

// OutputOption sets something about reading output.
type OutputOption func(*lineshaftv1.ReadOutputRequest)

// FromStderr reads standard error, and the log of built-in handlers, instead of standard output.
func FromStderr() OutputOption {
	return func(r *lineshaftv1.ReadOutputRequest) { r.Stream = Stderr }
}

// FromOffset starts at this byte.
func FromOffset(offset int64) OutputOption {
	return func(r *lineshaftv1.ReadOutputRequest) { r.Offset = offset }
}

// OfAttempt reads the output of this attempt instead of the current or last one.
func OfAttempt(attempt int) OutputOption {
	return func(r *lineshaftv1.ReadOutputRequest) { r.Attempt = int32(attempt) }
}

// Output returns what the task has written to standard output, as far as the server keeps it: the first and the last 64 KiB.
func (t *Task) Output(ctx context.Context, options ...OutputOption) ([]byte, error) {
	ctx, cancel := limited(ctx)
	defer cancel()
	return io.ReadAll(t.output(ctx, false, options))
}

// FollowOutput reads what the task writes to standard output, until it is finished. Later attempts follow the first one. After
// a broken connection it goes on where it was, until the context ends.
func (t *Task) FollowOutput(ctx context.Context, options ...OutputOption) io.Reader {
	return t.output(ctx, true, options)
}

func (t *Task) output(ctx context.Context, follow bool, options []OutputOption) *outputReader {
	request := &lineshaftv1.ReadOutputRequest{TaskId: t.id, Follow: follow}
	for _, option := range options {
		option(request)
	}
	isAll := follow && request.Attempt == 0
	return &outputReader{ctx: ctx, tasks: t.client.tasks, request: request, isAll: isAll}
}

// outputReader reads chunks of output. Its position is in the request.
type outputReader struct {
	ctx     context.Context
	tasks   lineshaftv1.TaskServiceClient
	request *lineshaftv1.ReadOutputRequest
	// Whether the output of later attempts is read too.
	isAll bool

	stream  grpc.ServerStreamingClient[lineshaftv1.ReadOutputResponse] // nil: to be opened
	cancel  context.CancelFunc
	attempt int32 // the last one that was read
	skipped int32 // attempts that were read before the stream was opened
	pending []byte
	pause   retryDelay
	err     error
}

func (r *outputReader) Read(into []byte) (int, error) {
	for len(r.pending) == 0 && r.err == nil {
		r.err = r.receive()
	}
	if len(r.pending) == 0 {
		return 0, r.err
	}
	count := copy(into, r.pending)
	r.pending = r.pending[count:]
	return count, nil
}

// receive reads the next chunk, and opens a stream if there is none.
func (r *outputReader) receive() error {
	if r.stream == nil {
		ctx, cancel := context.WithCancel(r.ctx)
		stream, err := r.tasks.ReadOutput(ctx, r.request)
		if err != nil {
			cancel()
			return r.broken(err)
		}
		r.stream, r.cancel = stream, cancel
	}
	chunk, err := r.stream.Recv()
	if err != nil {
		r.stream = nil
		r.cancel()
	}
	switch {
	case errors.Is(err, io.EOF) && r.isAll && r.request.Attempt != 0:
		// The attempt of the broken stream has been read to its end; now those after it.
		r.skipped, r.request.Attempt, r.request.Offset = r.attempt, 0, 0
	case errors.Is(err, io.EOF):
		return io.EOF
	case err != nil:
		return r.broken(err)
	case chunk.Attempt > r.skipped:
		r.pause = retryDelay{}
		r.pending, r.attempt = chunk.Data, chunk.Attempt
		r.request.Offset = chunk.Offset + int64(len(chunk.Data))
	}
	return nil
}

// broken prepares to continue where the stream broke.
func (r *outputReader) broken(err error) error {
	err = fromGRPC(r.ctx, err)
	if !r.pause.again(r.ctx, err) {
		return err
	}
	if r.attempt != 0 {
		r.request.Attempt, r.skipped = r.attempt, 0
	}
	return nil
}
