import com.google.protobuf.ByteString;
import com.google.protobuf.Message;
import com.google.protobuf.util.Durations;
import com.google.protobuf.util.Timestamps;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.ResourceInfo;
import dev.lineshaft.v1.BatchSubmitTasksRequest;
import dev.lineshaft.v1.CancelTaskRequest;
import dev.lineshaft.v1.Durability;
import dev.lineshaft.v1.GetTaskRequest;
import dev.lineshaft.v1.ListTasksRequest;
import dev.lineshaft.v1.Payload;
import dev.lineshaft.v1.PoolServiceGrpc;
import dev.lineshaft.v1.Priority;
import dev.lineshaft.v1.StopMethod;
import dev.lineshaft.v1.StreamPoolMetricsRequest;
import dev.lineshaft.v1.SubmitTaskRequest;
import dev.lineshaft.v1.SubmitTasksRequest;
import dev.lineshaft.v1.SubmitTasksResponse;
import dev.lineshaft.v1.TaskEvent;
import dev.lineshaft.v1.TaskFilter;
import dev.lineshaft.v1.TaskServiceGrpc;
import dev.lineshaft.v1.TaskState;
import dev.lineshaft.v1.WaitTaskRequest;
import dev.lineshaft.v1.WatchTasksRequest;
import io.grpc.Channel;
import io.grpc.ClientInterceptor;
import io.grpc.Context;
import io.grpc.InsecureChannelCredentials;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.TlsChannelCredentials;
import io.grpc.health.v1.HealthCheckRequest;
import io.grpc.health.v1.HealthCheckResponse.ServingStatus;
import io.grpc.health.v1.HealthGrpc;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.StreamObserver;
import java.io.BufferedReader;
import java.io.File;
import java.io.InputStreamReader;
import java.net.Socket;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;

/** What a Java client must be able to do; run by tests/clients/run.sh. */
public class Scenario {
  /** The part of an event that must be equal in two watches. */
  private record EventKey(long revision, String task, TaskState state) {}

  private interface Check {
    void run() throws Exception;
  }

  private static final Path SERVICE_CONFIG = Path.of("service-config.json");

  private final Channel channel;
  private int events;
  private int completed;

  private Scenario(Channel channel) {
    this.channel = channel;
  }

  public static void main(String[] args) throws Exception {
    var channel =
        Lineshaft.connect(
            System.getenv("LINESHAFT_PROXY"), InsecureChannelCredentials.create(), SERVICE_CONFIG);
    var health = HealthGrpc.newBlockingStub(channel).check(HealthCheckRequest.getDefaultInstance());
    check(health.getStatus() == ServingStatus.SERVING, health);
    var scenario = new Scenario(channel);
    check("submit", scenario::submit);
    check("batch", scenario::batch);
    check("stream", scenario::stream);
    check("watch", scenario::watch);
    check("cancel", scenario::cancel);
    check("errors", scenario::errors);
    check("deadline", scenario::deadline);
    check("metrics", scenario::metrics);
    check("retry", scenario::retry);
    check("tls", Scenario::tls);
    channel.shutdownNow();
  }

  private static void check(String name, Check check) throws Exception {
    check.run();
    System.out.println("ok " + name);
  }

  private TaskServiceGrpc.TaskServiceBlockingStub tasks() {
    return TaskServiceGrpc.newBlockingStub(channel).withDeadlineAfter(40, TimeUnit.SECONDS);
  }

  private void submit() {
    var request =
        SubmitTaskRequest.newBuilder()
            .setHandler("compute")
            .setPayload(payload("100"))
            .setRequestId("java-submit")
            .setPriority(Priority.PRIORITY_HIGH)
            .putLabels("from", "java")
            .build();
    var first = tasks().submitTask(request);
    check(!first.getTaskId().isEmpty() && !first.getDuplicate(), first);
    check(first.getDurability() == Durability.DURABILITY_FSYNC, first);
    var done = tasks().waitTask(WaitTaskRequest.newBuilder().setTaskId(first.getTaskId()).build());
    check(done.getFinished() && done.getTask().getState() == TaskState.TASK_STATE_COMPLETED, done);
    check(done.getTask().getResult().getData().toStringUtf8().contains("\"value\":4950"), done);
    var again = tasks().submitTask(request);
    check(again.getDuplicate() && again.getTaskId().equals(first.getTaskId()), again);
    var get = GetTaskRequest.newBuilder().setTaskId(first.getTaskId()).setIncludePayload(true);
    var task = tasks().getTask(get.build()).getTask();
    check(task.getPayload().getData().toStringUtf8().equals("100"), task);
    check(task.getLabelsOrThrow("from").equals("java"), task);
    check(Timestamps.compare(task.getSubmittedAt(), task.getFinishedAt()) <= 0, task);
  }

