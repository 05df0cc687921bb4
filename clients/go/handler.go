package lineshaft

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"strings"

	lineshaftv1 "github.com/lineshaft/lineshaft/clients/go/lineshaftv1"
)

const (
	failureTextMax = 16 << 10
)

// Permanent marks an error of a handler as one that another attempt would meet too: the task is not retried.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanentError{err}
}

type permanentError struct{ error }

func (e *permanentError) Unwrap() error { return e.error }

// handler runs the attempts of the tasks with its name.
type handler struct {
	description string
	run         func(context.Context, Payload) (*lineshaftv1.Payload, error)
}

// HandlerOption sets something about a handler.
type HandlerOption func(*handler)

// WithDescription describes a handler for people.
func WithDescription(text string) HandlerOption {
	return func(h *handler) { h.description = text }
}

// Handle registers a function that runs the tasks of a handler. Its argument is decoded from the payload, and its result
// encoded, as by [Task.Result] and [Client.Submit]. Handle panics if the worker has a handler with this name, or runs.
//
// The context ends when the task is cancelled, when it reaches its timeout, and when the worker stops; [context.Cause] is the
// reason. The function has to return then: Go cannot stop it by force. An error fails the attempt, and the task is retried if
// it has attempts left, unless the error is marked with [Permanent]. A payload that cannot be decoded fails the task.
func Handle[In, Out any](
	worker *Worker, name string, run func(context.Context, In) (Out, error), options ...HandlerOption,
) {
	entry := &handler{run: func(ctx context.Context, payload Payload) (*lineshaftv1.Payload, error) {
		var in In
		if err := payload.Decode(&in); err != nil {
			return nil, &invalidPayloadError{err}
		}
		out, err := run(ctx, in)
		if err != nil {
			return nil, err
		}
		result, err := encode(out)
		if err != nil {
			return nil, Permanent(fmt.Errorf("the result: %w", err))
		}
		return result, nil
	}}
	for _, option := range options {
		option(entry)
	}
	worker.register(name, entry)
}

type invalidPayloadError struct{ error }

func (e *invalidPayloadError) Unwrap() error { return e.error }

// panicError is a panic of a handler.
type panicError struct {
	value any
	stack string
}

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

// call runs the function of the handler within the middleware, and returns a panic as an error.
func (h *handler) call(attempt *Attempt, middleware []Middleware) (result *lineshaftv1.Payload, err error) {
	returned := false
	defer func() {
		if !returned {
			// A nil value: the handler has called runtime.Goexit.
			err = &panicError{recover(), string(debug.Stack())}
		}
	}()
	next := func(ctx context.Context) (err error) {
		result, err = h.run(ctx, fromMessage(attempt.assigned.Payload))
		return err
	}
	for index := len(middleware) - 1; index >= 0; index-- {
		inner := next
		next = func(ctx context.Context) error { return middleware[index](ctx, attempt, inner) }
	}
	err = next(attempt.ctx)
	returned = true
	return result, err
}

// outcome describes how an attempt ended. `stop` is why the server has stopped it.
func outcome(
	attempt *Attempt, stop lineshaftv1.StopReason, result *lineshaftv1.Payload, err error,
) *lineshaftv1.AttemptFinished {
	finished := &lineshaftv1.AttemptFinished{Token: attempt.assigned.Token}
	if size, most := len(result.GetData()), attempt.worker.resultMax(); err == nil && size > most {
		err = &resultTooLargeError{size, most}
	}
	switch {
	case err == nil:
		if result == nil {
			result = &lineshaftv1.Payload{}
		}
		finished.Outcome = &lineshaftv1.AttemptFinished_Result{Result: result}
		finished.Artifacts = slices.Collect(maps.Values(attempt.artifacts))
	case stop != lineshaftv1.StopReason_STOP_REASON_UNSPECIFIED, errors.Is(context.Cause(attempt.ctx), ErrStopping):
		// Without a request to stop, the server takes it as the loss of the worker, and the task runs elsewhere.
		finished.Outcome = &lineshaftv1.AttemptFinished_Stopped{Stopped: &lineshaftv1.AttemptStopped{
			Method: lineshaftv1.StopMethod_STOP_METHOD_TOKEN,
		}}
	default:
		finished.Outcome = &lineshaftv1.AttemptFinished_Failure{Failure: failure(err, errors.Is(context.Cause(attempt.ctx), ErrTimeout))}
	}
	return finished
}

type resultTooLargeError struct{ size, most int }

func (e *resultTooLargeError) Error() string {
	return fmt.Sprintf("the result has %d bytes, must have at most %d", e.size, e.most)
}

// failure describes an error of a handler. `isLate` is whether the attempt has reached its timeout.
func failure(err error, isLate bool) *Failure {
	text := valid(err.Error())
	line, _, hasMore := strings.Cut(text, "\n")
	described := &Failure{Reason: HandlerError, Message: line, Retryable: true}
	if verbose := valid(fmt.Sprintf("%+v", err)); hasMore || verbose != text {
		described.Detail = verbose
	}
	var (
		permanent *permanentError
		invalid   *invalidPayloadError
		panicked  *panicError
		tooLarge  *resultTooLargeError
	)
	switch {
	case errors.As(err, &panicked):
		described.Reason, described.Detail = Panic, valid(panicked.stack)
	case errors.As(err, &invalid):
		described.Reason, described.Retryable = InvalidPayload, false
	case errors.As(err, &tooLarge):
		described.Reason, described.Retryable = ResultTooLarge, false
	case errors.As(err, &permanent):
		described.Retryable = false
	case isLate:
		described.Reason = Timeout
	}
	return described
}

// valid returns the text as a message can contain it.
func valid(text string) string {
	if len(text) > failureTextMax {
		text = text[:failureTextMax]
	}
	return strings.ToValidUTF8(text, "\uFFFD")
}
