// Numbers, times and names as people read them.
import { signal } from "@preact/signals";

export function number(value: number): string {
  return value.toLocaleString("en-US", { maximumFractionDigits: 0 });
}

/** At most four characters and a unit, such as `12.3k`. */
export function short(value: number): string {
  if (!Number.isFinite(value)) return "–";
  const units: [number, string][] = [[1e9, "G"], [1e6, "M"], [1e3, "k"]];
  for (const [size, unit] of units) {
    if (Math.abs(value) >= size * 0.9995) return trimmed(value / size) + unit;
  }
  return trimmed(value);
}

function trimmed(value: number): string {
  const digits = Math.abs(value) >= 99.95 ? 0 : Math.abs(value) >= 9.995 ? 1 : Math.abs(value) >= 0.995 || value === 0 ? 1 : 2;
  return String(Number(value.toFixed(digits)));
}

export const rate = (value: number | null | undefined) => (value === null || value === undefined ? "–" : `${short(value)}/s`);

export function percent(share: number, digits = 1): string {
  // 99.96 % is not 100 %.
  const rounded = share < 1 ? Math.min(share * 100, 100 - 10 ** -digits) : 100;
  return `${Number(rounded.toFixed(digits))} %`;
}

export function bytes(value: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 ? value : trimmed(value)} ${units[unit]}`;
}

/** A duration in its two largest units, such as `1m27s`, or `4.2ms`. */
export function seconds(value: number | undefined): string {
  if (value === undefined) return "–";
  if (value < 0) value = 0;
  if (value === 0) return "0s";
  if (value < 0.000_999_5) return `${trimmed(value * 1e6)}µs`;
  if (value < 0.999_5) return `${trimmed(value * 1e3)}ms`;
  if (value < 59.95) return `${trimmed(value)}s`;
  const whole = Math.round(value);
  const parts: [number, string][] = [[86_400, "d"], [3_600, "h"], [60, "m"], [1, "s"]];
  const at = parts.findIndex(([size]) => whole >= size);
  const [size, unit] = parts[at]!;
  const next = parts[at + 1];
  const rest = next ? Math.floor((whole % size) / next[0]) : 0;
  return `${Math.floor(whole / size)}${unit}${rest && next ? `${rest}${next[1]}` : ""}`;
}

/** A time relative to `now`, such as `3m ago`. */
export function relative(millis: number | undefined, now: number): string {
  if (millis === undefined) return "–";
  const passed = (now - millis) / 1000;
  if (Math.abs(passed) < 1) return "now";
  const text = coarse(Math.abs(passed));
  return passed > 0 ? `${text} ago` : `in ${text}`;
}

function coarse(value: number): string {
  for (const [size, unit] of [[86_400, "d"], [3_600, "h"], [60, "m"]] as const) {
    if (value >= size) return `${Math.floor(value / size)}${unit}`;
  }
  return `${Math.floor(value)}s`;
}

/** Whether times are those of UTC instead of the browser's time zone. */
export const isUtc = signal(false);

/** Date and time with milliseconds. */
export function exact(millis: number | undefined): string {
  if (millis === undefined) return "–";
  // ISO 8601 is always in UTC.
  const offset = isUtc.value ? 0 : new Date(millis).getTimezoneOffset() * 60_000;
  const text = new Date(millis - offset).toISOString().replace("T", " ");
  return isUtc.value ? text : text.slice(0, -1);
}

export function clock(millis: number): string {
  return exact(millis).slice(11, 19);
}

/** A duration as people write it: `30`, `30s`, `1m30s`, `500ms`. `undefined` if it is none. */
export function parseSeconds(text: string): number | undefined {
  const trimmed = text.trim();
  if (/^\d+(\.\d+)?$/.test(trimmed)) return Number(trimmed);
  const sizes: Record<string, number> = { d: 86_400, h: 3_600, m: 60, s: 1, ms: 0.001 };
  if (!/^(\d+(\.\d+)?(ms|d|h|m|s)\s*)+$/.test(trimmed)) return undefined;
  let total = 0;
  for (const [, value, unit] of trimmed.matchAll(/(\d+(?:\.\d+)?)(ms|d|h|m|s)/g)) total += Number(value) * sizes[unit!]!;
  return total;
}

/** The first and the last characters of a long ID: those of a UUIDv7 begin alike. */
export function shortId(id: string): string {
  return id.length > 20 ? `${id.slice(0, 8)}…${id.slice(-6)}` : id;
}
