package lineshaft_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	lineshaft "github.com/lineshaft/lineshaft/clients/go"
	"github.com/lineshaft/lineshaft/clients/go/lineshaftv1"
)

// sum is the result of the built-in handler `compute`.
type sum struct {
	Value uint64 `json:"value"`
}

func TestASubmittedTaskReturnsItsResult(t *testing.T) {
	client, ctx := startServer(t, defaultConfig).client(), testContext(t)
	task := must[*lineshaft.Task](t)(client.Submit(ctx, "compute", 100, lineshaft.WithLabel("a", "b"),
		lineshaft.WithPriority(lineshaft.High), lineshaft.WithLabel("c", "d"), lineshaft.WithMaxAttempts(2),
		lineshaft.WithFairnessKey("customer:42"),
		lineshaft.WithLimits(&lineshaft.TaskLimit{Key: "k", MaxRunning: 3}),
		lineshaft.WithLimits(&lineshaft.TaskLimit{Key: "r", Rate: &lineshaft.StartRate{Starts: 100, Burst: 2}})))
	result := must[sum](t)(lineshaft.ResultOf[sum](ctx, task))
	if result.Value != 4950 {
		t.Errorf("result is %v", result)
	}
	info := must[*lineshaft.TaskInfo](t)(client.Task(task.ID()).Info(ctx))
	if info.State != lineshaft.Completed || info.Labels["a"] != "b" || info.Labels["c"] != "d" ||
		info.Priority != lineshaft.High || info.Retry.MaxAttempts != 2 || info.FairnessKey != "customer:42" {
		t.Errorf("task is %v", info)
	}
	if limits := info.Limits; len(limits) != 2 || limits[0].MaxRunning != 3 || limits[1].Rate.Starts != 100 {
		t.Errorf("limits are %v", limits)
	}
	if again := must[sum](t)(lineshaft.ResultOf[sum](ctx, client.Task(task.ID()))); again != result {
		t.Errorf("the second result is %v", again)
	}
}

func TestBytesArriveAsTheyAre(t *testing.T) {
	client, ctx := startServer(t, defaultConfig).client(), testContext(t)
	for _, size := range []int{0, 3, 1 << 19} {
		payload := []byte(strings.Repeat("\xff", size))
		result := must[[]byte](t)(lineshaft.Call[[]byte](ctx, client, "cat", payload))
		if string(result) != string(payload) {
			t.Errorf("a payload of %d bytes returned %d bytes", size, len(result))
		}
	}
	text := lineshaft.Payload{Data: []byte("hello"), ContentType: "text/plain"}
	if result := must[lineshaft.Payload](t)(lineshaft.Call[lineshaft.Payload](ctx, client, "cat", text)); string(result.Data) != "hello" {
		t.Errorf("result is %v", result)
	}
	if _, err := lineshaft.Call[int](ctx, client, "cat", text); err == nil || !strings.Contains(err.Error(), "content type") {
		t.Errorf("a text decoded as a number returned %v", err)
	}
}

