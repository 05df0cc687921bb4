// Credentials and options of a channel for long-running programs: load balancing, retries, TLS and a token.
import { readFileSync } from "node:fs";
import {
  type ChannelCredentials,
  type ClientOptions,
  credentials,
  InterceptingCall,
  type Interceptor,
  Metadata,
} from "@grpc/grpc-js";

// grpc-js does not apply the `waitForReady` of a service config.
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

/** TLS credentials that trust the certificates in `ca` (PEM) and send the token with every call. */
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
