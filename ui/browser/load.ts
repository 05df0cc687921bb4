// A server for demonstrations: pools, handlers and schedules as a company could have them, and a load that comes in waves.
import { Server } from "./server";

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
argv = ["/bin/sh", "-c", 'read -r order; for part in orders customers invoices totals; do printf "\\033[1;32m✓\\033[0m %s\\n" "$part"; sleep 0.6; done; printf "\\033[33mwarning:\\033[0m 3 rows without a customer\\n"; echo "$order" >&2']
schema = '{"type": "object", "required": ["month"], "properties": {"month": {"type": "string", "title": "Month", "description": "such as 2026-05"}, "format": {"enum": ["csv", "xlsx", "pdf"], "default": "csv", "title": "Format"}, "rows": {"type": "integer", "title": "Rows at most"}, "draft": {"type": "boolean", "title": "Draft"}}}'

[[handler]]
name = "import-orders"
runner = "process"
pool = "reports"
argv = ["/bin/sh", "-c", 'read -r row; sleep 0.2; echo "row $row of orders.csv has 3 columns instead of 12" >&2; exit 3']
[handler.retry]
attempts = 2
delay = "2s"
`;

/** One step of the load. */
const STEP = 500;
/** Length of a wave in seconds. */
const WAVE = 70;

const PRIORITIES = ["PRIORITY_LOW", "PRIORITY_LOW", "PRIORITY_NORMAL", "PRIORITY_NORMAL", "PRIORITY_NORMAL", "PRIORITY_HIGH", "PRIORITY_CRITICAL"];
const MONTHS = ["2026-03", "2026-04", "2026-05"];

/** The tasks of a step. */
function tasks(step: number): unknown[] {
  const wave = 1 + Math.sin((step * STEP) / 1000 / (WAVE / (2 * Math.PI)));
  const mails = Array.from({ length: Math.round(6 + 9 * wave) }, (_, at) => ({
    handler: "send-mail",
    payload: { json: 0.15 + ((step * 7 + at) % 10) / 20 },
    priority: PRIORITIES[(step + at) % PRIORITIES.length],
    displayName: `newsletter ${step * 20 + at}`,
    labels: { team: at % 3 ? "marketing" : "sales" },
  }));
  const pages = Array.from({ length: 1 + (step % 3) }, () => ({ handler: "index-page", payload: { json: 40_000 }, labels: { team: "search" } }));
  const report = (month: string) => ({ handler: "export-report", payload: { json: { month, format: "csv" } }, displayName: `report of ${month}`, labels: { team: "finance" } });
  const reports = step % 3 ? [] : [report(MONTHS[step % MONTHS.length]!)];
  // Now and then several at once, of which one at a time may use the warehouse.
  const quarter = step % 40 ? [] : [...MONTHS, ...MONTHS].map((month) => ({ ...report(month), limits: [{ key: "warehouse", maxRunning: 1 }] }));
  const imports = step % 9 ? [] : [{ handler: "import-orders", payload: { json: step }, priority: "PRIORITY_HIGH", labels: { team: "sales" } }];
  return [...mails, ...pages, ...reports, ...quarter, ...imports];
}

/** Submits tasks until the returned function is called. */
export async function startLoad(server: Server): Promise<() => Promise<void>> {
  await server.call("ScheduleService/CreateSchedule", { scheduleId: "month-end", spec: { cron: { pattern: "0 6 1 * *", timeZone: "Europe/Berlin" }, task: { handler: "export-report", payload: { json: { month: "last" } } } } });
  await server.call("ScheduleService/CreateSchedule", { scheduleId: "sitemap", spec: { interval: "60s", task: { handler: "index-page", payload: { json: 1_000 } } } });
  let isEnded = false;
  const run = async () => {
    for (let step = 0; !isEnded; step++) {
      // The server may be starting again.
      await server.call("TaskService/BatchSubmitTasks", { tasks: tasks(step) }).catch(() => undefined);
      await new Promise((resolve) => setTimeout(resolve, STEP));
    }
  };
  const ended = run();
  return async () => {
    isEnded = true;
    await ended;
  };
}
