// The files that a task has left.
import { Card, Copy, Empty, ErrorNote, Time } from "../components/basic";
import { artifacts, serverUrl } from "../data/client";
import { duration, millis } from "../data/convert";
import { usePoll } from "../data/poll";
import { bytes } from "../format";

/** Links are valid for a day, and read again before they end. */
const LIFETIME = 86_400;
const PERIOD = (LIFETIME / 2) * 1000;

export function Artifacts({ taskId }: { taskId: string }) {
  const { value, error } = usePoll(
    (signal) => artifacts.listArtifacts({ taskId, linkLifetime: duration(LIFETIME) }, { signal }),
    () => PERIOD,
    [taskId],
  );
  const found = value.value;
  return (
    <Card title="Artifacts" actions={found?.expiresAt && <span class="muted small">removed <Time at={millis(found.expiresAt)} /></span>}>
      <ErrorNote text={error.value} />
      {found?.artifacts.length === 0 && <Empty>They have been removed.</Empty>}
      {found && (
        <ul class="list">
          {found.artifacts.map(({ name, link, sizeBytes, contentType, sha256 }) => (
            <li key={name} class="file">
              <a class="grow" href={serverUrl + link}>{name}</a>
              <span class="muted small no-wrap">{contentType.split(";")[0]}, {bytes(Number(sizeBytes))}</span>
              <Copy text={sha256} label={`SHA-256 of ${name}`} />
            </li>
          ))}
        </ul>
      )}
    </Card>
  );
}
