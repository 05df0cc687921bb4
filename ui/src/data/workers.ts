// Which workers were busy in the last minutes, for the heat map.
import type { PoolMetrics, Worker } from "../gen/lineshaft/v1/pool_service_pb";
import { seconds } from "./convert";

/** Seconds that are kept. */
export const WORKER_SECONDS = 120;
const WORKERS_MAX = 2_000;

/** Share of the second for which the worker was busy, 0 to 1; `null` if it is not known. */
export type Busy = number | null;

export class BusyHistory {
  private rows = new Map<string, { before: number | undefined; shares: Busy[]; seen: number }>();
  private count = 0;

  add(pools: PoolMetrics[]) {
    this.count++;
    for (const pool of pools) {
      for (const worker of pool.workers) this.addWorker(worker);
    }
    for (const [name, row] of this.rows) {
      if (row.seen !== this.count) {
        row.shares.push(null);
        row.before = undefined;
      }
      if (row.shares.length > WORKER_SECONDS) row.shares.shift();
      if (this.count - row.seen > WORKER_SECONDS) this.rows.delete(name);
    }
  }

  private addWorker(worker: Worker) {
    const name = `${worker.pool}/${worker.name}`;
    let row = this.rows.get(name);
    if (!row) {
      if (this.rows.size >= WORKERS_MAX) return;
      row = { before: undefined, shares: [], seen: 0 };
      this.rows.set(name, row);
    }
    row.seen = this.count;
    row.shares.push(busyShare(worker, row.before));
    row.before = seconds(worker.busyTime) ?? 0;
  }

  /** Oldest first, filled with `null` to the full length. */
  of(worker: Worker): Busy[] {
    const shares = this.rows.get(`${worker.pool}/${worker.name}`)?.shares ?? [];
    return [...new Array<Busy>(WORKER_SECONDS - shares.length).fill(null), ...shares];
  }
}

function busyShare(worker: Worker, before: number | undefined): Busy {
  if (worker.remote) return worker.remote.slots ? Math.min(1, worker.remote.running / worker.remote.slots) : 0;
  // The busy time includes that of the running attempt. The messages come once a second.
  return before === undefined ? null : Math.min(1, Math.max(0, (seconds(worker.busyTime) ?? 0) - before));
}

export const busyHistory = new BusyHistory();
