// Takes the pictures of README.md and docs/ from a server under a demonstration load:
//
//   cd ui && BROWSER_SCRIPT=browser/pictures.ts npx vitest run --config vitest.browser.config.ts
//
// With WORKER_PYTHON=PROGRAM, a Python that has the SDK, also remote workers. With PICTURES=DIRECTORY, also one of each page, light and dark, wide and narrow, for people who look at them.
import { mkdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Page } from "playwright-core";
import { expect, test } from "vitest";
import { DEMONSTRATION, startLoad } from "./load";
import { launch, open, Server, someTask } from "./server";

const DOCS = join(import.meta.dirname, "../../docs");
/** Seconds of load before the pictures: the charts of two minutes are full. */
const WARM_UP = Number(process.env.WARM_UP ?? 125);
const BYTES_MAX = 150_000;

const go = (page: Page, place: string) => page.evaluate((target) => void (location.hash = target), place);

/** The visible part of the page as WebP. */
async function picture(page: Page, path: string) {
  const session = await page.context().newCDPSession(page);
  const { data } = await session.send("Page.captureScreenshot", { format: "webp", quality: 82 });
  writeFileSync(path, Buffer.from(data, "base64"));
}

test("pictures of a server under load", { timeout: 900_000 }, async () => {
  const [browser, server] = [await launch(), await new Server(DEMONSTRATION).start()];
  const endLoad = await startLoad(server, process.env.WORKER_PYTHON);
  try {
    // The charts of each second begin when the page is opened.
    const tab = await open(browser, server.url, { scale: 2 });
    const { page } = tab;
    await page.setViewportSize({ width: 1200, height: 1052 });
    await page.getByRole("button", { name: "2 min" }).click();
    await page.waitForTimeout(WARM_UP * 1000);
    await picture(page, join(DOCS, "dashboard.webp"));
    const directory = process.env.PICTURES;
    if (directory) await every(server, page, directory);
    await page.setViewportSize({ width: 1200, height: 1210 });
    await go(page, `#/tasks/${await someTask(server, "export-report", "TASK_STATE_RUNNING")}`);
    await page.locator(".terminal").getByText("customers").waitFor();
    await picture(page, join(DOCS, "dashboard-task.webp"));
    await page.setViewportSize({ width: 1280, height: 860 });
    await go(page, "#/tasks");
    await page.emulateMedia({ colorScheme: "dark" });
    await page.locator(".task-rows .task-row").nth(12).waitFor();
    await page.waitForTimeout(1_500);
    await picture(page, join(DOCS, "dashboard-tasks.webp"));
    expect(tab.complaints).toEqual([]);
    for (const name of ["dashboard", "dashboard-task", "dashboard-tasks"]) {
      expect(statSync(join(DOCS, `${name}.webp`)).size, name).toBeLessThan(BYTES_MAX);
    }
  } finally {
    await endLoad();
    await browser.close();
    await Server.removeAll();
  }
});

/** Each page in both themes and widths, in the tab that has seen the load. */
async function every(server: Server, page: Page, directory: string) {
  mkdirSync(directory, { recursive: true });
  // Retention deletes a task within a minute.
  const pages: [string, string | (() => Promise<string>)][] = [
    ["overview", ""], ["tasks", "tasks"],
    ["task-failed", async () => `tasks/${await someTask(server, "import-orders", "TASK_STATE_FAILED")}`],
    ["task-completed", async () => `tasks/${await someTask(server, "export-report", "TASK_STATE_COMPLETED")}`],
    ["failures", "failures"], ["limits", "limits"], ["batches", "batches"], ["schedules", "schedules"],
    ["schedule", "schedules/month-end"], ["submit", "submit?handler=export-report"], ["workers", "workers"], ["pools", "pools"], ["benchmark", "benchmark"],
  ];
  for (const colorScheme of ["light", "dark"] as const) {
    await page.emulateMedia({ colorScheme });
    for (const width of [1280, 390]) {
      await page.setViewportSize({ width, height: width < 600 ? 844 : 900 });
      for (const [name, place] of pages) {
        await go(page, `#/${typeof place === "string" ? place : await place()}`);
        await page.waitForTimeout(2_500);
        if (name.startsWith("task-")) await page.getByRole("button", { name: "Show all events" }).click().catch(() => undefined);
        await page.waitForTimeout(500);
        // What is below the window scrolls in `main`.
        const height = await page.evaluate(() => (document.querySelector(".dialog") ? 0 : (document.querySelector(".page")?.scrollHeight ?? 0) + 120));
        await page.setViewportSize({ width, height: Math.min(2_600, Math.max(height, width < 600 ? 844 : 900)) });
        await page.waitForTimeout(400);
        await page.screenshot({ path: join(directory, `${name}-${width}-${colorScheme}.png`), scale: "css" });
        await page.setViewportSize({ width, height: width < 600 ? 844 : 900 });
      }
    }
  }
  await page.emulateMedia({ colorScheme: "light" });
}
