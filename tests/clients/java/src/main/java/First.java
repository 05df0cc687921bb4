import com.google.protobuf.ByteString;
import dev.lineshaft.v1.Payload;
import dev.lineshaft.v1.RunTaskRequest;
import dev.lineshaft.v1.SubmitTaskRequest;
import dev.lineshaft.v1.TaskServiceGrpc;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import java.util.UUID;
import java.util.concurrent.TimeUnit;

/** Submits one task, follows it to the end, and prints its result. */
public class First {
  public static void main(String[] args) {
    var address = System.getenv().getOrDefault("LINESHAFT_SERVER", "127.0.0.1:7070");
    var channel = Grpc.newChannelBuilder(address, InsecureChannelCredentials.create()).build();
    var tasks = TaskServiceGrpc.newBlockingStub(channel);
    var payload =
        Payload.newBuilder()
            .setData(ByteString.copyFromUtf8("{\"op\": \"primes\", \"n\": 5000000}"))
            .setContentType("application/json");
    // The request id makes a retry safe: it returns the first task.
    var task =
        SubmitTaskRequest.newBuilder()
            .setHandler("compute")
            .setPayload(payload)
            .setRequestId(UUID.randomUUID().toString());
    var steps =
        tasks
            .withDeadlineAfter(60, TimeUnit.SECONDS)
            .runTask(RunTaskRequest.newBuilder().setTask(task).build());
    steps.forEachRemaining(
        step -> {
          if (step.hasEvent()) {
            System.out.println(step.getEvent().getState());
          } else if (step.hasTask()) {
            System.out.println(step.getTask().getResult().getData().toStringUtf8());
          }
        });
    channel.shutdown();
  }
}
