import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { CONFIG, launch, open, proxy, Server, until } from "./server";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const BINARY = process.env.LINESHAFT_BINARY ?? join(import.meta.dirname, "../../target/debug/lineshaft");

let browser: Browser;
let server: Server;

beforeAll(async () => {
  browser = await launch();
  server = await new Server().start();
});

afterAll(async () => {
  await browser?.close();
  await Server.removeAll();
});

const isLive = (page: Page) => page.locator(".connection-live").waitFor();
const go = (page: Page, place: string) => page.evaluate((target) => void (location.hash = target), place);

/** Tasks that keep all pools busy for the time of the tests. */
async function load() {
  const tasks = [
    ...Array.from({ length: 100 }, (_, at) => ({ handler: "io", payload: { json: 0.2 }, priority: ["PRIORITY_LOW", "PRIORITY_HIGH"][at % 2], labels: { team: "web" }, displayName: `export ${at}` })),
    ...Array.from({ length: 20 }, () => ({ handler: "compute", payload: { json: 100_000 } })),
    ...Array.from({ length: 3 }, () => ({ handler: "fails" })),
  ];
  await server.call("TaskService/BatchSubmitTasks", { tasks });
}

async function axe(page: Page): Promise<string[]> {
  // A theme and its colours fade in; what is measured is their end.
  await page.evaluate(AXE);
  const violations = await page.evaluate(async () => {
    const found = await (window as unknown as { axe: { run: (context: unknown, options: unknown) => Promise<{ violations: { id: string; nodes: { html: string; failureSummary: string }[] }[] }> } }).axe.run(document, {
      runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    });
    return found.violations.map(({ id, nodes }) => `${id}: ${nodes.slice(0, 3).map((node) => `${node.html.slice(0, 160)} ${node.failureSummary}`).join("; ")}`);
  });
  return violations;
}

test("every page works in both themes and widths, and is accessible", async () => {
  await load();
  const failed = await server.submit({ handler: "fails", displayName: "nightly import" });
  await server.finished(failed);
  await server.call("ScheduleService/CreateSchedule", { scheduleId: "nightly", spec: { cron: { pattern: "30 2 * * 1-5", timeZone: "Europe/Berlin" }, task: { handler: "fails" } } });
  const pages: [string, (page: Page) => Promise<unknown>][] = [
    ["", (page) => page.locator(".recent .row-link").first().waitFor()],
    ["tasks", (page) => page.locator(".task-rows .task-row").first().waitFor()],
    [`tasks/${failed}`, (page) => page.getByText("HANDLER_ERROR").first().waitFor()],
    ["failures", (page) => page.locator(".failures").getByText("cannot connect").waitFor()],
    ["limits", (page) => page.locator(".limits").getByText("mail").first().waitFor()],
    ["batches", (page) => page.locator(".batches").getByText("FINISHED").or(page.locator(".batches").getByText("ACTIVE")).first().waitFor()],
    ["schedules", (page) => page.locator(".schedules").getByText("nightly").waitFor()],
    ["schedules/nightly", (page) => page.getByRole("dialog").locator("li").nth(9).waitFor()],
    ["submit", (page) => page.getByRole("button", { name: "Submit ×10" }).waitFor()],
    ["workers", (page) => page.getByText("PoolWorker-0").first().waitFor()],
    ["pools", (page) => page.getByRole("button", { name: "Pause…" }).first().waitFor()],
    ["benchmark", (page) => page.getByRole("button", { name: "Start" }).waitFor()],
  ];
  for (const options of [{ width: 1280, dark: false }, { width: 390, dark: true }]) {
    const { page, complaints } = await open(browser, server.url, options);
    await isLive(page);
    for (const [place, isShown] of pages) {
      await go(page, `#/${place}`);
      await isShown(page);
      expect(await axe(page), `${place} ${JSON.stringify(options)}`).toEqual([]);
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      expect(overflow, `${place} is as wide as the window`).toBe(0);
    }
    expect(complaints).toEqual([]);
    await page.context().close();
  }
});

