package lineshaft

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	lineshaftv1 "github.com/lineshaft/lineshaft/clients/go/lineshaftv1"
)

const (
	// welcomeTimeout limits the time between the introduction and the answer.
	welcomeTimeout = 10 * time.Second
	// silenceMax is the number of heartbeat intervals after which a server that sends nothing counts as lost.
	silenceMax = 3

	reasonWorkerReplaced = "WORKER_REPLACED"
)

var errSilent = errors.New("the server sends nothing")

// connect keeps a stream open until the context ends, the drain is complete, or the server refuses the worker for good.
func (w *Worker) connect(ctx context.Context) error {
	var pause retryDelay
	wasWelcome := false
	level := slog.LevelWarn // of an outage, the first error is a warning
	for !w.isDone() {
		session := workerStream{worker: w}
		err := session.run(ctx)
		if session.isWelcome {
			pause, wasWelcome, level = retryDelay{}, true, slog.LevelWarn
		}
		if w.isDone() || ctx.Err() != nil {
			return nil
		}
		if w.client.ctx.Err() != nil {
			return context.Cause(w.client.ctx)
		}
		if isFatal(err, wasWelcome) {
			return fmt.Errorf("the server refuses the worker: %w", err)
		}
		w.logger.Log(ctx, level, "lineshaft worker is not connected, connecting again", "worker", w.id, "error", err)
		level = slog.LevelDebug
		if pause.sleep(ctx, 0) != nil {
			return nil
		}
	}
	return nil
}

// isFatal reports whether connecting again makes no sense. A worker that has been connected keeps trying: its token may be
// replaced, its pool configured again.
func isFatal(err error, wasWelcome bool) bool {
	var known *Error
	if !errors.As(err, &known) {
		return false
	}
	if known.Reason == reasonWorkerReplaced {
		return true
	}
	return !wasWelcome && !isRetryable(err) && known.Code != codes.Aborted && known.Code != codes.DeadlineExceeded
}

func (w *Worker) isDone() bool {
	select {
	case <-w.drained:
		return true
	default:
		return false
	}
}

// workerStream is one Work stream.
type workerStream struct {
	worker    *Worker
	rpc       grpc.BidiStreamingClient[lineshaftv1.WorkRequest, lineshaftv1.WorkResponse]
	isWelcome bool
	interval  time.Duration
	heard     atomic.Bool // since the last check
	incoming  map[string]*incomingPayload
}

// run introduces the worker, and exchanges messages until the stream ends.
func (s *workerStream) run(ctx context.Context) error {
	stream, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var err error
	if s.rpc, err = s.worker.service.Work(stream); err != nil {
		return fromGRPC(ctx, err)
	}
	timer := time.AfterFunc(welcomeTimeout, func() { cancel(errSilent) })
	// After an error of Send, Recv returns the cause.
	_ = s.rpc.Send(s.worker.hello())
	response, err := s.rpc.Recv()
	if !timer.Stop() && err == nil {
		err = errSilent
	}
	if err == nil && response.Welcome == nil {
		err = errors.New("the first message has no welcome")
	}
	if err != nil {
		return s.ended(ctx, stream, err)
	}
	s.welcome(response.Welcome)
	go s.send(stream, cancel)
	for {
		response, err := s.rpc.Recv()
		if err != nil {
			return s.ended(ctx, stream, err)
		}
		s.heard.Store(true)
		if err := s.handle(ctx, response.Messages); err != nil {
			return err
		}
	}
}

// ended returns why the stream ended.
func (s *workerStream) ended(ctx, stream context.Context, err error) error {
	if errors.Is(context.Cause(stream), errSilent) {
		return errSilent
	}
	return fromGRPC(ctx, err)
}

// send sends the reports of the worker, and heartbeats. It ends the stream if the server is silent.
func (s *workerStream) send(ctx context.Context, cancel context.CancelCauseFunc) {
	ticker := time.NewTicker(s.interval / 2)
	defer ticker.Stop()
	silent, isQuiet := 0, false
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.worker.outbox.arrived:
			if s.sendReports() {
				isQuiet = false
			}
		case <-ticker.C:
			if isQuiet {
				_ = s.rpc.Send(&lineshaftv1.WorkRequest{Messages: []*lineshaftv1.WorkerMessage{heartbeatMessage()}})
			}
			isQuiet = true
			if silent++; s.heard.Swap(false) {
				silent = 0
			}
			if silent > 2*silenceMax {
				cancel(errSilent)
			}
		case <-s.worker.drained:
			for s.sendReports() {
			}
			_ = s.rpc.CloseSend()
			return
		}
	}
}

// sendReports sends a message with reports, and reports whether there were any. The cause of an error is what Recv returns.
func (s *workerStream) sendReports() bool {
	messages := s.worker.takeReports()
	if len(messages) == 0 {
		return false
	}
	_ = s.rpc.Send(&lineshaftv1.WorkRequest{Messages: messages})
	return true
}

