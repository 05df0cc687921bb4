package lineshaft

import (
	"context"
	"iter"

	lineshaftv1 "github.com/lineshaft/lineshaft/clients/go/lineshaftv1"
)

const (
	// partMax and partBytesMax bound the batches in which many tasks are submitted.
	partMax      = 1000
	partBytesMax = 1 << 20
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

// Map submits one task for each payload, waits until all are finished, and returns their results in the order of the payloads.
//
// As soon as one of the tasks does not complete, Map returns its error. The other tasks go on.
func Map[Out, In any](
	ctx context.Context, client *Client, handler string, payloads []In, options ...SubmitOption,
) ([]Out, error) {
	tasks, err := SubmitAll(ctx, client, handler, payloads, options...)
	if err != nil {
		return nil, err
	}
	for task, err := range AsCompleted(ctx, tasks) {
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

// SubmitAll submits one task for each payload, in batches, and returns them in the order of the payloads. If it returns an
// error, the tasks before it were submitted and are returned.
func SubmitAll[In any](
	ctx context.Context, client *Client, handler string, payloads []In, options ...SubmitOption,
) ([]*Task, error) {
	tasks := make([]*Task, 0, len(payloads))
	var part []*lineshaftv1.SubmitTaskRequest
	bytes := 0
	for index, payload := range payloads {
		request, err := client.request(handler, payload, options)
		if err != nil {
			return tasks, err
		}
		part = append(part, request)
		bytes += len(request.Payload.GetData())
		if len(part) < partMax && bytes < partBytesMax && index < len(payloads)-1 {
			continue
		}
		submitted, err := client.submitBatch(ctx, part)
		if err != nil {
			return tasks, err
		}
		tasks = append(tasks, submitted...)
		part, bytes = nil, 0
	}
	return tasks, nil
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
