package lineshaft

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"

	"google.golang.org/grpc"

	lineshaftv1 "github.com/lineshaft/lineshaft/clients/go/lineshaftv1"
)

const (
	// streamedBytesMax is the largest payload that goes over the shared stream. Larger ones would hold up the others.
	streamedBytesMax = 256 << 10
	// singlesMax is the number of submissions that are under way on their own after a stream was refused.
	singlesMax = 16
)

// submitter sends the submissions of a client over one SubmitTasks stream, which it opens when there is something to send.
//
// A submission is sent at once. Those that arrive while others are being sent leave together in the next write. When a stream
// breaks, what has no response yet is sent again on the next one; request IDs make that safe.
type submitter struct {
	ctx   context.Context
	tasks lineshaftv1.TaskServiceClient
	start sync.Once
	// Has an element while the queue is not empty.
	arrived chan struct{}

	mu      sync.Mutex
	queue   []*submission
	failure error // of the last stream; nil after a response
}

// submission is one task that waits for its response.
type submission struct {
	request  *lineshaftv1.SubmitTaskRequest
	canceled <-chan struct{}
	done     chan submitted // has room for one
}

type submitted struct {
	accepted *lineshaftv1.SubmitTaskResponse
	err      error
}

func newSubmitter(ctx context.Context, tasks lineshaftv1.TaskServiceClient) *submitter {
	return &submitter{ctx: ctx, tasks: tasks, arrived: make(chan struct{}, 1)}
}

// submit returns when the server has accepted the task. While the server has no room it tries again until the context ends.
func (s *submitter) submit(
	ctx context.Context, request *lineshaftv1.SubmitTaskRequest,
) (*lineshaftv1.SubmitTaskResponse, error) {
	if len(request.Payload.GetData()) > streamedBytesMax {
		return s.single(ctx, request)
	}
	s.start.Do(func() { go s.run() })
	var pause retryDelay
	for {
		one := &submission{request: request, canceled: ctx.Done(), done: make(chan submitted, 1)}
		s.add(one)
		select {
		case result := <-one.done:
			if result.err == nil || !pause.again(ctx, result.err) {
				return result.accepted, result.err
			}
		case <-ctx.Done():
			return nil, contextError(ctx, s.lastFailure())
		case <-s.ctx.Done():
			return nil, context.Cause(s.ctx)
		}
	}
}

// single submits one task with a call of its own.
func (s *submitter) single(
	ctx context.Context, request *lineshaftv1.SubmitTaskRequest,
) (*lineshaftv1.SubmitTaskResponse, error) {
	return retry(ctx, func(ctx context.Context) (*lineshaftv1.SubmitTaskResponse, error) {
		return s.tasks.SubmitTask(ctx, request)
	})
}

func (s *submitter) add(more ...*submission) {
	s.mu.Lock()
	s.queue = append(s.queue, more...)
	s.mu.Unlock()
	select {
	case s.arrived <- struct{}{}:
	default:
	}
}

func (s *submitter) take() []*submission {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := slices.DeleteFunc(s.queue, (*submission).isCanceled)
	s.queue = nil
	return taken
}

func (s *submitter) lastFailure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failure
}

func (s *submitter) setFailure(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failure = err
}

// run opens one stream after the other until the client is closed.
func (s *submitter) run() {
	var pause retryDelay
	for s.ctx.Err() == nil {
		select {
		case <-s.ctx.Done():
			return
		case <-s.arrived:
		}
		stream := submitStream{submitter: s, unanswered: map[uint64]*submission{}}
		err := stream.run()
		if stream.responded {
			pause = retryDelay{}
		}
		unanswered := stream.rest()
		switch {
		case err == nil:
			s.add(unanswered...)
		case isRetryable(err):
			s.setFailure(err)
			s.add(unanswered...)
			_ = pause.sleep(s.ctx, 0)
		default:
			// One of them may be the cause, so each gets its own answer.
			s.setFailure(err)
			s.submitSingly(append(unanswered, s.take()...))
		}
	}
}

// submitSingly submits tasks without a stream, and returns when all have their response.
func (s *submitter) submitSingly(tasks []*submission) {
	room := make(chan struct{}, singlesMax)
	var group sync.WaitGroup
	for _, one := range tasks {
		if one.isCanceled() {
			continue
		}
		room <- struct{}{}
		group.Go(func() {
			ctx, cancel := context.WithTimeout(s.ctx, callTimeout)
			defer cancel()
			response, err := s.tasks.SubmitTask(ctx, one.request)
			one.done <- submitted{response, fromGRPC(s.ctx, err)}
			<-room
		})
	}
	group.Wait()
}

func (s *submission) isCanceled() bool {
	select {
	case <-s.canceled:
		return true
	default:
		return false
	}
}

// submitStream is one SubmitTasks stream.
type submitStream struct {
	*submitter
	rpc      grpc.BidiStreamingClient[lineshaftv1.SubmitTasksRequest, lineshaftv1.SubmitTasksResponse]
	sequence uint64

	mu         sync.Mutex
	responded  bool
	unanswered map[uint64]*submission
}

// run sends submissions until the stream ends. It returns nil if the server closed it without an error.
func (s *submitStream) run() error {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	var err error
	if s.rpc, err = s.tasks.SubmitTasks(ctx); err != nil {
		return fromGRPC(s.ctx, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.receive() }()
	for {
		taken := s.take()
		if sent := s.send(taken); sent < len(taken) {
			s.add(taken[sent:]...)
			return <-ended
		}
		select {
		case err := <-ended:
			return err
		case <-s.arrived:
		}
	}
}

// send writes these submissions, and returns how many before the stream broke.
func (s *submitStream) send(tasks []*submission) int {
	first := s.sequence
	s.mu.Lock()
	for index, one := range tasks {
		s.unanswered[first+uint64(index)] = one
	}
	s.mu.Unlock()
	s.sequence += uint64(len(tasks))
	for index, one := range tasks {
		sequence := first + uint64(index)
		err := s.rpc.Send(&lineshaftv1.SubmitTasksRequest{Sequence: sequence, Task: one.request})
		if err == nil {
			continue
		}
		s.mu.Lock()
		for rest := index; rest < len(tasks); rest++ {
			delete(s.unanswered, first+uint64(rest))
		}
		s.mu.Unlock()
		if errors.Is(err, io.EOF) {
			return index
		}
		// The message could not be encoded, which ends the stream too.
		one.done <- submitted{err: fmt.Errorf("send the task: %w", err)}
		return index + 1
	}
	return len(tasks)
}

// receive hands out the responses until the stream ends.
func (s *submitStream) receive() error {
	for {
		response, err := s.rpc.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fromGRPC(s.ctx, err)
		}
		s.mu.Lock()
		one := s.unanswered[response.Sequence]
		delete(s.unanswered, response.Sequence)
		isFirst := !s.responded
		s.responded = true
		s.mu.Unlock()
		if isFirst {
			s.setFailure(nil)
		}
		if one == nil {
			continue
		}
		if rejected := response.GetRejected(); rejected != nil {
			one.done <- submitted{err: fromRejection(rejected)}
		} else {
			one.done <- submitted{accepted: response.GetAccepted()}
		}
	}
}

// rest returns the submissions without a response, after the end of the stream.
func (s *submitStream) rest() []*submission {
	s.mu.Lock()
	defer s.mu.Unlock()
	rest := slices.Collect(maps.Values(s.unanswered))
	return slices.DeleteFunc(rest, (*submission).isCanceled)
}
