// The newest batches, with their counts and their progress.
import { Bar, Card, confirm, Empty, ErrorNote, TableBox, Time, toast } from "../components/basic";
import { batches, errorText } from "../data/client";
import { millis } from "../data/convert";
import { may } from "../data/permissions";
import { usePoll } from "../data/poll";
import { number, percent, rate, shortId } from "../format";
import { type Batch, BatchState } from "../gen/lineshaft/v1/batch_service_pb";
import { href } from "../route";

const SHOWN = 100;
const PERIOD = 2_000;

const COLORS: Partial<Record<BatchState, string>> = {
  [BatchState.OPEN]: "state-waiting",
  [BatchState.ACTIVE]: "state-running",
  [BatchState.FINISHED]: "state-completed",
};

export function BatchesPage() {
  const { value, error, refresh } = usePoll((signal) => batches.listBatches({ pageSize: SHOWN }, { signal }), () => PERIOD, []);
  const found = value.value?.batches;
  return (
    <div class="page">
      <div class="page-head">
        <div class="title">
          <a class="muted small" href={href(["tasks"])}>Tasks</a>
          <h1>Batches</h1>
        </div>
        {value.value?.nextPageToken && <span class="muted small">the newest {number(SHOWN)}</span>}
      </div>
      <ErrorNote text={error.value} />
      <Card>
        {found?.length === 0 && <Empty>There is no batch.</Empty>}
        {found && found.length > 0 && (
          <TableBox label="Batches" needs={900}>
            <table class="table named batches">
              <thead>
                <tr>
                  <th scope="col">Batch</th>
                  <th scope="col">State</th>
                  <th scope="col">Finished</th>
                  <th scope="col" class="right">Tasks</th>
                  <th scope="col" class="right">Unfinished</th>
                  <th scope="col" class="right">Failed</th>
                  <th scope="col" class="right">Rate</th>
                  <th scope="col">Created</th>
                  <th scope="col">End</th>
                  <th scope="col"><span class="sr-only">Actions</span></th>
                </tr>
              </thead>
              <tbody>{found.map((batch) => <Row key={batch.batchId} batch={batch} refresh={refresh} />)}</tbody>
            </table>
          </TableBox>
        )}
      </Card>
    </div>
  );
}

function Row({ batch, refresh }: { batch: Batch; refresh: () => void }) {
  const counts = batch.counts;
  const unfinished = counts ? Number(counts.waiting + counts.queued + counts.running) : 0;
  const failed = Number(counts?.failed ?? 0n);
  const tasks = (state?: string) => href(["tasks"], new URLSearchParams({ ...(state && { state }), batch: batch.batchId }));
  const isFinished = batch.state === BatchState.FINISHED;
  const end = millis(isFinished ? batch.finishedAt : batch.estimatedEndAt);
  const cancel = () =>
    confirm({
      title: "Cancel the batch",
      text: <p>It takes no more tasks, and {unfinished === 1 ? "its unfinished task is" : `its ${number(unfinished)} unfinished tasks are`} cancelled. This cannot be undone.</p>,
      action: "Cancel the batch",
      isDangerous: true,
      run: async () => {
        try {
          await batches.cancelBatch({ batchId: batch.batchId, reason: "dashboard" });
          toast("cancellation accepted");
        } catch (error) {
          toast(errorText(error), true);
        }
        refresh();
      },
    });
  return (
    <tr>
      <th scope="row">
        <div class="batch-name">
          <a class="ellipsis" href={tasks()} title={`${batch.displayName} ${batch.batchId}`.trim()}>{batch.displayName || shortId(batch.batchId)}</a>
          {batch.cancelRequestedAt && <span class="muted small">cancelled</span>}
        </div>
      </th>
      <td><span class={`badge ${COLORS[batch.state] ?? ""}`}>{BatchState[batch.state]}</span></td>
      <td class="no-wrap with-bar"><Bar share={batch.progress} label={`Finished tasks of ${batch.batchId}`} />{percent(batch.progress, 0)}</td>
      <td class="right" data-name="Tasks">{number(Number(batch.total))}</td>
      <td class="right" data-name="Unfinished">{unfinished ? <a href={tasks("waiting,queued,running")}>{number(unfinished)}</a> : 0}</td>
      <td class="right" data-name="Failed">{failed ? <a href={tasks("failed")}>{number(failed)}</a> : 0}</td>
      <td class="right no-wrap" data-name="Rate">{rate(batch.tasksPerSecond)}</td>
      <td class="no-wrap" data-name="Created"><Time at={millis(batch.createdAt)} /></td>
      <td class="no-wrap" data-name="End">{end === undefined ? "–" : <>{!isFinished && "about "}<Time at={end} /></>}</td>
      <td class="right whole">{may("CancelBatch") && !isFinished && <button type="button" class="button quiet small" onClick={cancel}>Cancel…</button>}</td>
    </tr>
  );
}
