package lineshaft

import (
	"cmp"
	"context"
	"crypto/rand"
	"slices"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/durationpb"

	lineshaftv1 "github.com/lineshaft/lineshaft/clients/go/lineshaftv1"
)

// SubmitOption sets something about a task. Write your own for fields that have none here.
type SubmitOption func(*lineshaftv1.SubmitTaskRequest)

// InBatch adds the task to the batch with this ID, by which you can watch, list and cancel its tasks while they run: with
// `lineshaft batch`, the ID in a [Filter], or [lineshaftv1.NewBatchServiceClient]. [Map], [SubmitAll] and [Client.SubmitBatch] create a
// batch that does not exist; [Client.Submit] returns an error.
func InBatch(id string) SubmitOption {
	return func(r *lineshaftv1.SubmitTaskRequest) { r.BatchId = id }
}

// InPool runs the task in this pool instead of that of the handler.
func InPool(pool string) SubmitOption {
	return func(r *lineshaftv1.SubmitTaskRequest) { r.Pool = pool }
}

// InNamespace submits the task in this namespace.
func InNamespace(namespace string) SubmitOption {
	return func(r *lineshaftv1.SubmitTaskRequest) { r.Namespace = namespace }
}

// WithPriority sets the priority.
func WithPriority(priority Priority) SubmitOption {
	return func(r *lineshaftv1.SubmitTaskRequest) { r.Priority = priority }
}

// WithLabel adds a label; at most 16.
func WithLabel(key, value string) SubmitOption {
	return func(r *lineshaftv1.SubmitTaskRequest) {
		labels := map[string]string{key: value}
		for other, value := range r.Labels {
			if other != key {
				labels[other] = value
			}
		}
		r.Labels = labels
	}
}

// WithDisplayName sets a name for people.
func WithDisplayName(name string) SubmitOption {
	return func(r *lineshaftv1.SubmitTaskRequest) { r.DisplayName = name }
}

// WithTimeout limits the time of each attempt, 1 ms to 24 h.
func WithTimeout(timeout time.Duration) SubmitOption {
	return func(r *lineshaftv1.SubmitTaskRequest) { r.Timeout = durationpb.New(timeout) }
}

// WithDelay sets the minimum time between submission and start, at most 365 days.
func WithDelay(delay time.Duration) SubmitOption {
	return func(r *lineshaftv1.SubmitTaskRequest) { r.Delay = durationpb.New(delay) }
}

// WithExpiry fails the task if it has not started this long after its submission.
func WithExpiry(after time.Duration) SubmitOption {
	return func(r *lineshaftv1.SubmitTaskRequest) { r.ExpiresAfter = durationpb.New(after) }
}

// WithParents lets the task wait until the tasks with these IDs have ended. The rule decides what happens when one of them has
// failed or was cancelled; zero means [ParentFailureFails].
func WithParents(rule OnParentFailure, ids ...string) SubmitOption {
	return func(r *lineshaftv1.SubmitTaskRequest) {
		r.Dependencies = &lineshaftv1.Dependencies{TaskIds: ids, OnParentFailure: rule}
	}
}

// WithLimits adds limits that the task shares with others; at most 8.
func WithLimits(limits ...*TaskLimit) SubmitOption {
	return func(r *lineshaftv1.SubmitTaskRequest) { r.Limits = append(slices.Clip(r.Limits), limits...) }
}

// WithFairnessKey sets the fairness key, such as the customer for whom the task is: tasks with different keys take turns.
func WithFairnessKey(key string) SubmitOption {
	return func(r *lineshaftv1.SubmitTaskRequest) { r.FairnessKey = key }
}

// WithUniqueKey lets at most one task of the namespace with this key wait for its first start. The rule decides what happens when a task
// with the key has not ended; zero means [UniqueConflictFails].
func WithUniqueKey(key string, rule OnUniqueConflict) SubmitOption {
	return func(r *lineshaftv1.SubmitTaskRequest) { r.UniqueKey, r.OnUniqueConflict = key, rule }
}

// WithReusedResult returns the newest completed task with the same unique key instead, if it was submitted with this option as well and
// ended at most this long ago. It requires [WithUniqueKey].
func WithReusedResult(within time.Duration) SubmitOption {
	return func(r *lineshaftv1.SubmitTaskRequest) { r.ReuseResultWithin = durationpb.New(within) }
}

// WithRetry sets the retry policy.
func WithRetry(policy *RetryPolicy) SubmitOption {
	return func(r *lineshaftv1.SubmitTaskRequest) { r.Retry = policy }
}

// WithMaxAttempts limits the number of attempts including the first; 1 disables retries.
func WithMaxAttempts(attempts int) SubmitOption {
	return func(r *lineshaftv1.SubmitTaskRequest) {
		policy := &RetryPolicy{
			Delay: r.Retry.GetDelay(), Factor: r.Retry.GetFactor(), MaxDelay: r.Retry.GetMaxDelay(),
			MaxAttempts: int32(attempts),
		}
		if r.Retry != nil {
			policy.Jitter = r.Retry.Jitter
		}
		r.Retry = policy
	}
}

// WithRequestID sets the idempotency key: a repeated submission with the same key and content returns the first task. Without
// it each submission gets a random one, so that it can be repeated after a broken connection.
func WithRequestID(id string) SubmitOption {
	return func(r *lineshaftv1.SubmitTaskRequest) { r.RequestId = id }
}

