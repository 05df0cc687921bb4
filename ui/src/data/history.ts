// The last minutes of the pools, from the messages of StreamPoolMetrics.
import { Priority } from "../gen/lineshaft/v1/task_pb";
import type { PoolMetrics, PoolSample } from "../gen/lineshaft/v1/pool_service_pb";
import { millis, seconds, slots } from "./convert";

/** Seconds that are kept. */
export const KEPT = 900;

/** Seconds between two samples, at least. */
const SHORTEST = 0.5;

/** One second of a pool, or of all pools together. Rates are per second; `null` right after a gap. */
export interface Sample {
  /** Seconds since 1970. */
  time: number;
  submitted: number | null;
  completed: number | null;
  failed: number | null;
  cancelled: number | null;
  /** QUEUED tasks: LOW, NORMAL, HIGH, CRITICAL. */
  depth: [number, number, number, number];
  waiting: number;
  running: number;
  busy: number;
  slots: number;
  oldestWait: number;
}

const PRIORITIES = [Priority.LOW, Priority.NORMAL, Priority.HIGH, Priority.CRITICAL];
const COUNTERS = ["submitted", "completed", "failed", "cancelled"] as const;

/** The sample of one pool; its rates are those since `before`. */
export function sample(metrics: PoolMetrics, before: PoolMetrics | undefined): Sample {
  const time = (millis(metrics.time) ?? 0) / 1000;
  const passed = before ? time - (millis(before.time) ?? 0) / 1000 : 0;
  // After a reset or a restart the counters begin again, and a long gap has no rate.
  const isNext = before && passed > 0 && passed < 5 && millis(before.countersSince) === millis(metrics.countersSince);
  const rate = (name: (typeof COUNTERS)[number]) => (isNext ? Math.max(0, Number(metrics[name] - before[name]) / passed) : null);
  const depth = PRIORITIES.map((priority) => Number(metrics.priorities.find((p) => p.priority === priority)?.queued ?? 0));
  return {
    time,
    submitted: rate("submitted"),
    completed: rate("completed"),
    failed: rate("failed"),
    cancelled: rate("cancelled"),
    depth: depth as Sample["depth"],
    waiting: Number(metrics.waiting),
    running: Number(metrics.running),
    busy: metrics.busy,
    slots: slots(metrics),
    oldestWait: seconds(metrics.oldestWait) ?? 0,
  };
}

/** A sample of the server. */
export function sampleOf(of: PoolSample): Sample {
  const [low = 0, normal = 0, high = 0, critical = 0] = of.queued.map(Number);
  return {
    time: (millis(of.time) ?? 0) / 1000,
    submitted: of.submitRate,
    completed: of.completeRate,
    failed: of.failRate,
    cancelled: of.cancelRate,
    depth: [low, normal, high, critical],
    waiting: Number(of.waiting),
    running: Number(of.running),
    busy: of.busy,
    slots: of.slots,
    oldestWait: seconds(of.oldestWait) ?? 0,
  };
}

/** The sample of all pools together. */
export function sum(samples: Sample[]): Sample {
  const add = (of: (sample: Sample) => number) => samples.reduce((total, sample) => total + of(sample), 0);
  const rate = (name: (typeof COUNTERS)[number]) => {
    const known = samples.filter((sample) => sample[name] !== null);
    return known.length ? known.reduce((total, sample) => total + (sample[name] ?? 0), 0) : null;
  };
  return {
    time: Math.max(0, ...samples.map((sample) => sample.time)),
    submitted: rate("submitted"),
    completed: rate("completed"),
    failed: rate("failed"),
    cancelled: rate("cancelled"),
    depth: [0, 1, 2, 3].map((at) => add((sample) => sample.depth[at] ?? 0)) as Sample["depth"],
    waiting: add((sample) => sample.waiting),
    running: add((sample) => sample.running),
    busy: add((sample) => sample.busy),
    slots: add((sample) => sample.slots),
    oldestWait: Math.max(0, ...samples.map((sample) => sample.oldestWait)),
  };
}

/** Samples of each pool, and under the empty name those of all together. */
export class History {
  readonly samples = new Map<string, Sample[]>();
  private before = new Map<string, PoolMetrics>();

  add(pools: PoolMetrics[]) {
    const before = this.samples.get("")?.at(-1)?.time;
    const time = Math.max(0, ...pools.map((pool) => (millis(pool.time) ?? 0) / 1000));
    // Two messages that arrive together would make a rate of a few milliseconds.
    if (before !== undefined && time - before < SHORTEST && time >= before) return;
    const now = pools.map((pool) => [pool.pool, sample(pool, this.before.get(pool.pool))] as const);
    this.before = new Map(pools.map((pool) => [pool.pool, pool]));
    for (const name of this.samples.keys()) {
      if (name && !this.before.has(name)) this.samples.delete(name);
    }
    for (const [name, added] of [...now, ["", sum(now.map(([, of]) => of))] as const]) {
      const kept = this.samples.get(name) ?? [];
      const oldest = added.time - KEPT;
      // A new list: a component is rendered again only if what it gets is another value.
      this.samples.set(name, [...(kept[0] && kept[0].time < oldest ? kept.filter(({ time }) => time >= oldest) : kept), added]);
    }
  }
}

/** The samples of a chart: those of each second as far as this page has them, and those of the server before. */
export function joined(ring: Sample[], seconds: Sample[], span: number): Sample[] {
  if (span > KEPT) return ring;
  const first = seconds[0]?.time ?? Number.POSITIVE_INFINITY;
  const before = ring.filter(({ time }) => time < first);
  // The first second has no rates yet, which would be a gap after those of the server.
  return [...before, ...(before.length && seconds[0]?.submitted === null ? seconds.slice(1) : seconds)];
}
