// One task: what happened, what went in and came out, and what can be done.
import { useSignal } from "@preact/signals";
import { useEffect, useMemo, useRef } from "preact/hooks";
import { asCli, asCurl, asPython } from "../command";
import { Bar, Card, confirm, Copy, copyText, Empty, ErrorNote, PriorityLabel, StateBadge, Tabs, Time, toast } from "../components/basic";
import { Content } from "../components/content";
import { errorText, serverUrl, tasks } from "../data/client";
import { millis, seconds as inSeconds } from "../data/convert";
import { readEvents } from "../data/events";
import { info } from "../data/info";
import { Output } from "../data/output";
import { may } from "../data/permissions";
import { usePoll } from "../data/poll";
import { token } from "../data/session";
import { bytes, clock, exact, number, percent, seconds } from "../format";
import { CancelMode, FailureReason, OutputStream, type Task, type TaskEvent, TaskState } from "../gen/lineshaft/v1/task_pb";
import { now } from "../now";
import { go, href, taskHref } from "../route";
import { type Phase, phasesOfEvents, phasesOfTask } from "../timeline";
import { holdText, isFinished, limitName, reasonName, stateName, stopName } from "../words";
import { Artifacts } from "./artifacts";
import { draft } from "./draft";
import { Explanation } from "./explain";

const PERIOD = 700;

export function TaskPage({ id }: { id: string }) {
  const read = usePoll(
    async (signal) => (await tasks.getTask({ taskId: id, includePayload: true }, { signal })).task!,
    (task) => (task && isFinished(task.state) ? undefined : PERIOD),
    [id],
  );
  const task = read.value.value;
  if (!task) {
    return (
      <div class="page">
        <div class="page-head"><h1 class="ellipsis">{id}</h1></div>
        <ErrorNote text={read.error.value} />
      </div>
    );
  }
  return (
    <div class="page">
      <div class="page-head">
        <div class="title">
          <a class="muted small" href={href(["tasks"])}>Tasks</a>
          <h1 class="ellipsis">{task.displayName || task.handler}</h1>
          <p class="id-line"><StateBadge state={task.state} /> <code class="ellipsis">{task.taskId}</code> <Copy text={task.taskId} label="task ID" /></p>
        </div>
        <Actions task={task} refresh={read.refresh} />
      </div>
      <ErrorNote text={read.error.value} />
      <Outcome task={task} />
      {(task.state === TaskState.WAITING || task.state === TaskState.QUEUED) && may("ExplainTask") && <Explanation task={task} />}
      <Timeline task={task} />
      <div class="columns">
        <Facts task={task} />
        <div class="stack">
          <Content title="Payload" payload={task.payload} empty="The task has no payload." />
          {task.state === TaskState.COMPLETED && <Content title="Result" payload={task.result} empty="The result is empty." />}
          {task.artifacts.length > 0 && may("ListArtifacts") && <Artifacts taskId={task.taskId} />}
        </div>
      </div>
      <OutputCard key={task.taskId} task={task} />
    </div>
  );
}

function Actions({ task, refresh }: { task: Task; refresh: () => void }) {
  const run = async (action: () => Promise<unknown>, done: string) => {
    try {
      await action();
      toast(done);
    } catch (error) {
      toast(errorText(error), true);
    }
    refresh();
  };
  const cancel = (mode: CancelMode) => run(() => tasks.cancelTask({ taskId: task.taskId, reason: "dashboard", mode }), "cancellation accepted");
  const retry = async () => {
    try {
      const { task: submitted } = await tasks.retryTask({ taskId: task.taskId });
      toast("submitted once more");
      go(taskHref(submitted!.taskId));
    } catch (error) {
      toast(errorText(error), true);
    }
  };
  const again = () => {
    draft.value = task;
    go(href(["submit"]));
  };
  const copy = async (name: string, text: string | undefined) => {
    if (text === undefined) return toast("the payload is not text; use curl or Python", true);
    await copyText(text);
    toast(`${name} copied`);
  };
  const isStopping = task.cancel !== undefined && task.state === TaskState.RUNNING;
  return (
    <div class="actions">
      <button type="button" class="button quiet" onClick={() => copy("curl command", asCurl(task, serverUrl, token.value !== ""))}>Copy curl</button>
      <button type="button" class="button quiet" onClick={() => copy("command", asCli(task, serverUrl))}>Copy CLI</button>
      <button type="button" class="button quiet" onClick={() => copy("program", asPython(task, serverUrl))}>Copy Python</button>
      {may("SubmitTask") && <button type="button" class="button" onClick={again}>Submit again…</button>}
      {may("RetryTask") && isFinished(task.state) && <button type="button" class="button" onClick={retry}>Retry</button>}
      {may("CancelTask") && !isFinished(task.state) && (
        <button
          type="button"
          class="button danger"
          onClick={() =>
            confirm({
              title: isStopping ? "Stop by force" : "Cancel this task",
              text: <p>{isStopping ? "Stop the running attempt at once, without its grace period?" : task.state === TaskState.RUNNING ? "Ask the running attempt to stop, and stop it by force after its grace period?" : "It has not started and never will."}</p>,
              action: isStopping ? "Stop by force" : "Cancel the task",
              isDangerous: true,
              run: () => cancel(isStopping ? CancelMode.FORCE : CancelMode.GRACEFUL),
            })
          }
        >
          {isStopping ? "Stop by force…" : "Cancel…"}
        </button>
      )}
      {may("DeleteTasks") && isFinished(task.state) && (
        <button
          type="button"
          class="button"
          onClick={() =>
            confirm({
              title: "Delete this task",
              text: <p>Its result and output are deleted too.</p>,
              action: "Delete",
              isDangerous: true,
              run: async () => {
                await run(() => tasks.deleteTasks({ filter: { taskIds: [task.taskId] } }), "deleted");
                go(href(["tasks"]));
              },
            })
          }
        >
          Delete…
        </button>
      )}
    </div>
  );
}

