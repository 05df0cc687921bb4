// Servers under load: one for demonstrations, with pools, handlers and schedules as a company could have them, and a load that comes in
// waves; and one under a load that stays the same.
import { spawn } from "node:child_process";
import { Server, until } from "./server";

export const DEMONSTRATION = `
[retention]
count = 2000

[[pool]]
name = "default"
size = 16
description = "mail, searches and other short work"

[[pool]]
name = "reports"
size = 4
description = "exports and imports"

[[pool]]
name = "images"
kind = "remote"
description = "thumbnails, made by workers in Python"

[[task_limit]]
name = "mail"
max_running = 12
rate = "3000/1m"
burst = 100

[[handler]]
name = "send-mail"
runner = "builtin"
builtin = "io"

[[handler]]
name = "index-page"
runner = "builtin"
builtin = "compute"

[[handler]]
name = "export-report"
runner = "process"
pool = "reports"
artifacts = true
argv = ["/bin/sh", "-c", 'read -r order; for part in orders customers invoices totals; do printf "\\033[1;32m✓\\033[0m %s\\n" "$part"; seq 400 >"$LINESHAFT_ARTIFACTS/$part.csv"; sleep 0.6; done; printf "\\033[33mwarning:\\033[0m 3 rows without a customer\\n"; echo "$order" >&2']
schema = '{"type": "object", "required": ["month"], "properties": {"month": {"type": "string", "title": "Month", "description": "such as 2026-05"}, "format": {"enum": ["csv", "xlsx", "pdf"], "default": "csv", "title": "Format"}, "rows": {"type": "integer", "title": "Rows at most"}, "draft": {"type": "boolean", "title": "Draft"}}}'

[[handler]]
name = "import-orders"
runner = "process"
pool = "reports"
argv = ["/bin/sh", "-c", 'read -r row; sleep 0.2; echo "row $row of orders.csv has 3 columns instead of 12" >&2; exit 3']
[handler.retry]
attempts = 2
delay = "2s"

[[handler]]
name = "sync-customers"
runner = "process"
argv = ["/bin/sh", "-c", 'sleep 0.4; echo "connect to crm.example.com:443: connection refused" >&2; exit 1']
`;

/** Workers of the pool `images`. */
const WORKERS = `
import sys, time, lineshaft
worker = lineshaft.Worker(sys.argv[1], pool="images", worker_id=sys.argv[2], concurrency=4, labels={"zone": sys.argv[3]})

@worker.handler("thumbnail")
def thumbnail(image):
    time.sleep(0.6 + len(image) % 5 / 5)
    return {"image": image, "width": 320, "height": 240}

worker.run()
`;

/** One step of the load. */
const STEP = 500;
/** Length of a wave in seconds. */
const WAVE = 70;
/** Steps for which newsletters join one batch. */
const ISSUE = 50;

const PRIORITIES = ["PRIORITY_LOW", "PRIORITY_LOW", "PRIORITY_NORMAL", "PRIORITY_NORMAL", "PRIORITY_NORMAL", "PRIORITY_HIGH", "PRIORITY_CRITICAL"];
const MONTHS = ["2026-03", "2026-04", "2026-05"];
const TOWNS = ["Berlin", "Lisbon", "Oslo", "Porto", "Riga", "Vienna"];

/** Submits what is due in a step. */
async function submitDue(server: Server, step: number, hasWorkers: boolean) {
  const wave = 1 + Math.sin((step * STEP) / 1000 / (WAVE / (2 * Math.PI)));
  const issue = Math.floor(step / ISSUE);
  const town = TOWNS[issue % TOWNS.length]!;
  const newsletter = `newsletter-${issue + 1}`;
  const mails = Array.from({ length: Math.round(6 + 9 * wave) }, (_, at) => ({
    handler: "send-mail",
    payload: { json: 0.15 + ((step * 7 + at) % 10) / 20 },
    priority: PRIORITIES[(step + at) % PRIORITIES.length],
    displayName: `newsletter ${step * 20 + at}`,
    labels: { team: at % 3 ? "marketing" : "sales" },
    ...(at % 10 === 0 && { limits: [{ name: "mail" }] }),
    ...(at % 20 === 5 && { delay: "40s" }),
  }));
  const report = (month: string) => ({ handler: "export-report", payload: { json: { month, format: "csv" } }, displayName: `report of ${month}`, labels: { team: "finance" } });
  const tasks: unknown[] = Array.from({ length: 1 + (step % 3) }, () => ({ handler: "index-page", payload: { json: 40_000 }, labels: { team: "search" } }));
  if (step % 3 === 0) tasks.push(report(MONTHS[step % MONTHS.length]!));
  if (step % 9 === 0) tasks.push({ handler: "import-orders", payload: { json: step }, priority: "PRIORITY_HIGH", labels: { team: "sales" } });
  if (step % 23 === 0) tasks.push({ handler: "sync-customers", labels: { team: "sales" } });
  if (hasWorkers) tasks.push(...["house", "garden", "lake"].slice(step % 3).map((name) => ({ handler: "thumbnail", pool: "images", payload: { json: `${name}-${step}.jpg` }, labels: { team: "web" } })));
  if (step % ISSUE === 0) await server.call("BatchService/CreateBatch", { batchId: newsletter, displayName: `Newsletter ${town}`, open: true });
  await server.call("TaskService/BatchSubmitTasks", { batchId: newsletter, tasks: mails });
  if (step % ISSUE === ISSUE - 1) await server.call("BatchService/CloseBatch", { batchId: newsletter });
  // Now and then several reports at once, of which one at a time may use the warehouse, and their summary.
  if (step % 40 === 0) {
    const quarter = [...MONTHS, ...MONTHS].map((month) => ({ ...report(month), limits: [{ key: "warehouse", maxRunning: 1 }] }));
    const summary = { ...report("the quarter"), dependencies: { batchIndices: quarter.map((_, at) => at) } };
    await server.call("TaskService/BatchSubmitTasks", { batchId: `quarter-${step / 40 + 1}`, tasks: [...quarter, summary] });
  }
  await Promise.all(tasks.map((task) => server.submit(task)));
}

