// The workers of all pools: what they run, and how busy they were in the last minutes.
import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { Bar, Card, Empty, TableBox } from "../components/basic";
import { resolveColour } from "../components/colour";
import { seconds as inSeconds } from "../data/convert";
import { pools, tick, wantsWorkers } from "../data/live";
import { type Busy, busyHistory, WORKER_SECONDS } from "../data/workers";
import { number, percent, shortId } from "../format";
import { PoolKind, type PoolMetrics, type Worker } from "../gen/lineshaft/v1/pool_service_pb";
import { taskHref } from "../route";
import { poolSettings } from "../data/server";
import { theme } from "../theme";

const SHOWN = 64;

export function WorkersPage() {
  tick.value;
  useEffect(() => {
    wantsWorkers.value = true;
    return () => {
      wantsWorkers.value = false;
    };
  }, []);
  return (
    <div class="page">
      <div class="page-head">
        <h1>Workers</h1>
        <span class="muted small heat-key">idle <i class="heat-scale" /> busy, last {WORKER_SECONDS / 60} minutes</span>
      </div>
      {pools.value.map((pool) => <PoolWorkers key={pool.pool} pool={pool} />)}
    </div>
  );
}

function PoolWorkers({ pool }: { pool: PoolMetrics }) {
  tick.value;
  const showsAll = useSignal(false);
  const isRemote = poolSettings.value.find(({ name }) => name === pool.pool)?.kind === PoolKind.REMOTE;
  const shown = showsAll.value ? pool.workers : pool.workers.slice(0, SHOWN);
  const busy = pool.workers.filter((worker) => worker.busy).length;
  return (
    <Card title={pool.pool} actions={<span class="muted small">{number(busy)} of {number(pool.workers.length)} busy{pool.paused && ", paused"}</span>}>
      {pool.workers.length === 0 && (
        <Empty>{isRemote ? <>No worker is connected. A worker is a program of yours: see <code>clients/</code> for Python, TypeScript and Go.</> : "Reading the workers…"}</Empty>
      )}
      {shown.length > 0 && (
        <TableBox label={`Workers of ${pool.pool}`} needs={700}>
          <table class="table workers">
            <thead>
              <tr>
                <th scope="col">Worker</th>
                <th scope="col" class="heat-cell">Busy</th>
                <th scope="col">Runs</th>
                <th scope="col" class="right">Used</th>
                <th scope="col" class="right">Completed</th>
                <th scope="col" class="right">Failed</th>
              </tr>
            </thead>
            <tbody>{shown.map((worker) => <WorkerRow key={worker.name} worker={worker} />)}</tbody>
          </table>
        </TableBox>
      )}
      {pool.workers.length > shown.length && (
        <button type="button" class="button" onClick={() => (showsAll.value = true)}>Show all {number(pool.workers.length)} workers</button>
      )}
    </Card>
  );
}

function WorkerRow({ worker }: { worker: Worker }) {
  const [busy, idle] = [inSeconds(worker.busyTime) ?? 0, inSeconds(worker.idleTime) ?? 0];
  const used = busy + idle > 0 ? busy / (busy + idle) : 0;
  const remote = worker.remote;
  return (
    <tr>
      <th scope="row">
        <span class={worker.alive ? "dot dot-good" : "dot dot-bad"} title={worker.alive ? "accepts work" : "accepts no work"} /> {worker.name}
        {remote && (
          <div class="muted small worker-about">
            {!remote.connected && <span class="badge state-failed">not connected</span>} {remote.version} {remote.handlers.join(", ")}
            {Object.entries(remote.labels).map(([key, value]) => ` ${key}=${value}`).join(",")}
          </div>
        )}
      </th>
      <td class="heat-cell whole"><Heat shares={busyHistory.of(worker)} name={worker.name} /></td>
      <td class="no-wrap whole" data-name="Runs">
        {remote && <>{remote.running} of {remote.slots} slots </>}
        {worker.currentTaskId ? (
          <><a href={taskHref(worker.currentTaskId)}>{worker.currentHandler}</a>{!remote && <span class="muted small"> {shortId(worker.currentTaskId)}</span>}</>
        ) : (
          !remote && <span class="muted">idle</span>
        )}
      </td>
      <td class="right no-wrap whole" data-name="Used"><Bar share={used} label={`Share of time that ${worker.name} was busy`} /> <span class="fixed">{percent(used, 0)}</span></td>
      <td class="right" data-name="Completed">{number(Number(worker.completed))}</td>
      <td class="right" data-name="Failed">{number(Number(worker.failed))}</td>
    </tr>
  );
}

const CELL = 2;
const HEIGHT = 18;

function Heat({ shares, name }: { shares: Busy[]; name: string }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const isDark = theme.value === "dark";
  useEffect(() => {
    const context = canvas.current?.getContext("2d");
    if (!context) return;
    const [busy, idle] = [resolveColour(canvas.current!.parentElement!, "--c-running"), resolveColour(canvas.current!.parentElement!, "--grid")];
    context.clearRect(0, 0, shares.length * CELL, HEIGHT);
    shares.forEach((share, at) => {
      if (share === null) return;
      context.globalAlpha = 1;
      context.fillStyle = idle;
      context.fillRect(at * CELL, 0, CELL, HEIGHT);
      context.globalAlpha = share === 0 ? 0 : 0.15 + share * 0.85;
      context.fillStyle = busy;
      context.fillRect(at * CELL, 0, CELL, HEIGHT);
    });
  });
  const known = shares.filter((share) => share !== null);
  const mean = known.length ? known.reduce((total, share) => total + share, 0) / known.length : 0;
  return <canvas ref={canvas} class="heat" data-theme={isDark} width={WORKER_SECONDS * CELL} height={HEIGHT} role="img" aria-label={`${name}: ${percent(mean, 0)} busy in the last minutes`} />;
}
