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
type panicError struct{ text, stack string }

func (e *panicError) Error() string { return e.text }

// errGoexit is the end of a handler that does not return.
var errGoexit = errors.New("the handler has ended its goroutine with runtime.Goexit")

// call runs the function of the handler within the middleware, and returns a panic as an error.
func (h *handler) call(attempt *Attempt, middleware []Middleware) (result *lineshaftv1.Payload, err error) {
	defer func() {
		if value := recover(); value != nil {
			err = &panicError{"panic: " + shown(value), string(debug.Stack())}
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
	return result, err
}

// shown returns the text of a value of the handler. A method of the value can panic, also with a value of this kind.
func shown(value any) (text string) {
	text = fmt.Sprintf("a value of type %T, of which no text can be made", value)
	defer func() { _ = recover() }()
	return fmt.Sprint(value)
}

// outcome describes how an attempt ended: with a result, or with `failed` if that is not nil.
func outcome(attempt *Attempt, result *lineshaftv1.Payload, failed *Failure) *lineshaftv1.AttemptFinished {
	finished := &lineshaftv1.AttemptFinished{Token: attempt.assigned.Token}
	if size, most := len(result.GetData()), attempt.worker.resultMax(); failed == nil && size > most {
		failed = failure(&resultTooLargeError{size, most}, false)
	}
	switch {
	case failed == nil:
		if result == nil {
			result = &lineshaftv1.Payload{}
		}
		finished.Outcome = &lineshaftv1.AttemptFinished_Result{Result: result}
		finished.Artifacts = slices.Collect(maps.Values(attempt.artifacts))
	case attempt.stop != lineshaftv1.StopReason_STOP_REASON_UNSPECIFIED, errors.Is(context.Cause(attempt.ctx), ErrStopping):
		// Without a request to stop, the server takes it as the loss of the worker, and the task runs elsewhere.
		finished.Outcome = &lineshaftv1.AttemptFinished_Stopped{Stopped: &lineshaftv1.AttemptStopped{
			Method: lineshaftv1.StopMethod_STOP_METHOD_TOKEN,
		}}
	default:
		finished.Outcome = &lineshaftv1.AttemptFinished_Failure{Failure: failed}
	}
	return finished
}

type resultTooLargeError struct{ size, most int }

func (e *resultTooLargeError) Error() string {
	return fmt.Sprintf("the result has %d bytes, must have at most %d", e.size, e.most)
}

// failure describes an error of a handler, and never panics. `isLate` is whether the attempt has reached its timeout.
func failure(err error, isLate bool) *Failure {
	text, verbose := texts(err)
	line, _, hasMore := strings.Cut(text, "\n")
	described := &Failure{Reason: HandlerError, Message: line, Retryable: true}
	if hasMore || verbose != text {
		described.Detail = verbose
	}
	switch known := kindOf(err).(type) {
	case *panicError:
		described.Reason, described.Detail = Panic, valid(known.stack)
	case *invalidPayloadError:
		described.Reason, described.Retryable = InvalidPayload, false
	case *resultTooLargeError:
		described.Reason, described.Retryable = ResultTooLarge, false
	case *permanentError:
		described.Retryable = false
	default:
		if isLate {
			described.Reason = Timeout
		}
	}
	return described
}

// texts returns the text of an error, and the one with all details, such as a stack. Its methods can panic, and do so for most
// errors that are a nil pointer.
func texts(err error) (text, verbose string) {
	text = fmt.Sprintf("an error of type %T, whose method Error panics", err)
	verbose = text
	defer func() { _ = recover() }()
	text = valid(err.Error())
	verbose = text
	verbose = valid(fmt.Sprintf("%+v", err))
	return text, verbose
}

// wrappedMax limits the errors that are looked at, since an error can wrap itself.
const wrappedMax = 1_000

// kindOf returns the error of this package that an error is or wraps, or nil.
func kindOf(err error) (kind error) {
	defer func() { _ = recover() }()
	left := []error{err}
	for seen := 0; len(left) > 0 && seen < wrappedMax; seen++ {
		next := left[0]
		left = left[1:]
		switch next.(type) {
		case *panicError, *invalidPayloadError, *resultTooLargeError:
			return next
		case *permanentError:
			kind = next
		}
		switch wrapper := next.(type) {
		case interface{ Unwrap() error }:
			left = append(left, wrapper.Unwrap())
		case interface{ Unwrap() []error }:
			left = append(left, wrapper.Unwrap()...)
		}
	}
	return kind
}

// valid returns the text as a message can contain it.
func valid(text string) string {
	if len(text) > failureTextMax {
		text = text[:failureTextMax]
	}
	return strings.ToValidUTF8(text, "\uFFFD")
}
