// All tasks, live, with filters that the URL keeps.
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { computed, type Signal, useSignal } from "@preact/signals";
import { useEffect, useMemo, useRef } from "preact/hooks";
import { confirm, Empty, ErrorNote, PriorityLabel, StateBadge, Time, toast } from "../components/basic";
import { PauseIcon, PlayIcon } from "../components/icons";
import { type Action, APPLIES_TO, named, narrowed, type Outcome, perform, preview, progress } from "../data/bulk";
import { errorText } from "../data/client";
import { type Filter, fromQuery, isSet, toProto, toQuery, withWords } from "../data/filter";
import { may } from "../data/permissions";
import { forget, inWords, isSaved, save, savedFilters } from "../data/saved_filters";
import { handlers, poolSettings } from "../data/server";
import { type Row, TaskList } from "../data/task_list";
import { number, parseSeconds, percent, seconds, shortId } from "../format";
import { type TaskFilter, TaskState } from "../gen/lineshaft/v1/task_pb";
import { now } from "../now";
import { go, href, query, replaceQuery, taskHref } from "../route";
import { PRIORITIES, priorityName, STATES, stateName, waitText } from "../words";

const PERIOD = 1_000;
/** Tasks that a question about many names. */
const PREVIEWED = 5;
/** Rows above and below the visible ones. */
const MARGIN = 12;

export function TasksPage() {
  const filter = useMemo(() => computed(() => fromQuery(query.value)), []);
  const selected = useSignal<ReadonlySet<string>>(new Set());
  /** Counts the deletions, after which the list begins again. */
  const deletions = useSignal(0);
  const isLive = useSignal(true);
  const change = (changed: Partial<Filter>) => replaceQuery(toQuery({ ...filter.value, ...changed }));
  const key = `${deletions.value}&${toQuery(filter.value)}`;
  const list = useMemo(() => new TaskList(() => toProto(filter.value, Date.now())), [key]);
  useEffect(() => {
    selected.value = new Set();
  }, [key]);
  return (
    <div class="page page-full">
      <div class="page-head">
        <h1>Tasks</h1>
        <div class="actions">
          {may("ListBatches") && <a class="button quiet" href={href(["batches"])}>Batches</a>}
          <a class="button quiet" href={href(["failures"])}>Failures</a>
          <a class="button quiet" href={href(["limits"])}>Limits</a>
          <BulkActions filter={filter} list={list} selected={selected} onDeleted={() => deletions.value++} />
          <button type="button" class="button quiet" aria-pressed={isLive.value} onClick={() => (isLive.value = !isLive.value)}>
            {isLive.value ? <PauseIcon /> : <PlayIcon />} {isLive.value ? "Pause" : "Resume"}
          </button>
        </div>
      </div>
      <Filters filter={filter.value} change={change} />
      <ErrorNote text={list.error.value} />
      <Table key={key} list={list} selected={selected} isLive={isLive} filter={filter} />
    </div>
  );
}

function toggled<T>(list: readonly T[], item: T): T[] {
  return list.includes(item) ? list.filter((other) => other !== item) : [...list, item];
}