  private void batch() {
    var accepted = tasks().batchSubmitTasks(naps(20, "0"));
    var listed = new ArrayList<String>();
    var list =
        ListTasksRequest.newBuilder()
            .setFilter(TaskFilter.newBuilder().setBatchId(accepted.getBatchId()))
            .setPageSize(7);
    do {
      var page = tasks().listTasks(list.build());
      page.getTasksList().forEach(task -> listed.add(task.getTaskId()));
      list.setPageToken(page.getNextPageToken());
    } while (!list.getPageToken().isEmpty());
    Collections.reverse(listed);
    check(listed.size() == 20 && listed.equals(accepted.getTaskIdsList()), listed);
  }

  private void stream() throws InterruptedException {
    Map<Long, SubmitTasksResponse> responses = new ConcurrentHashMap<>();
    var ended = new CountDownLatch(1);
    var failures = Collections.synchronizedList(new ArrayList<Throwable>());
    var requests =
        TaskServiceGrpc.newStub(channel)
            .withDeadlineAfter(20, TimeUnit.SECONDS)
            .submitTasks(
                new StreamObserver<SubmitTasksResponse>() {
                  @Override
                  public void onNext(SubmitTasksResponse response) {
                    responses.put(response.getSequence(), response);
                  }

                  @Override
                  public void onError(Throwable error) {
                    failures.add(error);
                    ended.countDown();
                  }

                  @Override
                  public void onCompleted() {
                    ended.countDown();
                  }
                });
    for (long sequence = 0; sequence < 50; sequence++) {
      var task = nap("0");
      if (sequence == 7) {
        task.putLabels("", "x");
      }
      requests.onNext(
          SubmitTasksRequest.newBuilder().setSequence(sequence).setTask(task).build());
    }
    requests.onCompleted();
    check(ended.await(30, TimeUnit.SECONDS) && failures.isEmpty(), failures);
    check(responses.size() == 50, responses.keySet());
    var rejected = responses.remove(7L).getRejected();
    check(rejected.getReason().equals("INVALID_FIELD"), rejected);
    check(rejected.getField().equals("task.labels[\"\"]"), rejected);
    check(rejected.getCode() == Status.Code.INVALID_ARGUMENT.value(), rejected);
    responses.values().forEach(response -> check(response.hasAccepted(), response));
  }

  private void watch() throws Exception {
    var accepted = tasks().batchSubmitTasks(naps(40, "0.05"));
    var filter = TaskFilter.newBuilder().setBatchId(accepted.getBatchId()).build();
    var states = new HashMap<String, TaskState>();
    List<EventKey> seen = new ArrayList<>();
    new Watch(tasks(), filter, accepted.getResumeToken())
        .run(
            event -> {
              var last = states.put(event.getTaskId(), event.getState());
              check(
                  event.getPreviousState() == (last == null ? TaskState.TASK_STATE_UNSPECIFIED : last),
                  event);
              check(seen.isEmpty() || last(seen).revision < event.getRevision(), event);
              seen.add(new EventKey(event.getRevision(), event.getTaskId(), event.getState()));
              events++;
              if (events == 15) {
                control("cut");
              } else if (events == 60) {
                control("crash");
              }
              if (event.getState() == TaskState.TASK_STATE_COMPLETED) {
                completed++;
              }
              return completed < 40;
            });
    List<EventKey> replayed = new ArrayList<>();
    new Watch(tasks(), filter, accepted.getResumeToken())
        .run(
            event -> {
              replayed.add(new EventKey(event.getRevision(), event.getTaskId(), event.getState()));
              return event.getRevision() < last(seen).revision;
            });
    check(seen.equals(replayed), "events were lost or repeated");
  }

