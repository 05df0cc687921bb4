package lineshaft_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	lineshaft "github.com/lineshaft/lineshaft/clients/go"
)

// remoteConfig has the handlers of the workers in these tests. Without pools, the server has one of kind remote.
var remoteConfig = remoteHandlers("square", "reverse", "third", "panic", "wait", "talk", "slow", "child", "parent", "process", "join", "leave")

func remoteHandlers(names ...string) string {
	config := ""
	for _, name := range names {
		config += fmt.Sprintf("\n[[handler]]\nname = %q\nrunner = \"remote\"\n", name)
	}
	return config
}

// connected returns a logger and a channel that is closed when the worker has connected for the first time.
func connected() (*slog.Logger, <-chan struct{}) {
	seen := &connectedHandler{Handler: slog.DiscardHandler, connected: make(chan struct{})}
	return slog.New(seen), seen.connected
}

type connectedHandler struct {
	slog.Handler
	isConnected atomic.Bool
	connected   chan struct{}
}

func (h *connectedHandler) Enabled(context.Context, slog.Level) bool { return true }

func (h *connectedHandler) Handle(_ context.Context, record slog.Record) error {
	if strings.Contains(record.Message, "is connected") && h.isConnected.CompareAndSwap(false, true) {
		close(h.connected)
	}
	return nil
}

// workFor runs a worker that is connected when the function returns.
func workFor(t testing.TB, address string, register func(*lineshaft.Worker), options ...lineshaft.WorkerOption) (stop func() error) {
	t.Helper()
	logger, ready := connected()
	worker := newWorker(t, address, append(options, lineshaft.WithLogger(logger))...)
	register(worker)
	stop = work(t, worker)
	select {
	case <-ready:
	case <-time.After(testTimeout):
		t.Fatal("the worker did not connect")
	}
	return stop
}

func TestTheServerRunsTasksOnAWorker(t *testing.T) {
	server, ctx := startServer(t, remoteConfig), testContext(t)
	client := server.client()
	workFor(t, server.address, func(worker *lineshaft.Worker) {
		lineshaft.Handle(worker, "square", func(_ context.Context, in request) (response, error) {
			return response{in.Number * in.Number}, nil
		})
		lineshaft.Handle(worker, "reverse", func(_ context.Context, in []byte) ([]byte, error) {
			out := make([]byte, len(in))
			for index, b := range in {
				out[len(in)-1-index] = b
			}
			return out, nil
		})
	}, lineshaft.WithConcurrency(50))
	if result := must[response](t)(lineshaft.Call[response](ctx, client, "square", request{12})); result.Square != 144 {
		t.Errorf("the result is %v", result)
	}
	if result := must[[]byte](t)(lineshaft.Call[[]byte](ctx, client, "reverse", []byte{1, 2, 255})); string(result) != "\xff\x02\x01" {
		t.Errorf("the result is %v", result)
	}
	requests := make([]request, 300)
	for index := range requests {
		requests[index].Number = index
	}
	for index, result := range must[[]response](t)(lineshaft.Map[response](ctx, client, "square", requests)) {
		if result.Square != index*index {
			t.Fatalf("the square of %d is %d", index, result.Square)
		}
	}
	var failed *lineshaft.TaskFailedError
	if _, err := lineshaft.Call[response](ctx, client, "square", "no object"); !errors.As(err, &failed) || failed.Reason != lineshaft.InvalidPayload {
		t.Errorf("an invalid payload returned %v", err)
	}
}

func TestAHandlerReadsTheResultsOfItsParents(t *testing.T) {
	server, ctx := startServer(t, remoteConfig), testContext(t)
	client := server.client()
	workFor(t, server.address, func(worker *lineshaft.Worker) {
		lineshaft.Handle(worker, "reverse", func(_ context.Context, size int) ([]byte, error) {
			if size < 0 {
				return nil, lineshaft.Permanent(errors.New("negative"))
			}
			return make([]byte, size), nil
		})
		lineshaft.Handle(worker, "join", func(ctx context.Context, _ any) ([]string, error) {
			found := []string{}
			for parent, err := range lineshaft.CurrentAttempt(ctx).Parents(ctx) {
				if err != nil {
					return nil, err
				}
				found = append(found, fmt.Sprintf("%s %s %d", parent.TaskID, parent.State, len(parent.Result.Data)))
			}
			return found, nil
		})
	})
	var parents, expected []string
	for _, size := range []int{3, -1, 1_000_000} {
		parent := must[*lineshaft.Task](t)(client.Submit(ctx, "reverse", size))
		parents = append(parents, parent.ID())
		if size < 0 {
			expected = append(expected, fmt.Sprintf("%s %s 0", parent.ID(), lineshaft.Failed))
		} else {
			expected = append(expected, fmt.Sprintf("%s %s %d", parent.ID(), lineshaft.Completed, size))
		}
	}
	after := lineshaft.WithParents(lineshaft.ParentFailureRuns, parents...)
	found := must[[]string](t)(lineshaft.Call[[]string](ctx, client, "join", nil, after))
	if !slices.Equal(found, expected) {
		t.Errorf("the parents are %v, must be %v", found, expected)
	}
	if found := must[[]string](t)(lineshaft.Call[[]string](ctx, client, "join", nil)); len(found) != 0 {
		t.Errorf("the parents of a task without any are %v", found)
	}
}