test("nothing is outside of the window in any width", async () => {
  await load();
  await server.call("ScheduleService/CreateSchedule", { scheduleId: "import-of-all-orders-in-all-countries", spec: { interval: "3600s", task: { handler: "echo", payload: { json: 1 } } } });
  const displayName = "Nightly thumbnails of all customers in all regions of the world, in three sizes";
  await server.call("BatchService/CreateBatch", { batchId: "long-name", open: true, displayName });
  const { page, complaints } = await open(browser, server.url);
  await isLive(page);
  const pages: [string, () => Promise<unknown>][] = [
    ["", () => page.getByRole("region", { name: /^Wait and run time/ }).getByText("reports").waitFor()],
    ["tasks", () => page.locator(".task-rows .task-row").first().waitFor()],
    ["batches", () => page.locator(".batches").getByText(displayName).waitFor()],
    ["limits", () => page.locator(".limits").getByText("mail").first().waitFor()],
    ["schedules", () => page.locator(".schedules").getByText("import-of-all").waitFor()],
    ["workers", () => page.getByText("PoolWorker-0").first().waitFor()],
  ];
  const outside = () =>
    page.evaluate(() => [document.documentElement, ...document.querySelectorAll(".scroll, .filters, .task-table-box")].filter((box) => box.scrollWidth > box.clientWidth).map((box) => `${box.className} ${box.scrollWidth}`));
  for (const [place, isShown] of pages) {
    await go(page, `#/${place}`);
    for (const width of [390, 900, 1024, 1280]) {
      await page.setViewportSize({ width, height: 900 });
      await isShown();
      await until(async () => (await outside()).length === 0, `${place} in ${width} pixels`);
    }
  }
  await go(page, "#/batches");
  const name = page.getByRole("link", { name: displayName });
  await name.waitFor();
  expect(await name.evaluate((element) => element.scrollWidth > element.clientWidth), "the name is cut").toBe(true);
  await server.call("BatchService/CancelBatch", { batchId: "long-name" });
  expect(complaints).toEqual([]);
  await page.context().close();
});

test("a task that waits for parents shows them instead of a time that has passed", async () => {
  const parent = await server.submit({ handler: "io", payload: { json: 0 }, delay: "3600s" });
  const dependencies = { taskIds: [parent] };
  const child = await server.submit({ handler: "io", payload: { json: 0 }, displayName: "child", dependencies });
  const later = await server.submit({ handler: "io", payload: { json: 0 }, displayName: "later child", dependencies, delay: "3600s" });
  const { page, complaints } = await open(browser, `${server.url}#/tasks?id=${child}&id=${later}`);
  await page.locator(".cell-details").getByText("waits for 1 parent").waitFor();
  await page.locator(".cell-details").getByText(/starts in \d+m at the earliest/).waitFor();
  await go(page, `#/tasks/${child}`);
  await page.locator(".why").getByText("It waits for 1 parent").waitFor();
  await page.locator(".facts").getByText("submitted").waitFor();
  expect(await page.locator(".facts dt").getByText("eligible").count()).toBe(0);
  await go(page, `#/tasks/${later}`);
  await page.locator(".facts").getByText(/in \d+m at the earliest/).waitFor();
  await server.call("TaskService/CancelTask", { taskId: parent });
  expect(complaints).toEqual([]);
  await page.context().close();
});

test("the overview does not move while it is updated, and one stream feeds the whole tab", async () => {
  const { page, complaints } = await open(browser, server.url);
  let streams = 0;
  page.on("request", (request) => (streams += request.url().endsWith("/StreamPoolMetrics") ? 1 : 0));
  await isLive(page);
  await page.evaluate(() => {
    const seen = window as unknown as { shift: number };
    seen.shift = 0;
    new PerformanceObserver((list) => {
      for (const entry of list.getEntries() as unknown as { value: number }[]) seen.shift += entry.value;
    }).observe({ type: "layout-shift", buffered: false });
  });
  await load();
  const counted = page.locator(".tile").filter({ hasText: "Submitted" }).locator("strong");
  await until(async () => /[1-9]/.test((await counted.textContent()) ?? ""), "a rate");
  await page.waitForTimeout(3_000);
  expect(await page.evaluate(() => (window as unknown as { shift: number }).shift)).toBeLessThan(0.02);
  for (const place of ["tasks", "pools", "submit", ""]) {
    await go(page, `#/${place}`);
    await page.waitForTimeout(300);
  }
  expect(streams, "that of the start").toBeLessThanOrEqual(1);
  expect(complaints).toEqual([]);
  await page.context().close();
});

test("the stream goes on after the server was killed and started again", async () => {
  const { page } = await open(browser, server.url);
  await isLive(page);
  await page.evaluate(() => ((window as unknown as { loaded: number }).loaded = 1));
  await server.kill();
  await page.locator(".connection-reconnecting").waitFor();
  await server.start();
  await isLive(page);
  await go(page, "#/tasks");
  await page.locator(".task-rows .task-row").first().waitFor();
  expect(await page.evaluate(() => (window as unknown as { loaded: number }).loaded), "the page was not loaded again").toBe(1);
  await page.context().close();
});