function Filters({ filter, change }: { filter: Filter; change: (changed: Partial<Filter>) => void }) {
  const words = useSignal("");
  const addWords = (event: Event) => {
    event.preventDefault();
    const found = withWords(filter, words.value);
    if (typeof found === "string") return toast(found, true);
    change(found);
    words.value = "";
  };
  const others: [keyof Filter, string, string][] = [
    ["batch", "batch", shortId(filter.batch)],
    ["failureGroup", "failure group", filter.failureGroup],
    ["namespace", "namespace", filter.namespace],
    ["until", "until", filter.until],
  ];
  return (
    <div class="filters" role="search" aria-label="Filter">
      <div class="chips" role="group" aria-label="States">
        {STATES.map((state) => (
          <button
            type="button"
            key={state}
            class={`chip state-${stateName(state).toLowerCase()}`}
            aria-pressed={filter.states.includes(state)}
            onClick={() => change({ states: toggled(filter.states, state) })}
          >
            {stateName(state).toLowerCase()}
          </button>
        ))}
      </div>
      <Choice name="Handler" value={filter.handler} options={handlers.value.map(({ name }) => name)} onChange={(handler) => change({ handler })} />
      <Choice name="Pool" value={filter.pool} options={poolSettings.value.map(({ name }) => name)} onChange={(pool) => change({ pool })} />
      <Choice
        name="Priority"
        value={filter.priorities.map((priority) => priorityName(priority).toLowerCase()).join(", ")}
        options={PRIORITIES.toReversed().map((priority) => priorityName(priority).toLowerCase())}
        onChange={(name) => change({ priorities: PRIORITIES.filter((priority) => priorityName(priority).toLowerCase() === name) })}
      />
      <Choice name="Submitted" value={filter.since} options={["5m", "1h", "24h", "7d"]} show={(value) => (parseSeconds(value) === undefined ? `since ${value}` : `last ${value}`)} onChange={(since) => change({ since })} />
      <form class="inline" onSubmit={addWords}>
        <input class="filter-text" aria-label="Filter in words, such as label=team=red" placeholder="refused label=team=red since=2h" title="A text in the ID, name, handler, arguments, failure or cancel; or state, priority, handler, pool, namespace, batch, label, id, failure-group, text, since, until: as in lineshaft task list --filter" value={words.value} spellcheck={false} onInput={(event) => (words.value = event.currentTarget.value)} />
      </form>
      {filter.labels.map((text) => (
        <button type="button" key={text} class="chip removable" onClick={() => change({ labels: filter.labels.filter((other) => other !== text) })} aria-label={`Remove the label ${text}`}>
          {text} ×
        </button>
      ))}
      {others.map(([name, title, shown]) => shown && (
        <button type="button" key={name} class="chip removable" onClick={() => change({ [name]: "" })} aria-label={`Remove the ${title}`}>{title} {shown} ×</button>
      ))}
      {filter.texts.map((text) => (
        <button type="button" key={text} class="chip removable" onClick={() => change({ texts: filter.texts.filter((other) => other !== text) })} aria-label={`Remove the text ${text}`}>“{text}” ×</button>
      ))}
      {filter.ids.map((id) => (
        <button type="button" key={id} class="chip removable" onClick={() => change({ ids: filter.ids.filter((other) => other !== id) })} aria-label={`Remove the task ${id}`}>{shortId(id)} ×</button>
      ))}
      {isSet(filter) && <button type="button" class="button quiet" onClick={() => replaceQuery(new URLSearchParams())}>Clear</button>}
      <SavedFilters query={toQuery(filter).toString()} />
    </div>
  );
}

function SavedFilters({ query }: { query: string }) {
  const saved = savedFilters.value;
  return (
    <>
      {saved.length > 0 && (
        <Choice
          name="Saved filters"
          value={isSaved(query) ? query : ""}
          options={saved}
          show={inWords}
          onChange={(chosen) => replaceQuery(new URLSearchParams(chosen))}
        />
      )}
      {query && (isSaved(query)
        ? <button type="button" class="button quiet" onClick={() => forget(query)}>Forget the filter</button>
        : <button type="button" class="button quiet" onClick={() => save(query)}>Save the filter</button>)}
    </>
  );
}

function Choice(props: { name: string; value: string; options: string[]; onChange: (value: string) => void; show?: (value: string) => string }) {
  const options = props.value && !props.options.includes(props.value) ? [props.value, ...props.options] : props.options;
  return (
    <label class="select">
      <span class="sr-only">{props.name}</span>
      <select value={props.value} data-set={props.value ? "" : undefined} onChange={(event) => props.onChange(event.currentTarget.value)}>
        <option value="">{props.name}</option>
        {options.map((option) => <option key={option} value={option}>{props.show ? props.show(option) : option}</option>)}
      </select>
    </label>
  );
}