func TestFailedAttemptsAreRetriedUnlessPermanent(t *testing.T) {
	server, ctx := startServer(t, remoteConfig), testContext(t)
	client := server.client()
	workFor(t, server.address, func(worker *lineshaft.Worker) {
		lineshaft.Handle(worker, "third", func(ctx context.Context, permanent bool) (int, error) {
			number := lineshaft.CurrentAttempt(ctx).Number()
			err := fmt.Errorf("attempt %d failed", number)
			if permanent {
				err = lineshaft.Permanent(err)
			}
			if number < 3 {
				return 0, err
			}
			return number, nil
		})
		lineshaft.Handle(worker, "panic", func(context.Context, any) (int, error) { panic("no such luck") })
	})
	retry := lineshaft.WithRetry(&lineshaft.RetryPolicy{MaxAttempts: 3, Delay: durationpb.New(0)})
	if attempts := must[int](t)(lineshaft.Call[int](ctx, client, "third", false, retry)); attempts != 3 {
		t.Errorf("there were %d attempts", attempts)
	}
	var failed *lineshaft.TaskFailedError
	if _, err := lineshaft.Call[int](ctx, client, "third", true, retry); !errors.As(err, &failed) ||
		failed.Attempt != 1 || failed.Message != "attempt 1 failed" || failed.Reason != lineshaft.HandlerError {
		t.Errorf("a permanent error returned %v", err)
	}
	if _, err := lineshaft.Call[int](ctx, client, "panic", nil, lineshaft.WithMaxAttempts(1)); !errors.As(err, &failed) ||
		failed.Reason != lineshaft.Panic || !strings.Contains(failed.Detail, "remote_test.go") {
		t.Errorf("a panic returned %v", err)
	}
}

func TestACancelledTaskStopsOnTheWorker(t *testing.T) {
	server, ctx := startServer(t, remoteConfig), testContext(t)
	client := server.client()
	started, causes := make(chan struct{}, 1), make(chan error, 1)
	workFor(t, server.address, func(worker *lineshaft.Worker) {
		lineshaft.Handle(worker, "wait", func(ctx context.Context, _ any) (any, error) {
			started <- struct{}{}
			<-ctx.Done()
			causes <- context.Cause(ctx)
			return nil, ctx.Err()
		})
	})
	task := must[*lineshaft.Task](t)(client.Submit(ctx, "wait", nil))
	<-started
	must[lineshaft.State](t)(task.Cancel(ctx))
	if cause := <-causes; cause != lineshaft.ErrCancelled {
		t.Errorf("the cause is %v", cause)
	}
	var cancelled *lineshaft.TaskCancelledError
	if err := task.Result(ctx, nil); !errors.As(err, &cancelled) {
		t.Errorf("the cancelled task returned %v", err)
	}
	task = must[*lineshaft.Task](t)(client.Submit(ctx, "wait", nil, lineshaft.WithTimeout(10*time.Millisecond), lineshaft.WithMaxAttempts(1)))
	<-started
	if cause := <-causes; cause != lineshaft.ErrTimeout {
		t.Errorf("the cause is %v", cause)
	}
	var failed *lineshaft.TaskFailedError
	if err := task.Result(ctx, nil); !errors.As(err, &failed) || failed.Reason != lineshaft.Timeout {
		t.Errorf("a task that took too long returned %v", err)
	}
}