  private void cancel() throws Exception {
    var accepted = tasks().submitTask(nap("60").build());
    var filter = TaskFilter.newBuilder().addTaskIds(accepted.getTaskId()).build();
    var seen = new ArrayList<TaskEvent>();
    new Watch(tasks(), filter, accepted.getResumeToken())
        .run(
            event -> {
              seen.add(event);
              if (event.getState() == TaskState.TASK_STATE_RUNNING && !event.hasCancel()) {
                var cancel = CancelTaskRequest.newBuilder().setTaskId(event.getTaskId());
                var response = tasks().cancelTask(cancel.setReason("not needed").build());
                check(response.getState() == TaskState.TASK_STATE_RUNNING, response);
              }
              return event.getStateValue() <= TaskState.TASK_STATE_RUNNING_VALUE;
            });
    var end = last(seen);
    check(end.getState() == TaskState.TASK_STATE_CANCELLED, end);
    check(end.getCancel().getReason().equals("not needed") && end.getCancel().hasStoppedAt(), end);
    check(end.getCancel().getMethod() == StopMethod.STOP_METHOD_TOKEN, end);
  }

  private void errors() throws Exception {
    var error =
        refused(() -> tasks().submitTask(SubmitTaskRequest.newBuilder().setHandler("nosuch").build()));
    check(error.getStatus().getCode() == Status.Code.NOT_FOUND, error);
    var info = detail(error, ErrorInfo.class);
    check(info.getReason().equals("UNKNOWN_HANDLER"), info);
    check(info.getDomain().equals("lineshaft.dev"), info);
    check(info.getMetadataOrThrow("handler").equals("nosuch"), info);
    check(detail(error, ResourceInfo.class).getResourceType().equals("handler"), error);
    var bad = naps(1, "0").toBuilder().addTasks(nap("0").setDisplayName("x".repeat(200))).build();
    error = refused(() -> tasks().batchSubmitTasks(bad));
    check(error.getStatus().getCode() == Status.Code.INVALID_ARGUMENT, error);
    check(detail(error, ErrorInfo.class).getReason().equals("INVALID_FIELD"), error);
    var violation = detail(error, BadRequest.class).getFieldViolations(0);
    check(violation.getField().equals("tasks[1].display_name"), violation);
  }

  private void deadline() throws Exception {
    var id = tasks().submitTask(nap("60").build()).getTaskId();
    var begin = System.nanoTime();
    var wait = WaitTaskRequest.newBuilder().setTaskId(id).build();
    var error = refused(() -> tasks().withDeadlineAfter(300, TimeUnit.MILLISECONDS).waitTask(wait));
    check(error.getStatus().getCode() == Status.Code.DEADLINE_EXCEEDED, error);
    var steps =
        tasks()
            .withDeadlineAfter(300, TimeUnit.MILLISECONDS)
            .watchTasks(WatchTasksRequest.getDefaultInstance());
    error = refused(() -> steps.forEachRemaining(step -> {}));
    check(error.getStatus().getCode() == Status.Code.DEADLINE_EXCEEDED, error);
    check(System.nanoTime() - begin < TimeUnit.SECONDS.toNanos(5), "the deadlines came late");
    // The deadline ended the call, not the task.
    var task = tasks().getTask(GetTaskRequest.newBuilder().setTaskId(id).build()).getTask();
    check(task.getStateValue() <= TaskState.TASK_STATE_RUNNING_VALUE, task);
    tasks().cancelTask(CancelTaskRequest.newBuilder().setTaskId(id).build());
  }

  private void metrics() throws Exception {
    var request =
        StreamPoolMetricsRequest.newBuilder()
            .addPools("default")
            .setInterval(Durations.fromMillis(100))
            .setIncludeWorkers(true)
            .build();
    try (var call = Context.current().withCancellation()) {
      call.call(
          () -> {
            var readings = PoolServiceGrpc.newBlockingStub(channel).streamPoolMetrics(request);
            var first = readings.next().getPools(0);
            check(first.getPool().equals("default") && first.getSize() == 4, first);
            check(first.getWorkersCount() == 4, first);
            tasks().submitTask(nap("0").build());
            for (int skipped = 0; skipped < 3; skipped++) {
              readings.next();
            }
            var reading = readings.next();
            var last = reading.getPools(0);
            check(last.getSubmitted() > first.getSubmitted(), last);
            check(Timestamps.compare(first.getTime(), last.getTime()) < 0, last);
            check(reading.getSystem().getCores() > 0, reading.getSystem());
            return null;
          });
    }
  }