interface ActionWords {
  verb: string;
  /** While it goes on. */
  doing: string;
  done: string;
  skipped: string;
  effect: string;
}

const ACTIONS: Record<Action, ActionWords> = {
  cancel: { verb: "Cancel", doing: "cancelling", done: "cancelled", skipped: "had finished", effect: "This cannot be undone." },
  retry: { verb: "Retry", doing: "retrying", done: "retried", skipped: "were gone", effect: "Each is submitted once more, as a new task." },
  delete: { verb: "Delete", doing: "deleting", done: "deleted", skipped: "were gone", effect: "This cannot be undone." },
};

const oneOf = new Intl.ListFormat("en", { type: "disjunction" });
const stateNames = (states: readonly TaskState[]) => oneOf.format(states.map((state) => stateName(state).toLowerCase()));

/** The tasks that the table shows or could show now: those submitted later are not meant. */
function shown(filter: Filter, rows: Row[]): TaskFilter {
  const newest = timestampFromMs(Math.floor(rows[0]?.submittedAt ?? 0) + 1);
  const found = toProto(filter, Date.now());
  return filter.until ? found : { ...found, submittedBefore: newest };
}

function BulkActions(props: { filter: Signal<Filter>; list: TaskList; selected: Signal<ReadonlySet<string>>; onDeleted: () => void }) {
  const { filter, list, selected, onDeleted } = props;
  if (progress.value) {
    const { text, done, total } = progress.value;
    return <span class="muted" role="status">{text} {number(done)} of {number(total)}…</span>;
  }
  const rows = list.rows.value;
  const chosen = rows.filter((row) => selected.value.has(row.id));
  const ask = async (action: Action) => {
    const isAll = chosen.length === 0;
    const { verb, doing, effect } = ACTIONS[action];
    const ids = chosen.filter((row) => APPLIES_TO[action].includes(row.state)).map((row) => row.id);
    const all = narrowed(shown(filter.value, rows), action);
    const filters = isAll ? (all ? [all] : []) : named(ids, action);
    const states = filters[0]?.states ?? APPLIES_TO[action];
    try {
      const count = await preview(action, filters);
      if (count === 0) return toast(`no ${stateNames(states)} task ${isAll ? "matches" : "is selected"}`);
      // Those that the table has; there may be more.
      const examples = (isAll ? rows.filter((row) => states.includes(row.state)).map((row) => row.id) : ids).slice(0, PREVIEWED);
      confirm({
        title: `${verb} tasks`,
        text: (
          <>
            <p>{verb} {number(count)} {stateNames(states)} {count === 1 ? "task" : "tasks"}{isAll ? isSet(filter.value) && " matching the filter" : " that you selected"}? {effect}</p>
            <p class="muted small bulk-preview">{examples.map((id) => <code key={id}>{id}</code>)}{examples.length > 0 && count > examples.length && `and ${number(count - examples.length)} more`}</p>
          </>
        ),
        action: `${verb} ${number(count)}`,
        isDangerous: action !== "retry",
        run: async () => {
          try {
            report(action, await perform(action, filters, doing, count));
          } catch (error) {
            toast(errorText(error), true);
          }
          selected.value = new Set();
          if (action === "delete") onDeleted();
        },
      });
    } catch (error) {
      toast(errorText(error), true);
    }
  };
  const suffix = chosen.length ? ` ${number(chosen.length)}` : isSet(filter.value) ? " matching" : " all";
  return (
    <>
      {may("CancelTasks") && <button type="button" class="button" onClick={() => ask("cancel")}>Cancel{suffix}…</button>}
      {may("RetryTasks") && <button type="button" class="button" onClick={() => ask("retry")}>Retry{suffix}…</button>}
      {may("DeleteTasks") && <button type="button" class="button" onClick={() => ask("delete")}>Delete{suffix}…</button>}
    </>
  );
}

function report(action: Action, { done, skipped }: Outcome) {
  toast(`${number(done)} ${ACTIONS[action].done}${skipped ? `, ${number(skipped)} ${ACTIONS[action].skipped}` : ""}`);
}

