// The schedules: when each runs next, how its last run ended, and what can be done with it.
import { Card, confirm, Dialog, Empty, ErrorNote, StateBadge, TableBox, Time, toast } from "../components/basic";
import { errorText, schedules } from "../data/client";
import { millis, seconds as inSeconds } from "../data/convert";
import { may } from "../data/permissions";
import { usePoll } from "../data/poll";
import { exact, number, seconds } from "../format";
import { OverlapPolicy, type Schedule, ScheduleState } from "../gen/lineshaft/v1/schedule_service_pb";
import { go, href, path, taskHref } from "../route";

const SHOWN = 100;
const PERIOD = 2_000;
const PREVIEWED = 10;

const COLORS: Partial<Record<ScheduleState, string>> = {
  [ScheduleState.ACTIVE]: "state-running",
  [ScheduleState.PAUSED]: "state-waiting",
  [ScheduleState.FINISHED]: "state-completed",
};

export function SchedulesPage() {
  const { value, error, refresh } = usePoll((signal) => schedules.listSchedules({ pageSize: SHOWN }, { signal }), () => PERIOD, []);
  const found = value.value?.schedules;
  const shown = found?.find(({ scheduleId }) => scheduleId === path.value[1]);
  return (
    <div class="page">
      <div class="page-head">
        <h1>Schedules</h1>
        {value.value?.nextPageToken && <span class="muted small">the newest {number(SHOWN)}</span>}
      </div>
      <ErrorNote text={error.value} />
      <Card>
        {found?.length === 0 && <Empty>There is no schedule. Create one with <code>lineshaft schedule create</code>.</Empty>}
        {found && found.length > 0 && (
          <TableBox label="Schedules" needs={900}>
            <table class="table named schedules">
              <thead>
                <tr>
                  <th scope="col">Schedule</th>
                  <th scope="col">State</th>
                  <th scope="col">Runs</th>
                  <th scope="col">Next run</th>
                  <th scope="col">Last run</th>
                  <th scope="col" class="right">Submitted</th>
                  <th scope="col" class="right">Failed</th>
                  <th scope="col"><span class="sr-only">Actions</span></th>
                </tr>
              </thead>
              <tbody>{found.map((schedule) => <Row key={schedule.scheduleId} schedule={schedule} refresh={refresh} />)}</tbody>
            </table>
          </TableBox>
        )}
      </Card>
      {shown && <Details schedule={shown} refresh={refresh} onClose={() => go(href(["schedules"]))} />}
    </div>
  );
}

/** The rule as a person reads it. */
function rule({ spec }: Schedule): string {
  if (spec?.rule.case === "cron") return `${spec.rule.value.pattern} ${spec.rule.value.timeZone || "UTC"}`;
  return spec?.rule.case === "interval" ? `every ${seconds(inSeconds(spec.rule.value))}` : "–";
}

async function apply(scheduleId: string, call: Promise<unknown>, done: string) {
  try {
    await call;
    toast(`${scheduleId}: ${done}`);
  } catch (error) {
    toast(errorText(error), true);
  }
}