func TestProgressAndOutputReachTheServer(t *testing.T) {
	server, ctx := startServer(t, remoteConfig), testContext(t)
	client := server.client()
	gate := make(chan struct{})
	workFor(t, server.address, func(worker *lineshaft.Worker) {
		lineshaft.Handle(worker, "talk", func(ctx context.Context, _ any) (any, error) {
			attempt := lineshaft.CurrentAttempt(ctx)
			attempt.Progress(0.5, "half")
			attempt.Logger().Info("logged")
			_, err := fmt.Fprintln(attempt.Stdout(), "hello")
			<-gate
			return nil, err
		})
	})
	task := must[*lineshaft.Task](t)(client.Submit(ctx, "talk", nil))
	line, err := bufio.NewReader(task.FollowOutput(ctx)).ReadString('\n')
	if err != nil || line != "hello\n" {
		t.Errorf("the output is %q, %v", line, err)
	}
	// No event reports progress.
	info := must[*lineshaft.TaskInfo](t)(task.Info(ctx))
	for ; info.Progress == 0; info = must[*lineshaft.TaskInfo](t)(task.Info(ctx)) {
		time.Sleep(10 * time.Millisecond)
	}
	if info.Progress != 0.5 || info.ProgressNote != "half" {
		t.Errorf("the progress is %v, %q", info.Progress, info.ProgressNote)
	}
	close(gate)
	if err := task.Result(ctx, nil); err != nil {
		t.Error(err)
	}
	if text := must[[]byte](t)(task.Output(ctx, lineshaft.FromStderr())); !strings.Contains(string(text), "msg=logged") {
		t.Errorf("the log is %q", text)
	}
}

func TestARunningAttemptSurvivesAKilledServer(t *testing.T) {
	server, ctx := startServer(t, remoteConfig), testContext(t)
	proxy := startProxy(t, server.address)
	client := newClient(t, proxy.address)
	started, gate := make(chan struct{}, 10), make(chan struct{})
	workFor(t, proxy.address, func(worker *lineshaft.Worker) {
		lineshaft.Handle(worker, "slow", func(ctx context.Context, _ any) (int, error) {
			started <- struct{}{}
			<-gate
			return lineshaft.CurrentAttempt(ctx).Number(), nil
		})
	})
	task := must[*lineshaft.Task](t)(client.Submit(ctx, "slow", nil))
	<-started
	// An attempt whose start the server has not stored starts again.
	for event, err := range task.Watch(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		if event.State == lineshaft.Running {
			break
		}
	}
	proxy.cut()
	server.kill()
	server.start()
	close(gate)
	if attempt := must[int](t)(lineshaft.ResultOf[int](ctx, task)); attempt != 1 {
		t.Errorf("the result is that of attempt %d", attempt)
	}
	if len(started) > 0 {
		t.Error("the task was started again")
	}
}

func TestATaskWaitsForItsChildrenWithoutASlot(t *testing.T) {
	server, ctx := startServer(t, remoteConfig), testContext(t)
	client := server.client()
	workFor(t, server.address, func(worker *lineshaft.Worker) {
		lineshaft.Handle(worker, "child", func(_ context.Context, n int) (int, error) { return n * n, nil })
		lineshaft.Handle(worker, "parent", func(ctx context.Context, count int) (int, error) {
			numbers := make([]int, count)
			for index := range numbers {
				numbers[index] = index
			}
			squares, err := lineshaft.Map[int](ctx, client, "child", numbers)
			total := 0
			for _, square := range squares {
				total += square
			}
			return total, err
		})
	}, lineshaft.WithConcurrency(1))
	if total := must[int](t)(lineshaft.Call[int](ctx, client, "parent", 10)); total != 285 {
		t.Errorf("the sum of the squares is %d", total)
	}
}

// TestMain runs a worker instead of the tests in the processes that startWorker starts.
func TestMain(m *testing.M) {
	if os.Getenv("LINESHAFT_TEST_WORKER") != "" {
		os.Exit(workerProcess())
	}
	os.Exit(m.Run())
}

// workerProcess runs tasks whose payload says how.
func workerProcess() int {
	client, err := lineshaft.NewClient("")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	worker := lineshaft.NewWorker(client, lineshaft.WithConcurrency(2), lineshaft.WithDrainTimeout(testTimeout))
	lineshaft.Handle(worker, "process", func(ctx context.Context, gate string) (int, error) {
		if _, err := fmt.Fprintln(lineshaft.CurrentAttempt(ctx).Stdout(), os.Getpid()); err != nil {
			return 0, err
		}
		_, err := os.ReadFile(gate)
		return os.Getpid(), err
	})
	if err := worker.Run(context.Background()); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// startWorker starts a process with a worker.
func startWorker(t *testing.T, address string) *exec.Cmd {
	t.Helper()
	process := exec.Command(must[string](t)(os.Executable()))
	process.Env = append(os.Environ(), "LINESHAFT_TEST_WORKER=1", "LINESHAFT_SERVER="+address)
	process.Stdout, process.Stderr = os.Stdout, os.Stderr
	process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = process.Process.Kill()
		_ = process.Wait()
	})
	return process
}

// runsIn returns the process in which an attempt of the task runs.
func runsIn(ctx context.Context, t *testing.T, task *lineshaft.Task) int {
	t.Helper()
	var process int
	if _, err := fmt.Fscanln(task.FollowOutput(ctx), &process); err != nil {
		t.Fatal(err)
	}
	return process
}

