// A form that submits one task, ten, or one for each line of a file.
import { type Signal, useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useMemo } from "preact/hooks";
import { Card, confirm, Empty, ErrorNote, StateBadge, Tabs, toast } from "../components/basic";
import { errorText, tasks } from "../data/client";
import { seconds as inSeconds } from "../data/convert";
import { usePoll } from "../data/poll";
import { handlers } from "../data/server";
import { fieldsOf, payloadOf, type SchemaField, valuesOf } from "../data/schema_form";
import { EMPTY, type Form, formOf, isJson, payloadsOf, problems, toRequest } from "../data/submission";
import { toRow } from "../data/task_list";
import { number, seconds, shortId } from "../format";
import { pretty, problem } from "../json";
import { query, taskHref } from "../route";
import { isFinished, limitName, PRIORITIES, priorityName } from "../words";
import { draft } from "./draft";

const SHOWN_MAX = 100;
const BATCH = 1_000;

export function SubmitPage() {
  const initial = useMemo(() => {
    const task = draft.peek();
    draft.value = undefined;
    const repeated = task && formOf(task);
    if (task && !repeated) toast("the payload is not text: enter it again", true);
    return repeated ?? { ...EMPTY, handler: query.peek().get("handler") ?? "" };
  }, []);
  const form = useSignal<Form>(initial);
  const submitted = useSignal<string[]>([]);
  const error = useSignal("");
  const isBusy = useSignal(false);
  const all = handlers.value;
  const handler = all.find(({ name }) => name === form.value.handler);
  useEffect(() => {
    if (!form.value.handler && all[0]) form.value = { ...form.value, handler: all[0].name };
  }, [all]);
  const set = (changed: Partial<Form>) => (form.value = { ...form.value, ...changed });
  const schema = handler?.payloadSchema ?? "";
  const fields = useMemo(() => fieldsOf(schema), [schema]);
  /** What is wrong with the fields of the schema. */
  const wrong = useSignal<Record<string, string>>({});
  useEffect(() => {
    wrong.value = {};
    if (fields && !form.peek().payload.trim()) set({ kind: "form" });
    else if (!fields && form.peek().kind === "form") set({ kind: "JSON" });
  }, [fields]);
  const kinds = [...(fields ? (["form"] as const) : []), ...(["JSON", "text", "none"] as const)];
  const found = problems(form.value);

  const submit = async (payloads: string[]) => {
    isBusy.value = true;
    error.value = "";
    try {
      if (payloads.length === 1) {
        const { taskId, duplicate } = await tasks.submitTask(toRequest(form.value, payloads[0]));
        if (duplicate) toast("a task with this ID exists already");
        submitted.value = [taskId, ...submitted.value];
      } else {
        for (let at = 0; at < payloads.length; at += BATCH) {
          const requests = payloads.slice(at, at + BATCH).map((payload) => ({ ...toRequest(form.value, payload), taskId: "" }));
          const { taskIds } = await tasks.batchSubmitTasks({ tasks: requests });
          submitted.value = [...taskIds, ...submitted.value];
        }
        toast(`${number(payloads.length)} tasks submitted`);
      }
    } catch (failure) {
      error.value = errorText(failure);
    }
    isBusy.value = false;
  };
  const readFile = async (input: HTMLInputElement) => {
    const file = input.files?.[0];
    input.value = "";
    if (!file) return;
    const payloads = payloadsOf(await file.text());
    const line = isJson(form.value.kind) ? payloads.findIndex((payload) => problem(payload)) : -1;
    if (payloads.length === 0 || line >= 0) {
      toast(payloads.length ? `line ${line + 1} of the file is not JSON: ${problem(payloads[line]!)}` : "the file has no lines", true);
      return;
    }
    confirm({
      title: "Submit one task for each line",
      text: <p>Submit {number(payloads.length)} tasks of {form.value.handler}, with the lines of {file.name} as payloads?</p>,
      action: `Submit ${number(payloads.length)}`,
      run: () => submit(payloads),
    });
  };
  const isWrong = Object.keys(found).length > 0 || (form.value.kind === "form" && Object.keys(wrong.value).length > 0);
  return (
    <div class="page">
      <div class="page-head"><h1>Submit</h1></div>
      <div class="columns submit">
        <form
          class="card form"
          onSubmit={(event) => {
            event.preventDefault();
            if (!isWrong) void submit([form.value.payload]);
          }}
        >
          <Field name="Handler" error={found.handler} hint={handler?.description}>
            <select value={form.value.handler} onChange={(event) => set({ handler: event.currentTarget.value, pool: "" })}>
              {!handler && <option value={form.value.handler}>{form.value.handler}</option>}
              {all.map(({ name, runner }) => <option key={name} value={name}>{name} ({runner})</option>)}
            </select>
          </Field>
          <div class="field">
            <span class="label-line">
              {form.value.kind === "form" ? <b>Payload</b> : <label for="payload">Payload</label>}
              <Tabs label="Kind of payload" options={kinds} value={form.value.kind} onChange={(kind) => set({ kind })} />
            </span>
            {form.value.kind === "form" && fields && (
              <SchemaForm
                key={schema}
                fields={fields}
                payload={form.peek().payload}
                onChange={(payload, problems) => {
                  wrong.value = problems;
                  set({ payload });
                }}
              />
            )}
            {form.value.kind !== "none" && form.value.kind !== "form" && (
              <textarea
                id="payload"
                rows={7}
                spellcheck={false}
                value={form.value.payload}
                aria-invalid={found.payload ? "true" : undefined}
                aria-describedby="payload-hint"
                onInput={(event) => set({ payload: event.currentTarget.value })}
                onKeyDown={(event) => {
                  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !isWrong) void submit([form.value.payload]);
                }}
              />
            )}
            {(form.value.kind !== "form" || handler?.payloadDescription) && <span class="hint hint-line" id="payload-hint">
              <span>{found.payload ? <span class="wrong">{found.payload}</span> : handler?.payloadDescription || " "}</span>
              {form.value.kind === "JSON" && form.value.payload.trim() && !found.payload && (
                <button type="button" class="button quiet small" onClick={() => set({ payload: pretty(form.value.payload) ?? form.value.payload })}>Indent</button>
              )}
            </span>}
          </div>
          {handler?.argPattern && (
            <Field name="Arguments, one a line" hint={`each matches ${handler.argPattern}`}>
              <textarea rows={2} spellcheck={false} value={form.value.args} onInput={(event) => set({ args: event.currentTarget.value })} />
            </Field>
          )}
          <div class="field">
            <span>Priority</span>
            <Tabs label="Priority" options={PRIORITIES.map((priority) => priorityName(priority).toLowerCase())} value={priorityName(form.value.priority).toLowerCase()} onChange={(name) => set({ priority: PRIORITIES.find((priority) => priorityName(priority).toLowerCase() === name)! })} />
          </div>
          <Text name="Name" of="name" form={form} found={found} hint="for people" />
          {form.value.limits.length > 0 && (
            <div class="chips">
              {form.value.limits.map((limit) => (
                <button type="button" key={limitName(limit)} class="chip" onClick={() => set({ limits: form.value.limits.filter((other) => other !== limit) })} aria-label={`Remove the limit ${limitName(limit)}`}>limit {limitName(limit)} ×</button>
              ))}
            </div>
          )}
          <details class="more">
            <summary>More options</summary>
            <div class="grid">
              <Field name="Labels, key=value, one a line" error={found.labels}>
                <textarea rows={2} spellcheck={false} value={form.value.labels} onInput={(event) => set({ labels: event.currentTarget.value })} />
              </Field>
              {handler && handler.allowedPools.length > 0 && (
                <Field name="Pool">
                  <select value={form.value.pool} onChange={(event) => set({ pool: event.currentTarget.value })}>
                    <option value="">{handler.pool}, the handler's</option>
                    {handler.allowedPools.map((name) => <option key={name}>{name}</option>)}
                  </select>
                </Field>
              )}
              <Text name="Task ID" of="taskId" form={form} found={found} hint="generated if empty" />
              <Text name="Delay" of="delay" form={form} found={found} hint="such as 10m" />
              <Text name="Timeout" of="timeout" form={form} found={found} hint={handler ? `of each attempt; ${seconds(inSeconds(handler.timeout))} by default` : ""} />
              <Text name="Expires after" of="expiresAfter" form={form} found={found} hint="fails unless it has started" />
              <Text name="Attempts" of="attempts" form={form} found={found} hint={handler?.retry ? `${handler.retry.maxAttempts} by default` : ""} />
              <Text name="Namespace" of="namespace" form={form} found={found} hint="your own, or default" />
              <label class="check">
                <input type="checkbox" checked={form.value.atMostOnce} onChange={(event) => set({ atMostOnce: event.currentTarget.checked })} />
                Never start it twice, also not after a crash
              </label>
            </div>
          </details>
          <ErrorNote text={error.value} />
          <div class="actions">
            <button type="submit" class="button primary" disabled={isWrong || isBusy.value}>Submit</button>
            <button type="button" class="button" disabled={isWrong || isBusy.value} onClick={() => submit(Array<string>(10).fill(form.value.payload))}>Submit ×10</button>
            <label class={`button ${isBusy.value || !form.value.handler ? "disabled" : ""}`}>
              From a file…
              <input type="file" class="sr-only" accept=".jsonl,.ndjson,.json,.txt" disabled={isBusy.value || !form.value.handler} onChange={(event) => readFile(event.currentTarget)} />
            </label>
          </div>
        </form>
        <Submitted ids={submitted.value} />
      </div>
    </div>
  );
}