function Row({ schedule, refresh }: { schedule: Schedule; refresh: () => void }) {
  const { scheduleId, state, lastRun } = schedule;
  const change = (call: Promise<unknown>, done: string) => apply(scheduleId, call, done).then(refresh);
  const isPaused = state === ScheduleState.PAUSED;
  return (
    <tr>
      <th scope="row" title={scheduleId}>
        <a href={href(["schedules", scheduleId])}>{scheduleId}</a>
        <div class="muted small">{schedule.spec?.task?.handler}</div>
      </th>
      <td><span class={`badge ${COLORS[state] ?? ""}`}>{ScheduleState[state]}</span></td>
      <td class="whole" data-name="Runs">{rule(schedule)}</td>
      <td class="no-wrap" data-name="Next run"><Time at={millis(schedule.nextRunAt)} /></td>
      <td class="no-wrap" data-name="Last run">
        {lastRun ? <><a href={taskHref(lastRun.taskId)}><Time at={millis(lastRun.submittedAt)} /></a> {lastRun.finishedAt ? <StateBadge state={lastRun.state} /> : <span class="muted small">unfinished</span>}</> : "–"}
      </td>
      <td class="right" data-name="Submitted">{number(Number(schedule.runCount))}</td>
      <td class="right" data-name="Failed" title={schedule.lastError?.message}>{number(Number(schedule.errorCount))}</td>
      <td class="right no-wrap whole">
        {may("TriggerSchedule") && <button type="button" class="button quiet small" onClick={() => change(schedules.triggerSchedule({ scheduleId }), "task submitted")}>Run now</button>}
        {may("PauseSchedule") && state !== ScheduleState.FINISHED && (
          <button
            type="button"
            class="button quiet small"
            onClick={() => (isPaused ? change(schedules.resumeSchedule({ scheduleId }), "resumed") : change(schedules.pauseSchedule({ scheduleId }), "paused"))}
          >
            {isPaused ? "Resume" : "Pause"}
          </button>
        )}
      </td>
    </tr>
  );
}

const OVERLAPS: Partial<Record<OverlapPolicy, string>> = {
  [OverlapPolicy.SKIP]: "does not take place",
  [OverlapPolicy.QUEUE]: "waits for it",
  [OverlapPolicy.ALLOW]: "starts beside it",
  [OverlapPolicy.CANCEL_OLD]: "cancels it",
};

function Details({ schedule, refresh, onClose }: { schedule: Schedule; refresh: () => void; onClose: () => void }) {
  const { scheduleId, spec, lastError, etag } = schedule;
  const next = usePoll((signal) => schedules.previewSchedule({ scheduleId, count: PREVIEWED }, { signal }), () => undefined, [scheduleId, etag, millis(schedule.nextRunAt)]);
  const times = next.value.value?.times;
  const end = millis(spec?.endAt);
  const facts: [string, string][] = [
    ["runs", rule(schedule)],
    ["task", `${spec?.task?.handler} in the pool ${spec?.task?.pool}`],
    ["a run beside an unfinished task", OVERLAPS[spec?.overlap ?? OverlapPolicy.SKIP] ?? "–"],
    ["starts late by at most", seconds(inSeconds(spec?.catchUpWindow))],
    ["skipped, missed, late runs", `${schedule.skippedCount}, ${schedule.missedCount}, ${schedule.caughtUpCount}`],
    ...(end === undefined ? [] : [["ends", exact(end)] as [string, string]]),
    ...(spec?.maxRuns ? [["ends after", `${spec.maxRuns} runs`] as [string, string]] : []),
    ...(schedule.configured ? [["defined in", "the configuration of the server"] as [string, string]] : []),
    ...(lastError ? [["last error", `${exact(millis(lastError.at))}: ${lastError.message}`] as [string, string]] : []),
  ];
  const remove = () =>
    confirm({
      title: `Delete ${scheduleId}`,
      text: <p>It starts no more runs. Its tasks stay. This cannot be undone.</p>,
      action: "Delete the schedule",
      isDangerous: true,
      run: () => apply(scheduleId, schedules.deleteSchedule({ scheduleId, etag }), "deleted").then(refresh),
    });
  return (
    <Dialog title={scheduleId} onClose={onClose}>
      <div class="dialog-body">
        <dl class="facts">{facts.map(([name, text]) => <div key={name}><dt>{name}</dt><dd>{text}</dd></div>)}</dl>
        <h3>Next runs</h3>
        <ErrorNote text={next.error.value} />
        {times?.length === 0 && <p class="muted">None follows{schedule.state === ScheduleState.PAUSED && " until it is resumed"}.</p>}
        <ol class="next-runs">{times?.map((at) => <li key={millis(at)}>{exact(millis(at)).replace(/\.000(Z?)$/, "$1")} <span class="muted small"><Time at={millis(at)} /></span></li>)}</ol>
      </div>
      {may("DeleteSchedule") && !schedule.configured && <footer class="dialog-foot"><button type="button" class="button" onClick={remove}>Delete…</button></footer>}
    </Dialog>
  );
}