function Outcome({ task }: { task: Task }) {
  const failure = task.failure;
  if (task.state === TaskState.RUNNING && (task.progress > 0 || task.progressNote)) {
    return (
      <div class="note">
        <div class="progress-line"><Bar share={task.progress} label="Progress" /> <b>{percent(task.progress, 0)}</b> <span>{task.progressNote}</span></div>
      </div>
    );
  }
  if (failure && failure.reason !== FailureReason.UNSPECIFIED) {
    const code = failure.exitCode !== undefined ? `exit code ${failure.exitCode}` : failure.signal !== undefined ? `signal ${failure.signal}` : "";
    return (
      <div class="note note-error">
        <p><b>{reasonName(failure.reason)}</b> in attempt {failure.attempt}{code && `, ${code}`}{task.state === TaskState.WAITING ? "; it is retried" : ""}</p>
        <p>{failure.message}</p>
        {failure.detail && <pre class="code wrap">{failure.detail}</pre>}
      </div>
    );
  }
  if (task.cancel) {
    const { requestedAt, stoppedAt, method, reason, requestedBy } = task.cancel;
    const took = stoppedAt && requestedAt ? (millis(stoppedAt)! - millis(requestedAt)!) / 1000 : undefined;
    return (
      <div class="note">
        <p>
          Cancelled by {requestedBy || "a caller"}{reason && `: ${reason}`}.{" "}
          {took === undefined ? "It is being stopped." : `Stopped after ${seconds(took)}: ${stopName(method)}.`}
        </p>
      </div>
    );
  }
  return null;
}

