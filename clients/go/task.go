package lineshaft

import (
	"context"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	lineshaftv1 "github.com/lineshaft/lineshaft/clients/go/lineshaftv1"
)

// Task is a task on the server: one that a [Client] submitted, or any other by its ID.
type Task struct {
	client    *Client
	id        string
	duplicate bool
	// Token of a watch that receives all events of the task; empty if unknown.
	resumeToken string

	mu       sync.Mutex
	finished *TaskInfo // set once
	err      error     // set once; why the end of the task cannot be known
	waiters  []chan<- *Task

	group *followGroup // guarded by the mutex of the follower
}

func newTask(client *Client, id string) *Task {
	return &Task{client: client, id: id}
}

// ID of the task.
func (t *Task) ID() string { return t.id }

// Duplicate reports whether the submission repeated an earlier one with the same request ID or task ID. The task is then the
// first one, and may have finished or been deleted long ago.
func (t *Task) Duplicate() bool { return t.duplicate }

// Result waits until the task is finished and stores its result in the value that `into` points to: JSON with
// [encoding/json.Unmarshal], any result in a *[]byte or *[Payload]. A nil `into` drops the result.
//
// It returns a [*TaskFailedError] or [*TaskCancelledError] if the task did not complete. After a broken connection it goes on
// waiting until the context ends; the task is not affected by that.
func (t *Task) Result(ctx context.Context, into any) error {
	info, err := t.Wait(ctx)
	if err != nil {
		return err
	}
	return decodeResult(info, into)
}

func decodeResult(info *TaskInfo, into any) error {
	switch info.State {
	case Failed:
		return &TaskFailedError{info.TaskId, info.Failure}
	case Cancelled:
		return &TaskCancelledError{info.TaskId, info.Cancel}
	}
	if into == nil {
		return nil
	}
	return fromMessage(info.Result).Decode(into)
}

// ResultOf waits until the task is finished and returns its result. See [Task.Result].
func ResultOf[T any](ctx context.Context, task *Task) (T, error) {
	var result T
	err := task.Result(ctx, &result)
	return result, err
}

// Wait waits until the task is finished, and returns it however it ended, with its result.
func (t *Task) Wait(ctx context.Context) (*TaskInfo, error) {
	if info, err := t.end(); info != nil || err != nil {
		return info, err
	}
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	finished := make(chan *Task, 1)
	t.await(finished)
	defer CurrentAttempt(ctx).suspend()()
	select {
	case <-finished:
		return t.end()
	case <-ctx.Done():
		t.leave(finished)
		return nil, contextError(ctx, t.client.follower.lastFailure())
	case <-t.client.ctx.Done():
		return nil, context.Cause(t.client.ctx)
	}
}

// end returns the finished task, or why its end cannot be known; neither while it is not finished as far as is known.
func (t *Task) end() (*TaskInfo, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.finished, t.err
}

// await sends the task to the channel, which must have room, when it is finished.
func (t *Task) await(finished chan<- *Task) {
	t.mu.Lock()
	if t.finished != nil || t.err != nil {
		t.mu.Unlock()
		finished <- t
		return
	}
	isFirst := len(t.waiters) == 0
	t.waiters = append(t.waiters, finished)
	t.mu.Unlock()
	if isFirst {
		t.client.follower.follow(t)
	}
}

// leave undoes an await.
func (t *Task) leave(finished chan<- *Task) {
	t.mu.Lock()
	for index, waiter := range t.waiters {
		if waiter == finished {
			t.waiters = append(t.waiters[:index:index], t.waiters[index+1:]...)
			break
		}
	}
	isLast := len(t.waiters) == 0
	t.mu.Unlock()
	if isLast {
		t.client.follower.unfollow(t)
	}
}

// finish stores the end of the task and tells those who wait for it.
func (t *Task) finish(info *TaskInfo, err error) {
	t.mu.Lock()
	if t.finished == nil && t.err == nil {
		t.finished, t.err = info, err
	}
	waiters := t.waiters
	t.waiters = nil
	t.mu.Unlock()
	for _, waiter := range waiters {
		waiter <- t
	}
}

// isAwaited reports whether someone waits for the task.
func (t *Task) isAwaited() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.waiters) > 0
}

// Info returns the task as it is now, including its result if it has one.
func (t *Task) Info(ctx context.Context) (*TaskInfo, error) {
	if info, _ := t.end(); info != nil {
		return info, nil
	}
	ctx, cancel := limited(ctx)
	defer cancel()
	response, err := retry(ctx, func(ctx context.Context) (*lineshaftv1.GetTaskResponse, error) {
		return t.client.tasks.GetTask(ctx, &lineshaftv1.GetTaskRequest{TaskId: t.id})
	})
	return response.GetTask(), err
}

// State returns the present state of the task.
func (t *Task) State(ctx context.Context) (State, error) {
	info, err := t.Info(ctx)
	return info.GetState(), err
}

// CancelOption sets something about a cancellation.
type CancelOption func(*lineshaftv1.CancelTaskRequest)

// WithReason stores a reason in the receipt of the cancellation, at most 256 bytes.
func WithReason(reason string) CancelOption {
	return func(r *lineshaftv1.CancelTaskRequest) { r.Reason = reason }
}

// WithMode sets how a running task is stopped; the default is [Graceful].
func WithMode(mode CancelMode) CancelOption {
	return func(r *lineshaftv1.CancelTaskRequest) { r.Mode = mode }
}

// WithGrace sets the time between the request to stop and the forced stop, at most 5 minutes.
func WithGrace(grace time.Duration) CancelOption {
	return func(r *lineshaftv1.CancelTaskRequest) { r.Grace = durationpb.New(grace) }
}

// Cancel asks to stop the task. It returns [Cancelled], or [Running] while the task is being stopped; Wait then returns when
// it has stopped. The reason of the error for a task that has completed or failed is [ReasonTaskFinished].
func (t *Task) Cancel(ctx context.Context, options ...CancelOption) (State, error) {
	ctx, cancel := limited(ctx)
	defer cancel()
	request := &lineshaftv1.CancelTaskRequest{TaskId: t.id}
	for _, option := range options {
		option(request)
	}
	response, err := retry(ctx, func(ctx context.Context) (*lineshaftv1.CancelTaskResponse, error) {
		return t.client.tasks.CancelTask(ctx, request)
	})
	return response.GetState(), err
}
