// The frame around all pages: navigation, state of the connection, dialogs.
import type { ComponentType } from "preact";
import { useEffect } from "preact/hooks";
import { Confirmation, Toasts } from "./components/basic";
import { BenchmarkIcon, LogOutIcon, OverviewIcon, PoolsIcon, SchedulesIcon, SearchIcon, SubmitIcon, TasksIcon, ThemeIcon, WorkersIcon } from "./components/icons";
import { info } from "./data/info";
import { connection, lastError } from "./data/live";
import { isReadOnly, may, seesPools } from "./data/permissions";
import { logOut, loginRequired, token } from "./data/session";
import { Keyboard, isPaletteOpen, Palette } from "./keyboard";
import { BatchesPage } from "./pages/batches";
import { BenchmarkPage } from "./pages/benchmark";
import { FailuresPage } from "./pages/failures";
import { LimitsPage } from "./pages/limits";
import { Login } from "./pages/login";
import { Overview } from "./pages/overview";
import { PoolsPage } from "./pages/pools";
import { SchedulesPage } from "./pages/schedules";
import { SubmitPage } from "./pages/submit";
import { TaskPage } from "./pages/task";
import { TasksPage } from "./pages/tasks";
import { WorkersPage } from "./pages/workers";
import { href, page, path } from "./route";
import { switchTheme, theme } from "./theme";

export interface Page {
  name: string;
  title: string;
  icon: ComponentType;
  isVisible: () => boolean;
}

export const PAGES: Page[] = [
  { name: "overview", title: "Overview", icon: OverviewIcon, isVisible: () => seesPools.value },
  { name: "tasks", title: "Tasks", icon: TasksIcon, isVisible: () => may("ListTasks") },
  { name: "schedules", title: "Schedules", icon: SchedulesIcon, isVisible: () => may("ListSchedules") },
  { name: "submit", title: "Submit", icon: SubmitIcon, isVisible: () => may("SubmitTask") },
  { name: "workers", title: "Workers", icon: WorkersIcon, isVisible: () => seesPools.value },
  { name: "pools", title: "Pools", icon: PoolsIcon, isVisible: () => seesPools.value },
  { name: "benchmark", title: "Benchmark", icon: BenchmarkIcon, isVisible: () => may("BatchSubmitTasks") },
];

/** Titles of the pages that the page of the tasks leads to. */
const BELOW_TASKS: Record<string, string> = { failures: "Failures", limits: "Limits", batches: "Batches" };

function Content() {
  // What the user may see comes first.
  if (!info.value && connection.value === "connecting") return null;
  const [name = seesPools.value ? "overview" : "tasks", id] = path.value;
  if (PAGES.find((entry) => entry.name === name)?.isVisible() === false) {
    return <div class="empty">You may not see this page. {may("ListTasks") && <a href="#/tasks">Go to the tasks</a>}</div>;
  }
  if (name === "tasks" && id) return <TaskPage key={id} id={id} />;
  switch (name) {
    case "overview": return <Overview />;
    case "tasks": return <TasksPage />;
    case "failures": return <FailuresPage />;
    case "limits": return <LimitsPage />;
    case "batches": return <BatchesPage />;
    case "schedules": return <SchedulesPage />;
    case "submit": return <SubmitPage />;
    case "workers": return <WorkersPage />;
    case "pools": return <PoolsPage />;
    case "benchmark": return <BenchmarkPage />;
    default: return <div class="empty">There is no page “{name}”. <a href="#/">Go to the overview</a></div>;
  }
}

const STATUS = {
  connecting: "connecting",
  live: "live",
  reconnecting: "reconnecting",
  paused: "paused",
  off: "",
};

function ConnectionState() {
  const state = connection.value;
  return (
    <>
      <span class={`connection connection-${state}`} role="status">{STATUS[state]}</span>
      {state === "reconnecting" && <span class="muted small ellipsis wide-only">{lastError.value}</span>}
    </>
  );
}

function Header() {
  return (
    <header class="top">
      <a class="brand" href="#/">
        <svg viewBox="0 0 32 32" width="24" height="24" aria-hidden="true">
          <rect width="32" height="32" rx="7" fill="currentColor" />
          <path d="M5 16h22" stroke="#fff" stroke-width="3" stroke-linecap="round" />
          <circle cx="11" cy="16" r="5.5" fill="none" stroke="#fff" stroke-width="2.5" />
          <circle cx="22" cy="16" r="3.5" fill="none" stroke="#fff" stroke-width="2.5" />
        </svg>
        <span>Lineshaft</span>
      </a>
      <ConnectionState />
      {isReadOnly.value && <button type="button" class="badge state-waiting" onClick={() => (isReadOnly.value = false)} title="Show again what changes something">read-only ×</button>}
      <span class="spacer" />
      <button type="button" class="button quiet search" onClick={() => (isPaletteOpen.value = true)}>
        <SearchIcon /> <span class="search-text">Search</span> <kbd class="wide-only" aria-hidden="true">Ctrl K</kbd>
      </button>
      <button type="button" class="button quiet icon" onClick={switchTheme} title="Light or dark" aria-label={theme.value === "dark" ? "Use the light theme" : "Use the dark theme"}>
        <ThemeIcon />
      </button>
      {token.value && (
        <button type="button" class="button quiet icon" onClick={() => logOut()} title="Log out" aria-label="Log out">
          <LogOutIcon />
        </button>
      )}
    </header>
  );
}

function Navigation() {
  return (
    <nav class="nav" aria-label="Pages">
      {PAGES.filter((entry) => entry.isVisible()).map(({ name, title, icon: Icon }) => (
        <a key={name} href={name === "overview" ? "#/" : href([name])} aria-current={page.value === name || (page.value in BELOW_TASKS && name === "tasks") ? "page" : undefined}>
          <Icon />
          <span>{title}</span>
        </a>
      ))}
      <span class="nav-foot wide-only">
        {token.value && info.value?.caller && <div class="ellipsis" title={info.value.caller.name}>{info.value.caller.name}</div>}
        {info.value ? `version ${info.value.version}` : ""}
      </span>
    </nav>
  );
}

export function App() {
  const title = BELOW_TASKS[page.value] ?? PAGES.find(({ name }) => name === page.value)?.title;
  useEffect(() => {
    document.title = title ? `${title} · Lineshaft` : "Lineshaft";
  }, [title]);
  if (loginRequired.value) return <Login />;
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => { event.preventDefault(); document.getElementById("main")?.focus(); }}>Skip to the content</a>
      <Header />
      <div class="body">
        <Navigation />
        <main id="main" tabIndex={-1}>
          <Content />
        </main>
      </div>
      <Confirmation />
      <Palette />
      <Keyboard />
      <Toasts />
    </>
  );
}
