package lineshaft

import (
	"cmp"
	"context"
	"crypto/rand"
	"iter"
	"time"

	lineshaftv1 "github.com/lineshaft/lineshaft/clients/go/lineshaftv1"
)

const (
	// partMax and partBytesMax bound the batches in which many tasks are submitted.
	partMax      = 1000
	partBytesMax = 1 << 20
	// unreadMax is the number of tasks without a result above which Map waits for results before it submits more, but not for
	// longer than unreadTime a batch.
	unreadMax  = 3000
	unreadTime = time.Second
)

// Call submits a task, waits until it is finished, and returns its result. See [Client.Submit] and [Task.Result].
func Call[Out any](
	ctx context.Context, client *Client, handler string, payload any, options ...SubmitOption,
) (Out, error) {
	var result Out
	task, err := client.Submit(ctx, handler, payload, options...)
	if err != nil {
		return result, err
	}
	err = task.Result(ctx, &result)
	return result, err
}

// Map submits one task for each payload, all in one batch, waits until all are finished, and returns their results in the order of
// the payloads. [InBatch] chooses the batch.
//
// As soon as one of the tasks does not complete, Map returns its error. The other tasks go on.
func Map[Out, In any](
	ctx context.Context, client *Client, handler string, payloads []In, options ...SubmitOption,
) ([]Out, error) {
	tasks, batchID := make([]*Task, 0, len(payloads)), rand.Text()
	finished := make(chan *Task, len(payloads))
	defer func() {
		for _, task := range tasks {
			task.leave(finished)
		}
	}()
	read := 0
	for part, err := range parts(client, handler, payloads, options) {
		if err != nil {
			return nil, err
		}
		submitted, err := client.submitBatch(ctx, cmp.Or(part[0].BatchId, batchID), part)
		if err != nil {
			return nil, err
		}
		for _, task := range submitted {
			task.await(finished)
		}
		tasks = append(tasks, submitted...)
		// The server keeps a number of finished tasks. Their results have to be read before more tasks finish.
		count, err := readSome(ctx, finished, len(tasks)-read-unreadMax)
		if err != nil {
			return nil, err
		}
		read += count
	}
	for ; read < len(tasks); read++ {
		task, err := next(ctx, finished)
		if err == nil {
			err = task.Result(ctx, nil)
		}
		if err != nil {
			return nil, err
		}
	}
	results := make([]Out, len(tasks))
	for index, task := range tasks {
		if err := task.Result(ctx, &results[index]); err != nil {
			return nil, err
		}
	}
	return results, nil
}

// readSome receives this many finished tasks, or fewer if they take long. It returns the error of one that did not complete.
func readSome(ctx context.Context, finished <-chan *Task, count int) (int, error) {
	if count <= 0 {
		return 0, nil
	}
	defer CurrentAttempt(ctx).suspend()()
	long := time.NewTimer(unreadTime)
	defer long.Stop()
	for read := range count {
		select {
		case task := <-finished:
			if err := task.Result(ctx, nil); err != nil {
				return read, err
			}
		case <-long.C:
			return read, nil
		case <-ctx.Done():
			return read, context.Cause(ctx)
		}
	}
	return count, nil
}

// SubmitAll submits one task for each payload, all in one batch, and returns them in the order of the payloads. [InBatch] chooses the
// batch. If SubmitAll returns an error, the tasks before it were submitted and are returned.
func SubmitAll[In any](
	ctx context.Context, client *Client, handler string, payloads []In, options ...SubmitOption,
) ([]*Task, error) {
	tasks, batchID := make([]*Task, 0, len(payloads)), rand.Text()
	for part, err := range parts(client, handler, payloads, options) {
		if err != nil {
			return tasks, err
		}
		submitted, err := client.submitBatch(ctx, cmp.Or(part[0].BatchId, batchID), part)
		if err != nil {
			return tasks, err
		}
		tasks = append(tasks, submitted...)
	}
	return tasks, nil
}

// parts returns the submissions of these payloads in batches.
func parts[In any](
	client *Client, handler string, payloads []In, options []SubmitOption,
) iter.Seq2[[]*lineshaftv1.SubmitTaskRequest, error] {
	return func(yield func([]*lineshaftv1.SubmitTaskRequest, error) bool) {
		var part []*lineshaftv1.SubmitTaskRequest
		bytes := 0
		for _, payload := range payloads {
			request, err := client.request(handler, payload, options)
			if err != nil {
				yield(nil, err)
				return
			}
			part = append(part, request)
			bytes += len(request.Payload.GetData())
			if len(part) < partMax && bytes < partBytesMax {
				continue
			}
			if !yield(part, nil) {
				return
			}
			part, bytes = nil, 0
		}
		if len(part) > 0 {
			yield(part, nil)
		}
	}
}

// AsCompleted returns the tasks in the order in which they finish, however they end. An error, such as that of the context, is
// the last element.
func AsCompleted(ctx context.Context, tasks []*Task) iter.Seq2[*Task, error] {
	return func(yield func(*Task, error) bool) {
		finished := make(chan *Task, len(tasks))
		for _, task := range tasks {
			task.await(finished)
		}
		defer func() {
			for _, task := range tasks {
				task.leave(finished)
			}
		}()
		for range tasks {
			task, err := next(ctx, finished)
			if err != nil {
				yield(nil, err)
				return
			}
			if _, err := task.end(); !yield(task, err) {
				return
			}
		}
	}
}

// next waits for a task. An attempt gives its slot back meanwhile.
func next(ctx context.Context, finished <-chan *Task) (*Task, error) {
	select {
	case task := <-finished:
		return task, nil
	default:
	}
	defer CurrentAttempt(ctx).suspend()()
	select {
	case task := <-finished:
		return task, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
