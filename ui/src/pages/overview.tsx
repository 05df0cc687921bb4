// The overview: throughput, depth, waits, utilization, health.
import { useSignal } from "@preact/signals";
import { useMemo } from "preact/hooks";
import { Bar, Card, confirm, Empty, StateBadge, TableBox, Tabs, Time, toast } from "../components/basic";
import { Chart, chartSpan, SPARK, Sparkline, spans } from "../components/chart";
import { errorText, system, tasks } from "../data/client";
import { distribution, millis, seconds as inSeconds, slots } from "../data/convert";
import { joined, type Sample } from "../data/history";
import { info } from "../data/info";
import { commitTime, history, machine, pools, tick } from "../data/live";
import { may } from "../data/permissions";
import { usePoll } from "../data/poll";
import { Ring, RING_PERIOD } from "../data/ring";
import { bytes, number, percent, rate, seconds, short, shortId } from "../format";
import type { PoolMetrics } from "../gen/lineshaft/v1/pool_service_pb";
import { now } from "../now";
import { href, taskHref } from "../route";

const ALL = "all pools";
const spanNames = ["2 min", "5 min", "15 min", "1 h", "6 h"] as const;

export function Overview() {
  tick.value;
  const chosen = useSignal<string>(ALL);
  const names = pools.value.map(({ pool }) => pool);
  const name = names.includes(chosen.value) ? chosen.value : ALL;
  const shown = name === ALL ? pools.value : pools.value.filter(({ pool }) => pool === name);
  const samples = history.samples.get(name === ALL ? "" : name) ?? [];
  const ring = useMemo(() => new Ring(name === ALL ? "" : name), [name]);
  usePoll((signal) => ring.read(signal), () => RING_PERIOD, [ring]);
  const span = spanNames[spans.indexOf(chartSpan.value as (typeof spans)[number])] ?? "5 min";
  return (
    <div class="page">
      <div class="page-head">
        <h1>Overview</h1>
        <div class="actions">
          {names.length > 1 && (
            <label class="select">
              <span class="sr-only">Pool</span>
              <select value={name} onChange={(event) => (chosen.value = event.currentTarget.value)}>
                {[ALL, ...names].map((option) => <option key={option}>{option}</option>)}
              </select>
            </label>
          )}
          <Tabs label="Time that the charts show" options={spanNames} value={span} onChange={(value) => (chartSpan.value = spans[spanNames.indexOf(value)] ?? 300)} />
        </div>
      </div>
      <Tiles shown={shown} samples={samples} />
      <Charts samples={joined(ring.samples.value, samples, chartSpan.value)} />
      <PoolTable shown={shown} />
      <div class="columns">
        <Recent />
        <Health />
      </div>
    </div>
  );
}

function Tile(props: { label: string; value: string; detail: string; values?: (number | null)[]; tone?: string }) {
  return (
    <div class={`tile ${props.tone ?? ""}`}>
      <span class="tile-label">{props.label}</span>
      <strong>{props.value}</strong>
      <span class="tile-detail">{props.detail}</span>
      {props.values && <Sparkline values={props.values} />}
    </div>
  );
}

function Tiles({ shown, samples }: { shown: PoolMetrics[]; samples: Sample[] }) {
  const last = samples.at(-1);
  const recent = samples.slice(-SPARK);
  const sum = (of: (pool: PoolMetrics) => bigint) => shown.reduce((total, pool) => total + Number(of(pool)), 0);
  const [completed, failed] = [sum((pool) => pool.completed), sum((pool) => pool.failed)];
    const finished = (sample: Sample) =>
    sample.completed === null ? null : sample.completed + (sample.failed ?? 0) + (sample.cancelled ?? 0);
  const queued = (sample: Sample) => sample.depth.reduce((total, depth) => total + depth, 0);
  const withoutWorker = sum((pool) => pool.withoutWorker);
  const paused = shown.filter((pool) => pool.paused).length;
  return (
    <div class="tiles">
      <Tile label="Finished" value={rate(last && finished(last))} detail={`${short(completed + failed + sum((pool) => pool.cancelled))} in total`} values={recent.map(finished)} />
      <Tile label="Submitted" value={rate(last?.submitted)} detail={`${short(sum((pool) => pool.submitted))} in total`} values={recent.map((sample) => sample.submitted)} />
      <Tile label="Queued" value={last ? short(queued(last)) : "–"} detail={`and ${short(last?.waiting ?? 0)} waiting`} values={recent.map(queued)} />
      <Tile
        label="Running"
        value={last ? short(last.running) : "–"}
        detail={last ? `${percent(last.slots ? last.busy / last.slots : 0, 0)} of ${number(last.slots)} slots${paused ? `, ${paused} paused` : ""}` : "–"}
        values={recent.map((sample) => sample.running)}
      />
      <Tile label="Oldest wait" value={last ? seconds(last.oldestWait) : "–"} detail={withoutWorker ? `${short(withoutWorker)} without a worker` : "of all queued tasks"} values={recent.map((sample) => sample.oldestWait)} tone={withoutWorker ? "tile-warning" : ""} />
      <Tile label="Success" value={completed + failed ? percent(completed / (completed + failed)) : "–"} detail={`${short(failed)} failed, ${short(sum((pool) => pool.retried))} retried`} tone={failed ? "tile-failed" : ""} />
    </div>
  );
}

