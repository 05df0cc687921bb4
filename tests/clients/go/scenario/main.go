// What a Go client must be able to do; run by tests/clients/run.sh.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	v1 "example.com/my-client/gen/lineshaft/v1"
	"example.com/my-client/lineshaft"
)

type scenario struct {
	tasks v1.TaskServiceClient
	pools v1.PoolServiceClient

	serviceConfig string
}

// seen is the part of an event that must be equal in two watches.
type seen struct {
	revision uint64
	task     string
	state    v1.TaskState
}

func main() {
	serviceConfig, err := os.ReadFile("service-config.json")
	must(err)
	channel, err := lineshaft.Connect(os.Getenv("LINESHAFT_PROXY"), string(serviceConfig), insecure.NewCredentials())
	must(err)
	defer channel.Close()
	ctx, cancel := within(10 * time.Second)
	serving, err := healthv1.NewHealthClient(channel).Check(ctx, &healthv1.HealthCheckRequest{})
	cancel()
	must(err)
	check(serving.Status == healthv1.HealthCheckResponse_SERVING, serving)
	s := scenario{v1.NewTaskServiceClient(channel), v1.NewPoolServiceClient(channel), string(serviceConfig)}
	for _, check := range []struct {
		name string
		run  func(context.Context)
	}{
		{"submit", s.submit}, {"batch", s.batch}, {"stream", s.stream}, {"watch", s.resumedWatch},
		{"cancel", s.cancel}, {"errors", s.errors}, {"deadline", s.deadline}, {"metrics", s.metrics},
		{"retry", s.retry}, {"spread", s.spread}, {"tls", s.tls},
	} {
		ctx, cancel := within(40 * time.Second)
		check.run(ctx)
		cancel()
		fmt.Println("ok", check.name)
	}
}

func (s scenario) submit(ctx context.Context) {
	request := &v1.SubmitTaskRequest{
		Handler: "compute", Payload: payload(100), RequestId: "go-submit", Priority: v1.Priority_PRIORITY_HIGH,
		Labels: map[string]string{"from": "go"},
	}
	first, err := s.tasks.SubmitTask(ctx, request)
	must(err)
	check(first.TaskId != "" && !first.Duplicate && first.Durability == v1.Durability_DURABILITY_FSYNC, first)
	done, err := s.tasks.WaitTask(ctx, &v1.WaitTaskRequest{TaskId: first.TaskId})
	must(err)
	check(done.Finished && done.Task.State == v1.TaskState_TASK_STATE_COMPLETED, done)
	var result struct{ Value int }
	must(json.Unmarshal(done.Task.Result.GetData(), &result))
	check(result.Value == 4950, done)
	again, err := s.tasks.SubmitTask(ctx, request)
	must(err)
	check(again.Duplicate && again.TaskId == first.TaskId, again)
	got, err := s.tasks.GetTask(ctx, &v1.GetTaskRequest{TaskId: first.TaskId, IncludePayload: true})
	must(err)
	check(string(got.Task.Payload.GetData()) == "100" && got.Task.Labels["from"] == "go", got)
	check(!got.Task.FinishedAt.AsTime().Before(got.Task.SubmittedAt.AsTime()), got)
}

func (s scenario) batch(ctx context.Context) {
	accepted, err := s.tasks.BatchSubmitTasks(ctx, &v1.BatchSubmitTasksRequest{Tasks: naps(20, 0)})
	must(err)
	check(len(accepted.TaskIds) == 20, accepted)
	var listed []string
	list := &v1.ListTasksRequest{Filter: &v1.TaskFilter{BatchId: accepted.BatchId}, PageSize: 7}
	for {
		page, err := s.tasks.ListTasks(ctx, list)
		must(err)
		for _, task := range page.Tasks {
			listed = append(listed, task.TaskId)
		}
		if list.PageToken = page.NextPageToken; list.PageToken == "" {
			break
		}
	}
	slices.Reverse(listed)
	check(slices.Equal(listed, accepted.TaskIds), listed)
}

func (s scenario) stream(ctx context.Context) {
	stream, err := s.tasks.SubmitTasks(ctx)
	must(err)
	for sequence := range uint64(50) {
		task := nap(0)
		if sequence == 7 {
			task.Labels = map[string]string{"": "x"}
		}
		must(stream.Send(&v1.SubmitTasksRequest{Sequence: sequence, Task: task}))
	}
	must(stream.CloseSend())
	responses := map[uint64]*v1.SubmitTasksResponse{}
	for len(responses) < 50 {
		response, err := stream.Recv()
		must(err)
		responses[response.Sequence] = response
	}
	rejected := responses[7].GetRejected()
	check(rejected.GetReason() == "INVALID_FIELD" && rejected.Field == `task.labels[""]`, responses[7])
	check(codes.Code(rejected.Code) == codes.InvalidArgument, rejected)
	delete(responses, 7)
	for _, response := range responses {
		check(response.GetAccepted().GetTaskId() != "", response)
	}
}