func TestTheTaskOfAKilledWorkerRunsElsewhere(t *testing.T) {
	server, ctx := startServer(t, "[server]\nworker_lease = \"3s\"\n"+remoteConfig), testContext(t)
	client := server.client()
	gate := newGate(t)
	first := startWorker(t, server.address)
	task := submitWhenKnown(ctx, t, client, gate)
	if process := runsIn(ctx, t, task); process != first.Process.Pid {
		t.Errorf("the task runs in %d", process)
	}
	_ = first.Process.Kill()
	_ = first.Wait()
	second := startWorker(t, server.address)
	go openGate(gate)
	if process := must[int](t)(lineshaft.ResultOf[int](ctx, task)); process != second.Process.Pid {
		t.Errorf("the result is that of process %d", process)
	}
}

func TestAProcessDrainsAfterASignal(t *testing.T) {
	server, ctx := startServer(t, remoteConfig), testContext(t)
	client := server.client()
	gate := newGate(t)
	process := startWorker(t, server.address)
	task := submitWhenKnown(ctx, t, client, gate)
	runsIn(ctx, t, task)
	_ = process.Process.Signal(syscall.SIGTERM)
	go openGate(gate)
	if err := process.Wait(); err != nil {
		t.Errorf("the worker ended with %v", err)
	}
	if pid := must[int](t)(lineshaft.ResultOf[int](ctx, task)); pid != process.Process.Pid {
		t.Errorf("the result is that of process %d", pid)
	}
}

// newGate returns a pipe: who reads it waits until openGate writes.
func newGate(t *testing.T) string {
	t.Helper()
	gate := filepath.Join(t.TempDir(), "gate")
	if err := syscall.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	return gate
}

// openGate lets one reader pass.
func openGate(gate string) {
	_ = os.WriteFile(gate, []byte("go\n"), 0o600)
}

// submitWhenKnown submits a task when a worker has registered its handler.
func submitWhenKnown(ctx context.Context, t *testing.T, client *lineshaft.Client, gate string) *lineshaft.Task {
	t.Helper()
	for {
		task, err := client.Submit(ctx, "process", gate)
		var known *lineshaft.Error
		if errors.As(err, &known) && known.Reason == lineshaft.ReasonUnknownHandler {
			time.Sleep(10 * time.Millisecond)
			continue
		}
		return must[*lineshaft.Task](t)(task, err)
	}
}
func TestATaskThatWaitsSurvivesABrokenConnection(t *testing.T) {
	server, ctx := startServer(t, remoteConfig), testContext(t)
	proxy := startProxy(t, server.address)
	client := newClient(t, proxy.address)
	started, gate := make(chan struct{}, 10), make(chan struct{})
	workFor(t, proxy.address, func(worker *lineshaft.Worker) {
		lineshaft.Handle(worker, "child", func(context.Context, any) (int, error) {
			started <- struct{}{}
			<-gate
			return 7, nil
		})
		lineshaft.Handle(worker, "parent", func(ctx context.Context, _ any) (int, error) {
			return lineshaft.Call[int](ctx, client, "child", nil)
		})
	}, lineshaft.WithConcurrency(1))
	task := must[*lineshaft.Task](t)(client.Submit(ctx, "parent", nil))
	<-started
	proxy.cut()
	close(gate)
	if result := must[int](t)(lineshaft.ResultOf[int](ctx, task)); result != 7 {
		t.Errorf("the result is %d", result)
	}
	if again := must[int](t)(lineshaft.Call[int](ctx, client, "parent", nil)); again != 7 {
		t.Errorf("the second result is %d", again)
	}
}

func TestATaskThatWaitsCanBeCancelled(t *testing.T) {
	server, ctx := startServer(t, remoteConfig), testContext(t)
	client := server.client()
	started, gate := make(chan struct{}, 10), make(chan struct{})
	workFor(t, server.address, func(worker *lineshaft.Worker) {
		lineshaft.Handle(worker, "child", func(context.Context, any) (int, error) {
			started <- struct{}{}
			<-gate
			return 7, nil
		})
		lineshaft.Handle(worker, "parent", func(ctx context.Context, _ any) (int, error) {
			return lineshaft.Call[int](ctx, client, "child", nil)
		})
	}, lineshaft.WithConcurrency(1))
	task := must[*lineshaft.Task](t)(client.Submit(ctx, "parent", nil))
	<-started
	must[lineshaft.State](t)(task.Cancel(ctx))
	var cancelled *lineshaft.TaskCancelledError
	if err := task.Result(ctx, nil); !errors.As(err, &cancelled) {
		t.Errorf("the cancelled task returned %v", err)
	}
	close(gate)
	if again := must[int](t)(lineshaft.Call[int](ctx, client, "parent", nil)); again != 7 {
		t.Errorf("the second result is %d", again)
	}
}