  private void retry() {
    // The server is down during this call; the service config of the channel waits and retries.
    control("crash");
    var request = nap("0").setRequestId("java-retry").build();
    var first = tasks().submitTask(request);
    check(!first.getDuplicate(), first);
    check(tasks().submitTask(request).getDuplicate(), first);
  }

  private static void tls() throws Exception {
    var submitter = secure(Lineshaft.token(System.getenv("LINESHAFT_SUBMITTER")));
    var id = submitter.submitTask(nap("0").build()).getTaskId();
    var done = submitter.waitTask(WaitTaskRequest.newBuilder().setTaskId(id).build()).getTask();
    check(done.getState() == TaskState.TASK_STATE_COMPLETED, done);
    check(done.getSubmittedBy().contains("submitter"), done);
    var viewer = secure(Lineshaft.token(System.getenv("LINESHAFT_VIEWER")));
    var error = refused(() -> viewer.submitTask(nap("0").build()));
    check(error.getStatus().getCode() == Status.Code.PERMISSION_DENIED, error);
    var info = detail(error, ErrorInfo.class);
    check(info.getReason().equals("PERMISSION_DENIED"), info);
    check(info.getMetadataOrThrow("role").equals("submitter"), info);
    var anonymous = secure();
    error = refused(() -> anonymous.submitTask(nap("0").build()));
    check(error.getStatus().getCode() == Status.Code.UNAUTHENTICATED, error);
    check(detail(error, ErrorInfo.class).getReason().equals("UNAUTHENTICATED"), error);
  }

  /** A client of the server that requires TLS and tokens. */
  private static TaskServiceGrpc.TaskServiceBlockingStub secure(ClientInterceptor... more)
      throws Exception {
    var ca = new File(System.getenv("LINESHAFT_CA"));
    var trusting = TlsChannelCredentials.newBuilder().trustManager(ca).build();
    var channel =
        Lineshaft.connect(System.getenv("LINESHAFT_SECURE"), trusting, SERVICE_CONFIG, more);
    return TaskServiceGrpc.newBlockingStub(channel).withDeadlineAfter(40, TimeUnit.SECONDS);
  }

  private static StatusRuntimeException refused(Check call) throws Exception {
    try {
      call.run();
    } catch (StatusRuntimeException error) {
      return error;
    }
    throw new AssertionError("the call should have been refused");
  }

  /** Finds the details of one type in an error. */
  private static <T extends Message> T detail(StatusRuntimeException error, Class<T> kind)
      throws Exception {
    for (var detail : StatusProto.fromThrowable(error).getDetailsList()) {
      if (detail.is(kind)) {
        return detail.unpack(kind);
      }
    }
    throw new AssertionError("no " + kind + " in " + error);
  }

  /** Asks the harness to break a connection or the server; returns when this is done. */
  private static void control(String word) {
    var place = System.getenv("LINESHAFT_CONTROL").split(":");
    try (var end = new Socket(place[0], Integer.parseInt(place[1]))) {
      end.getOutputStream().write((word + "\n").getBytes());
      var response = new BufferedReader(new InputStreamReader(end.getInputStream())).readLine();
      check("done".equals(response), response);
    } catch (java.io.IOException error) {
      throw new AssertionError(error);
    }
  }

  private static Payload payload(String json) {
    return Payload.newBuilder()
        .setData(ByteString.copyFromUtf8(json))
        .setContentType("application/json")
        .build();
  }

  private static SubmitTaskRequest.Builder nap(String seconds) {
    return SubmitTaskRequest.newBuilder().setHandler("io").setPayload(payload(seconds));
  }

  private static BatchSubmitTasksRequest naps(int count, String seconds) {
    return BatchSubmitTasksRequest.newBuilder()
        .addAllTasks(Collections.nCopies(count, nap(seconds).build()))
        .build();
  }

  private static <T> T last(List<T> list) {
    return list.get(list.size() - 1);
  }

  private static void check(boolean holds, Object what) {
    if (!holds) {
      throw new AssertionError("not as it should be: " + what);
    }
  }
}