func (s scenario) resumedWatch(ctx context.Context) {
	accepted, err := s.tasks.BatchSubmitTasks(ctx, &v1.BatchSubmitTasksRequest{Tasks: naps(40, 0.05)})
	must(err)
	filter := &v1.TaskFilter{BatchId: accepted.BatchId}
	var events, replayed []seen
	states, completed := map[string]v1.TaskState{}, 0
	must(lineshaft.Watch(ctx, s.tasks, filter, accepted.ResumeToken, func(event *v1.TaskEvent) bool {
		check(event.PreviousState == states[event.TaskId], event)
		check(len(events) == 0 || events[len(events)-1].revision < event.Revision, event)
		states[event.TaskId] = event.State
		events = append(events, seen{event.Revision, event.TaskId, event.State})
		switch len(events) {
		case 15:
			control("cut")
		case 60:
			control("crash")
		}
		if event.State == v1.TaskState_TASK_STATE_COMPLETED {
			completed++
		}
		return completed < 40
	}))
	must(lineshaft.Watch(ctx, s.tasks, filter, accepted.ResumeToken, func(event *v1.TaskEvent) bool {
		replayed = append(replayed, seen{event.Revision, event.TaskId, event.State})
		return event.Revision < events[len(events)-1].revision
	}))
	check(slices.Equal(events, replayed), "events were lost or repeated")
}

func (s scenario) cancel(ctx context.Context) {
	accepted, err := s.tasks.SubmitTask(ctx, nap(60))
	must(err)
	var end *v1.TaskEvent
	filter := &v1.TaskFilter{TaskIds: []string{accepted.TaskId}}
	must(lineshaft.Watch(ctx, s.tasks, filter, accepted.ResumeToken, func(event *v1.TaskEvent) bool {
		if event.State == v1.TaskState_TASK_STATE_RUNNING && event.Cancel == nil {
			response, err := s.tasks.CancelTask(ctx, &v1.CancelTaskRequest{TaskId: event.TaskId, Reason: "not needed"})
			must(err)
			check(response.State == v1.TaskState_TASK_STATE_RUNNING, response)
		}
		end = event
		return event.State <= v1.TaskState_TASK_STATE_RUNNING
	}))
	check(end.State == v1.TaskState_TASK_STATE_CANCELLED && end.Cancel.Reason == "not needed", end)
	check(end.Cancel.Method == v1.StopMethod_STOP_METHOD_TOKEN && end.Cancel.StoppedAt.IsValid(), end)
}

func (s scenario) errors(ctx context.Context) {
	_, err := s.tasks.SubmitTask(ctx, &v1.SubmitTaskRequest{Handler: "nosuch"})
	check(status.Code(err) == codes.NotFound, err)
	info := detail[*errdetails.ErrorInfo](err)
	check(info.Reason == "UNKNOWN_HANDLER" && info.Domain == "lineshaft.dev", info)
	check(info.Metadata["handler"] == "nosuch", info)
	check(detail[*errdetails.ResourceInfo](err).ResourceType == "handler", err)
	bad := naps(2, 0)
	bad[1].DisplayName = string(make([]byte, 200))
	_, err = s.tasks.BatchSubmitTasks(ctx, &v1.BatchSubmitTasksRequest{Tasks: bad})
	check(status.Code(err) == codes.InvalidArgument, err)
	check(detail[*errdetails.ErrorInfo](err).Reason == "INVALID_FIELD", err)
	check(detail[*errdetails.BadRequest](err).FieldViolations[0].Field == "tasks[1].display_name", err)
}

func (s scenario) deadline(ctx context.Context) {
	accepted, err := s.tasks.SubmitTask(ctx, nap(60))
	must(err)
	begin := time.Now()
	short, cancel := within(300 * time.Millisecond)
	defer cancel()
	_, err = s.tasks.WaitTask(short, &v1.WaitTaskRequest{TaskId: accepted.TaskId})
	check(status.Code(err) == codes.DeadlineExceeded, err)
	short, cancel = within(300 * time.Millisecond)
	defer cancel()
	steps, err := s.tasks.WatchTasks(short, &v1.WatchTasksRequest{})
	for err == nil {
		_, err = steps.Recv()
	}
	check(status.Code(err) == codes.DeadlineExceeded, err)
	check(time.Since(begin) < 5*time.Second, time.Since(begin))
	// The deadline ended the call, not the task.
	got, err := s.tasks.GetTask(ctx, &v1.GetTaskRequest{TaskId: accepted.TaskId})
	must(err)
	check(got.Task.State <= v1.TaskState_TASK_STATE_RUNNING, got)
	_, err = s.tasks.CancelTask(ctx, &v1.CancelTaskRequest{TaskId: accepted.TaskId})
	must(err)
}