// hello introduces the worker with the attempts that it has from earlier streams.
func (w *Worker) hello() *lineshaftv1.WorkRequest {
	w.mu.Lock()
	defer w.mu.Unlock()
	hello := &lineshaftv1.WorkerHello{
		WorkerId:   w.id,
		Pool:       w.pool,
		Slots:      int32(w.slots),
		Labels:     w.labels,
		Version:    "lineshaft-go/" + Version,
		Unfinished: slices.Collect(maps.Keys(w.attempts)),
		Chunks:     true,
	}
	for _, name := range slices.Sorted(maps.Keys(w.handlers)) {
		hello.Handlers = append(hello.Handlers, &lineshaftv1.WorkerHandler{
			Name: name, Description: w.handlers[name].description,
		})
	}
	return &lineshaftv1.WorkRequest{Hello: hello}
}

// welcome prepares the outbox for the new stream.
func (s *workerStream) welcome(welcome *lineshaftv1.WorkerWelcome) {
	s.isWelcome = true
	s.heard.Store(true)
	s.interval = max(welcome.HeartbeatInterval.AsDuration(), 100*time.Millisecond)
	w := s.worker
	w.logger.Info("lineshaft worker is connected", "worker", w.id, "pool", welcome.Pool, "slots", w.slots)
	w.mu.Lock()
	defer w.mu.Unlock()
	s.incoming, w.chunkedMax = map[string]*incomingPayload{}, int(welcome.MaxResultBytes)
	for _, token := range welcome.Stale {
		w.forget(token)
	}
	w.outbox.reconnect(func(token string) bool { return w.attempts[token] != nil })
	for _, attempt := range w.attempts {
		switch {
		case attempt.finished != nil:
			w.outbox.post(w.finishedMessage(attempt.finished))
		case attempt.slot == slotReleased:
			w.outbox.post(suspendedMessage(attempt))
		case attempt.slot == slotWanted:
			w.outbox.post(suspendedMessage(attempt), resumingMessage(attempt))
		}
	}
	if w.draining {
		w.outbox.post(drainingMessage())
	}
}

// handle does what the server wants.
func (s *workerStream) handle(ctx context.Context, messages []*lineshaftv1.ServerMessage) error {
	w := s.worker
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, message := range messages {
		switch kind := message.Kind.(type) {
		case *lineshaftv1.ServerMessage_Assigned:
			if kind.Assigned.PayloadBytes > 0 && w.handlers[kind.Assigned.Handler] != nil && !w.draining {
				s.incoming[kind.Assigned.Token] = &incomingPayload{assigned: kind.Assigned}
			} else {
				w.assign(ctx, kind.Assigned)
			}
		case *lineshaftv1.ServerMessage_Chunk:
			assigned, err := s.addChunk(kind.Chunk)
			if err != nil {
				return err
			}
			if assigned != nil {
				w.assign(ctx, assigned)
			}
		case *lineshaftv1.ServerMessage_ResultRequested:
			if attempt := w.attempts[kind.ResultRequested.Token]; attempt != nil {
				w.outbox.transfer(kind.ResultRequested.Token, attempt.finished.GetResult().GetData())
			}
		case *lineshaftv1.ServerMessage_Cancel:
			w.cancelAttempt(kind.Cancel)
			if incoming := s.incoming[kind.Cancel.Token]; incoming != nil {
				delete(s.incoming, kind.Cancel.Token)
				if kind.Cancel.Reason != lineshaftv1.StopReason_STOP_REASON_STALE {
					w.stoppedBeforeStart(incoming.assigned)
				}
			}
		case *lineshaftv1.ServerMessage_Settled:
			for _, token := range kind.Settled.Tokens {
				delete(w.attempts, token)
			}
			w.checkDrained()
		case *lineshaftv1.ServerMessage_Resumed:
			if attempt := w.attempts[kind.Resumed.Token]; attempt != nil {
				attempt.hasSlot()
			}
		case *lineshaftv1.ServerMessage_Draining:
			w.logger.Info("lineshaft server drains", "worker", w.id)
		}
	}
	return nil
}

// assign starts an attempt.
func (w *Worker) assign(ctx context.Context, assigned *lineshaftv1.AttemptAssigned) {
	if w.attempts[assigned.Token] != nil {
		w.outbox.post(acceptedMessage(assigned.Token))
		return
	}
	entry := w.handlers[assigned.Handler]
	attempt := &Attempt{worker: w, assigned: assigned}
	w.attempts[assigned.Token] = attempt
	attempt.ctx, attempt.cancel = context.WithCancelCause(context.WithValue(ctx, attemptKey{}, attempt))
	if entry == nil || w.draining {
		attempt.cancel(nil)
		attempt.finished = &lineshaftv1.AttemptFinished{
			Token:   assigned.Token,
			Outcome: &lineshaftv1.AttemptFinished_NotStarted{NotStarted: &lineshaftv1.AttemptNotStarted{}},
		}
		w.outbox.post(w.finishedMessage(attempt.finished))
		return
	}
	w.outbox.post(acceptedMessage(assigned.Token))
	go w.execute(attempt, entry)
}