func TestErrorsHaveReasonAndDetails(t *testing.T) {
	client, ctx := startServer(t, defaultConfig).client(), testContext(t)
	var known *lineshaft.Error
	_, err := client.Submit(ctx, "nosuch", nil)
	if !errors.As(err, &known) || known.Reason != lineshaft.ReasonUnknownHandler || known.Metadata["handler"] != "nosuch" {
		t.Errorf("an unknown handler returned %v", err)
	}
	if status.Code(err) != codes.NotFound {
		t.Errorf("the code is %v", status.Code(err))
	}
	_, err = client.Submit(ctx, "compute", 1, lineshaft.WithLabel("", "x"))
	if !errors.As(err, &known) || known.Reason != lineshaft.ReasonInvalidField || len(known.Fields) != 1 {
		t.Errorf("an invalid label returned %v", err)
	}
	first := must[*lineshaft.Task](t)(client.Submit(ctx, "io", 60, lineshaft.WithUniqueKey("u", 0)))
	_, err = client.Submit(ctx, "io", 60, lineshaft.WithUniqueKey("u", lineshaft.UniqueConflictFails))
	if !errors.As(err, &known) || known.Reason != lineshaft.ReasonUniqueKeyTaken {
		t.Errorf("a unique key that is taken returned %v", err)
	}
	same, err := client.Submit(ctx, "io", 60, lineshaft.WithUniqueKey("u", lineshaft.UniqueConflictUsesExisting))
	if err != nil || same.ID() != first.ID() {
		t.Errorf("a unique key of %s returned %v, %v", first.ID(), same, err)
	}
	reused := []lineshaft.SubmitOption{lineshaft.WithUniqueKey("sum", 0), lineshaft.WithReusedResult(time.Hour)}
	computed := must[*lineshaft.Task](t)(client.Submit(ctx, "compute", 5, reused...))
	if err := computed.Result(ctx, nil); err != nil {
		t.Fatal(err)
	}
	again, err := client.Submit(ctx, "compute", 5, reused...)
	if err != nil || again.ID() != computed.ID() {
		t.Errorf("a result of %s returned %v, %v", computed.ID(), again, err)
	}
	_, err = client.SubmitBatch(ctx, []lineshaft.Submission{{Handler: "compute"}, {Handler: "nosuch"}})
	if !errors.As(err, &known) || known.Reason != lineshaft.ReasonUnknownHandler {
		t.Errorf("a batch with an unknown handler returned %v", err)
	}
	_, err = client.Submit(ctx, "compute", 1, lineshaft.WithLabel("bytes", "\xff"))
	if err == nil || !strings.Contains(err.Error(), "UTF-8") {
		t.Errorf("a label that is not UTF-8 returned %v", err)
	}
	if _, err = client.Submit(ctx, "compute", make(chan int)); err == nil || !strings.Contains(err.Error(), "payload") {
		t.Errorf("a payload that is not JSON returned %v", err)
	}
	for _, id := range []string{"nosuch", "not an id"} {
		_, err = client.Task(id).Wait(ctx)
		if !errors.As(err, &known) || known.Reason != lineshaft.ReasonTaskNotFound && known.Reason != lineshaft.ReasonInvalidField {
			t.Errorf("the task %q returned %v", id, err)
		}
	}
}

func TestTheResultOfAFailedOrCancelledTaskIsAnError(t *testing.T) {
	client, ctx := startServer(t, defaultConfig).client(), testContext(t)
	var failed *lineshaft.TaskFailedError
	_, err := lineshaft.Call[[]byte](ctx, client, "fail", nil)
	if !errors.As(err, &failed) || failed.Reason != lineshaft.HandlerError || failed.GetExitCode() != 3 || !strings.Contains(failed.Detail, "broken") {
		t.Errorf("a failing program returned %v", err)
	}
	task := must[*lineshaft.Task](t)(client.Submit(ctx, "nap", 3600))
	if state := must[lineshaft.State](t)(task.Cancel(ctx, lineshaft.WithReason("not needed"))); state != lineshaft.Cancelled && state != lineshaft.Running {
		t.Errorf("the state is %v", state)
	}
	var cancelled *lineshaft.TaskCancelledError
	err = task.Result(ctx, nil)
	if !errors.As(err, &cancelled) || cancelled.Receipt.Reason != "not needed" || cancelled.TaskID != task.ID() {
		t.Errorf("a cancelled task returned %v", err)
	}
	var known *lineshaft.Error
	done := must[*lineshaft.Task](t)(client.Submit(ctx, "compute", 1))
	must[*lineshaft.TaskInfo](t)(done.Wait(ctx))
	if _, err = done.Cancel(ctx); !errors.As(err, &known) || known.Reason != lineshaft.ReasonTaskFinished {
		t.Errorf("cancelling a finished task returned %v", err)
	}
}

