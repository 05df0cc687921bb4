package lineshaft

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"

	lineshaftv1 "github.com/lineshaft/lineshaft/clients/go/lineshaftv1"
)

// Causes of the end of the context of an attempt; see [context.Cause].
var (
	// ErrCancelled means that a caller has cancelled the task.
	ErrCancelled = errors.New("the task was cancelled")
	// ErrTimeout means that the attempt has run for longer than its timeout.
	ErrTimeout = errors.New("the attempt has reached its timeout")
	// ErrLost means that the attempt is no longer this worker's: the task runs elsewhere, and what the handler returns is ignored.
	ErrLost = errors.New("the attempt was given to another worker")
	// ErrStopping means that the worker stops and does not wait for the attempt any longer.
	ErrStopping = errors.New("the worker is stopping")
)

// outputChunkMax is the most bytes of output in one message.
const outputChunkMax = 64 << 10

// Attempt is one run of a task by a handler of this program.
type Attempt struct {
	worker   *Worker
	assigned *lineshaftv1.AttemptAssigned
	ctx      context.Context
	cancel   context.CancelCauseFunc

	// The following are guarded by the mutex of the worker.

	// The end of the attempt, until the server has acknowledged it.
	finished *lineshaftv1.AttemptFinished
	// A report that is in the outbox.
	progress *lineshaftv1.AttemptProgress
	// Those that it has left so far, by name.
	artifacts map[string]*Artifact
	// Why the server has stopped it.
	stop lineshaftv1.StopReason
	slot slotState
	// Number of waits for other tasks.
	waits int
	// Closed when the attempt has its slot again.
	resumed chan struct{}
}

// slotState is whether an attempt has a slot.
type slotState int

const (
	slotHeld slotState = iota
	// slotReleased: the attempt waits for other tasks.
	slotReleased
	// slotWanted: the attempt wants to go on.
	slotWanted
)

type attemptKey struct{}

// CurrentAttempt returns the attempt that a handler runs with this context, or nil outside a handler. Its methods do nothing
// for nil, so that a handler can be tested without a worker.
func CurrentAttempt(ctx context.Context) *Attempt {
	attempt, _ := ctx.Value(attemptKey{}).(*Attempt)
	return attempt
}

// TaskID of the task.
func (a *Attempt) TaskID() string { return a.message().GetTaskId() }

// Namespace of the task.
func (a *Attempt) Namespace() string { return a.message().GetNamespace() }

// Handler returns the name of the handler.
func (a *Attempt) Handler() string { return a.message().GetHandler() }

// Number of the attempt, from 1.
func (a *Attempt) Number() int { return int(a.message().GetAttempt()) }

// Priority of the task.
func (a *Attempt) Priority() Priority { return a.message().GetPriority() }

// Labels of the task.
func (a *Attempt) Labels() map[string]string { return maps.Clone(a.message().GetLabels()) }

// TraceContext returns the W3C trace context of the task under the keys traceparent and tracestate, for a propagator of
// OpenTelemetry. It is empty if the task has none.
func (a *Attempt) TraceContext() map[string]string {
	carrier := map[string]string{}
	if parent := a.message().GetTraceparent(); parent != "" {
		carrier["traceparent"] = parent
	}
	if state := a.message().GetTracestate(); state != "" {
		carrier["tracestate"] = state
	}
	return carrier
}

func (a *Attempt) message() *lineshaftv1.AttemptAssigned {
	if a == nil {
		return nil
	}
	return a.assigned
}

// Progress reports how much is done, 0 to 1, and the present activity. Of reports in quick succession only the last is sent.
func (a *Attempt) Progress(fraction float64, note string) {
	if a == nil {
		return
	}
	a.worker.progress(a, min(max(fraction, 0), 1), valid(note))
}

// Stdout is the standard output of the task. A write can wait while the connection is slow or broken.
func (a *Attempt) Stdout() io.Writer { return a.output(Stdout) }

// Stderr is the standard error of the task.
func (a *Attempt) Stderr() io.Writer { return a.output(Stderr) }

func (a *Attempt) output(stream OutputStream) io.Writer {
	if a == nil {
		return io.Discard
	}
	return attemptOutput{a, stream}
}

// Logger writes text to the standard error of the task.
func (a *Attempt) Logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(a.Stderr(), nil))
}

// suspend gives the slot of the attempt back while it waits for other tasks, so that they can run in it. The returned function
// waits until the attempt has a slot again.
func (a *Attempt) suspend() (resume func()) {
	if a == nil {
		return func() {}
	}
	w := a.worker
	w.mu.Lock()
	defer w.mu.Unlock()
	if a.waits++; a.slot == slotHeld && w.attempts[a.assigned.Token] == a {
		a.slot = slotReleased
		w.outbox.post(suspendedMessage(a))
	}
	return a.resume
}

func (a *Attempt) resume() {
	w := a.worker
	w.mu.Lock()
	if a.waits--; a.waits == 0 && a.slot == slotReleased {
		a.slot, a.resumed = slotWanted, make(chan struct{})
		w.outbox.post(resumingMessage(a))
	}
	resumed := a.resumed
	w.mu.Unlock()
	if resumed == nil {
		return
	}
	select {
	case <-resumed:
	case <-a.ctx.Done():
	}
}

// hasSlot marks that the server has given the attempt a slot again.
func (a *Attempt) hasSlot() {
	if a.slot == slotWanted {
		a.slot = slotHeld
		close(a.resumed)
		a.resumed = nil
	}
}

// attemptOutput sends what is written.
type attemptOutput struct {
	attempt *Attempt
	stream  OutputStream
}

func (o attemptOutput) Write(data []byte) (int, error) {
	written := 0
	for len(data) > 0 {
		chunk := data[:min(len(data), outputChunkMax)]
		if err := o.attempt.worker.output(o.attempt, o.stream, chunk); err != nil {
			return written, err
		}
		written += len(chunk)
		data = data[len(chunk):]
	}
	return written, nil
}

// LogHandler returns a handler of package slog that passes records on to the next one, and also writes those whose context
// belongs to an attempt to the standard error of its task:
//
//	slog.SetDefault(slog.New(lineshaft.LogHandler(slog.NewTextHandler(os.Stderr, nil))))
func LogHandler(next slog.Handler) slog.Handler {
	return logHandler{next: next, wrap: func(h slog.Handler) slog.Handler { return h }}
}

type logHandler struct {
	next slog.Handler
	// Adds the attributes and groups of the logger.
	wrap func(slog.Handler) slog.Handler
}

func (h logHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

func (h logHandler) Handle(ctx context.Context, record slog.Record) error {
	if attempt := CurrentAttempt(ctx); attempt != nil {
		if err := h.wrap(slog.NewTextHandler(attempt.Stderr(), nil)).Handle(ctx, record.Clone()); err != nil {
			return err
		}
	}
	return h.next.Handle(ctx, record)
}

func (h logHandler) WithAttrs(attributes []slog.Attr) slog.Handler {
	wrap := func(other slog.Handler) slog.Handler { return h.wrap(other).WithAttrs(attributes) }
	return logHandler{h.next.WithAttrs(attributes), wrap}
}

func (h logHandler) WithGroup(name string) slog.Handler {
	wrap := func(other slog.Handler) slog.Handler { return h.wrap(other).WithGroup(name) }
	return logHandler{h.next.WithGroup(name), wrap}
}