/** Submits tasks until the returned function is called. `python` has the SDK, and runs workers. */
export async function startLoad(server: Server, python?: string): Promise<() => Promise<void>> {
  await server.call("ScheduleService/CreateSchedule", { scheduleId: "month-end", spec: { cron: { pattern: "0 6 1 * *", timeZone: "Europe/Berlin" }, task: { handler: "export-report", payload: { json: { month: "last" } } } } });
  await server.call("ScheduleService/CreateSchedule", { scheduleId: "sitemap", spec: { interval: "60s", task: { handler: "index-page", payload: { json: 1_000 } } } });
  await server.call("ScheduleService/CreateSchedule", { scheduleId: "customers", spec: { interval: "90s", task: { handler: "sync-customers" } } });
  const zones = python ? ["a", "b", "b"] : [];
  const workers = zones.map((zone, at) => spawn(python!, ["-c", WORKERS, server.address, `images-${at + 1}`, zone], { stdio: ["ignore", "ignore", "inherit"] }));
  const offersThumbnails = async () => (await server.call<{ handlers: { name: string }[] }>("HandlerService/ListHandlers", {})).handlers.some(({ name }) => name === "thumbnail");
  if (python) await until(offersThumbnails, "a worker");
  const endSteps = await repeat((step) => submitDue(server, step, workers.length > 0));
  return async () => {
    await endSteps();
    for (const worker of workers) worker.kill("SIGKILL");
  };
}

/** Calls the function every half a second. */
async function repeat(submit: (step: number) => Promise<unknown>): Promise<() => Promise<void>> {
  let isEnded = false;
  await submit(0);
  const run = async () => {
    for (let step = 1; !isEnded; step++) {
      const next = Date.now() + STEP;
      // The server may be starting again.
      await submit(step).catch(() => undefined);
      await new Promise((resolve) => setTimeout(resolve, next - Date.now()));
    }
  };
  const ended = run();
  return async () => {
    isEnded = true;
    await ended;
  };
}

/** A server whose memory is full of finished tasks and of events within a minute. */
export const STEADY = `
[retention]
count = 5000

[store]
watch_window_events = 10000

[[pool]]
name = "default"
size = 16

[[pool]]
name = "reports"
size = 2

[[task_limit]]
name = "mail"
max_running = 4

[[handler]]
name = "send-mail"
runner = "builtin"
builtin = "io"

[[handler]]
name = "index-page"
runner = "builtin"
builtin = "compute"

[[handler]]
name = "import-orders"
runner = "builtin"
builtin = "expression"
[handler.retry]
attempts = 2
delay = "1s"

[[handler]]
name = "export-report"
runner = "process"
pool = "reports"
argv = ["/bin/sh", "-c", 'i=0; while [ $i -lt 200 ]; do i=$((i + 1)); echo "row $i of 200"; done']
`;

/** A load that stays the same: 2 % of the tasks fail after a retry, 1 % run a program that writes output, 1 % wait for a limit, 1 % for a parent. */
export async function startSteadyLoad(server: Server, tasksPerSecond: number): Promise<() => Promise<void>> {
  await server.call("ScheduleService/CreateSchedule", { scheduleId: "sitemap", spec: { interval: "2s", task: { handler: "index-page", payload: { json: 1_000 } } } });
  const count = Math.round((tasksPerSecond * STEP) / 1000);
  const tasks = (step: number) => Array.from({ length: count }, (_, at) => steadyTask(step * count + at, at));
  return repeat((step) => server.call("TaskService/BatchSubmitTasks", { tasks: tasks(step) }));
}

function steadyTask(number: number, at: number): unknown {
  const mail = { handler: "send-mail", payload: { json: 0.01 + (number % 10) / 500 }, priority: PRIORITIES[number % PRIORITIES.length], displayName: `newsletter ${number}`, labels: { team: number % 3 ? "marketing" : "sales" } };
  switch (number % 100) {
    case 0: return { handler: "export-report", displayName: `report ${number}` };
    case 10: case 60: return { handler: "import-orders", payload: { json: `${number} / 0` }, labels: { team: "sales" } };
    case 20: return { ...mail, limits: [{ name: "mail" }] };
    case 30: return { ...mail, delay: "3s" };
    case 40: return at > 0 ? { ...mail, dependencies: { batchIndices: [at - 1] } } : mail;
    default: return number % 5 ? mail : { handler: "index-page", payload: { json: 2_000 }, labels: { team: "search" } };
  }
}