func TestARepeatedRequestIDReturnsTheFirstTask(t *testing.T) {
	client, ctx := startServer(t, defaultConfig).client(), testContext(t)
	first := must[*lineshaft.Task](t)(client.Submit(ctx, "compute", 1, lineshaft.WithRequestID("r")))
	second := must[*lineshaft.Task](t)(client.Submit(ctx, "compute", 1, lineshaft.WithRequestID("r")))
	if first.ID() != second.ID() || first.Duplicate() || !second.Duplicate() {
		t.Errorf("tasks are %v and %v", first, second)
	}
	var known *lineshaft.Error
	if _, err := client.Submit(ctx, "compute", 2, lineshaft.WithRequestID("r")); !errors.As(err, &known) || known.Reason != lineshaft.ReasonRequestIDReused {
		t.Errorf("a request ID with another payload returned %v", err)
	}
}

func TestSubmissionsThatShareACallKeepTheirTraceContexts(t *testing.T) {
	type key struct{}
	server := startServer(t, remoteConfig)
	workFor(t, server.address, func(worker *lineshaft.Worker) {
		lineshaft.Handle(worker, "trace", func(ctx context.Context, _ any) (string, error) {
			return lineshaft.CurrentAttempt(ctx).TraceContext()["traceparent"][3:35], nil
		})
	})
	var calls calls
	client := server.client(calls.option(), lineshaft.WithTraceContext(func(ctx context.Context) map[string]string {
		trace, _ := ctx.Value(key{}).(string)
		return map[string]string{"traceparent": "00-" + trace + "-b7ad6b7169203331-01"}
	}))
	for _, digit := range []string{"a", "b"} {
		trace := strings.Repeat(digit, 32)
		ctx := context.WithValue(testContext(t), key{}, trace)
		if found := must[string](t)(lineshaft.Call[string](ctx, client, "trace", nil)); found != trace {
			t.Errorf("the trace is %s instead of %s", found, trace)
		}
	}
	if calls.of("SubmitTask") != 0 || calls.of("SubmitTasks") != 1 {
		t.Errorf("the calls are %v", calls.counts)
	}
}

func TestASubmissionWithBaggageIsACallOfItsOwn(t *testing.T) {
	var calls calls
	client := startServer(t, defaultConfig).client(calls.option(), lineshaft.WithTraceContext(func(context.Context) map[string]string {
		return map[string]string{"baggage": "a=1"}
	}))
	must[*lineshaft.Task](t)(client.Submit(testContext(t), "compute", 1))
	if calls.of("SubmitTask") != 1 {
		t.Errorf("the calls are %v", calls.counts)
	}
}

func TestMapReturnsResultsInOrder(t *testing.T) {
	client, ctx := startServer(t, defaultConfig).client(), testContext(t)
	// More than the server keeps.
	numbers := make([]uint64, 15_000)
	for index := range numbers {
		numbers[index] = uint64(index)
	}
	results := must[[]sum](t)(lineshaft.Map[sum](ctx, client, "compute", numbers))
	for n, result := range results {
		if n > 0 && result.Value != uint64(n*(n-1)/2) {
			t.Fatalf("result %d is %v", n, result)
		}
	}
	if len(results) != len(numbers) {
		t.Errorf("there are %d results", len(results))
	}
	var failed *lineshaft.TaskFailedError
	if _, err := lineshaft.Map[sum](ctx, client, "compute", []any{1, "no number", 2}); !errors.As(err, &failed) || failed.Reason != lineshaft.InvalidPayload {
		t.Errorf("a map with an invalid payload returned %v", err)
	}
}

func TestTheBatchOfAMapCanBeCancelled(t *testing.T) {
	client, ctx := startServer(t, defaultConfig).client(), testContext(t)
	ended := make(chan error, 1)
	go func() {
		_, err := lineshaft.Map[any](ctx, client, "nap", []int{3600, 3600, 3600}, lineshaft.InBatch("naps"))
		ended <- err
	}()
	batches := lineshaftv1.NewBatchServiceClient(client.Connection())
	cancel := &lineshaftv1.CancelBatchRequest{BatchId: "naps"}
	for {
		response, err := batches.CancelBatch(ctx, cancel)
		if err == nil {
			if total := response.GetBatch().GetTotal(); total != 3 {
				t.Errorf("the batch has %d tasks", total)
			}
			break
		}
		if status.Code(err) != codes.NotFound {
			t.Fatal(err)
		}
	}
	var cancelled *lineshaft.TaskCancelledError
	if err := <-ended; !errors.As(err, &cancelled) {
		t.Errorf("the map returned %v", err)
	}
}

