// The command palette, and keys that work everywhere.
import { signal, useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { Dialog } from "./components/basic";
import { handlers } from "./data/server";
import { logOut, token } from "./data/session";
import { isReadOnly, may, mayChange, seesPools } from "./data/permissions";
import { isUtc } from "./format";
import { go, href, taskHref } from "./route";
import { switchTheme } from "./theme";
import { STATES, stateName } from "./words";

export const isPaletteOpen = signal(false);
const isHelpOpen = signal(false);

interface Command {
  name: string;
  keys?: string;
  run: () => void;
}

const PLACES: { key: string; name: string; target: string; isVisible: () => boolean }[] = [
  { key: "o", name: "Overview", target: "#/", isVisible: () => seesPools.value },
  { key: "t", name: "Tasks", target: "#/tasks", isVisible: () => may("ListTasks") },
  { key: "c", name: "Schedules", target: "#/schedules", isVisible: () => may("ListSchedules") },
  { key: "s", name: "Submit", target: "#/submit", isVisible: () => may("SubmitTask") },
  { key: "w", name: "Workers", target: "#/workers", isVisible: () => seesPools.value },
  { key: "p", name: "Pools", target: "#/pools", isVisible: () => seesPools.value },
  { key: "b", name: "Benchmark", target: "#/benchmark", isVisible: () => may("BatchSubmitTasks") },
];

function commands(): Command[] {
  const places = PLACES.filter((place) => place.isVisible()).map(({ key, name, target }) => ({ name, keys: `g ${key}`, run: () => go(target) }));
  const states = STATES.map((state) => {
    const name = stateName(state).toLowerCase();
    return { name: `Tasks: ${name}`, run: () => go(href(["tasks"], new URLSearchParams({ state: name }))) };
  });
  const submissions = may("SubmitTask")
    ? handlers.value.map(({ name }) => ({ name: `Submit: ${name}`, run: () => go(href(["submit"], new URLSearchParams({ handler: name }))) }))
    : [];
  const filters = handlers.value.map(({ name }) => ({ name: `Tasks of ${name}`, run: () => go(href(["tasks"], new URLSearchParams({ handler: name }))) }));
  return [
    ...places,
    ...(may("ListBatches") ? [{ name: "Batches", run: () => go("#/batches") }] : []),
    ...(may("ListTasks") ? [{ name: "Failures by cause", run: () => go("#/failures") }, { name: "Limits and keys", run: () => go("#/limits") }] : []),
    { name: isUtc.value ? "Show local times" : "Show times in UTC", run: () => (isUtc.value = !isUtc.value) },
    ...(mayChange() ? [{ name: isReadOnly.value ? "Leave the read-only mode" : "Read-only mode", run: () => (isReadOnly.value = !isReadOnly.value) }] : []),
    { name: "Switch between light and dark", keys: "d", run: switchTheme },
    { name: "Keys", keys: "?", run: () => (isHelpOpen.value = true) },
    ...(token.value ? [{ name: "Log out", run: () => logOut() }] : []),
    ...states,
    ...submissions,
    ...filters,
  ];
}

/** Those that contain every word. */
function matching(text: string): Command[] {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const found = commands().filter(({ name }) => words.every((word) => name.toLowerCase().includes(word)));
  const id = text.trim();
  if (/^([A-Za-z0-9._:-]{1,64}\/)?[A-Za-z0-9._:-]{1,64}$/.test(id)) {
    const open = { name: `Open the task ${id}`, run: () => go(taskHref(id)) };
    return found.length && id.length < 20 ? [...found, open] : [open, ...found];
  }
  return found;
}

const SHOWN = 12;

export function Palette() {
  if (isHelpOpen.value) return <Help />;
  return isPaletteOpen.value ? <OpenPalette /> : null;
}

function OpenPalette() {
  const text = useSignal("");
  const chosen = useSignal(0);
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => field.current?.focus(), []);
  const found = matching(text.value).slice(0, SHOWN);
  const at = Math.min(chosen.value, found.length - 1);
  const close = () => (isPaletteOpen.value = false);
  const run = (command: Command | undefined) => {
    if (!command) return;
    close();
    command.run();
  };
  return (
    <Dialog title="Search and commands" onClose={close} class="palette">
      <input
        ref={field}
        type="text"
        role="combobox"
        aria-expanded="true"
        aria-controls="palette-list"
        aria-activedescendant={found.length ? `palette-${at}` : undefined}
        aria-label="Task ID or command"
        placeholder="A task ID, a page, a handler…"
        autocomplete="off"
        spellcheck={false}
        value={text.value}
        onInput={(event) => {
          text.value = event.currentTarget.value;
          chosen.value = 0;
        }}
        onKeyDown={(event) => {
          if (event.key === "ArrowDown") chosen.value = Math.min(found.length - 1, at + 1);
          else if (event.key === "ArrowUp") chosen.value = Math.max(0, at - 1);
          else if (event.key === "Enter") run(found[at]);
          else return;
          event.preventDefault();
        }}
      />
      <div class="palette-list" id="palette-list" role="listbox" aria-label="Commands">
        {found.map((command, index) => (
          <div key={command.name} id={`palette-${index}`} role="option" aria-selected={index === at} onClick={() => run(command)} onPointerMove={() => (chosen.value = index)}>
            <span class="ellipsis">{command.name}</span>
            {command.keys && <span>{command.keys.split(" ").map((key) => <kbd key={key}>{key}</kbd>)}</span>}
          </div>
        ))}
      </div>
      {found.length === 0 && <p class="empty">Nothing matches.</p>}
    </Dialog>
  );
}

function Help() {
  const rows: [string, string][] = [
    ["Ctrl K or /", "search and commands"],
    ...PLACES.map(({ key, name }) => [`g ${key}`, name] as [string, string]),
    ["d", "light or dark"],
    ["↑ ↓ or j k", "in the task table: move"],
    ["Enter", "in the task table: open"],
    ["x", "in the task table: select"],
    ["Ctrl Enter", "in the payload: submit"],
  ];
  return (
    <Dialog title="Keys" onClose={() => (isHelpOpen.value = false)}>
      <dl class="facts">
        {rows.map(([keys, meaning]) => (
          <div key={keys}><dt><kbd>{keys}</kbd></dt><dd>{meaning}</dd></div>
        ))}
      </dl>
    </Dialog>
  );
}

/** Listens for keys that no field takes. */
export function Keyboard() {
  useEffect(() => {
    let isGoing = false;
    const keys = (event: KeyboardEvent) => {
      if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") {
        event.preventDefault();
        isPaletteOpen.value = !isPaletteOpen.value;
        return;
      }
      const target = event.target as HTMLElement;
      const isTyping = target.closest("input:not([type=checkbox]), textarea, select, dialog") !== null;
      if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
      const place = isGoing ? PLACES.find(({ key }) => key === event.key) : undefined;
      isGoing = event.key === "g";
      if (place?.isVisible()) go(place.target);
      else if (event.key === "/") {
        event.preventDefault();
        isPaletteOpen.value = true;
      } else if (event.key === "?") isHelpOpen.value = true;
      else if (event.key === "d") switchTheme();
    };
    addEventListener("keydown", keys);
    return () => removeEventListener("keydown", keys);
  }, []);
  return null;
}
