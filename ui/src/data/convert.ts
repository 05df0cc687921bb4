// Protobuf values as numbers that the pages calculate with.
import type { Duration, Timestamp } from "@bufbuild/protobuf/wkt";
import type { Percentiles, PoolMetrics } from "../gen/lineshaft/v1/pool_service_pb";

/** Seconds; `undefined` if unset. */
export function seconds(duration: Duration | undefined): number | undefined {
  return duration && Number(duration.seconds) + duration.nanos / 1e9;
}

/** Milliseconds since 1970; `undefined` if unset. */
export function millis(time: Timestamp | undefined): number | undefined {
  return time && Number(time.seconds) * 1000 + time.nanos / 1e6;
}

export function duration(value: number): Duration {
  const whole = Math.floor(value);
  return { $typeName: "google.protobuf.Duration", seconds: BigInt(whole), nanos: Math.round((value - whole) * 1e9) };
}

export interface Distribution {
  count: number;
  p50: number;
  p90: number;
  p99: number;
  max: number;
}

export function distribution(of: Percentiles | undefined): Distribution {
  const value = (duration: Duration | undefined) => seconds(duration) ?? 0;
  return {
    count: Number(of?.count ?? 0),
    p50: value(of?.p50),
    p90: value(of?.p90),
    p99: value(of?.p99),
    max: value(of?.max),
  };
}

/** Slots that run attempts at a time: those of the connected workers in a remote pool. */
export function slots(metrics: PoolMetrics): number {
  return Math.max(metrics.size, metrics.busy + metrics.idle);
}