func TestTasksAreSubmittedInAChosenBatch(t *testing.T) {
	client, ctx := startServer(t, defaultConfig).client(), testContext(t)
	batch := lineshaft.InBatch("chosen")
	// More than one call has.
	tasks := must[[]*lineshaft.Task](t)(lineshaft.SubmitAll(ctx, client, "compute", make([]int, 1_500), batch))
	tasks = append(tasks, must[*lineshaft.Task](t)(client.Submit(ctx, "compute", 1, batch)))
	tasks = append(tasks, must[[]*lineshaft.Task](t)(client.SubmitBatch(ctx, []lineshaft.Submission{
		{Handler: "compute", Payload: 1, Options: []lineshaft.SubmitOption{batch}},
	}))...)
	for _, err := range lineshaft.AsCompleted(ctx, tasks) {
		if err != nil {
			t.Fatal(err)
		}
	}
	request := &lineshaftv1.GetBatchRequest{BatchId: "chosen"}
	found := must[*lineshaftv1.GetBatchResponse](t)(lineshaftv1.NewBatchServiceClient(client.Connection()).GetBatch(ctx, request))
	if total := found.GetBatch().GetTotal(); total != int64(len(tasks)) {
		t.Errorf("the batch has %d tasks", total)
	}
}

func TestAsCompletedReturnsTasksInTheOrderOfTheirEnds(t *testing.T) {
	client, ctx := startServer(t, defaultConfig).client(), testContext(t)
	long := must[*lineshaft.Task](t)(client.Submit(ctx, "io", 3600))
	tasks := []*lineshaft.Task{long}
	for range 50 {
		tasks = append(tasks, must[*lineshaft.Task](t)(client.Submit(ctx, "compute", 10)))
	}
	seen := map[string]bool{}
	for task, err := range lineshaft.AsCompleted(ctx, tasks) {
		if err != nil {
			t.Fatal(err)
		}
		if seen[task.ID()] {
			t.Errorf("task %s was returned twice", task.ID())
		}
		seen[task.ID()] = true
		if len(seen) == 50 {
			if seen[long.ID()] {
				t.Error("the long task was returned before the others")
			}
			must[lineshaft.State](t)(long.Cancel(ctx))
		}
	}
	if len(seen) != 51 {
		t.Errorf("%d tasks were returned", len(seen))
	}
}

// calls counts the calls of each method.
type calls struct {
	mu     sync.Mutex
	counts map[string]int
}

func (c *calls) count(method string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts == nil {
		c.counts = map[string]int{}
	}
	c.counts[method[strings.LastIndex(method, "/")+1:]]++
}

func (c *calls) of(method string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counts[method]
}

func (c *calls) option() lineshaft.ClientOption {
	return lineshaft.WithDialOptions(
		grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, request, response any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
			c.count(method)
			return invoke(ctx, method, request, response, conn, options...)
		}),
		grpc.WithChainStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, stream grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
			c.count(method)
			return stream(ctx, desc, conn, method, options...)
		}))
}

func TestManyCallersShareAStreamAndFewCalls(t *testing.T) {
	var calls calls
	client, ctx := startServer(t, defaultConfig).client(calls.option()), testContext(t)
	const callers, tasks = 200, 20
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for n := range tasks {
				result, err := lineshaft.Call[sum](ctx, client, "compute", n)
				if err != nil || n > 0 && result.Value != uint64(n*(n-1)/2) {
					t.Errorf("the sum below %d is %v, %v", n, result, err)
				}
			}
		})
	}
	all.Wait()
	t.Logf("%d tasks took %v", callers*tasks, calls.counts)
	if calls.of("SubmitTasks") != 1 || calls.of("SubmitTask") != 0 {
		t.Errorf("submissions took %v", calls.counts)
	}
	if waits := calls.of("WaitTask") + calls.of("ListTasks") + calls.of("WatchTasks"); waits > callers*tasks/2 {
		t.Errorf("waits took %d calls", waits)
	}
}

