package lineshaft_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	lineshaft "github.com/lineshaft/lineshaft/clients/go"
	"github.com/lineshaft/lineshaft/clients/go/lineshaftv1"
)

// work runs a worker until the test ends; the returned function stops it and returns its error.
func work(t testing.TB, worker *lineshaft.Worker) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- worker.Run(ctx) }()
	stop = func() error {
		cancel()
		select {
		case err := <-ended:
			ended <- err
			return err
		case <-time.After(testTimeout):
			t.Error("the worker did not stop")
			return nil
		}
	}
	t.Cleanup(func() { _ = stop() })
	return stop
}

func newWorker(t testing.TB, address string, options ...lineshaft.WorkerOption) *lineshaft.Worker {
	t.Helper()
	options = append([]lineshaft.WorkerOption{
		lineshaft.WithoutSignals(), lineshaft.WithDrainTimeout(0), lineshaft.WithLogger(slog.New(slog.DiscardHandler)),
	}, options...)
	return lineshaft.NewWorker(newClient(t, address), options...)
}

func TestAWorkerIntroducesItself(t *testing.T) {
	fake := startFakeServer(t)
	worker := newWorker(t, fake.address, lineshaft.WithConcurrency(7), lineshaft.WithWorkerPool("gpu"), lineshaft.WithWorkerLabel("zone", "a"))
	lineshaft.Handle(worker, "b", func(context.Context, int) (int, error) { return 0, nil })
	lineshaft.Handle(worker, "a", func(context.Context, int) (int, error) { return 0, nil }, lineshaft.WithDescription("first"))
	stop := work(t, worker)
	hello := fake.accept().hello
	if hello.WorkerId != worker.ID() || hello.Pool != "gpu" || hello.Slots != 7 || hello.Labels["zone"] != "a" ||
		len(hello.Handlers) != 2 || hello.Handlers[0].Name != "a" || hello.Handlers[0].Description != "first" ||
		!strings.HasPrefix(hello.Version, "lineshaft-go/") || len(hello.Unfinished) != 0 {
		t.Errorf("the introduction is %v", hello)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestAWorkerWithInvalidTextsDoesNotRun(t *testing.T) {
	fake := startFakeServer(t)
	for _, option := range []lineshaft.WorkerOption{lineshaft.WithWorkerPool("\xff"), lineshaft.WithWorkerLabel("zone", "\xff")} {
		worker := newWorker(t, fake.address, option)
		lineshaft.Handle(worker, "a", func(context.Context, int) (int, error) { return 0, nil })
		if err := worker.Run(testContext(t)); err == nil || !strings.Contains(err.Error(), "contains invalid UTF-8") {
			t.Errorf("the error is %v", err)
		}
	}
}

type request struct{ Number int }
type response struct{ Square int }

func TestAHandlerRunsAttempts(t *testing.T) {
	fake := startFakeServer(t)
	worker := newWorker(t, fake.address)
	lineshaft.Handle(worker, "square", func(ctx context.Context, in request) (response, error) {
		attempt := lineshaft.CurrentAttempt(ctx)
		if attempt.TaskID() != "task-1" || attempt.Number() != 1 || attempt.Handler() != "square" ||
			attempt.Labels()["color"] != "red" || !strings.HasPrefix(attempt.TraceContext()["traceparent"], "00-0af7") {
			t.Errorf("the attempt is %v", attempt)
		}
		return response{in.Number * in.Number}, nil
	})
	work(t, worker)
	session := fake.accept()
	session.assign("1", "square", `{"Number": 12}`)
	session.accepted("1")
	result := session.finished("1").GetResult()
	if string(result.GetData()) != `{"Square":144}` || result.ContentType != "application/json" {
		t.Errorf("the result is %v", result)
	}
	session.assign("2", "square", `{"Number": "twelve"}`)
	session.accepted("2")
	failure := session.finished("2").GetFailure()
	if failure.GetReason() != lineshaft.InvalidPayload || failure.Retryable {
		t.Errorf("an invalid payload returned %v", failure)
	}
	session.assign("3", "cube", "1")
	if finished := session.finished("3"); finished.GetNotStarted() == nil {
		t.Errorf("an unknown handler returned %v", finished)
	}
}

func TestErrorsOfAHandlerBecomeFailures(t *testing.T) {
	fake := startFakeServer(t)
	worker := newWorker(t, fake.address)
	lineshaft.Handle(worker, "fail", func(ctx context.Context, how string) (any, error) {
		switch how {
		case "nil":
			return nil, nil
		case "panic":
			panic("no such luck")
		case "permanent":
			return nil, fmt.Errorf("wrapped: %w", lineshaft.Permanent(errors.New("never")))
		case "large":
			return make([]byte, 9<<20), nil
		case "function":
			return func() {}, nil
		default:
			return nil, errors.New("first line\nsecond \xff line")
		}
	})
	work(t, worker)
	session := fake.accept()
	run := func(how string) *lineshaftv1.AttemptFinished {
		session.assign(how, "fail", `"`+how+`"`)
		session.accepted(how)
		return session.finished(how)
	}
	if result := run("nil").GetResult(); result == nil || len(result.GetData()) != 0 {
		t.Errorf("nil returned %v", result)
	}
	for _, want := range []struct {
		how     string
		reason  lineshaft.FailureReason
		retry   bool
		message string
		detail  string
	}{
		{"panic", lineshaft.Panic, true, "panic: no such luck", "worker_test.go"},
		{"permanent", lineshaft.HandlerError, false, "wrapped: never", ""},
		{"large", lineshaft.ResultTooLarge, false, "the result has 9437184 bytes", ""},
		{"function", lineshaft.HandlerError, false, "unsupported type", ""},
		{"lines", lineshaft.HandlerError, true, "first line", "second \uFFFD line"},
	} {
		failure := run(want.how).GetFailure()
		if failure.GetReason() != want.reason || failure.Retryable != want.retry ||
			!strings.Contains(failure.Message, want.message) || !strings.Contains(failure.Detail, want.detail) {
			t.Errorf("%s returned %v", want.how, failure)
		}
	}
}

// nilError is an error whose methods panic for a nil pointer.
type nilError struct{ text string }

func (e *nilError) Error() string { return e.text }

// loopError wraps itself.
type loopError struct{}

func (e loopError) Error() string { return "endless" }
func (e loopError) Unwrap() error { return e }

// loopsError wraps itself twice.
type loopsError struct{}

func (e loopsError) Error() string   { return "endless" }
func (e loopsError) Unwrap() []error { return []error{e, e} }

// badText has no text: each method panics, with a value whose methods panic.
type badText struct{}

func (b badText) Error() string  { panic(b) }
func (b badText) String() string { panic(b) }
func (b badText) Unwrap() error  { panic(b) }

// askingError uses the attempt for its text.
type askingError struct{ attempt *lineshaft.Attempt }

func (e askingError) Error() string {
	e.attempt.Progress(1, "failed")
	return "asked"
}

func TestAnAttemptIsReportedWhateverItsHandlerDoes(t *testing.T) {
	fake := startFakeServer(t)
	worker := newWorker(t, fake.address)
	ends := map[string]func(context.Context) error{
		"typed nil": func(context.Context) error { var e *nilError; return e },
		"endless":   func(context.Context) error { return loopError{} },
		"branching": func(context.Context) error { return loopsError{} },
		"no text":   func(context.Context) error { return badText{} },
		"permanent": func(context.Context) error { return lineshaft.Permanent(badText{}) },
		"asking":    func(ctx context.Context) error { return askingError{lineshaft.CurrentAttempt(ctx)} },
		"panic":     func(context.Context) error { panic(badText{}) },
		"nil":       func(context.Context) error { panic(nil) },
		"exit":      func(context.Context) error { runtime.Goexit(); return nil },
	}
	lineshaft.Handle(worker, "end", func(ctx context.Context, how string) (any, error) { return nil, ends[how](ctx) })
	lineshaft.Handle(worker, "result", func(context.Context, any) (lineshaft.Payload, error) {
		return lineshaft.Payload{Data: []byte("x"), ContentType: "text/\xff"}, nil
	})
	stop := work(t, worker)
	session := fake.accept()
	for _, want := range []struct {
		how     string
		reason  lineshaft.FailureReason
		retry   bool
		message string
	}{
		{"typed nil", lineshaft.HandlerError, true, "an error of type *lineshaft_test.nilError, whose method Error panics"},
		{"endless", lineshaft.HandlerError, true, "endless"},
		{"branching", lineshaft.HandlerError, true, "endless"},
		{"no text", lineshaft.HandlerError, true, "an error of type lineshaft_test.badText, whose method Error panics"},
		{"permanent", lineshaft.HandlerError, false, "an error of type *lineshaft.permanentError, whose method Error panics"},
		{"asking", lineshaft.HandlerError, true, "asked"},
		{"panic", lineshaft.Panic, true, "panic: a value of type lineshaft_test.badText, of which no text can be made"},
		{"nil", lineshaft.Panic, true, "panic: panic called with nil argument"},
		{"exit", lineshaft.HandlerError, true, "the handler has ended its goroutine with runtime.Goexit"},
	} {
		session.assign(want.how, "end", `"`+want.how+`"`)
		session.accepted(want.how)
		if want.how == "asking" && session.report().GetProgress() == nil {
			t.Error("the progress is missing")
		}
		failure := session.finished(want.how).GetFailure()
		if failure.GetReason() != want.reason || failure.Retryable != want.retry || !strings.HasPrefix(failure.Message, want.message) {
			t.Errorf("%s returned %v", want.how, failure)
		}
	}
	session.assign("result", "result", "null")
	session.accepted("result")
	if failure := session.finished("result").GetFailure(); failure == nil || failure.Retryable ||
		!strings.Contains(failure.Message, `content type "text/\xff" is not valid UTF-8`) {
		t.Errorf("an invalid content type returned %v", failure)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestProgressAndOutputAreSent(t *testing.T) {
	fake := startFakeServer(t)
	worker := newWorker(t, fake.address)
	logger := slog.New(lineshaft.LogHandler(slog.NewTextHandler(io.Discard, nil))).With("service", "test").WithGroup("g")
	lineshaft.Handle(worker, "talk", func(ctx context.Context, _ any) (any, error) {
		attempt := lineshaft.CurrentAttempt(ctx)
		_, err := fmt.Fprintln(attempt.Stdout(), "hello")
		attempt.Progress(0.5, "half \xff")
		attempt.Logger().Info("logged")
		logger.InfoContext(ctx, "captured", "key", "value")
		logger.Info("not captured")
		return nil, err
	})
	work(t, worker)
	session := fake.accept()
	session.assign("1", "talk", "null")
	session.accepted("1")
	if output := session.report().GetOutput(); string(output.GetData()) != "hello\n" || output.Stream != lineshaft.Stdout {
		t.Errorf("the output is %v", output)
	}
	if progress := session.report().GetProgress(); progress.GetFraction() != 0.5 || progress.Note != "half \uFFFD" {
		t.Errorf("the progress is %v", progress)
	}
	if output := session.report().GetOutput(); !strings.Contains(string(output.GetData()), "msg=logged") || output.Stream != lineshaft.Stderr {
		t.Errorf("the log is %v", output)
	}
	if output := session.report().GetOutput(); !strings.Contains(string(output.GetData()), "msg=captured service=test g.key=value") {
		t.Errorf("the captured log is %v", output)
	}
	session.finished("1")
}

func TestACancelEndsTheContextOfTheAttempt(t *testing.T) {
	fake := startFakeServer(t)
	worker := newWorker(t, fake.address)
	causes := make(chan error, 1)
	lineshaft.Handle(worker, "wait", func(ctx context.Context, _ any) (any, error) {
		<-ctx.Done()
		causes <- context.Cause(ctx)
		return nil, ctx.Err()
	})
	work(t, worker)
	session := fake.accept()
	for reason, want := range map[lineshaftv1.StopReason]error{
		lineshaftv1.StopReason_STOP_REASON_CANCEL:  lineshaft.ErrCancelled,
		lineshaftv1.StopReason_STOP_REASON_TIMEOUT: lineshaft.ErrTimeout,
	} {
		token := reason.String()
		session.assign(token, "wait", "null")
		session.accepted(token)
		session.cancel(token, reason)
		if message := session.report(); message.GetCancelAcknowledged().GetToken() != token {
			t.Fatalf("the worker sent %v, not that it has the cancel", message)
		}
		if cause := <-causes; cause != want {
			t.Errorf("the cause is %v", cause)
		}
		if finished := session.finished(token); finished.GetStopped() == nil {
			t.Errorf("a cancelled attempt returned %v", finished)
		}
	}
	session.assign("stale", "wait", "null")
	session.accepted("stale")
	session.cancel("stale", lineshaftv1.StopReason_STOP_REASON_STALE)
	if cause := <-causes; cause != lineshaft.ErrLost {
		t.Errorf("the cause is %v", cause)
	}
}

func TestAttemptsSurviveBrokenConnections(t *testing.T) {
	fake := startFakeServer(t)
	worker := newWorker(t, fake.address)
	gate, lost := make(chan struct{}), make(chan error, 1)
	lineshaft.Handle(worker, "quick", func(context.Context, any) (string, error) { return "done", nil })
	lineshaft.Handle(worker, "slow", func(ctx context.Context, _ any) (string, error) {
		<-gate
		_, err := fmt.Fprint(lineshaft.CurrentAttempt(ctx).Stdout(), "still here")
		return "slow", err
	})
	lineshaft.Handle(worker, "lost", func(ctx context.Context, _ any) (any, error) {
		<-ctx.Done()
		lost <- context.Cause(ctx)
		return nil, ctx.Err()
	})
	work(t, worker)
	first := fake.accept()
	for _, name := range []string{"slow", "lost"} {
		first.assign(name, name, "null")
		first.accepted(name)
	}
	first.assign("quick", "quick", "null")
	first.accepted("quick")
	if message := first.report(); message.GetFinished().GetToken() != "quick" {
		t.Fatalf("the worker sent %v", message)
	}
	// The end of "quick" is not acknowledged.
	first.disconnect(status.Error(codes.Unavailable, "restarting"))
	second := fake.next()
	unfinished := slices.Sorted(slices.Values(second.hello.Unfinished))
	if !slices.Equal(unfinished, []string{"lost", "quick", "slow"}) || second.hello.WorkerId != first.hello.WorkerId {
		t.Errorf("the introduction is %v", second.hello)
	}
	second.welcome(time.Minute, "lost")
	if cause := <-lost; cause != lineshaft.ErrLost {
		t.Errorf("the cause is %v", cause)
	}
	if result := second.finished("quick").GetResult(); string(result.GetData()) != `"done"` {
		t.Errorf("the result is %v", result)
	}
	close(gate)
	if output := second.report().GetOutput(); string(output.GetData()) != "still here" {
		t.Errorf("the output is %v", output)
	}
	second.finished("slow")
	second.disconnect(status.Error(codes.Unavailable, "again"))
	if third := fake.accept(); len(third.hello.Unfinished) != 0 {
		t.Errorf("the introduction is %v", third.hello)
	}
}

func TestASilentServerIsLeft(t *testing.T) {
	fake := startFakeServer(t)
	worker := newWorker(t, fake.address)
	lineshaft.Handle(worker, "any", func(context.Context, any) (any, error) { return nil, nil })
	work(t, worker)
	fake.next().welcome(time.Millisecond)
	fake.accept()
}

func TestAWorkerDrains(t *testing.T) {
	fake := startFakeServer(t)
	worker := newWorker(t, fake.address, lineshaft.WithDrainTimeout(testTimeout))
	gate := make(chan struct{})
	lineshaft.Handle(worker, "slow", func(context.Context, any) (string, error) { <-gate; return "done", nil })
	stop := work(t, worker)
	session := fake.accept()
	session.assign("1", "slow", "null")
	session.accepted("1")
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	if message := session.report(); message.GetDraining() == nil {
		t.Fatalf("the worker sent %v, not that it drains", message)
	}
	session.assign("2", "slow", "null")
	if finished := session.finished("2"); finished.GetNotStarted() == nil {
		t.Errorf("an attempt for a draining worker returned %v", finished)
	}
	close(gate)
	session.finished("1")
	<-session.closed
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestASignalDrainsAndASecondOneStops(t *testing.T) {
	fake := startFakeServer(t)
	worker := lineshaft.NewWorker(newClient(t, fake.address))
	causes := make(chan error, 1)
	lineshaft.Handle(worker, "stubborn", func(ctx context.Context, _ any) (any, error) {
		<-ctx.Done()
		causes <- context.Cause(ctx)
		return nil, ctx.Err()
	})
	ended := make(chan error, 1)
	go func() { ended <- worker.Run(context.Background()) }()
	session := fake.accept()
	session.assign("1", "stubborn", "null")
	session.accepted("1")
	self := must[*os.Process](t)(os.FindProcess(os.Getpid()))
	_ = self.Signal(syscall.SIGTERM)
	if message := session.report(); message.GetDraining() == nil {
		t.Fatalf("the worker sent %v, not that it drains", message)
	}
	_ = self.Signal(syscall.SIGTERM)
	if cause := <-causes; cause != lineshaft.ErrStopping {
		t.Errorf("the cause is %v", cause)
	}
	if message := session.report(); message.GetFinished().GetStopped() == nil {
		t.Errorf("the attempt returned %v", message)
	}
	// Its end is not acknowledged.
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "1 unfinished") {
		t.Errorf("the worker returned %v", err)
	}
}

func TestAttemptsThatDoNotEndInTimeAreStopped(t *testing.T) {
	fake := startFakeServer(t)
	worker := newWorker(t, fake.address)
	lineshaft.Handle(worker, "wait", func(ctx context.Context, _ any) (any, error) { <-ctx.Done(); return nil, ctx.Err() })
	stop := work(t, worker)
	session := fake.accept()
	session.assign("1", "wait", "null")
	session.accepted("1")
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	if message := session.report(); message.GetDraining() == nil {
		t.Fatalf("the worker sent %v, not that it drains", message)
	}
	if finished := session.finished("1"); finished.GetStopped() == nil {
		t.Errorf("the attempt returned %v", finished)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestAServerThatRefusesTheWorkerEndsIt(t *testing.T) {
	fake := startFakeServer(t)
	worker := newWorker(t, fake.address)
	lineshaft.Handle(worker, "any", func(context.Context, any) (any, error) { return nil, nil })
	ended := make(chan error, 1)
	go func() { ended <- worker.Run(testContext(t)) }()
	fake.next().disconnect(status.Error(codes.PermissionDenied, "requires the role worker"))
	if err := <-ended; status.Code(err) != codes.PermissionDenied {
		t.Errorf("the worker returned %v", err)
	}
	replaced := newWorker(t, fake.address)
	lineshaft.Handle(replaced, "any", func(context.Context, any) (any, error) { return nil, nil })
	go func() { ended <- replaced.Run(testContext(t)) }()
	detailed, err := status.New(codes.Aborted, "replaced").WithDetails(&errdetails.ErrorInfo{Reason: "WORKER_REPLACED"})
	if err != nil {
		t.Fatal(err)
	}
	fake.accept().disconnect(detailed.Err())
	if err := <-ended; status.Code(err) != codes.Aborted {
		t.Errorf("the worker returned %v", err)
	}
}

func TestClosingTheClientEndsTheWorker(t *testing.T) {
	fake := startFakeServer(t)
	client := newClient(t, fake.address)
	worker := lineshaft.NewWorker(client, lineshaft.WithoutSignals(), lineshaft.WithLogger(slog.New(slog.DiscardHandler)))
	lineshaft.Handle(worker, "any", func(context.Context, any) (any, error) { return nil, nil })
	ended := make(chan error, 1)
	go func() { ended <- worker.Run(testContext(t)) }()
	fake.accept()
	_ = client.Close()
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("the worker returned %v", err)
	}
}

func TestMiddlewareSurroundsHandlers(t *testing.T) {
	fake := startFakeServer(t)
	type key struct{}
	var order []string
	surround := func(name string) lineshaft.Middleware {
		return func(ctx context.Context, attempt *lineshaft.Attempt, next func(context.Context) error) error {
			order = append(order, name+" "+attempt.TaskID())
			err := next(context.WithValue(ctx, key{}, name))
			return errors.Join(err, errors.New(name))
		}
	}
	worker := newWorker(t, fake.address, lineshaft.WithMiddleware(surround("outer"), surround("inner")))
	lineshaft.Handle(worker, "any", func(ctx context.Context, _ any) (any, error) {
		order = append(order, "handler in "+ctx.Value(key{}).(string))
		return nil, errors.New("handler")
	})
	work(t, worker)
	session := fake.accept()
	session.assign("1", "any", "null")
	session.accepted("1")
	failure := session.finished("1").GetFailure()
	if failure.GetMessage() != "handler" || failure.Detail != "handler\ninner\nouter" {
		t.Errorf("the attempt returned %v", failure)
	}
	if want := []string{"outer task-1", "inner task-1", "handler in inner"}; !slices.Equal(order, want) {
		t.Errorf("the order is %v", order)
	}
}

func TestAnAttemptThatWaitsForTasksGivesItsSlotBack(t *testing.T) {
	fake := startFakeServer(t)
	client := newClient(t, fake.address)
	worker := newWorker(t, fake.address)
	lineshaft.Handle(worker, "parent", func(ctx context.Context, _ any) (int, error) {
		children := []*lineshaft.Task{client.Task("a"), client.Task("b")}
		count := 0
		for _, err := range lineshaft.AsCompleted(ctx, children) {
			if err != nil {
				return 0, err
			}
			count++
		}
		return count, nil
	})
	work(t, worker)
	session := fake.accept()
	session.assign("1", "parent", "null")
	session.accepted("1")
	if message := session.report(); message.GetSuspended().GetToken() != "1" {
		t.Fatalf("the worker sent %v, not that the attempt waits", message)
	}
	close(fake.finish)
	for {
		message := session.report()
		switch {
		case message.GetResuming() != nil:
			session.resume("1")
		case message.GetSuspended() != nil:
		default:
			if result := message.GetFinished().GetResult(); string(result.GetData()) != "2" {
				t.Errorf("the worker sent %v", message)
			}
			session.settle("1")
			return
		}
	}
}

func TestALargePayloadIsWholeBeforeTheTaskBeginsAndALargeResultFollowsOnRequest(t *testing.T) {
	fake := startFakeServer(t)
	worker := newWorker(t, fake.address, lineshaft.WithConcurrency(2))
	lineshaft.Handle(worker, "reverse", func(_ context.Context, data []byte) ([]byte, error) {
		reversed := slices.Clone(data)
		slices.Reverse(reversed)
		return reversed, nil
	})
	work(t, worker)
	session := fake.accept()
	if !session.hello.Chunks {
		t.Error("the worker receives no chunks")
	}
	sent := make([]byte, 1<<20+10)
	for at := range sent {
		sent[at] = byte(at % 251)
	}
	for _, token := range []string{"t1", "t2"} {
		session.assignLarge(token, "reverse", len(sent))
		session.chunk(token, 0, sent[:1<<20])
	}
	session.chunk("unknown", 5, []byte("x"))
	session.cancel("t2", lineshaftv1.StopReason_STOP_REASON_CANCEL)
	if message := session.report(); message.GetCancelAcknowledged().GetToken() != "t2" {
		t.Errorf("the worker sent %v", message)
	}
	stopped := session.finished("t2")
	if stopped.GetStopped().GetMethod() != lineshaftv1.StopMethod_STOP_METHOD_NEVER_STARTED {
		t.Errorf("the end is %v", stopped)
	}
	session.chunk("t2", 1<<20, sent[1<<20:])
	session.chunk("t1", 1<<20, sent[1<<20:])
	session.accepted("t1")
	announced := session.report().GetFinished()
	if announced.ResultBytes != int64(len(sent)) || len(announced.GetResult().GetData()) != 0 {
		t.Errorf("%d bytes are announced, %d sent", announced.ResultBytes, len(announced.GetResult().GetData()))
	}
	session.requestResult("t1")
	var received []byte
	for len(received) < len(sent) {
		chunk := session.report().GetChunk()
		if chunk.GetToken() != "t1" || chunk.GetOffset() != int64(len(received)) || len(chunk.GetData()) == 0 {
			t.Fatalf("a chunk of %s at %d after %d bytes", chunk.GetToken(), chunk.GetOffset(), len(received))
		}
		received = append(received, chunk.Data...)
	}
	slices.Reverse(received)
	if !bytes.Equal(received, sent) {
		t.Error("the result differs")
	}
}

func TestAChunkThatDoesNotFollowTheOneBeforeItEndsTheStream(t *testing.T) {
	fake := startFakeServer(t)
	worker := newWorker(t, fake.address)
	lineshaft.Handle(worker, "h", func(context.Context, []byte) (any, error) { return nil, nil })
	work(t, worker)
	session := fake.accept()
	session.assignLarge("t1", "h", 10)
	session.chunk("t1", 3, []byte("abc"))
	if again := fake.accept(); len(again.hello.Unfinished) != 0 {
		t.Errorf("the unfinished attempts are %v", again.hello.Unfinished)
	}
}
