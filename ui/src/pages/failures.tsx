// The newest failed tasks, grouped by their cause.
import { Card, Empty, ErrorNote, Time } from "../components/basic";
import { group } from "../data/failures";
import { usePoll } from "../data/poll";
import { newest } from "../data/task_list";
import { number } from "../format";
import { TaskState } from "../gen/lineshaft/v1/task_pb";
import { href, taskHref } from "../route";

const EXAMINED = 2_000;
const PERIOD = 10_000;

export function FailuresPage() {
  const { value, error } = usePoll((signal) => newest(TaskState.FAILED, EXAMINED, signal), () => PERIOD, []);
  const failed = value.value;
  const groups = failed && group(failed);
  return (
    <div class="page">
      <div class="page-head">
        <div class="title">
          <a class="muted small" href={href(["tasks"])}>Tasks</a>
          <h1>Failures</h1>
        </div>
        {failed && <span class="muted small">{failed.length >= EXAMINED ? `the newest ${number(failed.length)}` : number(failed.length)} failed tasks, by handler, reason and message</span>}
      </div>
      <ErrorNote text={error.value} />
      <Card>
        {groups?.length === 0 && <Empty>No task has failed.</Empty>}
        {groups && groups.length > 0 && (
          <div class="scroll" tabIndex={0} role="region" aria-label="Failures">
            <table class="table failures">
              <thead>
                <tr>
                  <th scope="col" class="right">Tasks</th>
                  <th scope="col">Handler</th>
                  <th scope="col">Failure</th>
                  <th scope="col">First</th>
                  <th scope="col">Last</th>
                  <th scope="col"><span class="sr-only">Links</span></th>
                </tr>
              </thead>
              <tbody>
                {groups.map((of) => (
                  <tr key={of.key}>
                    <td class="right"><b>{number(of.count)}</b></td>
                    <th scope="row">{of.handler}</th>
                    <td class="failure-text"><span class="badge state-failed">{of.reason}</span> {of.message}</td>
                    <td class="no-wrap"><Time at={of.oldest} /></td>
                    <td class="no-wrap"><Time at={of.newest} /></td>
                    <td class="no-wrap">
                      <a href={taskHref(of.newestId)}>newest</a> · <a href={href(["tasks"], new URLSearchParams({ state: "failed", handler: of.handler }))}>all of the handler</a>
                    </td>
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