function Table(props: { list: TaskList; selected: Signal<ReadonlySet<string>>; isLive: Signal<boolean>; filter: Signal<Filter> }) {
  const { list, selected, isLive } = props;
  const box = useRef<HTMLDivElement>(null);
  const top = useSignal(0);
  const height = useSignal(600);
  const focused = useSignal(0);
  const rowHeight = useSignal(40);
  const rows = list.rows.value;

  useEffect(() => {
    const target = box.current!;
    const measure = () => {
      height.value = target.clientHeight;
      rowHeight.value = Number.parseFloat(getComputedStyle(target).getPropertyValue("--row")) || 40;
    };
    const observer = new ResizeObserver(measure);
    observer.observe(target);
    measure();
    return () => observer.disconnect();
  }, []);

  const first = Math.max(0, Math.floor(top.value / rowHeight.value) - MARGIN);
  const last = Math.min(rows.length, Math.ceil((top.value + height.value) / rowHeight.value) + MARGIN);

  useEffect(() => {
    const end = new AbortController();
    void (async () => {
      while (!end.signal.aborted) {
        const began = performance.now();
        const isAtTop = top.peek() < rowHeight.peek();
        if (!document.hidden && (isLive.peek() || !list.isLoaded.peek())) {
          if (isAtTop || !list.isLoaded.peek()) await list.readNewest(end.signal);
          else {
            const from = Math.floor(top.peek() / rowHeight.peek());
            const to = Math.ceil((top.peek() + height.peek()) / rowHeight.peek());
            await list.refresh(list.rows.peek().slice(from, to + 1), end.signal);
          }
        }
        // A search through many tasks takes long; the server has other work, too.
        await new Promise((resolve) => setTimeout(resolve, Math.max(PERIOD, 4 * (performance.now() - began))));
      }
    })();
    return () => end.abort();
  }, []);

  useEffect(() => {
    if (list.hasMore.value && last >= rows.length - 2 * MARGIN && top.value > 0) void list.readMore();
  });

  const keys = (event: KeyboardEvent) => {
    const move = (to: number) => {
      event.preventDefault();
      focused.value = Math.min(rows.length - 1, Math.max(0, to));
      const target = box.current!;
      const at = focused.value * rowHeight.value;
      if (at < target.scrollTop) target.scrollTop = at;
      if (at + rowHeight.value > target.scrollTop + target.clientHeight) target.scrollTop = at + rowHeight.value - target.clientHeight;
    };
    if ((event.target as HTMLElement).tagName === "INPUT" && event.key === " ") return;
    const page = Math.max(1, Math.floor(height.value / rowHeight.value) - 1);
    if (event.key === "ArrowDown" || event.key === "j") move(focused.value + 1);
    else if (event.key === "ArrowUp" || event.key === "k") move(focused.value - 1);
    else if (event.key === "PageDown") move(focused.value + page);
    else if (event.key === "PageUp") move(focused.value - page);
    else if (event.key === "Home") move(0);
    else if (event.key === "End") move(rows.length - 1);
    else if (event.key === "Enter" && rows[focused.value] && event.target === box.current) go(taskHref(rows[focused.value]!.id));
    else if ((event.key === " " || event.key === "x") && rows[focused.value]) {
      event.preventDefault();
      selected.value = new Set(toggled([...selected.value], rows[focused.value]!.id));
    }
  };

  return (
    <>
      <div class="task-table-box" ref={box} tabIndex={0} role="region" aria-label="Tasks; arrow keys move, Enter opens, x selects" onScroll={() => (top.value = box.current!.scrollTop)} onKeyDown={keys}>
        <div class="task-table" role="table" aria-label="Tasks" aria-rowcount={list.hasMore.value ? -1 : rows.length + 1}>
          <div class="task-row task-head" role="row" aria-rowindex={1}>
            <span role="columnheader"><span class="sr-only">Selected</span></span>
            {["State", "Task", "Handler", "Pool", "Priority", "Submitted", "Wait", "Run", "Details"].map((name) => <span key={name} role="columnheader" class={`cell-${name.toLowerCase()}`}>{name}</span>)}
          </div>
          <div class="task-rows" role="rowgroup" style={{ height: `${rows.length * rowHeight.value}px` }}>
            {rows.slice(first, last).map((row, at) => (
              <TaskRow
                key={row.id}
                row={row}
                index={first + at}
                offset={(first + at) * rowHeight.value}
                isFocused={focused.value === first + at}
                isSelected={selected.value.has(row.id)}
                onSelect={() => (selected.value = new Set(toggled([...selected.value], row.id)))}
              />
            ))}
          </div>
        </div>
        {list.isLoaded.value && rows.length === 0 && (
          <Empty>
            {isSet(props.filter.value) ? "No task matches the filter." : <>No tasks yet. <a href="#/submit">Submit one</a>, or run <code>lineshaft task run compute --json 1000</code></>}
          </Empty>
        )}
      </div>
      <p class="muted small table-foot">
        {number(rows.length)}{list.hasMore.value ? " newest tasks loaded; scroll for more" : rows.length === 1 ? " task" : " tasks"}
        {top.value > rowHeight.value && (
          <button type="button" class="button quiet small" onClick={() => (box.current!.scrollTop = 0)}>Back to the newest</button>
        )}
      </p>
    </>
  );
}

