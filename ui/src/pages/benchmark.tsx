// Runs the same tasks one after the other and all at once, and shows the difference.
import { useSignal } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";
import { Card, ErrorNote } from "../components/basic";
import { LABEL, parallel, type Run, sequential } from "../data/benchmark";
import { errorText, tasks } from "../data/client";
import { may } from "../data/permissions";
import { handlers } from "../data/server";
import { EMPTY, toRequest } from "../data/submission";
import { number, rate, seconds, short } from "../format";
import { problem } from "../json";

const EXAMPLES: Record<string, string> = { compute: "3000000", io: "0.2", expression: '"1 + 1"' };
const [WIDTH, HEIGHT] = [640, 220];
const QUARTERS = [0, 0.25, 0.5, 0.75, 1];
const NONE: Run = { ends: [], failed: 0 };

export function BenchmarkPage() {
  const handler = useSignal("");
  const payload = useSignal("");
  const count = useSignal("20");
  const runs = useSignal<{ sequential: Run; parallel: Run }>({ sequential: NONE, parallel: NONE });
  const phase = useSignal<"" | "sequential" | "parallel">("");
  const error = useSignal("");
  const end = useMemo(() => ({ controller: new AbortController() }), []);
  useEffect(() => () => end.controller.abort(), []);
  const choose = (name: string) => {
    handler.value = name;
    payload.value = EXAMPLES[name] ?? "";
  };
  useEffect(() => {
    const names = handlers.value.map(({ name }) => name);
    if (!handler.value && names.length) choose(names.includes("io") ? "io" : names[0]!);
  }, [handlers.value]);
  const total = Number(count.value);
  const isValid = Number.isInteger(total) && total >= 1 && total <= 1_000 && (!payload.value.trim() || !problem(payload.value));

  const start = async () => {
    end.controller = new AbortController();
    const { signal } = end.controller;
    const id = crypto.getRandomValues(new Uint32Array(1))[0]!.toString(36);
    const request = toRequest({ ...EMPTY, handler: handler.value, payload: payload.value, name: "benchmark", labels: `${LABEL}=${id}`, attempts: "1" });
    runs.value = { sequential: NONE, parallel: NONE };
    error.value = "";
    try {
      phase.value = "sequential";
      await sequential(request, total, signal, (run) => (runs.value = { ...runs.value, sequential: run }));
      phase.value = "parallel";
      await parallel(request, total, signal, (run) => (runs.value = { ...runs.value, parallel: run }));
      // They are of no use, and would push other tasks out of the retention.
      if (may("DeleteTasks")) await tasks.deleteTasks({ filter: { labels: { [LABEL]: id } } });
    } catch (failure) {
      if (!signal.aborted) error.value = errorText(failure);
    }
    phase.value = "";
  };
  const { sequential: one, parallel: all } = runs.value;
  const took = (run: Run) => run.ends.at(-1) ?? 0;
  const isDone = !phase.value && one.ends.length > 0 && one.ends.length === all.ends.length;
  return (
    <div class="page">
      <div class="page-head"><h1>Benchmark</h1></div>
      <Card>
        <p class="muted">Runs the same tasks one after the other, then all at once, and shows what the workers gain.</p>
        <form
          class="benchmark-form"
          onSubmit={(event) => {
            event.preventDefault();
            void start();
          }}
        >
          <label class="field">
            <span>Handler</span>
            <select value={handler.value} onChange={(event) => choose(event.currentTarget.value)}>
              {handlers.value.map(({ name }) => <option key={name}>{name}</option>)}
            </select>
          </label>
          <label class="field">
            <span>Payload (JSON)</span>
            <input type="text" value={payload.value} spellcheck={false} onInput={(event) => (payload.value = event.currentTarget.value)} />
          </label>
          <label class="field">
            <span>Tasks</span>
            <input type="number" min={1} max={1000} value={count.value} onInput={(event) => (count.value = event.currentTarget.value)} />
          </label>
          {phase.value ? (
            <button type="button" class="button danger" onClick={() => end.controller.abort()}>Stop</button>
          ) : (
            <button type="submit" class="button primary" disabled={!isValid || !handler.value}>Start</button>
          )}
        </form>
        <ErrorNote text={error.value} />
      </Card>
      <div class="tiles tiles-3">
        <Result label="One after the other" run={one} isActive={phase.value === "sequential"} total={total} />
        <Result label="All at once" run={all} isActive={phase.value === "parallel"} total={total} />
        <div class="tile"><span class="tile-label">Speed-up</span><strong>{isDone && took(all) > 0 ? `${short(took(one) / took(all))}×` : "–"}</strong><span class="tile-detail">{isDone ? `${seconds(took(one))} became ${seconds(took(all))}` : "not run yet"}</span></div>
      </div>
      <Card title="Finished tasks over time"><Plot one={one.ends} all={all.ends} total={total || 1} /></Card>
    </div>
  );
}

function Result(props: { label: string; run: Run; isActive: boolean; total: number }) {
  const { ends, failed } = props.run;
  const took = ends.at(-1);
  return (
    <div class="tile">
      <span class="tile-label">{props.label}</span>
      <strong>{took === undefined ? "–" : rate(ends.length / took)}</strong>
      <span class="tile-detail">{took === undefined ? (props.isActive ? "running" : "not run yet") : `${number(ends.length)} of ${number(props.total)} in ${seconds(took)}${failed ? `, ${failed} failed` : ""}`}</span>
    </div>
  );
}

function Plot({ one, all, total }: { one: number[]; all: number[]; total: number }) {
  const end = Math.max(0.001, one.at(-1) ?? 0, all.at(-1) ?? 0);
  const line = (ends: number[]) => [0, ...ends].map((at, done) => `${((at / end) * WIDTH).toFixed(1)},${(HEIGHT - (done / total) * HEIGHT).toFixed(1)}`).join(" ");
  return (
    <figure class="chart">
      <figcaption>
        <span class="legend">
          <span class="legend-item"><i class="swatch swatch-one" />one after the other</span>
          <span class="legend-item"><i class="swatch swatch-all" />all at once</span>
        </span>
      </figcaption>
      <div class="plot-axes">
        <svg class="plot" viewBox={`-2 -2 ${WIDTH + 4} ${HEIGHT + 4}`} preserveAspectRatio="none" role="img" aria-label={`One after the other: ${one.length} of ${total} tasks in ${seconds(one.at(-1) ?? 0)}. All at once: ${all.length} in ${seconds(all.at(-1) ?? 0)}.`}>
          {QUARTERS.map((share) => <line key={share} x1="0" x2={WIDTH} y1={HEIGHT * (1 - share)} y2={HEIGHT * (1 - share)} />)}
          {one.length > 0 && <polyline class="line-one" points={line(one)} />}
          {all.length > 0 && <polyline class="line-all" points={line(all)} />}
        </svg>
        <div class="axis-y" aria-hidden="true">{QUARTERS.filter((share) => Number.isInteger(total * share)).map((share) => <span key={share} style={{ bottom: `${share * 100}%` }}>{number(total * share)}</span>)}</div>
        <div class="axis-x" aria-hidden="true">{one.length > 0 && QUARTERS.map((share) => <span key={share} style={{ left: `${share * 100}%`, translate: `${share * -100}%` }}>{seconds(end * share)}</span>)}</div>
      </div>
    </figure>
  );
}
