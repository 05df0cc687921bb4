// What the server remembers of the last hours, of a pool or of all together.
import { signal } from "@preact/signals";
import type { PoolSample } from "../gen/lineshaft/v1/pool_service_pb";
import { pools } from "./client";
import { type Sample, sampleOf } from "./history";

/** Between two calls: the server takes a sample each 15 seconds. */
export const RING_PERIOD = 15_000;

/** Seconds that the server remembers. */
const LONGEST = 6 * 3600;

export class Ring {
  readonly samples = signal<Sample[]>([]);
  private newest: PoolSample | undefined;

  /** `pool` is empty for all together. */
  constructor(private pool: string) {}

  /** Reads what is new. */
  async read(ended: AbortSignal) {
    const { samples } = await pools.getPoolHistory({ pool: this.pool, ...(this.newest?.time && { after: this.newest.time }) }, { signal: ended });
    if (samples.length === 0) return;
    this.newest = samples.at(-1);
    const oldest = Date.now() / 1000 - LONGEST;
    this.samples.value = [...this.samples.peek().filter(({ time }) => time >= oldest), ...samples.map(sampleOf)];
  }
}
