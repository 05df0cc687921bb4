// The limits that tasks wait for, by name and key.
import { Card, Empty, ErrorNote, Time } from "../components/basic";
import { groupHolds } from "../data/holds";
import { usePoll } from "../data/poll";
import { newest } from "../data/task_list";
import { number } from "../format";
import { TaskState } from "../gen/lineshaft/v1/task_pb";
import { href, taskHref } from "../route";
import { holdText } from "../words";

const EXAMINED = 2_000;
const PERIOD = 3_000;

export function LimitsPage() {
  const { value, error } = usePoll((signal) => newest(TaskState.WAITING, EXAMINED, signal), () => PERIOD, []);
  const waiting = value.value;
  const groups = waiting && groupHolds(waiting);
  return (
    <div class="page">
      <div class="page-head">
        <div class="title">
          <a class="muted small" href={href(["tasks"])}>Tasks</a>
          <h1>Limits</h1>
        </div>
        {waiting && <span class="muted small">{waiting.length >= EXAMINED ? `the newest ${number(waiting.length)}` : number(waiting.length)} waiting {waiting.length === 1 ? "task" : "tasks"}, by the limit that holds them</span>}
      </div>
      <ErrorNote text={error.value} />
      <Card>
        {groups?.length === 0 && <Empty>No task waits for a limit.</Empty>}
        {groups && groups.length > 0 && (
          <div class="scroll" tabIndex={0} role="region" aria-label="Limits">
            <table class="table limits">
              <thead>
                <tr>
                  <th scope="col" class="right">Tasks</th>
                  <th scope="col">Limit</th>
                  <th scope="col">When the last one began to wait</th>
                  <th scope="col">Handlers</th>
                  <th scope="col">Oldest</th>
                </tr>
              </thead>
              <tbody>
                {groups.map((of) => (
                  <tr key={of.limit}>
                    <td class="right"><b>{number(of.count)}</b></td>
                    <th scope="row">{of.limit}</th>
                    <td>{holdText(of.hold)}</td>
                    <td>{of.handlers.join(", ")}</td>
                    <td class="no-wrap"><a href={taskHref(of.oldestId)}><Time at={of.oldest} /></a></td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        )}
      </Card>
    </div>
  );
}
