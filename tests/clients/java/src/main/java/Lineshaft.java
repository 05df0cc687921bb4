import com.google.gson.Gson;
import io.grpc.ChannelCredentials;
import io.grpc.ClientInterceptor;
import io.grpc.Grpc;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.stub.MetadataUtils;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.concurrent.TimeUnit;

/** A channel for long-running programs: load balancing, health checks, retries. */
final class Lineshaft {
  private Lineshaft() {}

  /**
   * {@code dns:///lineshaft-headless:7070} connects to all servers of this name. The credentials are {@code
   * InsecureChannelCredentials.create()}, or, with TLS, {@code
   * TlsChannelCredentials.newBuilder().trustManager(ca).build()}.
   */
  static ManagedChannel connect(
      String address, ChannelCredentials credentials, Path serviceConfig, ClientInterceptor... more)
      throws IOException {
    Map<String, ?> config = new Gson().fromJson(Files.readString(serviceConfig), Map.class);
    return Grpc.newChannelBuilder(address, credentials)
        .defaultServiceConfig(config)
        .keepAliveTime(60, TimeUnit.SECONDS)
        .intercept(more)
        .build();
  }

  /** Sends a token with every call. Use it only with TLS: otherwise anyone on the network path can read it. */
  static ClientInterceptor token(String token) {
    var headers = new Metadata();
    var authorization = Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);
    headers.put(authorization, "Bearer " + token);
    return MetadataUtils.newAttachHeadersInterceptor(headers);
  }
}