func (s scenario) metrics(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := s.pools.StreamPoolMetrics(ctx, &v1.StreamPoolMetricsRequest{
		Pools: []string{"default"}, Interval: durationpb.New(100 * time.Millisecond), IncludeWorkers: true,
	})
	must(err)
	reading, err := stream.Recv()
	must(err)
	first := reading.Pools[0]
	check(first.Pool == "default" && first.Size == 4 && len(first.Workers) == 4, first)
	_, err = s.tasks.SubmitTask(ctx, nap(0))
	must(err)
	for range 4 {
		reading, err = stream.Recv()
		must(err)
	}
	last := reading.Pools[0]
	check(last.Submitted > first.Submitted && last.Time.AsTime().After(first.Time.AsTime()), last)
	check(reading.System.Cores > 0, reading.System)
}

func (s scenario) retry(ctx context.Context) {
	// The server is down during this call; the service config of the channel waits and retries.
	control("crash")
	request := nap(0)
	request.RequestId = "go-retry"
	first, err := s.tasks.SubmitTask(ctx, request)
	must(err)
	check(!first.Duplicate, first)
	again, err := s.tasks.SubmitTask(ctx, request)
	must(err)
	check(again.Duplicate, again)
}

// spread calls two servers behind one name: both get calls, when one drains no call fails, and a call that one
// refuses with UNAVAILABLE is retried on the other.
func (s scenario) spread(ctx context.Context) {
	addresses := strings.Split(os.Getenv("LINESHAFT_TWINS"), ",")
	both := s.twins(addresses)
	answered := map[string]int{}
	for len(answered) < 2 {
		answered[instance(ctx, both)]++
	}
	clear(answered)
	for range 20 {
		answered[instance(ctx, both)]++
	}
	for _, calls := range answered {
		check(calls >= 8, answered)
	}
	// A channel to the first server without health checks.
	first := s.twins(addresses[:1], grpc.WithDisableHealthCheck())
	leaving := instance(ctx, first)
	long, err := v1.NewTaskServiceClient(first).SubmitTask(ctx, nap(60))
	must(err)
	for state := v1.TaskState_TASK_STATE_QUEUED; state != v1.TaskState_TASK_STATE_RUNNING; {
		got, err := v1.NewTaskServiceClient(first).GetTask(ctx, &v1.GetTaskRequest{TaskId: long.TaskId})
		must(err)
		state = got.Task.State
	}
	stop, stopped := make(chan struct{}), make(chan int)
	go func() {
		calls := 0
		for {
			select {
			case <-stop:
				stopped <- calls
				return
			default:
				submitOnce(ctx, both, fmt.Sprint("go-spread-", calls))
				calls++
			}
		}
	}()
	// The running task delays the end of the server, and its health service reports NOT_SERVING.
	_, err = v1.NewSystemServiceClient(first).Drain(ctx, &v1.DrainRequest{Limit: durationpb.New(time.Minute)})
	must(err)
	for others := 0; others < 20; others++ {
		if instance(ctx, both) == leaving {
			others = 0
		}
	}
	close(stop)
	check(<-stopped > 0, "no call was made during the drain")
	health, err := healthv1.NewHealthClient(first).Check(ctx, &healthv1.HealthCheckRequest{})
	must(err)
	check(health.Status == healthv1.HealthCheckResponse_NOT_SERVING, health)
	// Without health checks the call is refused.
	hasty, met := s.twins(addresses, grpc.WithDisableHealthCheck(), grpc.WithDisableRetry()), 0
	for met == 0 {
		_, err := v1.NewTaskServiceClient(hasty).SubmitTask(ctx, nap(0))
		if err != nil {
			check(status.Code(err) == codes.Unavailable && detail[*errdetails.ErrorInfo](err).Reason == "DRAINING", err)
			met++
		}
	}
	repeating := s.twins(addresses, grpc.WithDisableHealthCheck())
	for len(answered) > 0 { // until both have responded
		delete(answered, instance(ctx, repeating))
	}
	for call := range 4 {
		submitOnce(ctx, repeating, fmt.Sprint("go-repeated-", call))
	}
	_, err = v1.NewTaskServiceClient(first).CancelTask(ctx, &v1.CancelTaskRequest{TaskId: long.TaskId})
	must(err)
}

