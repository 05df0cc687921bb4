// Viewer of a payload or a result.
import { useSignal } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";
import { plain } from "../ansi";
import { asText, hex, isImage, mediaType, type View } from "../content";
import { bytes } from "../format";
import type { Payload } from "../gen/lineshaft/v1/task_pb";
import { prettyTokens, table } from "../json";
import { Card, Copy, Empty, Tabs } from "./basic";

/** Tokens that are coloured; a larger document is shown as one text. */
const TOKENS_MAX = 20_000;

export function Content({ title, payload, empty }: { title: string; payload: Payload | undefined; empty: string }) {
  const data = payload?.kind.case === "data" ? payload.kind.value : new Uint8Array();
  const contentType = payload?.contentType ?? "";
  const text = useMemo(() => asText(data), [data]);
  const tokens = useMemo(() => (text !== undefined && text.trim() ? prettyTokens(text) : undefined), [text]);
  const rows = useMemo(() => (tokens && text !== undefined ? table(text) : undefined), [text]);
  const views: View[] = [];
  if (isImage(contentType)) views.push("image");
  if (tokens) views.push("json");
  if (rows) views.push("table");
  if (text !== undefined) views.push("text");
  views.push("hex");
  const chosen = useSignal<View | undefined>(undefined);
  const view = chosen.value && views.includes(chosen.value) ? chosen.value : views[0]!;
  if (data.length === 0) return <Card title={title}><Empty>{empty}</Empty></Card>;
  return (
    <Card
      title={<>{title} <span class="muted small">{mediaType(contentType)}, {bytes(data.length)}</span></>}
      actions={
        <>
          {views.length > 1 && <Tabs label={`View of the ${title.toLowerCase()}`} options={views} value={view} onChange={(value) => (chosen.value = value)} />}
          {text !== undefined && <Copy text={text} label={title.toLowerCase()} />}
        </>
      }
    >
      <div class="content" tabIndex={0} role="region" aria-label={title}>
        {view === "image" && <Picture data={data} contentType={mediaType(contentType)} />}
        {view === "json" && tokens && (
          <pre class="code">
            {tokens.length > TOKENS_MAX
              ? tokens.map((token) => token.text).join("")
              : tokens.map((token, at) => (token.kind === "space" || token.kind === "punctuation" ? token.text : <span key={at} class={`json-${token.kind}`}>{token.text}</span>))}
          </pre>
        )}
        {view === "table" && rows && (
          <table class="table">
            <thead><tr>{rows.columns.map((name) => <th key={name} scope="col">{name}</th>)}</tr></thead>
            <tbody>{rows.rows.map((row, at) => <tr key={at}>{row.map((cell, column) => <td key={column}>{cell}</td>)}</tr>)}</tbody>
          </table>
        )}
        {view === "text" && text !== undefined && <pre class="code wrap">{plain(text)}</pre>}
        {view === "hex" && <pre class="code">{hex(data)}</pre>}
      </div>
    </Card>
  );
}

/** An image cannot run scripts, also not one in SVG. */
function Picture({ data, contentType }: { data: Uint8Array; contentType: string }) {
  const url = useSignal("");
  useEffect(() => {
    const made = URL.createObjectURL(new Blob([data as Uint8Array<ArrayBuffer>], { type: contentType }));
    url.value = made;
    return () => URL.revokeObjectURL(made);
  }, [data]);
  return url.value ? <img class="picture" src={url.value} alt="The content as an image" /> : null;
}