function Charts({ samples }: { samples: Sample[] }) {
  const span = chartSpan.value;
  const from = Date.now() / 1000 - span - 2;
  const visible = samples.filter(({ time }) => time >= from);
  const times = visible.map(({ time }) => time);
  const of = (value: (sample: Sample) => number | null) => visible.map(value);
  const depth = (at: number) => of((sample) => sample.depth[at] ?? 0);
  const common = { times, span };
  return (
    <div class="charts">
      <Card>
        <Chart
          {...common}
          title="Throughput"
          format={(value) => `${short(value)}/s`}
          series={[
            { label: "submitted", colour: "--c-submitted", values: of((sample) => sample.submitted) },
            { label: "completed", colour: "--c-completed", values: of((sample) => sample.completed) },
            { label: "failed", colour: "--c-failed", values: of((sample) => sample.failed) },
          ]}
        />
      </Card>
      <Card>
        <Chart
          {...common}
          title="Queued by priority"
          format={short}
          least={4}
          stacked
          series={[
            { label: "critical", colour: "--c-critical", values: depth(3) },
            { label: "high", colour: "--c-high", values: depth(2) },
            { label: "normal", colour: "--c-normal", values: depth(1) },
            { label: "low", colour: "--c-low", values: depth(0) },
          ]}
        />
      </Card>
      <Card>
        <Chart
          {...common}
          title="Used slots"
          format={(value) => percent(value, 0)}
          max={1}
          series={[{ label: "utilization", colour: "--c-running", values: of((sample) => (sample.slots ? sample.busy / sample.slots : 0)) }]}
        />
      </Card>
      <Card>
        <Chart
          {...common}
          title="Oldest wait"
          format={seconds}
          least={0.01}
          series={[{ label: "oldest queued task", colour: "--c-waiting", values: of((sample) => sample.oldestWait) }]}
        />
      </Card>
    </div>
  );
}

function PoolTable({ shown }: { shown: PoolMetrics[] }) {
  return (
    <Card title="Wait and run time" actions={<span class="muted small">since the counters were reset</span>}>
      <TableBox label="Wait and run time of each pool" needs={860}>
        <table class="table numbers">
          <thead>
            <tr>
              <th rowSpan={2} scope="col">Pool</th>
              <th rowSpan={2} scope="col">Slots used</th>
              <th rowSpan={2} scope="col">Queued</th>
              <th colSpan={4} scope="colgroup">Wait</th>
              <th colSpan={4} scope="colgroup">Run</th>
            </tr>
            <tr>
              {["wait", "run"].map((kind) => ["p50", "p90", "p99", "max"].map((name) => <th key={kind + name} scope="col">{name}</th>))}
            </tr>
          </thead>
          <tbody>
            {shown.map((pool) => {
              const [wait, run] = [distribution(pool.waitTime), distribution(pool.runTime)];
              const total = slots(pool);
              return (
                <tr key={pool.pool}>
                  <th scope="row">{pool.pool}{pool.paused && <span class="badge state-waiting">paused</span>}</th>
                  <td class="with-bar half" data-name="Slots used"><Bar share={total ? pool.busy / total : 0} label={`Slots used in ${pool.pool}`} /> <span class="fixed">{pool.busy}/{total}</span></td>
                  <td class="half" data-name="Queued">{number(Number(pool.queued))}</td>
                  {[wait, run].map((of, at) =>
                    (["p50", "p90", "p99", "max"] as const).map((name) => <td key={`${at}${name}`} data-name={`${at ? "Run" : "Wait"} ${name}`}>{of.count ? seconds(of[name]) : "–"}</td>),
                  )}
                </tr>
              );
            })}
          </tbody>
        </table>
      </TableBox>
    </Card>
  );
}

