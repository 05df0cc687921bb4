// Watches the memory of a tab and of its server for 30 minutes, or SOAK_MINUTES, under 300 tasks per second, or SOAK_RATE:
//
//   cd ui && BROWSER_SCRIPT=browser/soak.ts npx vitest run --config vitest.browser.config.ts
//
// The tab goes from page to page, once around in a minute. It keeps 15 minutes of samples; from then on the memory must not grow.
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { startSteadyLoad, STEADY } from "./load";
import { launch, open, Server, someTask } from "./server";

const MINUTES = Number(process.env.SOAK_MINUTES ?? 30);
const RATE = Number(process.env.SOAK_RATE ?? 300);
const PLACES = ["", "tasks", "tasks?state=failed", "workers", "pools", "failures", "limits", "batches", "schedules", "submit", "benchmark"];
const STAY = 5_000;
/** Growth that is noise: the garbage collector and the allocator keep different amounts. */
const GROWTH_MAX = 1.1;

interface Reading {
  minute: number;
  heapMiB: number;
  nodes: number;
  listeners: number;
  serverMiB: number;
  finished: number;
}

test("a tab and its server do not grow", { timeout: (MINUTES + 5) * 60_000 }, async () => {
  const [browser, server] = [await launch(), await new Server(STEADY).start()];
  const endLoad = await startSteadyLoad(server, RATE);
  const readings: Reading[] = [];
  try {
    const { page, complaints } = await open(browser, server.url);
    const session = await page.context().newCDPSession(page);
    await session.send("HeapProfiler.enable");
    const start = Date.now();
    const minute = () => (Date.now() - start) / 60_000;
    const stay = async (place: string) => {
      await page.evaluate((target) => void (location.hash = `#/${target}`), place);
      await page.waitForTimeout(STAY);
    };
    while (minute() < MINUTES) {
      for (const place of PLACES) await stay(place);
      await stay(`tasks/${await someTask(server, "export-report", "TASK_STATE_COMPLETED")}`);
      await stay("");
      // On the same page each time.
      await session.send("HeapProfiler.collectGarbage");
      const { usedSize } = await session.send("Runtime.getHeapUsage");
      const { nodes, jsEventListeners: listeners } = await session.send("Memory.getDOMCounters");
      const reading = { minute: minute(), heapMiB: usedSize / 2 ** 20, nodes, listeners, serverMiB: residentMiB(server.pid), finished: await finished(server) };
      readings.push(reading);
      console.log(Object.entries(reading).map(([name, value]) => `${name} ${value.toFixed(1)}`).join("  "));
    }
    expect(complaints).toEqual([]);
    const [first, last] = [readings[0]!, readings.at(-1)!];
    const rate = (last.finished - first.finished) / (last.minute - first.minute) / 60;
    console.log(`${rate.toFixed(0)} tasks/s finished`);
    expect(rate, "the load is steady").toBeGreaterThan(0.9 * RATE);
  } finally {
    await endLoad();
    await browser.close();
    await Server.removeAll();
  }
  const mean = (of: keyof Reading, from: number, to: number) => {
    const values = readings.filter(({ minute }) => minute >= from * MINUTES && minute < to * MINUTES).map((reading) => reading[of]);
    return values.reduce((sum, value) => sum + value, 0) / values.length;
  };
  for (const of of ["heapMiB", "nodes", "listeners", "serverMiB"] as const) {
    const [before, after] = [mean(of, 0.5, 0.67), mean(of, 0.83, 1)];
    console.log(`${of}: ${before.toFixed(1)} in the middle, ${after.toFixed(1)} at the end`);
    expect(after, of).toBeLessThan(before * GROWTH_MAX);
  }
});

/** Tasks that have finished so far. */
async function finished(server: Server): Promise<number> {
  let sum = 0;
  for (const name of ["default", "reports"]) {
    const { metrics } = await server.call<{ metrics: { completed: string; failed: string } }>("PoolService/GetPoolMetrics", { name });
    sum += Number(metrics.completed) + Number(metrics.failed);
  }
  return sum;
}

function residentMiB(pid: number): number {
  const kib = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
  return Number(kib) / 1024;
}