const HOSTILE = `"><img src=x onerror="window.hacked=1"><script>window.hacked=1</script>`;

test("no name, label, payload, output, result or error can script the page", async () => {
  const json = { [HOSTILE]: HOSTILE, rows: [{ [HOSTILE]: "javascript:window.hacked=1" }] };
  const labels = { [`k${HOSTILE}`.slice(0, 60)]: HOSTILE };
  const id = await server.submit({ handler: "shout", payload: { json }, displayName: HOSTILE, labels });
  await server.finished(id);
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9" onload="window.hacked=1"><script>parent.hacked=1</script></svg>`;
  const image = await server.submit({ handler: "echo", payload: { data: Buffer.from(svg).toString("base64"), contentType: "image/svg+xml" } });
  await server.finished(image);
  const { page, complaints } = await open(browser, server.url);
  await page.getByText(HOSTILE).first().waitFor();
  await go(page, "#/tasks");
  await page.locator(".task-rows").getByText(HOSTILE).first().waitFor();
  await go(page, `#/tasks/${id}`);
  await page.locator("h1").getByText(HOSTILE).waitFor();
  await page.locator(".terminal").getByText("onerror").first().waitFor();
  await page.getByRole("button", { name: "Show all events" }).click();
  await page.locator(".events .badge").first().waitFor();
  await page.locator(".chip").getByText("onerror").first().click();
  await page.locator(".filters").getByText("onerror").first().waitFor();
  await go(page, `#/tasks/${image}`);
  await page.locator("img.picture").waitFor();
  await go(page, `#/tasks/${encodeURIComponent(HOSTILE)}`);
  await page.locator("h1").getByText("onerror").waitFor();
  await go(page, `#/tasks?handler=${encodeURIComponent(HOSTILE)}&batch=${encodeURIComponent(HOSTILE)}`);
  await page.waitForTimeout(500);
  expect(await page.evaluate(() => "hacked" in window)).toBe(false);
  // The calls for a task and tasks that cannot exist were refused.
  expect(complaints.filter((text) => !/status of 40[04]/.test(text))).toEqual([]);
  await page.context().close();
});