function Recent() {
  const { value } = usePoll((signal) => tasks.listTasks({ pageSize: 8 }, { signal }), () => 2_000, []);
  const found = value.value?.tasks;
  return (
    <Card title="Newest tasks" class="recent" actions={<a href={href(["tasks"])}>All tasks</a>}>
      {found?.length === 0 && <Empty>No tasks yet. <a href={href(["submit"])}>Submit one</a>, or run <code>lineshaft task run compute --json 1000</code></Empty>}
      <ul class="list">
        {found?.map((task) => (
          <li key={task.taskId}>
            <a class="row-link" href={taskHref(task.taskId)}>
              <StateBadge state={task.state} />
              <span class="grow ellipsis">
                <b>{task.displayName || task.handler}</b> <span class="muted">{shortId(task.taskId)}</span>
              </span>
              <span class="muted small no-wrap wide-only">{task.resourceUsage && `ran ${seconds(inSeconds(task.resourceUsage.runTime))}`}</span>
              <span class="muted small no-wrap age"><Time at={millis(task.submittedAt)} /></span>
            </a>
          </li>
        ))}
      </ul>
    </Card>
  );
}

function drain() {
  confirm({
    title: "Drain the server",
    text: <p>It accepts no more tasks, waits for those that run, up to its limit, and exits. What has not run stays in the store.</p>,
    action: "Drain the server",
    isDangerous: true,
    run: async () => {
      try {
        const { running } = await system.drain({});
        toast(`the server drains: ${number(Number(running))} running`);
      } catch (error) {
        toast(errorText(error), true);
      }
    },
  });
}

function Health() {
  const { value } = usePoll((signal) => system.getSystemHealth({}, { signal }), () => 5_000, []);
  const health = value.value;
  const host = machine.value;
  const started = millis(info.value?.startedAt);
  const remote = pools.value.filter((pool) => pool.size === 0);
  const commits = distribution(commitTime.value);
  return (
    <Card
      title="Server"
      actions={
        health?.draining ? <span class="badge state-waiting">draining</span> : may("Drain") && <button type="button" class="button quiet small" onClick={drain}>Drain…</button>
      }
    >
      <dl class="facts">
        {health?.components.map((component) => (
          <div key={component.name}>
            <dt>{component.name}</dt>
            <dd><span class={component.healthy ? "dot dot-good" : "dot dot-bad"} /> {component.healthy ? "healthy" : component.detail}</dd>
          </div>
        ))}
        <div>
          <dt>commits</dt>
          <dd>{commits.count ? `p50 ${seconds(commits.p50)}, p99 ${seconds(commits.p99)}, max ${seconds(commits.max)} until they are durable` : "none in the last minute"}</dd>
        </div>
        <div>
          <dt>machine</dt>
          <dd>
            {host ? (
              <>
                <Bar share={host.cpuPercent / 100} label="CPU of the machine" /> {percent(host.cpuPercent / 100, 0)} of {host.cores} cores
              </>
            ) : "–"}
          </dd>
        </div>
        <div>
          <dt>memory</dt>
          <dd>
            {host ? (
              <>
                <Bar share={host.memoryPercent / 100} label="Memory of the machine" /> {bytes(Number(host.memoryUsedBytes))} of {bytes(Number(host.memoryTotalBytes))}
              </>
            ) : "–"}
          </dd>
        </div>
        <div>
          <dt>process</dt>
          <dd>{host ? `${percent(host.processCpuPercent / 100, 0)} CPU, ${bytes(Number(host.processMemoryBytes))}, ${host.processThreads} threads` : "–"}</dd>
        </div>
        {remote.length > 0 && (
          <div>
            <dt>remote</dt>
            <dd>
              {remote.map((pool) => `${pool.pool}: ${pool.busy + pool.idle} slots connected`).join(", ")} · <a href={href(["workers"])}>workers</a>
            </dd>
          </div>
        )}
        <div>
          <dt>version</dt>
          <dd>{info.value ? `${info.value.version}, ${info.value.store} store, revision ${number(Number(info.value.revision))}` : "–"}</dd>
        </div>
        <div>
          <dt>uptime</dt>
          <dd>{started ? `${seconds((now.value - started) / 1000)}` : "–"}</dd>
        </div>
      </dl>
    </Card>
  );
}