function TaskRow(props: { row: Row; index: number; offset: number; isFocused: boolean; isSelected: boolean; onSelect: () => void }) {
  const { row } = props;
  const started = row.state === TaskState.RUNNING ? row.startedAt : row.state === TaskState.QUEUED ? now.value : undefined;
  const wait = row.wait ?? (started && row.eligibleAt ? (started - row.eligibleAt) / 1000 : undefined);
  const run = row.state === TaskState.RUNNING && row.startedAt ? (now.value - row.startedAt) / 1000 : row.run;
  const held = row.state === TaskState.WAITING ? waitText(row, now.value) : "";
  const open = (event: MouseEvent) => {
    if ((event.target as HTMLElement).closest("a, input") || getSelection()?.toString()) return;
    go(taskHref(row.id));
  };
  return (
    <div
      class={`task-row ${props.isFocused ? "focused" : ""} ${props.isSelected ? "selected" : ""}`}
      role="row"
      aria-rowindex={props.index + 2}
      style={{ transform: `translateY(${props.offset}px)` }}
      onClick={open}
    >
      <span role="cell" class="cell-select"><input type="checkbox" checked={props.isSelected} onChange={props.onSelect} aria-label={`Select ${row.id}`} /></span>
      <span role="cell" class="cell-state"><StateBadge state={row.state} /></span>
      <span role="cell" class="cell-task ellipsis">
        <a href={taskHref(row.id)} title={row.id}>{row.name || shortId(row.id)}</a>
        {row.name && <span class="muted small">…{row.id.slice(-6)}</span>}
      </span>
      <span role="cell" class="cell-handler ellipsis">{row.handler}</span>
      <span role="cell" class="cell-pool ellipsis">{row.pool}</span>
      <span role="cell" class="cell-priority"><PriorityLabel priority={row.priority} /></span>
      <span role="cell" class="cell-submitted"><Time at={row.submittedAt} /></span>
      <span role="cell" class="cell-wait">{seconds(wait)}</span>
      <span role="cell" class="cell-run">{seconds(run)}</span>
      <span role="cell" class="cell-details ellipsis" title={row.note || held}>
        {row.state === TaskState.RUNNING && row.progress > 0 && <b>{percent(row.progress, 0)} </b>}
        {row.state === TaskState.WAITING && (held || <>starts <Time at={row.eligibleAt} />{row.parents > 0 && " at the earliest"}</>)}{" "}
        {row.attempt > 1 && <span class="badge" title={`attempt ${row.attempt}`}>×{row.attempt}</span>} {row.note}
      </span>
    </div>
  );
}
