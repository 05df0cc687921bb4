package lineshaft

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"

	lineshaftv1 "github.com/lineshaft/lineshaft/clients/go/lineshaftv1"
)

const (
	drainTimeout = 20 * time.Second
	// stopTimeout is the time that handlers have to return after the drain timeout, and hastyTimeout after a second signal.
	stopTimeout  = 5 * time.Second
	hastyTimeout = time.Second
	// lingerTime is the time after which no attempt can arrive that the server had sent before it heard of the drain.
	lingerTime = 100 * time.Millisecond
)

// Worker runs tasks with the functions of this program.
type Worker struct {
	client       *Client
	service      lineshaftv1.WorkerServiceClient
	id           string
	pool         string
	slots        int
	labels       map[string]string
	middleware   []Middleware
	logger       *slog.Logger
	signals      []os.Signal
	drainTimeout time.Duration

	mu       sync.Mutex
	started  bool
	handlers map[string]*handler
	attempts map[string]*Attempt // by token, until the server has acknowledged their end
	draining bool
	leaving  bool          // some time after the drain has begun
	drained  chan struct{} // closed when leaving and no attempt is left
	outbox   outbox
	// Bytes of a result that the server receives in chunks; 0: it receives none.
	chunkedMax int
}

// WorkerOption sets something about a worker.
type WorkerOption func(*Worker)

// Middleware surrounds the handlers of a worker. It calls `next` with the context, or one derived from it, and returns its
// error or another one.
type Middleware func(ctx context.Context, attempt *Attempt, next func(context.Context) error) error

// WithConcurrency sets how many attempts run at the same time, 1 to 10,000. The default is the number of processors; set more
// if the handlers mostly wait.
func WithConcurrency(attempts int) WorkerOption {
	return func(w *Worker) { w.slots = attempts }
}

// WithWorkerPool sets the pool in which the worker works, one of kind remote. The default is the first such pool.
func WithWorkerPool(pool string) WorkerOption {
	return func(w *Worker) { w.pool = pool }
}

// WithWorkerLabel adds a label, which is shown in the list of workers; at most 16.
func WithWorkerLabel(key, value string) WorkerOption {
	return func(w *Worker) { w.labels[key] = value }
}

// WithMiddleware surrounds all handlers; the first one is the outermost.
func WithMiddleware(middleware ...Middleware) WorkerOption {
	return func(w *Worker) { w.middleware = append(w.middleware, middleware...) }
}

// WithLogger sets where the worker reports connections, panics and handlers that do not stop. The default is [slog.Default].
func WithLogger(logger *slog.Logger) WorkerOption {
	return func(w *Worker) { w.logger = logger }
}

// WithDrainTimeout sets how long running attempts may take to end when the worker stops. The default is 20 seconds. Their
// contexts end then, and they have 5 more seconds.
func WithDrainTimeout(timeout time.Duration) WorkerOption {
	return func(w *Worker) { w.drainTimeout = timeout }
}

// WithoutSignals leaves the handling of SIGINT and SIGTERM to the program.
func WithoutSignals() WorkerOption {
	return func(w *Worker) { w.signals = nil }
}

// NewWorker returns a worker that uses the connection of the client. Register functions with [Handle], then call Run.
func NewWorker(client *Client, options ...WorkerOption) *Worker {
	w := &Worker{
		client:       client,
		service:      lineshaftv1.NewWorkerServiceClient(client.connection),
		id:           workerID(),
		slots:        runtime.GOMAXPROCS(0),
		labels:       map[string]string{},
		logger:       slog.Default(),
		signals:      []os.Signal{os.Interrupt, syscall.SIGTERM},
		drainTimeout: drainTimeout,
		handlers:     map[string]*handler{},
		attempts:     map[string]*Attempt{},
		drained:      make(chan struct{}),
		outbox:       newOutbox(),
	}
	for _, option := range options {
		option(w)
	}
	return w
}

// workerID returns an ID that no other running program has.
func workerID() string {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "go"
	}
	host = strings.Map(func(r rune) rune {
		isPlain := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r)
		if isPlain {
			return r
		}
		return '-'
	}, host)
	return fmt.Sprintf("%s-%d-%s", host[:min(len(host), 32)], os.Getpid(), strings.ToLower(rand.Text()[:6]))
}

func (w *Worker) register(name string, entry *handler) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.started {
		panic("lineshaft: the worker runs already: register handlers before")
	}
	if w.handlers[name] != nil {
		panic(fmt.Sprintf("lineshaft: handler %q is registered twice", name))
	}
	w.handlers[name] = entry
}

// ID of the worker, which is part of the name that the server gives it.
func (w *Worker) ID() string { return w.id }

// Run connects and runs tasks until the context ends or the program gets SIGINT or SIGTERM. Then it accepts no further tasks,
// waits for those that run, and returns nil. A second signal ends the wait.
//
// While the server cannot be reached Run connects again and again; attempts go on meanwhile. Run returns an error if the
// server refuses the worker, or if attempts still ran at the end; the server gives these to other workers. Run can be called
// once.
func (w *Worker) Run(ctx context.Context) error {
	if err := w.begin(); err != nil {
		return err
	}
	if _, err := proto.Marshal(w.hello()); err != nil {
		return fmt.Errorf("the pool, a label or a handler of the worker: %w", err)
	}
	signals := make(chan os.Signal, 2)
	if len(w.signals) > 0 {
		signal.Notify(signals, w.signals...)
		defer signal.Stop(signals)
	}
	// The end of the caller's context begins a drain; attempts and the connection go on.
	life, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer end(ErrStopping)
	ended := make(chan error, 1)
	go func() { ended <- w.connect(life) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	case <-signals:
	}
	return w.stop(signals, ended)
}

func (w *Worker) begin() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.started {
		return errors.New("the worker has been started before")
	}
	if len(w.handlers) == 0 {
		return errors.New("the worker has no handlers: register one with lineshaft.Handle")
	}
	w.started = true
	return nil
}

// stop drains the worker. After the drain timeout or a signal it ends the contexts of what still runs.
func (w *Worker) stop(signals <-chan os.Signal, ended <-chan error) error {
	w.logger.Info("lineshaft worker drains", "worker", w.id, "attempts", w.drain())
	time.AfterFunc(lingerTime, w.leave)
	timer := time.NewTimer(w.drainTimeout)
	defer timer.Stop()
	isStopping := false
	for {
		timeout := stopTimeout
		select {
		case err := <-ended:
			return err
		case <-w.drained:
			// The server closes the stream when it has read all.
			select {
			case <-ended:
			case <-time.After(stopTimeout):
			}
			return nil
		case <-signals:
			timeout = hastyTimeout
		case <-timer.C:
		}
		if isStopping {
			return w.left()
		}
		isStopping = true
		w.cancelAll(ErrStopping)
		timer.Reset(timeout)
	}
}

// left is the error of attempts that still run.
func (w *Worker) left() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return fmt.Errorf("the worker has stopped with %d unfinished attempts", len(w.attempts))
}

// drain accepts no further attempts, and returns how many are left.
func (w *Worker) drain() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.draining = true
	w.outbox.post(drainingMessage())
	return len(w.attempts)
}

// leave ends the stream when no attempt is left.
func (w *Worker) leave() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.leaving = true
	w.checkDrained()
}

// checkDrained closes `drained` if the drain is complete.
func (w *Worker) checkDrained() {
	if !w.leaving || len(w.attempts) > 0 {
		return
	}
	select {
	case <-w.drained:
	default:
		close(w.drained)
	}
}

func (w *Worker) cancelAll(cause error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, attempt := range w.attempts {
		attempt.cancel(cause)
	}
}