// twins makes a channel to several servers of one name, as a resolver such as dns:/// returns them.
func (s scenario) twins(addresses []string, more ...grpc.DialOption) *grpc.ClientConn {
	found := manual.NewBuilderWithScheme("twins")
	state := resolver.State{}
	for _, address := range addresses {
		state.Addresses = append(state.Addresses, resolver.Address{Addr: address})
	}
	found.InitialState(state)
	more = append(more, grpc.WithResolvers(found))
	channel, err := lineshaft.Connect("twins:///lineshaft", s.serviceConfig, insecure.NewCredentials(), more...)
	must(err)
	return channel
}

// instance returns the instance id of a server.
func instance(ctx context.Context, channel *grpc.ClientConn) string {
	info, err := v1.NewSystemServiceClient(channel).GetServerInfo(ctx, &v1.GetServerInfoRequest{})
	must(err)
	return info.InstanceId
}

func submitOnce(ctx context.Context, channel *grpc.ClientConn, requestID string) {
	request := nap(0)
	request.RequestId = requestID
	_, err := v1.NewTaskServiceClient(channel).SubmitTask(ctx, request)
	must(err)
}

func (s scenario) tls(ctx context.Context) {
	submitter := s.private(grpc.WithPerRPCCredentials(lineshaft.Token(os.Getenv("LINESHAFT_SUBMITTER"))))
	accepted, err := submitter.SubmitTask(ctx, nap(0))
	must(err)
	done, err := submitter.WaitTask(ctx, &v1.WaitTaskRequest{TaskId: accepted.TaskId})
	must(err)
	check(done.Task.State == v1.TaskState_TASK_STATE_COMPLETED, done)
	check(strings.Contains(done.Task.SubmittedBy, "submitter"), done)
	viewer := s.private(grpc.WithPerRPCCredentials(lineshaft.Token(os.Getenv("LINESHAFT_VIEWER"))))
	_, err = viewer.SubmitTask(ctx, nap(0))
	check(status.Code(err) == codes.PermissionDenied, err)
	info := detail[*errdetails.ErrorInfo](err)
	check(info.Reason == "PERMISSION_DENIED" && info.Metadata["role"] == "submitter", info)
	_, err = s.private().SubmitTask(ctx, nap(0))
	check(status.Code(err) == codes.Unauthenticated, err)
	check(detail[*errdetails.ErrorInfo](err).Reason == "UNAUTHENTICATED", err)
}

// private makes a client of the server that requires TLS and tokens.
func (s scenario) private(more ...grpc.DialOption) v1.TaskServiceClient {
	trusted, err := credentials.NewClientTLSFromFile(os.Getenv("LINESHAFT_CA"), "")
	must(err)
	channel, err := lineshaft.Connect(os.Getenv("LINESHAFT_SECURE"), s.serviceConfig, trusted, more...)
	must(err)
	return v1.NewTaskServiceClient(channel)
}

// detail finds the details of one type in an error.
func detail[T any](err error) T {
	for _, detail := range status.Convert(err).Details() {
		if found, ok := detail.(T); ok {
			return found
		}
	}
	log.Panicf("no %T in %v", *new(T), err)
	return *new(T)
}

// control asks the harness to break a connection or the server; returns when this is done.
func control(word string) {
	end, err := net.Dial("tcp", os.Getenv("LINESHAFT_CONTROL"))
	must(err)
	defer end.Close()
	_, err = fmt.Fprintln(end, word)
	must(err)
	response, err := bufio.NewReader(end).ReadString('\n')
	must(err)
	check(response == "done\n", response)
}

func payload(value any) *v1.Payload {
	data, err := json.Marshal(value)
	must(err)
	return &v1.Payload{Kind: &v1.Payload_Data{Data: data}, ContentType: "application/json"}
}

func nap(seconds float64) *v1.SubmitTaskRequest {
	return &v1.SubmitTaskRequest{Handler: "io", Payload: payload(seconds)}
}

func naps(count int, seconds float64) []*v1.SubmitTaskRequest {
	tasks := make([]*v1.SubmitTaskRequest, count)
	for i := range tasks {
		tasks[i] = nap(seconds)
	}
	return tasks
}

func within(time time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), time)
}

func must(err error) {
	if err != nil {
		log.Panic(err)
	}
}

func check(holds bool, what any) {
	if !holds {
		log.Panicf("not as it should be: %v", what)
	}
}
