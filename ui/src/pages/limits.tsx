// The limits of tasks: what is taken of them, and how many tasks wait.
import { useSignal } from "@preact/signals";
import { Bar, Card, Empty, ErrorNote, TableBox, Time } from "../components/basic";
import { tasks } from "../data/client";
import { millis, seconds as inSeconds } from "../data/convert";
import { usePoll } from "../data/poll";
import { number, seconds } from "../format";
import type { Limit } from "../gen/lineshaft/v1/task_service_pb";
import { href } from "../route";
import { limitName } from "../words";

const PERIOD = 3_000;
/** Limits that the page shows, and pages that it reads for them. */
const SHOWN_MAX = 1_000;
const PAGES_MAX = 20;

async function read(onlyWaiting: boolean, signal: AbortSignal) {
  const limits: Limit[] = [];
  let pageToken = "";
  for (let page = 0; page < PAGES_MAX; page++) {
    const found = await tasks.listLimits({ onlyWaiting, pageSize: SHOWN_MAX, pageToken }, { signal });
    limits.push(...found.limits);
    pageToken = found.nextPageToken;
    if (!pageToken || limits.length >= SHOWN_MAX) break;
  }
  const name = (limit: Limit) => `${limitName(limit)} ${limit.namespace}`;
  limits.sort((a, b) => Number(b.waiting - a.waiting) || name(a).localeCompare(name(b)));
  return { limits: limits.slice(0, SHOWN_MAX), hasMore: pageToken !== "" || limits.length > SHOWN_MAX };
}

export function LimitsPage() {
  const onlyWaiting = useSignal(false);
  const { value, error } = usePoll((signal) => read(onlyWaiting.value, signal), () => PERIOD, [onlyWaiting.value]);
  const found = value.value;
  return (
    <div class="page">
      <div class="page-head">
        <div class="title">
          <a class="muted small" href={href(["tasks"])}>Tasks</a>
          <h1>Limits</h1>
        </div>
        {found?.hasMore && <span class="muted small">There are more than these {number(found.limits.length)}.</span>}
        <label class="check"><input type="checkbox" checked={onlyWaiting.value} onChange={() => (onlyWaiting.value = !onlyWaiting.value)} /> only those that tasks wait for</label>
      </div>
      <ErrorNote text={error.value} />
      <Card>
        {found?.limits.length === 0 && <Empty>{onlyWaiting.value ? "No task waits for a limit." : "No limit is configured, and no unfinished task has one."}</Empty>}
        {found && found.limits.length > 0 && (
          <TableBox label="Limits" needs={700}>
            <table class="table named limits">
              <thead>
                <tr>
                  <th scope="col">Limit</th>
                  <th scope="col">Places taken</th>
                  <th scope="col" class="right">Waiting</th>
                  <th scope="col">Rate</th>
                  <th scope="col">Tokens</th>
                  <th scope="col" class="right">Unfinished</th>
                </tr>
              </thead>
              <tbody>{found.limits.map((limit) => <Row key={`${limit.namespace} ${limit.name} ${limit.key}`} limit={limit} />)}</tbody>
            </table>
          </TableBox>
        )}
      </Card>
    </div>
  );
}

function Row({ limit }: { limit: Limit }) {
  const { maxRunning, rate, tokens } = limit;
  const taken = Number(limit.taken);
  // A key exists only while tasks name it.
  const isMissing = limit.name !== "" && !maxRunning && !rate;
  return (
    <tr>
      <th scope="row" title={limitName(limit)}>
        {limitName(limit)}
        {limit.namespace && limit.namespace !== "default" && <span class="muted small"> {limit.namespace}</span>}
        {isMissing && <span class="badge state-failed">not configured</span>}
      </th>
      <td class="no-wrap with-bar whole" data-name={maxRunning ? undefined : "Places taken"}>
        {maxRunning > 0 ? <><Bar share={Math.min(1, taken / maxRunning)} label={`Places taken of ${limitName(limit)}`} /> {number(taken)} of {number(maxRunning)}</> : number(taken)}
      </td>
      <td class="right" data-name="Waiting">{limit.waiting ? <a href={href(["tasks"], new URLSearchParams({ state: "waiting" }))}><b>{number(Number(limit.waiting))}</b></a> : 0}</td>
      <td class="no-wrap" data-name={rate && "Rate"}>{rate && `${number(rate.starts)} in ${seconds(inSeconds(rate.interval))}`}</td>
      <td class="no-wrap" data-name={rate && "Tokens"}>
        {rate && <>{number(tokens)} of {number(rate.burst)}{limit.nextTokenAt && <span class="muted small">, next <Time at={millis(limit.nextTokenAt)} /></span>}</>}
      </td>
      <td class="right" data-name="Unfinished">{number(Number(limit.unfinished))}</td>
    </tr>
  );
}
