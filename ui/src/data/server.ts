// The handlers and pools of the server. Read again after the server has restarted.
import { effect, signal } from "@preact/signals";
import type { Handler } from "../gen/lineshaft/v1/handler_service_pb";
import type { Pool } from "../gen/lineshaft/v1/pool_service_pb";
import { handlers as handlerService, pools as poolService } from "./client";
import { connection } from "./live";
import { loginRequired } from "./session";

export const handlers = signal<Handler[]>([]);
export const poolSettings = signal<Pool[]>([]);

export async function readServer() {
  const settle = <T>(call: Promise<T>, use: (value: T) => void) => call.then(use, () => undefined);
  await Promise.all([
    settle(handlerService.listHandlers({}), (value) => (handlers.value = value.handlers)),
    settle(poolService.listPools({}), (value) => (poolSettings.value = value.pools)),
  ]);
}

effect(() => {
  const isConnected = connection.value === "live" || connection.value === "off";
  if (isConnected && !loginRequired.value) void readServer();
});
