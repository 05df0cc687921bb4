// Credentials and options of a channel for programs that stay: all servers, retries; private, with a token.
import { readFileSync } from "node:fs";
import {
  type ChannelCredentials,
  type ClientOptions,
  credentials,
  InterceptingCall,
  type Interceptor,
  Metadata,
} from "@grpc/grpc-js";

// grpc-js reads `waitForReady` of a service config but does not apply it.
const waitForReady: Interceptor = (options, next) =>
  new InterceptingCall(next(options), {
    start(metadata, listener, start) {
      metadata.setOptions({ ...metadata.getOptions(), waitForReady: true });
      start(metadata, listener);
    },
  });

export const channelOptions: ClientOptions = {
  "grpc.service_config": readFileSync("service-config.json", "utf8"),
  "grpc.max_reconnect_backoff_ms": 5_000,
  "grpc.keepalive_time_ms": 60_000,
  interceptors: [waitForReady],
};

/** TLS, trusting the certificates of a PEM text, with a token in every call. */
export function secure(ca: Buffer, token?: string): ChannelCredentials {
  const tls = credentials.createSsl(ca);
  if (!token) return tls;
  const bearer = credentials.createFromMetadataGenerator((_, done) => {
    const metadata = new Metadata();
    metadata.set("authorization", `Bearer ${token}`);
    done(null, metadata);
  });
  return credentials.combineChannelCredentials(tls, bearer);
}
