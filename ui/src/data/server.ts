// What the server says about itself, and its handlers. Read again after the server has restarted.
import { effect, signal } from "@preact/signals";
import type { Handler } from "../gen/lineshaft/v1/handler_service_pb";
import type { Pool } from "../gen/lineshaft/v1/pool_service_pb";
import type { GetServerInfoResponse } from "../gen/lineshaft/v1/system_service_pb";
import { handlers as handlerService, pools as poolService, system } from "./client";
import { connection } from "./live";
import { loginRequired } from "./session";

export const info = signal<GetServerInfoResponse | undefined>(undefined);
export const handlers = signal<Handler[]>([]);
export const poolSettings = signal<Pool[]>([]);

export async function readServer() {
  const settle = <T>(call: Promise<T>, use: (value: T) => void) => call.then(use, () => undefined);
  await Promise.all([
    settle(system.getServerInfo({}), (value) => (info.value = value)),
    settle(handlerService.listHandlers({}), (value) => (handlers.value = value.handlers)),
    settle(poolService.listPools({}), (value) => (poolSettings.value = value.pools)),
  ]);
}

effect(() => {
  const isConnected = connection.value === "live" || connection.value === "off";
  if (isConnected && !loginRequired.value) void readServer();
});