/** A JSON value; of a string its text. */
const shown = (value: string) => (value.startsWith('"') ? String(JSON.parse(value)) : value);

function SchemaForm(props: { fields: SchemaField[]; payload: string; onChange: (payload: string, wrong: Record<string, string>) => void }) {
  const { fields } = props;
  const values = useSignal(useMemo(() => valuesOf(fields, props.payload), []));
  const { wrong } = payloadOf(fields, values.value);
  const change = (changed: Record<string, string>) => {
    values.value = { ...values.value, ...changed };
    const made = payloadOf(fields, values.value);
    props.onChange(made.text, made.wrong);
  };
  // The payload that the form begins with may lack what the schema requires.
  useEffect(() => change({}), []);
  return (
    <div class="grid schema">
      {fields.map(({ name, title, hint, kind, isRequired, choices, placeholder }) => {
        const value = values.value[name] ?? "";
        // A field that is empty is marked as required, and is not an error before anything was entered.
        const error = value ? wrong[name] : undefined;
        return (
          <Field key={name} name={isRequired ? `${title} *` : title} hint={hint} error={error}>
            {kind === "choice" ? (
              <select value={value} required={isRequired} onChange={(event) => change({ [name]: event.currentTarget.value })}>
                <option value="">{placeholder && `default: ${shown(placeholder)}`}</option>
                {choices.map((choice) => <option key={choice} value={choice}>{shown(choice)}</option>)}
              </select>
            ) : (
              <input
                type="text"
                inputMode={kind === "number" || kind === "integer" ? "decimal" : undefined}
                value={value}
                required={isRequired}
                autocomplete="off"
                placeholder={placeholder || (kind === "json" ? "JSON" : "")}
                onInput={(event) => change({ [name]: event.currentTarget.value })}
              />
            )}
          </Field>
        );
      })}
    </div>
  );
}