func TestManyWaitersAreNotHeldUpByLongTasks(t *testing.T) {
	client, ctx := startServer(t, defaultConfig).client(), testContext(t)
	waiting, stop := context.WithCancel(ctx)
	var all sync.WaitGroup
	long := must[[]*lineshaft.Task](t)(lineshaft.SubmitAll(ctx, client, "nap", make([]int, 100), lineshaft.WithDelay(time.Hour)))
	for _, task := range long {
		all.Go(func() {
			if _, err := task.Wait(waiting); !errors.Is(err, context.Canceled) {
				t.Errorf("an abandoned wait returned %v", err)
			}
		})
	}
	for n := range 200 {
		must[sum](t)(lineshaft.Call[sum](ctx, client, "compute", n))
	}
	stop()
	all.Wait()
}

func TestACallWithoutAServerEndsWithItsDeadline(t *testing.T) {
	client := newClient(t, "127.0.0.1:1")
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	_, err := client.Submit(ctx, "compute", 1)
	if !errors.Is(err, context.DeadlineExceeded) && status.Code(err) != codes.Unavailable {
		t.Errorf("the submission returned %v", err)
	}
	if !strings.Contains(err.Error(), "refused") {
		t.Errorf("the error %q does not have the cause", err)
	}
	if err := client.Task("x").Result(ctx, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the wait returned %v", err)
	}
}

func TestAClosedClientEndsItsWaits(t *testing.T) {
	client, ctx := startServer(t, defaultConfig).client(), testContext(t)
	task := must[*lineshaft.Task](t)(client.Submit(ctx, "io", 3600))
	ended := make(chan error, 1)
	go func() { ended <- task.Result(ctx, nil) }()
	_ = client.Close()
	if err := <-ended; err == nil {
		t.Error("the wait returned no error")
	}
	if _, err := client.Submit(ctx, "compute", 1); err == nil {
		t.Error("a submission returned no error")
	}
}

func TestAFullQueueDelaysSubmissions(t *testing.T) {
	config := strings.Replace(defaultConfig, `name = "single"`, "name = \"single\"\nqueue_limit = 1", 1)
	client, ctx := startServer(t, config).client(), testContext(t)
	running := must[*lineshaft.Task](t)(client.Submit(ctx, "nap", 3600))
	for event, err := range running.Watch(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		if event.State == lineshaft.Running {
			break
		}
	}
	waiting := must[*lineshaft.Task](t)(client.Submit(ctx, "nap", 0))
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	var known *lineshaft.Error
	if _, err := client.Submit(short, "nap", 0); !errors.As(err, &known) || known.Reason != lineshaft.ReasonQueueFull || known.RetryAfter == 0 {
		t.Errorf("a full queue returned %v", err)
	}
	submitted := make(chan error, 1)
	go func() {
		task, err := client.Submit(ctx, "nap", 0)
		if err == nil {
			err = task.Result(ctx, nil)
		}
		submitted <- err
	}()
	must[lineshaft.State](t)(running.Cancel(ctx))
	if err := waiting.Result(ctx, nil); err != nil {
		t.Error(err)
	}
	if err := <-submitted; err != nil {
		t.Error(err)
	}
}

