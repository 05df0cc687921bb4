// The newest failed tasks, grouped by their cause.
import { Card, Empty, ErrorNote, TableBox, Time } from "../components/basic";
import { tasks } from "../data/client";
import { millis } from "../data/convert";
import { usePoll } from "../data/poll";
import { number } from "../format";
import { href, taskHref } from "../route";
import { reasonName } from "../words";

const PERIOD = 10_000;

export function FailuresPage() {
  const { value, error } = usePoll((signal) => tasks.listFailureGroups({}, { signal }), () => PERIOD, []);
  const found = value.value;
  const groups = found?.groups;
  return (
    <div class="page">
      <div class="page-head">
        <div class="title">
          <a class="muted small" href={href(["tasks"])}>Tasks</a>
          <h1>Failures</h1>
        </div>
        {found && <span class="muted small">{found.atLeast ? "the newest " : ""}{number(Number(found.tasks))} failed tasks, by cause</span>}
      </div>
      <ErrorNote text={error.value} />
      <Card>
        {groups?.length === 0 && <Empty>No task has failed.</Empty>}
        {groups && groups.length > 0 && (
          <TableBox label="Failures" needs={600}>
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
                  <tr key={of.id}>
                    <td class="right" data-name="Tasks"><b>{number(Number(of.count))}</b></td>
                    <th scope="row">{of.handler}</th>
                    <td class="failure-text whole"><span class="badge state-failed">{reasonName(of.reason)}</span> {of.message}</td>
                    <td class="no-wrap" data-name="First"><Time at={millis(of.firstAt)} /></td>
                    <td class="no-wrap" data-name="Last"><Time at={millis(of.lastAt)} /></td>
                    <td class="no-wrap">
                      <a href={taskHref(of.exampleTaskId)}>newest</a> · <a href={href(["tasks"], new URLSearchParams({ "failure-group": of.id }))}>all</a>
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
          </TableBox>
        )}
      </Card>
    </div>
  );
}
