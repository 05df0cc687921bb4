import com.google.gson.Gson;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.concurrent.TimeUnit;

/** A channel for programs that stay: all servers, health checks, retries. */
final class Lineshaft {
  private Lineshaft() {}

  /** {@code dns:///lineshaft-headless:7070} finds all servers of that name. */
  static ManagedChannel connect(String address, Path serviceConfig) throws IOException {
    Map<String, ?> config = new Gson().fromJson(Files.readString(serviceConfig), Map.class);
    return Grpc.newChannelBuilder(address, InsecureChannelCredentials.create())
        .defaultServiceConfig(config)
        .keepAliveTime(60, TimeUnit.SECONDS)
        .build();
  }
}
