// A chart of the last minutes.
import { signal, useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { clock, isUtc } from "../format";
import { theme } from "../theme";
import { resolveColour } from "./colour";

export interface Series {
  label: string;
  /** Name of a CSS variable. */
  colour: string;
  /** `null` is a gap. */
  values: (number | null)[];
}

interface Props {
  title: string;
  /** Seconds since 1970. */
  times: number[];
  series: Series[];
  format: (value: number) => string;
  /** Seconds that are shown. */
  span: number;
  stacked?: boolean;
  /** Top of the scale, if it is fixed. */
  max?: number;
  /** Smallest top of the scale. */
  least?: number;
}

const HEIGHT = 190;
/** Half the width of a time; one that is closer to the edge would be cut off. */
const HALF_LABEL = 18;

/** Every layer on top of those before it; the topmost first, so that the lower ones are painted over it. */
function stack(series: Series[]): (number | null)[][] {
  const layers: (number | null)[][] = [];
  let below: (number | null)[] = [];
  for (const { values } of series) {
    below = values.map((value, at) => (value === null ? null : value + (below[at] ?? 0)));
    layers.unshift(below);
  }
  return layers;
}

export function Chart(props: Props) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const hovered = useSignal<number | null>(null);
  const shown = useRef(props);
  shown.current = props;
  const isDark = theme.value === "dark";

  const data = (): uPlot.AlignedData => {
    const { times, series, stacked } = shown.current;
    return [times, ...(stacked ? stack(series) : series.map(({ values }) => values))];
  };

  useEffect(() => {
    const target = box.current;
    if (!target) return;
    const { series, stacked } = shown.current;
    const style = (name: string) => resolveColour(target, name);
    const painted = stacked ? series.toReversed() : series;
    const axis = { stroke: style("--text-muted"), grid: { stroke: style("--grid"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
    const made = new uPlot(
      {
        width: target.clientWidth,
        height: HEIGHT,
        padding: [8, 8, 0, 0],
        legend: { show: false },
        cursor: { y: false, sync: { key: "time" }, points: { size: 6 }, drag: { x: false, y: false } },
        scales: {
          x: { time: true, range: () => [Date.now() / 1000 - shown.current.span, Date.now() / 1000] },
          y: { range: (_, __, top) => [0, shown.current.max ?? Math.max((top ?? 0) * 1.1, shown.current.least ?? 1)] },
        },
        series: [
          {},
          ...painted.map(({ label, colour }) => ({
            label,
            stroke: style(colour),
            width: stacked ? 1 : 1.75,
            fill: stacked ? style(colour) : `color-mix(in srgb, ${style(colour)} 12%, transparent)`,
            points: { show: false },
          })),
        ],
        axes: [
          { ...axis, size: 24, space: 70, values: (chart, ticks) => ticks.map((tick) => (chart.valToPos(tick, "x") > chart.over.clientWidth - HALF_LABEL ? "" : clock(tick * 1000).slice(0, shown.current.span > 300 ? 5 : 8))) },
          { ...axis, size: 52, space: 36, values: (_, ticks) => ticks.map((tick) => shown.current.format(tick)) },
        ],
        hooks: { setCursor: [(chart) => (hovered.value = (chart.cursor.left ?? -1) >= 0 ? (chart.cursor.idx ?? null) : null)] },
      },
      data(),
      target,
    );
    plot.current = made;
    const observer = new ResizeObserver(() => made.setSize({ width: target.clientWidth, height: HEIGHT }));
    observer.observe(target);
    return () => {
      observer.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, [isDark, isUtc.value, props.series.map(({ label }) => label).join()]);

  useEffect(() => plot.current?.setData(data()));

  const at = hovered.value ?? props.times.length - 1;
  const value = (values: (number | null)[]) => {
    const found = values[at];
    return found === null || found === undefined ? "–" : props.format(found);
  };
  const summary = props.series.map(({ label, values }) => `${label} ${value(values)}`).join(", ");
  return (
    <figure class="chart" aria-label={`${props.title}: ${summary}`}>
      <figcaption>
        <span class="chart-title">{props.title}</span>
        <span class="legend">
          {props.series.map(({ label, colour, values }) => (
            <span key={label} class="legend-item">
              <i class="swatch" style={{ background: `var(${colour})` }} />
              {label} <b>{value(values)}</b>
            </span>
          ))}
        </span>
      </figcaption>
      <div class="chart-box" ref={box} />
    </figure>
  );
}

/** Points of a line without axes. */
export const SPARK = 60;

/** A line without axes; its last value is at the right edge. */
export function Sparkline({ values }: { values: (number | null)[] }) {
  const [width, height] = [120, 28];
  const top = Math.max(1e-9, ...values.map((value) => value ?? 0));
  const step = width / (SPARK - 1);
  const x = (at: number) => (width - (values.length - 1 - at) * step).toFixed(1);
  const points = values.map((value, at) => `${x(at)},${(height - 2 - ((value ?? 0) / top) * (height - 4)).toFixed(1)}`);
  return (
    <svg class="sparkline" viewBox={`0 0 ${width} ${height}`} preserveAspectRatio="none" aria-hidden="true">
      {values.length > 1 && <polyline points={points.join(" ")} />}
    </svg>
  );
}

export const spans = [120, 300, 900, 3_600, 21_600] as const;
export const chartSpan = signal<number>(300);