test("filters stand in the URL, and selected tasks are cancelled and deleted after a question", async () => {
  const tasks = ["a", "b", "c"].map((taskId) => ({ handler: "io", payload: { json: 3600 }, taskId: `bulk-${taskId}`, delay: "3600s", labels: { bulk: "1" } }));
  await server.call("TaskService/BatchSubmitTasks", { tasks });
  const { page, complaints } = await open(browser, `${server.url}#/tasks?label=bulk%3D1`);
  const rows = page.locator(".task-rows .task-row");
  await until(async () => (await rows.count()) === 3, "three rows");
  await page.getByRole("checkbox", { name: "Select bulk-a" }).check();
  await page.getByRole("button", { name: "Cancel 1…" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Cancel 1" }).click();
  await rows.filter({ hasText: "bulk-a" }).getByText("CANCELLED").waitFor();
  await page.getByRole("button", { name: "waiting", exact: true }).click();
  await until(async () => (await rows.count()) === 2, "two waiting rows");
  expect(page.url()).toContain("state=waiting");
  const words = page.getByRole("textbox", { name: /^Filter in words/ });
  await words.fill("handler=io label=bulk=1 id=bulk-b urgent=1");
  await words.press("Enter");
  await page.getByText("there is no name “urgent”").waitFor();
  await words.fill("handler=io label=bulk=1 id=bulk-b since=1h");
  await words.press("Enter");
  await until(async () => (await rows.count()) === 1, "the row of the words");
  expect(page.url()).toContain("state=waiting&handler=io&since=1h&label=bulk%3D1&id=bulk-b");
  await page.getByRole("button", { name: "Remove the task bulk-b" }).click();
  await page.reload();
  await until(async () => (await rows.count()) === 2, "the filter after a reload");
  await page.getByRole("button", { name: "Cancel matching…" }).click();
  await page.getByRole("dialog").getByText("Cancel 2 waiting tasks matching the filter?").waitFor();
  await page.getByRole("dialog").getByText("bulk-b").waitFor();
  await page.getByRole("dialog").getByRole("button", { name: "Keep" }).click();
  await page.getByRole("button", { name: "Cancel matching…" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Cancel 2" }).click();
  await page.getByText("No task matches the filter.").waitFor();
  await page.getByRole("button", { name: "waiting", exact: true }).click();
  await until(async () => (await rows.getByText("CANCELLED").count()) === 3, "all cancelled");
  await page.getByRole("button", { name: "Delete matching…" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Delete 3" }).click();
  await page.getByText("No task matches the filter.").waitFor();
  expect(complaints).toEqual([]);
  await page.context().close();
});

test("failed tasks are retried, alone and with those that match, and a batch is cancelled", async () => {
  const failed = await server.submit({ handler: "fails", labels: { report: "monthly" } });
  await server.finished(failed);
  const { page, complaints } = await open(browser, server.url);
  await go(page, `#/tasks/${failed}`);
  await page.getByRole("button", { name: "Retry", exact: true }).click();
  await page.getByRole("link", { name: failed }).waitFor();
  await go(page, "#/tasks?label=report%3Dmonthly");
  await page.getByRole("button", { name: "Retry matching…" }).click();
  await page.getByRole("dialog").getByRole("button", { name: /^Retry [12]$/ }).click();
  await page.getByText(/^[12] retried$/).waitFor();
  await go(page, "#/failures");
  await page.getByRole("row", { name: /cannot connect/ }).getByRole("link", { name: "all" }).click();
  await page.getByRole("button", { name: "Remove the failure group" }).waitFor();
  await page.locator(".task-rows").getByText("FAILED").first().waitFor();
  await page.getByRole("button", { name: "Retry matching…" }).click();
  await page.getByRole("dialog").getByText(/^Retry \d+ failed tasks? matching the filter\?/).waitFor();
  await page.getByRole("dialog").getByRole("button", { name: "Keep" }).click();
  await server.call("BatchService/CreateBatch", { batchId: "open-one", open: true });
  await go(page, "#/batches");
  const row = page.getByRole("row", { name: /open-one/ });
  await row.getByRole("button", { name: "Cancel…" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Cancel the batch" }).click();
  await row.getByText("FINISHED").waitFor();
  expect(complaints).toEqual([]);
  await page.context().close();
});

test("tasks that wait for a limit are shown by its key", async () => {
  const tasks = ["a", "b", "c"].map((name) => ({ handler: "io", payload: { json: 3600 }, taskId: `held-${name}`, limits: [{ key: "tenant-1", maxRunning: 1 }] }));
  await server.call("TaskService/BatchSubmitTasks", { tasks });
  const { page, complaints } = await open(browser, `${server.url}#/limits`);
  const row = page.getByRole("row", { name: /tenant-1/ });
  await row.getByText("1 of 1").waitFor();
  await until(async () => (await row.getByRole("cell").nth(1).textContent()) === "2", "two waiting tasks");
  expect(await page.getByRole("row", { name: /mail/ }).getByRole("cell").allTextContents()).toEqual([" 0 of 5", "0", "100 in 1m", "10 of 10", "0"]);
  expect(await axe(page)).toEqual([]);
  await page.getByRole("checkbox", { name: "only those that tasks wait for" }).check();
  await until(async () => (await page.getByRole("row").count()) === 2, "only the limit that tasks wait for");
  await row.getByRole("link").click();
  await page.locator(".task-rows").getByText("limit tenant-1: 1 of 1 places taken").first().waitFor();
  await go(page, "#/tasks/held-c");
  await page.locator(".why").getByText("It waits for limit tenant-1: 1 of 1 places taken; 1 task before it.").waitFor();
  expect(await axe(page)).toEqual([]);
  await page.getByRole("img", { name: /^limit tenant-1 / }).waitFor();
  await page.getByRole("button", { name: "Submit again…" }).click();
  await page.getByRole("button", { name: "Remove the limit tenant-1" }).waitFor();
  for (const { taskId } of tasks) await server.call("TaskService/CancelTask", { taskId, mode: "CANCEL_MODE_FORCE" });
  await go(page, "#/limits");
  await page.getByRole("row", { name: /mail/ }).waitFor();
  await until(async () => (await row.count()) === 0, "the key is not in use any more");
  expect(complaints).toEqual([]);
  await page.context().close();
});

test("a schedule is run now, paused, resumed and deleted", async () => {
  await server.call("ScheduleService/CreateSchedule", { scheduleId: "report", spec: { interval: "3600s", task: { handler: "echo", payload: { json: 1 } } } });
  const { page, complaints } = await open(browser, `${server.url}#/schedules`);
  const row = page.getByRole("row", { name: /report/ });
  await row.getByRole("button", { name: "Run now" }).click();
  await row.getByText("COMPLETED").waitFor();
  await row.getByRole("button", { name: "Pause" }).click();
  await row.getByText("PAUSED").waitFor();
  await row.getByRole("link", { name: "report" }).click();
  await page.getByRole("dialog").getByText("None follows until it is resumed.").waitFor();
  await page.getByRole("button", { name: "Close" }).click();
  await row.getByRole("button", { name: "Resume" }).click();
  await row.getByText("ACTIVE").waitFor();
  await row.getByRole("link", { name: "report" }).click();
  await page.getByRole("button", { name: "Delete…" }).click();
  await page.getByRole("button", { name: "Delete the schedule" }).click();
  await row.waitFor({ state: "detached" });
  expect(complaints).toEqual([]);
  await page.context().close();
});

test("a filter is saved in the browser and chosen again", async () => {
  const { page, complaints } = await open(browser, `${server.url}#/tasks?state=failed&label=team%3Dweb`);
  await page.getByRole("button", { name: "Save the filter" }).click();
  await page.getByRole("button", { name: "Clear" }).click();
  await page.reload();
  await page.getByRole("combobox", { name: "Saved filters" }).selectOption("failed, team=web");
  await until(async () => page.url().endsWith("#/tasks?state=failed&label=team%3Dweb"), "the filter");
  await page.getByRole("button", { name: "Forget the filter" }).click();
  await page.getByRole("combobox", { name: "Saved filters" }).waitFor({ state: "detached" });
  expect(complaints).toEqual([]);
  await page.context().close();
});

test("many thousand rows scroll and stay few in the page", async () => {
  const batch = Array.from({ length: 5_000 }, (_, at) => ({ handler: "io", payload: { json: 1 }, delay: "86400s", taskId: `row-${at}`, labels: { many: "1" } }));
  await server.call("TaskService/BatchSubmitTasks", { tasks: batch });
  const { page, complaints } = await open(browser, `${server.url}#/tasks?label=many%3D1`);
  const box = page.locator(".task-table-box");
  await page.locator(".task-rows .task-row").first().waitFor();
  const oldest = page.locator(".task-rows").getByText("row-0", { exact: true });
  await until(async () => {
    await box.evaluate((element) => void (element.scrollTop = element.scrollHeight));
    return oldest.isVisible();
  }, "the oldest row");
  expect(await page.locator(".table-foot").textContent()).toContain("5,000 tasks");
  expect(await page.locator(".task-rows .task-row").count()).toBeLessThan(100);
  await box.focus();
  await page.keyboard.press("End");
  await page.keyboard.press("Enter");
  await page.locator("h1").waitFor();
  await page.getByText("row-0", { exact: true }).first().waitFor();
  expect(complaints).toEqual([]);
  await page.context().close();
});

test("the output of a running task is followed, with its colours, and the task is cancelled", async () => {
  const id = await server.submit({ handler: "steps" });
  const { page, complaints } = await open(browser, `${server.url}#/tasks/${id}`);
  const terminal = page.locator(".terminal");
  await terminal.getByText("step 2").waitFor();
  expect(await terminal.locator(".ansi-fg-2.ansi-bold").count()).toBeGreaterThan(0);
  await terminal.getByText("step 4").waitFor();
  await page.getByRole("button", { name: "Cancel…" }).click();
  await page.getByRole("button", { name: "Cancel the task" }).click();
  await page.locator(".id-line").getByText("CANCELLED").waitFor();
  await page.getByText("Stopped after").waitFor();
  expect(complaints).toEqual([]);
  await page.context().close();
});

test("the files that a task has left are downloaded", async () => {
  const id = await server.submit({ handler: "report" });
  await server.finished(id);
  const { page, complaints } = await open(browser, `${server.url}#/tasks/${id}`);
  const card = page.locator(".card").filter({ has: page.getByRole("heading", { name: "Artifacts" }) });
  await card.getByText("text/csv, 10 B").waitFor();
  expect(await axe(page)).toEqual([]);
  const [download] = await Promise.all([page.waitForEvent("download"), card.getByRole("link").click()]);
  // Browsers replace the characters that some file systems refuse.
  expect(download.suggestedFilename()).toBe("Übersicht _b_.csv");
  expect(readFileSync(await download.path(), "utf8")).toBe("month;sum\n");
  expect(complaints).toEqual([]);
  await page.context().close();
});

test("tasks are submitted with a form, ten at once, and again with a change", async () => {
  const { page, complaints } = await open(browser, `${server.url}#/submit?handler=compute`);
  const payload = page.getByRole("textbox", { name: "Payload" });
  await payload.fill("{");
  await page.locator(".wrong").first().waitFor();
  expect(await page.getByRole("button", { name: "Submit", exact: true }).isDisabled()).toBe(true);
  await payload.fill("1000");
  await page.getByRole("textbox", { name: "Name" }).fill("from the form");
  await page.getByRole("button", { name: "Submit", exact: true }).click();
  const submitted = page.locator(".card").filter({ hasText: "Submitted here" });
  await submitted.getByText("COMPLETED").first().waitFor();
  await page.getByRole("button", { name: "Submit ×10" }).click();
  await submitted.getByText("11 of 11 finished").waitFor();
  await submitted.getByRole("link").last().click();
  await page.locator(".content").getByText("499500").waitFor();
  await page.getByRole("button", { name: "Submit again…" }).click();
  await until(async () => (await payload.inputValue()) === "1000", "the payload of the task");
  await payload.fill("2000");
  await page.getByRole("button", { name: "Submit", exact: true }).click();
  await submitted.getByText("COMPLETED").first().click();
  await page.locator(".content").getByText("1999000").waitFor();
  expect(complaints).toEqual([]);
  await page.context().close();
});

test("a file is submitted as a task for each line", async () => {
  const { page, complaints } = await open(browser, `${server.url}#/submit?handler=io`);
  const choose = (text: string) => page.locator("input[type=file]").setInputFiles({ name: "lines.jsonl", mimeType: "text/plain", buffer: Buffer.from(text) });
  await choose("0.01\n{\n");
  await page.getByText("line 2 of the file is not JSON").waitFor();
  await choose("0.01\n\n0.02\n0.03\n");
  await page.getByRole("button", { name: "Submit 3" }).click();
  await page.getByText("3 of 3 finished").waitFor();
  expect(complaints).toEqual([]);
  await page.context().close();
});

test("times are those of the browser's zone, or of UTC", async () => {
  const id = await server.submit({ handler: "compute", payload: { json: 10 } });
  const { finishedAt } = await server.finished(id);
  const context = await browser.newContext({ timezoneId: "Asia/Tokyo" });
  const page = await context.newPage();
  await page.goto(`${server.url}#/tasks/${id}`);
  const finished = page.locator(".facts > div").filter({ hasText: "finished" }).locator("time");
  await finished.waitFor();
  const utc = finishedAt.slice(0, 19).replace("T", " ");
  const tokyo = new Date(Date.parse(`${finishedAt.slice(0, 19)}Z`) + 9 * 3_600_000).toISOString().slice(0, 19).replace("T", " ");
  expect((await finished.getAttribute("title"))?.slice(0, 19)).toBe(tokyo);
  await page.keyboard.press("Control+k");
  await page.getByRole("combobox").fill("utc");
  await page.keyboard.press("Enter");
  await until(async () => (await finished.getAttribute("title"))?.slice(0, 19) === utc, "the time in UTC");
  await context.close();
});

test("a payload is entered in the fields of the handler's schema", async () => {
  const { page, complaints } = await open(browser, `${server.url}#/submit?handler=greet`);
  const submit = page.getByRole("button", { name: "Submit", exact: true });
  await page.getByRole("textbox", { name: "Who *" }).waitFor();
  expect(await submit.isDisabled(), "a required field is empty").toBe(true);
  await page.getByRole("textbox", { name: "Who *" }).fill('Ada "A"');
  await page.getByRole("textbox", { name: "times" }).fill("many");
  await page.getByText("a whole number").waitFor();
  await page.getByRole("textbox", { name: "times" }).fill("12345678901234567890");
  await page.getByRole("combobox", { name: "loud" }).selectOption("true");
  expect(await axe(page)).toEqual([]);
  await page.getByRole("button", { name: "JSON", exact: true }).click();
  const text = '{"who": "Ada \\"A\\"", "times": 12345678901234567890, "loud": true}';
  expect(await page.getByRole("textbox", { name: "Payload" }).inputValue()).toBe(text);
  await submit.click();
  const submitted = page.locator(".card").filter({ hasText: "Submitted here" });
  await submitted.getByText("COMPLETED").first().click();
  await page.locator(".content").getByText("12345678901234567890").first().waitFor();
  expect(complaints).toEqual([]);
  await page.context().close();
});

test("a task links to its trace, and is copied as a program", async () => {
  const traceId = "0af7651916cd43dd8448eb211c80319c";
  const id = await server.submit({ handler: "compute", payload: { json: 10 }, traceparent: `00-${traceId}-b7ad6b7169203331-01` });
  const { page, complaints } = await open(browser, `${server.url}#/tasks/${id}`);
  expect(await page.getByRole("link", { name: traceId }).getAttribute("href")).toBe(`https://traces.test/trace/${traceId}`);
  await page.context().grantPermissions(["clipboard-read", "clipboard-write"]);
  await page.getByRole("button", { name: "Copy Python" }).click();
  await page.getByText("program copied").waitFor();
  expect(await page.evaluate(() => navigator.clipboard.readText())).toContain('task = client.submit("compute", 10');
  expect(complaints).toEqual([]);
  await page.context().close();
});

test("the charts begin with what the server remembers, and the overview shows the store's commits", async () => {
  const { page, complaints } = await open(browser, server.url);
  await isLive(page);
  await page.getByRole("button", { name: "6 h" }).click();
  const chart = page.locator(".chart").filter({ hasText: "Throughput" });
  await until(async () => /submitted [\d.]+\/s/.test((await chart.getAttribute("aria-label")) ?? ""), "a sample of the server");
  await server.submit({ handler: "compute", payload: { json: 10 } });
  await page.locator(".facts").getByText(/p50 .* until they are durable/).waitFor();
  expect(complaints).toEqual([]);
  await page.context().close();
});

test("the read-only mode hides what changes something, also after a reload", async () => {
  const { page, complaints } = await open(browser, `${server.url}#/pools`);
  await page.getByRole("button", { name: "Pause…" }).first().waitFor();
  await page.keyboard.press("Control+k");
  await page.getByRole("combobox").fill("read-only");
  await page.keyboard.press("Enter");
  await until(async () => (await page.getByRole("button", { name: "Pause…" }).count()) === 0, "no buttons");
  await page.reload();
  await isLive(page);
  expect(await page.getByRole("link", { name: "Submit" }).count()).toBe(0);
  await go(page, "#/tasks");
  await page.locator(".task-rows .task-row").first().waitFor();
  expect(await page.getByRole("button", { name: /^(Cancel|Retry|Delete)/ }).count()).toBe(0);
  expect(await axe(page)).toEqual([]);
  await page.getByRole("button", { name: /^read-only/ }).click();
  await page.getByRole("link", { name: "Submit" }).waitFor();
  expect(complaints).toEqual([]);
  await page.context().close();
});

test("a pool is resized, paused and resumed", async () => {
  const { page, complaints } = await open(browser, `${server.url}#/pools`);
  const card = page.locator(".card").filter({ has: page.getByRole("heading", { name: "reports" }) });
  await card.getByRole("spinbutton", { name: "Workers" }).fill("3");
  await card.getByRole("button", { name: "Apply" }).first().click();
  await card.getByText("/3").waitFor();
  await card.getByRole("button", { name: "Pause…" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Pause" }).click();
  await card.getByText("paused").waitFor();
  await card.getByRole("button", { name: "Resume" }).click();
  await card.getByRole("button", { name: "Pause…" }).waitFor();
  const { pool } = await server.call<{ pool: { size: number; paused: boolean } }>("PoolService/GetPool", { name: "reports" });
  expect([pool.size, pool.paused]).toEqual([3, false]);
  expect(complaints).toEqual([]);
  await page.context().close();
});

test("a pool shows its weights, and a share of success only after a task", async () => {
  const { page, complaints } = await open(browser, `${server.url}#/pools`);
  await isLive(page);
  const card = page.locator(".card").filter({ has: page.getByRole("heading", { name: "images" }) });
  await card.getByText("default=3, default/tenant-*=0.5").waitFor();
  await card.getByText("30s, then lower priorities are promoted").waitFor();
  await card.getByText("0/s").waitFor();
  expect(await card.getByText("succeed").count()).toBe(0);
  await page.getByText(/\d % succeed/).first().waitFor();
  expect(complaints).toEqual([]);
  await page.context().close();
});

test("the benchmark shows the gain of running at once, and removes its tasks", async () => {
  const { page, complaints } = await open(browser, `${server.url}#/benchmark`);
  await page.getByRole("spinbutton", { name: "Tasks" }).fill("4");
  await page.getByRole("textbox", { name: "Payload (JSON)" }).fill("0.2");
  await page.getByRole("button", { name: "Start" }).click();
  const gain = page.locator(".tile").filter({ hasText: "Speed-up" }).locator("strong");
  await until(async () => (await gain.textContent())?.endsWith("×"), "the speed-up");
  expect(Number.parseFloat((await gain.textContent()) ?? "")).toBeGreaterThan(1);
  expect(await page.locator(".axis-y span").allTextContents()).toEqual(["0", "1", "2", "3", "4"]);
  const times = await page.locator(".axis-x span").allTextContents();
  expect([times.length, times[0], times.at(-1)]).toEqual([5, "0s", (await page.locator(".tile").first().textContent())?.split(" in ")[1]]);
  await until(async () => {
    const { tasks } = await server.call<{ tasks: { displayName: string }[] }>("TaskService/ListTasks", {});
    return !tasks.some(({ displayName }) => displayName === "benchmark");
  }, "the deletion of the tasks");
  expect(complaints).toEqual([]);
  await page.context().close();
});

test("the keyboard opens pages, finds a task by its ID, and switches the theme", async () => {
  const id = await server.submit({ handler: "compute", payload: { json: 10 }, taskId: "found-by-id" });
  const { page, complaints } = await open(browser, server.url);
  await isLive(page);
  await page.keyboard.press("g");
  await page.keyboard.press("w");
  await page.getByRole("heading", { name: "Workers" }).waitFor();
  await page.keyboard.press("Control+k");
  await page.getByRole("combobox").fill(id);
  expect(await axe(page)).toEqual([]);
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("ArrowUp");
  await page.keyboard.press("Enter");
  await page.locator("code").getByText(id).waitFor();
  await page.keyboard.press("d");
  expect(await page.evaluate(() => document.documentElement.dataset.theme)).toBe("dark");
  await page.keyboard.press("?");
  await page.getByRole("dialog").getByText("light or dark").waitFor();
  await page.keyboard.press("Escape");
  expect(complaints).toEqual([]);
  await page.context().close();
});

test("the dashboard works below a path of a proxy", async () => {
  const below = await proxy(server.address, "/tools/lineshaft");
  const { page, complaints } = await open(browser, `${below.url}/ui`);
  await isLive(page);
  expect(page.url()).toBe(`${below.url}/ui/`);
  await go(page, "#/tasks");
  await page.locator(".task-rows .task-row").first().waitFor();
  expect(complaints).toEqual([]);
  await page.context().close();
  below.close();
});

test("a page that the server does not accept says why", async () => {
  const named = new Server(`[http]\nhosts = ["other.test"]\n${CONFIG}`);
  await named.start();
  // The proxy passes on the host of the browser, and the page comes from another name than the server knows.
  const below = await proxy(named.address, "/x", { host: "other.test" });
  const { page } = await open(browser, `${below.url}/ui/`);
  await page.locator(".connection-reconnecting").waitFor();
  await page.locator(".top").getByText("http.allowed_origins").waitFor();
  expect(await page.getByRole("link", { name: "Pools" }).count(), "it hides nothing").toBe(1);
  await page.context().close();
  below.close();
  await named.remove();
});

test("a server with tokens asks for one, keeps it in the tab, and hides what it does not allow", async () => {
  const secured = new Server(`${CONFIG}\n[auth]\ntokens_file = "tokens.toml"\n`.replace("tokens.toml", join(server.directory, "tokens.toml")));
  const create = (name: string, role: string, namespace: string) =>
    execFileSync(BINARY, ["token", "create", name, "--role", role, "--namespace", namespace, "--file", join(server.directory, "tokens.toml")], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim();
  const [admin, viewer, tenant] = [create("admin", "admin", "*"), create("viewer", "viewer", "*"), create("tenant", "viewer", "team-a")];
  await secured.start();
  const { page, complaints } = await open(browser, secured.url);
  const field = page.getByLabel("Token");
  await field.fill("wrong");
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByRole("alert").waitFor();
  expect(await axe(page)).toEqual([]);
  await field.fill(admin);
  await page.getByRole("button", { name: "Log in" }).click();
  await isLive(page);
  await page.reload();
  await isLive(page);
  expect(await page.evaluate(() => localStorage.length)).toBe(0);
  await go(page, "#/pools");
  await page.getByRole("button", { name: "Pause…" }).first().waitFor();
  await page.getByRole("button", { name: "Log out" }).click();
  await field.fill(viewer);
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByRole("heading", { name: "reports" }).waitFor();
  await page.getByText("key:viewer").waitFor();
  expect(await page.getByRole("button", { name: "Pause…" }).count(), "a viewer changes no pool").toBe(0);
  expect(await page.getByRole("link", { name: "Submit" }).count(), "and submits nothing").toBe(0);
  await page.getByRole("button", { name: "Log out" }).click();
  await field.fill(tenant);
  await page.getByRole("button", { name: "Log in" }).click();
  // A tenant sees its tasks, and not the pools, which run those of others.
  await page.getByText("You may not see this page.").waitFor();
  await page.getByRole("link", { name: "Go to the tasks" }).click();
  await page.getByRole("heading", { name: "Tasks" }).waitFor();
  await until(async () => (await page.getByRole("link", { name: "Pools" }).count()) === 0, "no pools");
  await page.getByText("No tasks yet").waitFor();
  // Nothing that the server denies was called.
  expect(complaints.filter((text) => !/status of 401/.test(text))).toEqual([]);
  await page.context().close();
  await secured.remove();
});