func TestOutputIsReadWhileTheTaskRuns(t *testing.T) {
	gate := filepath.Join(t.TempDir(), "gate")
	if err := syscall.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	script := "echo one; echo two >&2; read line < " + gate + "; echo three"
	proxy := startProxy(t, startServer(t, defaultConfig+`
[[handler]]
name = "lines"
runner = "process"
argv = ["/bin/sh", "-c", "`+script+`"]
`).address)
	client, ctx := newClient(t, proxy.address), testContext(t)
	task := must[*lineshaft.Task](t)(client.Submit(ctx, "lines", nil))
	reader := task.FollowOutput(ctx)
	first := make([]byte, 4)
	if _, err := io.ReadFull(reader, first); err != nil || string(first) != "one\n" {
		t.Fatalf("the first line is %q, %v", first, err)
	}
	if proxy.cut() == 0 {
		t.Fatal("there was no connection")
	}
	if err := os.WriteFile(gate, []byte("go\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if rest := must[[]byte](t)(io.ReadAll(reader)); string(rest) != "three\n" {
		t.Errorf("the rest is %q", rest)
	}
	if text := must[[]byte](t)(task.Output(ctx, lineshaft.FromStderr())); string(text) != "two\n" {
		t.Errorf("standard error is %q", text)
	}
	if text := must[[]byte](t)(task.Output(ctx, lineshaft.FromOffset(4))); string(text) != "three\n" {
		t.Errorf("the output from offset 4 is %q", text)
	}
}

type change struct {
	task  string
	state lineshaft.State
}

func TestAWatchSurvivesBrokenConnections(t *testing.T) {
	server := startServer(t, defaultConfig)
	proxy := startProxy(t, server.address)
	client, ctx := newClient(t, proxy.address), testContext(t)
	const tasks = 30
	var before, after []change
	token, cuts := "", 0
	for event, err := range client.Watch(ctx, &lineshaft.Filter{Handler: "compute"}, lineshaft.ResumeAfter(firstToken(t, client))) {
		if err != nil {
			t.Fatal(err)
		}
		if token == "" {
			token = event.ResumeToken
		}
		before = append(before, change{event.TaskId, event.State})
		if len(before) == tasks*3 {
			break
		}
		if len(before)%20 == 7 {
			cuts += proxy.cut()
		}
		if len(before) == 40 {
			server.kill()
			server.start()
		}
	}
	for event, err := range client.Watch(ctx, &lineshaft.Filter{Handler: "compute"}, lineshaft.ResumeAfter(token)) {
		if err != nil {
			t.Fatal(err)
		}
		if after = append(after, change{event.TaskId, event.State}); len(after) == len(before)-1 {
			break
		}
	}
	if cuts == 0 {
		t.Error("there was no connection to cut")
	}
	if !slices.Equal(before[1:], after) {
		t.Errorf("the first watch returned\n%v\nthe second one\n%v", before[1:], after)
	}
}

// firstToken submits 30 tasks in a batch and returns a token from before their first event.
func firstToken(t *testing.T, client *lineshaft.Client) string {
	t.Helper()
	ctx := testContext(t)
	request := &lineshaftv1.BatchSubmitTasksRequest{}
	for range 30 {
		request.Tasks = append(request.Tasks, &lineshaftv1.SubmitTaskRequest{Handler: "compute", Payload: &lineshaftv1.Payload{
			Kind: &lineshaftv1.Payload_Data{Data: []byte("1")},
		}})
	}
	tasks := lineshaftv1.NewTaskServiceClient(client.Connection())
	return must[*lineshaftv1.BatchSubmitTasksResponse](t)(tasks.BatchSubmitTasks(ctx, request)).ResumeToken
}

func TestTheWatchOfATaskHasAllItsEvents(t *testing.T) {
	client, ctx := startServer(t, defaultConfig).client(), testContext(t)
	task := must[*lineshaft.Task](t)(client.Submit(ctx, "compute", 1))
	must[*lineshaft.TaskInfo](t)(task.Wait(ctx))
	var states []lineshaft.State
	for event, err := range task.Watch(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		states = append(states, event.State)
	}
	if want := []lineshaft.State{lineshaft.Queued, lineshaft.Running, lineshaft.Completed}; !slices.Equal(states, want) {
		t.Errorf("the states are %v", states)
	}
	for event, err := range client.Task(task.ID()).Watch(ctx) {
		t.Errorf("the watch of a finished task returned %v, %v", event, err)
	}
	for _, err := range client.Task("nosuch").Watch(ctx) {
		if status.Code(err) != codes.NotFound {
			t.Errorf("the watch of an unknown task returned %v", err)
		}
	}
}

func TestNothingIsLostOrRepeatedWhenTheServerIsKilled(t *testing.T) {
	server := startServer(t, defaultConfig)
	proxy := startProxy(t, server.address)
	client, ctx := newClient(t, proxy.address), testContext(t)
	const callers, each = 50, 20
	var done, all sync.WaitGroup
	ids := make(chan string, callers*each)
	half := make(chan struct{})
	done.Add(callers * each / 2)
	go func() { done.Wait(); close(half) }()
	var count atomic.Int32
	for range callers {
		all.Go(func() {
			for n := range each {
				task, err := client.Submit(ctx, "compute", n)
				if err != nil {
					t.Error(err)
					return
				}
				ids <- task.ID()
				if result, err := lineshaft.ResultOf[sum](ctx, task); err != nil || n > 0 && result.Value != uint64(n*(n-1)/2) {
					t.Errorf("the sum below %d is %v, %v", n, result, err)
				}
				if count.Add(1) <= callers*each/2 {
					done.Done()
				}
			}
		})
	}
	<-half
	proxy.cut()
	server.kill()
	server.start()
	all.Wait()
	close(ids)
	seen := map[string]bool{}
	for id := range ids {
		seen[id] = true
	}
	listed := 0
	for _, err := range client.List(ctx, nil) {
		if err != nil {
			t.Fatal(err)
		}
		listed++
	}
	if len(seen) != callers*each || listed != len(seen) {
		t.Errorf("%d tasks were submitted, the server has %d, of %d callers and %d each", len(seen), listed, callers, each)
	}
}

func TestTLSAndTokens(t *testing.T) {
	keys := makeKeys(t)
	server := startServer(t, fmt.Sprintf(`
[tls]
certificate = "%[1]s/server.pem"
key = "%[1]s/server.key"

[auth]
tokens_file = "%[1]s/tokens.toml"
`, keys.dir))
	ctx := testContext(t)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(must[[]byte](t)(os.ReadFile(filepath.Join(keys.dir, "server.pem"))))
	secure := lineshaft.WithTLS(&tls.Config{RootCAs: roots})
	if result := must[sum](t)(lineshaft.Call[sum](ctx, server.client(secure, lineshaft.WithToken(keys.token)), "compute", 100)); result.Value != 4950 {
		t.Errorf("result is %v", result)
	}
	var known *lineshaft.Error
	if _, err := server.client(secure, lineshaft.WithToken("wrong")).Submit(ctx, "compute", 1); !errors.As(err, &known) || known.Reason != lineshaft.ReasonUnauthenticated {
		t.Errorf("a wrong token returned %v", err)
	}
	t.Setenv("LINESHAFT_TOKEN", keys.token)
	t.Setenv("LINESHAFT_TLS_CA", filepath.Join(keys.dir, "server.pem"))
	t.Setenv("LINESHAFT_SERVER", "https://"+server.address)
	if result := must[sum](t)(lineshaft.Call[sum](ctx, newClient(t, ""), "compute", 100)); result.Value != 4950 {
		t.Errorf("result is %v", result)
	}
	if _, err := lineshaft.NewClient("http://example.com:7070"); err == nil || !strings.Contains(err.Error(), "only over TLS") {
		t.Errorf("a token without TLS returned %v", err)
	}
}

type keys struct{ dir, token string }

// makeKeys writes a certificate of this machine and the file of a token.
func makeKeys(t *testing.T) keys {
	t.Helper()
	dir := t.TempDir()
	key := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	certificate := must[[]byte](t)(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))
	private := must[[]byte](t)(x509.MarshalPKCS8PrivateKey(key))
	for name, block := range map[string]*pem.Block{
		"server.pem": {Type: "CERTIFICATE", Bytes: certificate}, "server.key": {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	create := exec.Command(os.Getenv("LINESHAFT_BINARY"), "token", "create", "test", "--role", "submitter", "--namespace", "default", "--file", "tokens.toml")
	create.Dir = dir
	token := must[[]byte](t)(create.Output())
	return keys{dir, strings.TrimSpace(string(token))}
}