// WithTaskID sets the task ID instead of letting the server choose it.
func WithTaskID(id string) SubmitOption {
	return func(r *lineshaftv1.SubmitTaskRequest) { r.TaskId = id }
}

// WithArgs adds arguments for a handler that is a program and accepts them.
func WithArgs(args ...string) SubmitOption {
	return func(r *lineshaftv1.SubmitTaskRequest) { r.Args = args }
}

// WithDurability sets when the submission is acknowledged.
func WithDurability(durability Durability) SubmitOption {
	return func(r *lineshaftv1.SubmitTaskRequest) { r.Durability = durability }
}

// AtMostOnce never starts the task a second time: if the server or worker is lost while it runs, it fails with WORKER_LOST.
func AtMostOnce() SubmitOption {
	return func(r *lineshaftv1.SubmitTaskRequest) { r.AtMostOnce = true }
}

// Submit submits a task and returns when the server has accepted it. A payload of type []byte is sent as it is, nil as no
// payload, and any other value as JSON.
//
// Submissions that are made at the same time share a stream, so call it from many goroutines when there are many tasks, or use
// [Client.SubmitBatch]. After a broken connection, or while the queue is full or the server overloaded, Submit tries again
// until the deadline of the context, by default for 30 seconds. A context that ends does not end the task.
func (c *Client) Submit(ctx context.Context, handler string, payload any, options ...SubmitOption) (*Task, error) {
	request, err := c.request(handler, payload, options)
	if err != nil {
		return nil, err
	}
	ctx, cancel := limited(ctx)
	defer cancel()
	ctx, isAlone := c.traced(ctx, request)
	submit := c.submitter.submit
	if isAlone {
		submit = c.submitter.single
	}
	accepted, err := submit(ctx, request)
	if err != nil {
		return nil, err
	}
	return c.accepted(accepted.TaskId, accepted.ResumeToken, accepted.Duplicate), nil
}

// Submission is one task of a batch.
type Submission struct {
	Handler string
	// Payload is sent as by [Client.Submit].
	Payload any
	Options []SubmitOption
}

// SubmitBatch submits up to 10,000 tasks in one durable commit, or none of them, and returns them in their order.
func (c *Client) SubmitBatch(ctx context.Context, submissions []Submission) ([]*Task, error) {
	batchID := ""
	requests := make([]*lineshaftv1.SubmitTaskRequest, len(submissions))
	for index, submission := range submissions {
		request, err := c.request(submission.Handler, submission.Payload, submission.Options)
		if err != nil {
			return nil, err
		}
		requests[index] = request
		batchID = cmp.Or(batchID, request.BatchId)
	}
	return c.submitBatch(ctx, batchID, requests)
}

// submitBatch submits tasks of the batch with this ID, or of a new one if it is empty.
func (c *Client) submitBatch(
	ctx context.Context, batchID string, requests []*lineshaftv1.SubmitTaskRequest,
) ([]*Task, error) {
	ctx, cancel := limited(ctx)
	defer cancel()
	ctx, _ = c.traced(ctx, requests...)
	batch := &lineshaftv1.BatchSubmitTasksRequest{Tasks: requests, BatchId: batchID}
	response, err := retry(ctx, func(ctx context.Context) (*lineshaftv1.BatchSubmitTasksResponse, error) {
		return c.tasks.BatchSubmitTasks(ctx, batch)
	})
	if err != nil {
		return nil, err
	}
	tasks := make([]*Task, len(response.TaskIds))
	for index, id := range response.TaskIds {
		isDuplicate := index < len(response.Duplicates) && response.Duplicates[index]
		tasks[index] = c.accepted(id, response.ResumeToken, isDuplicate)
	}
	return tasks, nil
}

// traced adds the trace context to the requests, and what else is passed on to the metadata of the call. It reports whether the
// call has metadata, which a submission cannot have on a shared stream.
func (c *Client) traced(ctx context.Context, requests ...*lineshaftv1.SubmitTaskRequest) (context.Context, bool) {
	if c.trace != nil {
		carrier := c.trace(ctx)
		for _, request := range requests {
			request.Traceparent, request.Tracestate = carrier["traceparent"], carrier["tracestate"]
		}
		for key, value := range carrier {
			if key != "traceparent" && key != "tracestate" {
				ctx = metadata.AppendToOutgoingContext(ctx, key, value)
			}
		}
	}
	_, hasMetadata := metadata.FromOutgoingContext(ctx)
	return ctx, hasMetadata
}

func (c *Client) request(
	handler string, payload any, options []SubmitOption,
) (*lineshaftv1.SubmitTaskRequest, error) {
	encoded, err := encode(payload)
	if err != nil {
		return nil, err
	}
	request := &lineshaftv1.SubmitTaskRequest{
		Handler: handler, Payload: encoded, RequestId: rand.Text(), Namespace: c.namespace,
	}
	for _, option := range options {
		option(request)
	}
	return request, nil
}

func (c *Client) accepted(id, resumeToken string, duplicate bool) *Task {
	task := newTask(c, id)
	if task.duplicate = duplicate; !duplicate {
		task.resumeToken = resumeToken
	}
	return task
}