function Timeline({ task }: { task: Task }) {
  const events = useSignal<TaskEvent[] | undefined>(undefined);
  const isReading = useSignal(false);
  const error = useSignal("");
  const end = useMemo(() => new AbortController(), []);
  useEffect(() => () => end.abort(), []);
  const load = async () => {
    isReading.value = true;
    try {
      events.value = await readEvents(task.taskId, end.signal);
      error.value = "";
    } catch (failure) {
      error.value = errorText(failure);
    }
    isReading.value = false;
  };
  const isComplete = events.value?.[0]?.previousState === TaskState.UNSPECIFIED;
  // Events that were read before the last change would be a part only.
  const isCurrent = events.value?.at(-1)?.revision === task.revision;
  useEffect(() => {
    if (events.value && !isCurrent && !isReading.value) void load();
  }, [task.revision]);
  const phases = events.value?.length && isComplete ? phasesOfEvents(events.value, task.dependencies !== undefined, Date.now()) : phasesOfTask(task);
  return (
    <Card
      title="Timeline"
      actions={!events.value && <button type="button" class="button quiet" disabled={isReading.value} onClick={load}>{isReading.value ? "Reading…" : "Show all events"}</button>}
    >
      <Bars phases={phases} task={task} />
      <ErrorNote text={error.value} />
      {events.value && (
        <div class="scroll" tabIndex={0} role="region" aria-label="Events">
          {events.value.length === 0 && <Empty>The server no longer keeps the events of this task.</Empty>}
          <table class="table events">
            <tbody>
              {events.value.map((event) => (
                <tr key={String(event.revision)}>
                  <td class="no-wrap"><time title={exact(millis(event.time))}>{clock(millis(event.time) ?? 0)}</time></td>
                  <td>{event.deleted ? <span class="badge">DELETED</span> : <StateBadge state={event.state} />}</td>
                  <td>{eventText(event)}</td>
                  <td class="muted">revision {String(event.revision)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </Card>
  );
}

function eventText(event: TaskEvent): string {
  const parts: string[] = [];
  if (event.attempt) parts.push(`attempt ${event.attempt}`);
  if (event.worker) parts.push(`on ${event.worker}`);
  if (event.updated) parts.push("updated");
  if (event.limitHold) parts.push(holdText(event.limitHold));
  if (event.failure) parts.push(`${reasonName(event.failure.reason)}: ${event.failure.message}`);
  if (event.notBefore) parts.push(`until ${clock(millis(event.notBefore) ?? 0)}`);
  if (event.cancel && !event.cancel.stoppedAt) parts.push("cancellation requested");
  if (event.resourceUsage) parts.push(`ran ${seconds(inSeconds(event.resourceUsage.runTime))}`);
  return parts.join(", ");
}

function Bars({ phases, task }: { phases: Phase[]; task: Task }) {
  if (phases.length === 0) return null;
  const from = Math.min(...phases.map((phase) => phase.from), millis(task.submittedAt) ?? Number.POSITIVE_INFINITY);
  const end = (phase: Phase) => phase.to ?? Math.max(now.value, phase.from);
  const to = Math.max(from + 0.001, ...phases.map(end));
  const place = (at: number) => ((at - from) / (to - from)) * 100;
  const total = (kind: string) => phases.filter((phase) => phase.kind === kind).reduce((sum, phase) => sum + end(phase) - phase.from, 0) / 1000;
  const kinds = [...new Set(phases.map((phase) => phase.kind))];
  const summary = kinds.map((kind) => `${kind} ${seconds(total(kind))}`).join(", ");
  return (
    <div class="timeline">
      <div class="timeline-bars" role="img" aria-label={summary}>
        {phases.map((phase, at) => (
          <span
            key={at}
            class={`phase phase-${phase.kind.split(" ")[0]} ${phase.to === undefined ? "phase-open" : ""}`}
            style={{ left: `${place(phase.from)}%`, width: `max(2px, ${place(end(phase)) - place(phase.from)}%)` }}
            title={`${phase.kind}${phase.attempt && phase.kind === "running" ? `, attempt ${phase.attempt}` : ""}: ${seconds((end(phase) - phase.from) / 1000)}`}
          />
        ))}
      </div>
      <div class="timeline-ends small">
        <span class="muted">{exact(from)}</span>
        <span class="legend">
          {kinds.map((kind) => <span key={kind} class="legend-item"><i class={`swatch phase-${kind.split(" ")[0]}`} />{kind} <b>{seconds(total(kind))}</b></span>)}
        </span>
        <span class="muted">{isFinished(task.state) ? exact(to) : "now"}</span>
      </div>
    </div>
  );
}

function Facts({ task }: { task: Task }) {
  const usage = task.resourceUsage;
  const labels = Object.entries(task.labels);
  return (
    <Card title="Details">
      <dl class="facts">
        <Fact name="handler">{task.handler}</Fact>
        <Fact name="pool">{task.pool}</Fact>
        <Fact name="priority"><PriorityLabel priority={task.priority} /></Fact>
        <Fact name="attempt">{task.attempt} of {task.retry?.maxAttempts ?? 1}{task.atMostOnce && ", at most once"}</Fact>
        {task.worker && <Fact name="worker">{task.worker}</Fact>}
        {task.dependencies && <Fact name="parents"><Parents ids={task.dependencies.parentIds} /></Fact>}
        {task.retryOf && <Fact name="retry of"><a href={taskHref(task.retryOf)}>{task.retryOf}</a></Fact>}
        <Fact name="submitted"><Time at={millis(task.submittedAt)} />{task.submittedBy && <span class="muted"> by {task.submittedBy}</span>}</Fact>
        <Eligible task={task} />
        {task.limits.length > 0 && <Fact name="limits">{task.limits.map(limitName).join(", ")}</Fact>}
        {task.startedAt && <Fact name="started"><Time at={millis(task.startedAt)} /></Fact>}
        {task.finishedAt && <Fact name="finished"><Time at={millis(task.finishedAt)} /></Fact>}
        {task.expiresAt && !isFinished(task.state) && <Fact name="expires"><Time at={millis(task.expiresAt)} /></Fact>}
        <Fact name="timeout">{seconds(inSeconds(task.timeout))}</Fact>
        {usage && (
          <>
            <Fact name="waited">{seconds(inSeconds(usage.queueTime))}</Fact>
            <Fact name="ran">{seconds(inSeconds(usage.runTime))}{usage.cpuTime && <span class="muted"> ({seconds(inSeconds(usage.cpuTime))} CPU)</span>}</Fact>
            {usage.peakMemoryBytes !== undefined && <Fact name="memory">{bytes(Number(usage.peakMemoryBytes))}</Fact>}
          </>
        )}
        {task.args.length > 0 && <Fact name="arguments"><code>{task.args.join(" ")}</code></Fact>}
        {task.namespace !== "default" && <Fact name="namespace">{task.namespace}</Fact>}
        {task.batchId && <Fact name="batch"><a href={href(["tasks"], new URLSearchParams({ batch: task.batchId }))}>{task.batchId}</a></Fact>}
        {task.traceId && <Fact name="trace"><Trace id={task.traceId} /></Fact>}
        {task.requestId && <Fact name="request ID"><code>{task.requestId}</code></Fact>}
        {labels.length > 0 && (
          <Fact name="labels">
            <span class="chips">
              {labels.map(([key, value]) => (
                <a key={key} class="chip" href={href(["tasks"], new URLSearchParams({ label: `${key}=${value}` }))}>{key}={value}</a>
              ))}
            </span>
          </Fact>
        )}
        <Fact name="revision">{String(task.revision)}</Fact>
      </dl>
    </Card>
  );
}

/** When a waiting task becomes eligible; nothing while only parents or a limit hold it. */
function Eligible({ task: { state, limitHold, dependencies, eligibleAt } }: { task: Task }) {
  const at = millis(eligibleAt);
  const hasParents = (dependencies?.unfinishedParents ?? 0) > 0;
  if (state !== TaskState.WAITING || limitHold || (hasParents && (at ?? 0) <= now.value)) return null;
  return <Fact name="eligible"><Time at={at} />{hasParents && " at the earliest"}</Fact>;
}

/** Parents that are named. */
const PARENTS_SHOWN = 10;

function Parents({ ids }: { ids: string[] }) {
  const more = ids.length - PARENTS_SHOWN;
  return <>{ids.slice(0, PARENTS_SHOWN).map((id) => <div key={id}><a href={taskHref(id)}>{id}</a></div>)}{more > 0 && `and ${number(more)} more`}</>;
}

function Trace({ id }: { id: string }) {
  const url = info.value?.traceUrl ?? "";
  const isWeb = /^https?:\/\//.test(url);
  return isWeb ? <a href={url.replaceAll("{trace_id}", id)} target="_blank" rel="noreferrer"><code>{id}</code></a> : <code>{id}</code>;
}

function Fact({ name, children }: { name: string; children: preact.ComponentChildren }) {
  return <div><dt>{name}</dt><dd>{children}</dd></div>;
}

const STREAMS = { stdout: OutputStream.STDOUT, stderr: OutputStream.STDERR };

function OutputCard({ task }: { task: Task }) {
  const chosen = useSignal<keyof typeof STREAMS | undefined>(undefined);
  const stream = chosen.value ?? (task.stdoutBytes === 0n && task.stderrBytes > 0n ? "stderr" : "stdout");
  const output = useMemo(() => new Output(task.taskId, STREAMS[stream], task.attempt), [stream, task.attempt]);
  const error = useSignal("");
  const follows = useRef(true);
  const box = useRef<HTMLDivElement>(null);
  const isRunning = !isFinished(task.state);
  useEffect(() => {
    if (task.attempt === 0) return;
    const end = new AbortController();
    void (async () => {
      do {
        try {
          await output.read(end.signal);
          error.value = "";
        } catch (failure) {
          if (end.signal.aborted) return;
          error.value = errorText(failure);
        }
        if (isRunning) await new Promise((resolve) => setTimeout(resolve, PERIOD));
      } while (isRunning && !end.signal.aborted);
    })();
    return () => end.abort();
  }, [output, isRunning]);
  const pieces = output.pieces.value;
  useEffect(() => {
    if (follows.current && box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [pieces.at(-1)?.id]);
  return (
    <Card
      title={<>Output <span class="muted small">{bytes(Number(output.written.value))}{isRunning && task.state === TaskState.RUNNING ? ", followed live" : ""}</span></>}
      actions={
        <>
          <Tabs label="Stream" options={["stdout", "stderr"] as const} value={stream} onChange={(value) => (chosen.value = value)} />
          <Copy text={() => output.text()} label="output" />
        </>
      }
    >
      <ErrorNote text={error.value} />
      <div
        class="terminal"
        ref={box}
        tabIndex={0}
        role="log"
        aria-label={`Output, ${stream}`}
        onScroll={() => {
          const { scrollTop, scrollHeight, clientHeight } = box.current!;
          follows.current = scrollTop + clientHeight >= scrollHeight - 8;
        }}
      >
        {pieces.length === 0 ? (
          <span class="ansi-dim">{task.attempt === 0 ? `nothing yet: the task is ${stateName(task.state)}` : `nothing on ${stream}`}</span>
        ) : (
          pieces.map((piece) => (
            <span key={piece.id}>
              {piece.note && <span class="terminal-note">{`… ${piece.note} …\n`}</span>}
              {piece.spans.map((span, at) => (span.style ? <span key={at} class={span.style}>{span.text}</span> : span.text))}
            </span>
          ))
        )}
      </div>
    </Card>
  );
}