function Field(props: { name: string; hint?: string | undefined; error?: string | undefined; children: ComponentChildren }) {
  return (
    <label class="field">
      <span>{props.name}</span>
      {props.children}
      {(props.error || props.hint) && <span class={props.error ? "hint wrong" : "hint"}>{props.error ?? props.hint}</span>}
    </label>
  );
}

type TextField = { [K in keyof Form]: Form[K] extends string ? K : never }[keyof Form];

function Text(props: { name: string; of: TextField; form: Signal<Form>; found: Partial<Record<keyof Form, string>>; hint: string }) {
  const { form, of } = props;
  return (
    <Field name={props.name} hint={props.hint} error={props.found[of]}>
      <input type="text" value={form.value[of]} autocomplete="off" onInput={(event) => (form.value = { ...form.value, [of]: event.currentTarget.value })} />
    </Field>
  );
}

function Submitted({ ids }: { ids: string[] }) {
  const shown = ids.slice(0, SHOWN_MAX);
  const { value } = usePoll(
    async (signal) => {
      if (shown.length === 0) return [];
      const page = await tasks.listTasks({ filter: { taskIds: shown }, pageSize: SHOWN_MAX }, { signal });
      const rows = new Map(page.tasks.map((task) => [task.taskId, toRow(task)]));
      return shown.map((id) => rows.get(id)).filter((row) => row !== undefined);
    },
    (rows) => (rows?.every((row) => isFinished(row.state)) ? undefined : 700),
    [ids],
  );
  const rows = value.value ?? [];
  const finished = rows.filter((row) => isFinished(row.state)).length;
  return (
    <Card title="Submitted here" actions={rows.length > 0 && <span class="muted small">{finished} of {rows.length} finished{ids.length > shown.length && `, ${number(ids.length)} in all`}</span>}>
      {ids.length === 0 && <Empty>What you submit appears here, with its state.</Empty>}
      <ul class="list">
        {rows.map((row) => (
          <li key={row.id}>
            <a class="row-link" href={taskHref(row.id)}>
              <StateBadge state={row.state} />
              <span class="grow ellipsis"><b>{row.name || row.handler}</b> <span class="muted">{shortId(row.id)}</span></span>
              <span class="muted small no-wrap">{row.run !== undefined ? `ran ${seconds(row.run)}` : ""}</span>
            </a>
          </li>
        ))}
      </ul>
    </Card>
  );
}
