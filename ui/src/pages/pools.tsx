// The pools: their settings, and what can be changed while the server runs.
import { useSignal } from "@preact/signals";
import { Bar, Card, confirm, ErrorNote, toast } from "../components/basic";
import { PauseIcon, PlayIcon } from "../components/icons";
import { errorText, pools as poolService } from "../data/client";
import { seconds as inSeconds, slots } from "../data/convert";
import { pools as metrics } from "../data/live";
import { may } from "../data/permissions";
import { poolSettings, readServer } from "../data/server";
import { number, percent, rate, seconds, short } from "../format";
import { Durability } from "../gen/lineshaft/v1/task_pb";
import { type Pool, PoolCharge, PoolKind, type PoolMetrics, type PoolWeight } from "../gen/lineshaft/v1/pool_service_pb";
import { href } from "../route";

export function PoolsPage() {
  return (
    <div class="page">
      <div class="page-head"><h1>Pools</h1></div>
      <div class="pool-grid">
        {poolSettings.value.map((pool) => (
          <PoolCard key={`${pool.name} ${pool.etag}`} pool={pool} now={metrics.value.find((of) => of.pool === pool.name)} />
        ))}
      </div>
    </div>
  );
}

function PoolCard({ pool, now }: { pool: Pool; now: PoolMetrics | undefined }) {
  const error = useSignal("");
  const change = async (changed: { size?: number; paused?: boolean; queueLimit?: bigint }, done: string) => {
    try {
      await poolService.updatePool({ name: pool.name, etag: pool.etag, ...changed });
      error.value = "";
      toast(`${pool.name}: ${done}`);
    } catch (failure) {
      error.value = errorText(failure);
    }
    await readServer();
  };
  const isPaused = now?.paused ?? pool.paused;
  const isRemote = pool.kind === PoolKind.REMOTE;
  const { autoscale } = pool;
  const mayChange = may("UpdatePool");
  const pause = () => {
    if (isPaused) return change({ paused: false }, "resumed");
    confirm({
      title: `Pause ${pool.name}`,
      text: <p>It starts no tasks until it is resumed, also after a restart. Running tasks go on until the pool is drained, and new ones are accepted.</p>,
      action: "Pause",
      isDangerous: true,
      run: () => change({ paused: true }, "paused"),
    });
  };
  const reset = () =>
    confirm({
      title: `Reset the counters of ${pool.name}`,
      text: <p>Totals, rates, and the percentiles of wait and run time begin again at zero.</p>,
      action: "Reset",
      isDangerous: true,
      run: async () => {
        try {
          await poolService.resetPoolCounters({ name: pool.name });
          toast(`${pool.name}: counters reset`);
        } catch (failure) {
          error.value = errorText(failure);
        }
      },
    });
  const total = now ? slots(now) : pool.size;
  return (
    <Card
      title={<>{pool.name} {isPaused && <span class="badge state-waiting">{now?.running ? `draining, ${number(Number(now.running))} running` : "paused"}</span>}</>}
      actions={
        <>
          {mayChange && (
            <button type="button" class="button" onClick={pause}>
              {isPaused ? <PlayIcon /> : <PauseIcon />} {isPaused ? "Resume" : "Pause…"}
            </button>
          )}
        </>
      }
    >
      {pool.description && <p class="muted">{pool.description}</p>}
      <ErrorNote text={error.value} />
      <div class="pool-figures">
        <div><span class="muted small">slots used</span><b>{now ? `${now.busy}/${total}` : "–"}</b><Bar share={now && total ? now.busy / total : 0} label={`Slots used in ${pool.name}`} /></div>
        <div><span class="muted small">queued</span><b>{now ? short(Number(now.queued)) : "–"}</b><Bar share={now ? Number(now.queued) / Number(pool.queueLimit) : 0} label={`Share of the queue limit of ${pool.name}`} /></div>
        <div><span class="muted small">finished</span><b>{now ? rate(now.finishRate) : "–"}</b><span class="small muted">{now && now.completed + now.failed > 0n ? `${percent(now.successRate)} succeed` : ""}</span></div>
        <div><span class="muted small">oldest wait</span><b>{now ? seconds(inSeconds(now.oldestWait) ?? 0) : "–"}</b><a class="small" href={href(["tasks"], new URLSearchParams({ pool: pool.name }))}>its tasks</a></div>
      </div>
      {mayChange && (
        <div class="pool-settings">
          {!isRemote && !autoscale && <NumberSetting name="Workers" value={pool.size} max={1_000} onApply={(size) => change({ size }, `${number(size)} workers`)} />}
          <NumberSetting name="Queue limit" value={Number(pool.queueLimit)} max={100_000_000} onApply={(limit) => change({ queueLimit: BigInt(limit) }, `queue limit ${number(limit)}`)} />
        </div>
      )}
      <dl class="facts">
        <div><dt>kind</dt><dd>{(PoolKind[pool.kind] ?? "").toLowerCase()}</dd></div>
        {autoscale && <div><dt>workers</dt><dd>{number(autoscale.min)} to {number(autoscale.max)}, as the load needs</dd></div>}
        {!mayChange && !autoscale && <div><dt>workers</dt><dd>{isRemote ? "those that are connected" : number(pool.size)}</dd></div>}
        {!mayChange && <div><dt>queue limit</dt><dd>{number(Number(pool.queueLimit))}</dd></div>}
        <div><dt>timeout</dt><dd>{seconds(inSeconds(pool.defaultTimeout))}</dd></div>
        <div><dt>durability</dt><dd>{(Durability[pool.durability] ?? "").toLowerCase()}</dd></div>
        {pool.maxWait && <div><dt>max wait</dt><dd>{seconds(inSeconds(pool.maxWait))}, then lower priorities are promoted</dd></div>}
        <div><dt>charge</dt><dd>{pool.charge === PoolCharge.SLOT_TIME ? "slot time" : "tasks"}</dd></div>
        {pool.weights.length > 0 && <div><dt>weights</dt><dd>{pool.weights.map(weight).join(", ")}</dd></div>}
        {pool.maxRunningPerNamespace > 0 && <div><dt>per namespace</dt><dd>at most {pool.maxRunningPerNamespace} running</dd></div>}
        {pool.namespaces.length > 0 && <div><dt>namespaces</dt><dd>{pool.namespaces.join(", ")}</dd></div>}
      </dl>
      {may("ResetPoolCounters") && <div class="actions"><button type="button" class="button quiet small" onClick={reset}>Reset counters…</button></div>}
    </Card>
  );
}

/** `NAMESPACE=WEIGHT` or `NAMESPACE/KEY=WEIGHT`, as in the command line. */
const weight = ({ namespace, fairnessKey, weight }: PoolWeight) => `${[namespace, fairnessKey].filter((part) => part).join("/")}=${weight}`;

function NumberSetting(props: { name: string; value: number; max: number; onApply: (value: number) => void }) {
  const text = useSignal(String(props.value));
  const value = Number(text.value);
  const isValid = Number.isInteger(value) && value >= 1 && value <= props.max;
  return (
    <form
      class="number-setting"
      onSubmit={(event) => {
        event.preventDefault();
        if (isValid) props.onApply(value);
      }}
    >
      <label class="field">
        <span>{props.name}</span>
        <input type="number" min={1} max={props.max} value={text.value} onInput={(event) => (text.value = event.currentTarget.value)} />
      </label>
      <button type="submit" class="button" disabled={!isValid || value === props.value}>Apply</button>
    </form>
  );
}