// execute runs an attempt to its end, and reports it whatever the handler does.
func (w *Worker) execute(attempt *Attempt, entry *handler) {
	defer attempt.cancel(nil)
	if timeout := attempt.assigned.Timeout.AsDuration(); timeout > 0 {
		var end context.CancelFunc
		attempt.ctx, end = context.WithTimeoutCause(attempt.ctx, timeout, ErrTimeout)
		defer end()
	}
	var result *lineshaftv1.Payload
	err := errGoexit
	// Deferred, because runtime.Goexit runs nothing else.
	defer func() { w.finish(attempt, result, err) }()
	result, err = entry.call(attempt, w.middleware)
}

// finish reports the end of an attempt.
func (w *Worker) finish(attempt *Attempt, result *lineshaftv1.Payload, err error) {
	var failed *Failure
	if err != nil {
		// Without the mutex: the methods of the error can use the attempt.
		failed = failure(err, errors.Is(context.Cause(attempt.ctx), ErrTimeout))
		if failed.Reason == Panic {
			w.logger.Error("lineshaft handler panicked", "task", attempt.TaskID(), "handler", attempt.Handler(),
				"panic", failed.Message, "stack", failed.Detail)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.attempts[attempt.assigned.Token] != attempt {
		return
	}
	attempt.finished = outcome(attempt, result, failed)
	w.outbox.post(w.finishedMessage(attempt.finished))
}

// cancelAttempt ends the context of an attempt.
func (w *Worker) cancelAttempt(cancel *lineshaftv1.AttemptCancel) {
	w.outbox.post(&lineshaftv1.WorkerMessage{Kind: &lineshaftv1.WorkerMessage_CancelAcknowledged{
		CancelAcknowledged: &lineshaftv1.CancelAcknowledged{Token: cancel.Token},
	}})
	attempt := w.attempts[cancel.Token]
	if attempt == nil {
		return
	}
	switch cancel.Reason {
	case lineshaftv1.StopReason_STOP_REASON_STALE:
		w.forget(cancel.Token)
	case lineshaftv1.StopReason_STOP_REASON_TIMEOUT:
		attempt.stop = cancel.Reason
		attempt.cancel(ErrTimeout)
	default:
		attempt.stop = cancel.Reason
		attempt.cancel(ErrCancelled)
	}
}

// forget drops an attempt that is no longer this worker's.
func (w *Worker) forget(token string) {
	if attempt := w.attempts[token]; attempt != nil {
		attempt.cancel(ErrLost)
		delete(w.attempts, token)
		w.checkDrained()
	}
}

func (w *Worker) takeReports() []*lineshaftv1.WorkerMessage {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.outbox.take()
}

func (w *Worker) progress(attempt *Attempt, fraction float64, note string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.attempts[attempt.assigned.Token] == attempt && attempt.finished == nil {
		w.outbox.postProgress(attempt, fraction, note)
	}
}

// output sends output of an attempt, and waits until there is room for it.
func (w *Worker) output(attempt *Attempt, stream OutputStream, data []byte) error {
	for {
		w.mu.Lock()
		if w.attempts[attempt.assigned.Token] != attempt || attempt.finished != nil {
			w.mu.Unlock()
			return errors.New("the attempt has ended")
		}
		room := w.outbox.postOutput(attempt, stream, data)
		w.mu.Unlock()
		if room == nil {
			return nil
		}
		select {
		case <-room:
		case <-attempt.ctx.Done():
			return context.Cause(attempt.ctx)
		}
	}
}

func acceptedMessage(token string) *lineshaftv1.WorkerMessage {
	accepted := &lineshaftv1.AttemptAccepted{Token: token}
	return &lineshaftv1.WorkerMessage{Kind: &lineshaftv1.WorkerMessage_Accepted{Accepted: accepted}}
}

func suspendedMessage(attempt *Attempt) *lineshaftv1.WorkerMessage {
	suspended := &lineshaftv1.AttemptSuspended{Token: attempt.assigned.Token}
	return &lineshaftv1.WorkerMessage{Kind: &lineshaftv1.WorkerMessage_Suspended{Suspended: suspended}}
}

func resumingMessage(attempt *Attempt) *lineshaftv1.WorkerMessage {
	resuming := &lineshaftv1.AttemptResuming{Token: attempt.assigned.Token}
	return &lineshaftv1.WorkerMessage{Kind: &lineshaftv1.WorkerMessage_Resuming{Resuming: resuming}}
}

func drainingMessage() *lineshaftv1.WorkerMessage {
	return &lineshaftv1.WorkerMessage{Kind: &lineshaftv1.WorkerMessage_Draining{Draining: &lineshaftv1.WorkerDraining{}}}
}

func heartbeatMessage() *lineshaftv1.WorkerMessage {
	return &lineshaftv1.WorkerMessage{Kind: &lineshaftv1.WorkerMessage_Heartbeat{Heartbeat: &lineshaftv1.Heartbeat{}}}
}
