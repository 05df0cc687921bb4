// Small parts that all pages use.
import { signal, useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import type { Priority, TaskState } from "../gen/lineshaft/v1/task_pb";
import { exact, relative } from "../format";
import { now } from "../now";
import { priorityName, stateName } from "../words";
import { CloseIcon, CopyIcon } from "./icons";

export function StateBadge({ state }: { state: TaskState }) {
  const name = stateName(state);
  return <span class={`badge state-${name.toLowerCase()}`}>{name}</span>;
}

export function PriorityLabel({ priority }: { priority: Priority }) {
  const name = priorityName(priority);
  return <span class={`priority priority-${name.toLowerCase()}`}>{name.toLowerCase()}</span>;
}

/** A relative time; the exact one is its title. */
export function Time({ at }: { at: number | undefined }) {
  if (at === undefined) return <span>–</span>;
  return (
    <time dateTime={new Date(at).toISOString()} title={exact(at)}>
      {relative(at, now.value)}
    </time>
  );
}

export function Card(props: { title?: ComponentChildren; actions?: ComponentChildren; class?: string; children: ComponentChildren }) {
  return (
    <section class={`card ${props.class ?? ""}`}>
      {props.title && (
        <header class="card-head">
          <h2>{props.title}</h2>
          {props.actions && <div class="actions">{props.actions}</div>}
        </header>
      )}
      {props.children}
    </section>
  );
}

/** A table; where there is less room than it needs, a block for each of its rows. */
export function TableBox(props: { label: string; needs: number; children: ComponentChildren }) {
  const box = useRef<HTMLDivElement>(null);
  const isStacked = useSignal(false);
  useEffect(() => {
    const target = box.current!;
    const observer = new ResizeObserver(() => (isStacked.value = target.clientWidth < props.needs));
    observer.observe(target);
    return () => observer.disconnect();
  }, []);
  return <div class={`scroll ${isStacked.value ? "stacked" : ""}`} ref={box} tabIndex={0} role="region" aria-label={props.label}>{props.children}</div>;
}

export function Empty({ children }: { children: ComponentChildren }) {
  return <div class="empty">{children}</div>;
}

export function ErrorNote({ text }: { text: string }) {
  return text ? <p class="note note-error" role="alert">{text}</p> : null;
}

export function Copy({ text, label }: { text: string | (() => string | undefined); label: string }) {
  const copy = async () => {
    const content = typeof text === "function" ? text() : text;
    if (content === undefined) return;
    await copyText(content);
    toast(`${label} copied`);
  };
  return (
    <button type="button" class="button quiet icon" onClick={copy} title={`Copy ${label}`} aria-label={`Copy ${label}`}>
      <CopyIcon />
    </button>
  );
}

/** Browsers offer the clipboard only to pages on HTTPS or localhost. */
export async function copyText(text: string) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

const toasts = signal<{ id: number; text: string; isError: boolean }[]>([]);
let nextToast = 0;

export function toast(text: string, isError = false) {
  const id = nextToast++;
  toasts.value = [...toasts.value.slice(-3), { id, text, isError }];
  setTimeout(() => (toasts.value = toasts.value.filter((shown) => shown.id !== id)), isError ? 8_000 : 3_000);
}

export function Toasts() {
  return (
    <div class="toasts" role="status" aria-live="polite">
      {toasts.value.map(({ id, text, isError }) => (
        <div key={id} class={isError ? "toast toast-error" : "toast"}>{text}</div>
      ))}
    </div>
  );
}

export function Dialog(props: { title: string; onClose: () => void; children: ComponentChildren; class?: string }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current?.showModal(), []);
  return (
    <dialog
      ref={dialog}
      class={`dialog ${props.class ?? ""}`}
      aria-label={props.title}
      onClose={props.onClose}
      onClick={(event) => event.target === dialog.current && dialog.current?.close()}
    >
      <header class="card-head">
        <h2>{props.title}</h2>
        <button type="button" class="button quiet icon" onClick={() => dialog.current?.close()} aria-label="Close">
          <CloseIcon />
        </button>
      </header>
      {props.children}
    </dialog>
  );
}

interface Question {
  title: string;
  text: ComponentChildren;
  action: string;
  isDangerous?: boolean;
  run: () => Promise<void> | void;
}

const question = signal<Question | undefined>(undefined);

/** Asks before something that cannot be undone. */
export function confirm(asked: Question) {
  question.value = asked;
}

export function Confirmation() {
  const asked = question.value;
  if (!asked) return null;
  const close = () => (question.value = undefined);
  const run = () => {
    close();
    void asked.run();
  };
  return (
    <Dialog title={asked.title} onClose={close}>
      <div class="dialog-body">{asked.text}</div>
      <footer class="dialog-foot">
        <button type="button" class="button" onClick={close}>Keep</button>
        <button type="button" class={asked.isDangerous ? "button danger" : "button primary"} onClick={run}>{asked.action}</button>
      </footer>
    </Dialog>
  );
}

export function Tabs<T extends string>(props: { label: string; options: readonly T[]; value: T; onChange: (value: T) => void }) {
  return (
    <div class="segments" role="group" aria-label={props.label}>
      {props.options.map((option) => (
        <button type="button" key={option} aria-pressed={option === props.value} onClick={() => props.onChange(option)}>
          {option}
        </button>
      ))}
    </div>
  );
}

export function Bar({ share, label }: { share: number; label: string }) {
  const width = `${Math.min(100, Math.max(0, share * 100))}%`;
  return (
    <div class="bar" role="meter" aria-label={label} aria-valuenow={Math.round(share * 100)} aria-valuemin={0} aria-valuemax={100}>
      <span style={{ width }} />
    </div>
  );
}
