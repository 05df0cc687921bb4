import dev.lineshaft.v1.TaskEvent;
import dev.lineshaft.v1.TaskFilter;
import dev.lineshaft.v1.TaskServiceGrpc.TaskServiceBlockingStub;
import dev.lineshaft.v1.WatchTasksRequest;
import io.grpc.Context;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.util.Set;
import java.util.function.Predicate;

/** A watch that reconnects: it resumes with the last token it received. */
final class Watch {
  private static final long PAUSE_MILLISECONDS = 200;
  // grpc-java reports UNKNOWN when a connection breaks at the start of a call.
  private static final Set<Status.Code> BROKEN =
      Set.of(Status.Code.UNAVAILABLE, Status.Code.UNKNOWN);

  private final TaskServiceBlockingStub tasks;
  private final TaskFilter filter;
  private String resumeToken;

  Watch(TaskServiceBlockingStub tasks, TaskFilter filter, String resumeToken) {
    this.tasks = tasks;
    this.filter = filter;
    this.resumeToken = resumeToken;
  }

  /** Calls {@code goOn} with each matching event once and in order, until it returns false. */
  void run(Predicate<TaskEvent> goOn) throws Exception {
    while (true) {
      try (var call = Context.current().withCancellation()) {
        if (call.call(() -> follow(goOn))) {
          return;
        }
      } catch (StatusRuntimeException error) {
        // OUT_OF_RANGE: the events are no longer stored; start again with include_snapshot.
        if (!BROKEN.contains(error.getStatus().getCode())) {
          throw error;
        }
      }
      Thread.sleep(PAUSE_MILLISECONDS);
    }
  }

  private boolean follow(Predicate<TaskEvent> goOn) {
    var request = WatchTasksRequest.newBuilder().setFilter(filter).setResumeToken(resumeToken);
    var steps = tasks.withWaitForReady().watchTasks(request.build());
    while (steps.hasNext()) {
      var step = steps.next();
      if (step.hasEvent()) {
        resumeToken = step.getEvent().getResumeToken();
        if (!goOn.test(step.getEvent())) {
          return true;
        }
      } else if (step.hasProgress()) {
        resumeToken = step.getProgress().getResumeToken();
      }
    }
    return false;
  }
}
