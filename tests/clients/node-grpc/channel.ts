// Options of a channel for programs that stay: all servers, retries.
import { readFileSync } from "node:fs";
import { type ClientOptions, InterceptingCall, type Interceptor } from "@grpc/grpc-js";

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
