// The one stream of this tab: the metrics of all pools, once a second. It reconnects, and pauses while the tab is hidden,
// because a browser opens only six connections to a server for all of its tabs.
import { computed, effect, signal } from "@preact/signals";
import type { Percentiles, PoolMetrics } from "../gen/lineshaft/v1/pool_service_pb";
import type { SystemHealth } from "../gen/lineshaft/v1/system_service_pb";
import { errorText, pools as poolService, system } from "./client";
import { duration } from "./convert";
import { History } from "./history";
import { info } from "./info";
import { busyHistory } from "./workers";
import { loginRequired } from "./session";
import { seesPools } from "./permissions";

export type Connection = "connecting" | "live" | "reconnecting" | "paused" | "off";

export const connection = signal<Connection>("connecting");
export const lastError = signal("");
/** The newest message. */
export const pools = signal<PoolMetrics[]>([]);
export const machine = signal<SystemHealth | undefined>(undefined);
/** How long the last commits took. */
export const commitTime = signal<Percentiles | undefined>(undefined);
export const history = new History();
/** Changes with every message; read it to render again when `history` has changed. */
export const tick = signal(0);
/** Whether the messages contain the workers. */
export const wantsWorkers = signal(false);

const SILENCE = 5_000;
const isVisible = signal(!document.hidden);
document.addEventListener("visibilitychange", () => (isVisible.value = !document.hidden));

async function follow(includeWorkers: boolean, ended: AbortSignal) {
  let delay = 250;
  while (!ended.aborted) {
    const attempt = new AbortController();
    const abort = () => attempt.abort();
    ended.addEventListener("abort", abort);
    let watchdog = setTimeout(abort, SILENCE);
    try {
      // First, because it says whether the caller may have the stream; if not, the effect below ends this attempt. Its errors say
      // more than those of a stream, which can be a status of HTTP only.
      info.value = await system.getServerInfo({}, { signal: attempt.signal });
      if (ended.aborted) return;
      const request = { interval: duration(1), includeWorkers };
      for await (const message of poolService.streamPoolMetrics(request, { signal: attempt.signal })) {
        clearTimeout(watchdog);
        watchdog = setTimeout(abort, SILENCE);
        delay = 250;
        history.add(message.pools);
        if (includeWorkers) busyHistory.add(message.pools);
        pools.value = message.pools;
        machine.value = message.system;
        commitTime.value = message.commitTime;
        connection.value = "live";
        lastError.value = "";
        tick.value++;
      }
    } catch (error) {
      // Without a token or a permission, the effect below has ended it.
      if (ended.aborted) return;
      lastError.value = errorText(error);
    } finally {
      clearTimeout(watchdog);
      ended.removeEventListener("abort", abort);
    }
    if (ended.aborted) return;
    connection.value = "reconnecting";
    await new Promise((resolve) => setTimeout(resolve, delay * (0.75 + Math.random() / 2)));
    delay = Math.min(delay * 2, 4_000);
  }
}

/** Whether there is something to follow. Until the server has said so, the attempt to connect asks it. */
const isWanted = computed(() => !loginRequired.value && (info.value === undefined || seesPools.value));

export function startLive() {
  effect(() => {
    if (!isWanted.value) {
      connection.value = "off";
      return;
    }
    if (!isVisible.value) {
      connection.value = "paused";
      return;
    }
    const includeWorkers = wantsWorkers.value;
    const end = new AbortController();
    if (connection.peek() !== "live") connection.value = "connecting";
    void follow(includeWorkers, end.signal);
    return () => end.abort();
  });
}
