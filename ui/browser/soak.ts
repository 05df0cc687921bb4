// Watches the memory of a tab and of its server under load, for 30 minutes or SOAK_MINUTES:
//
//   cd ui && BROWSER_SCRIPT=browser/soak.ts npx vitest run --config vitest.browser.config.ts
//
// The tab goes from page to page. It keeps 15 minutes of samples; from then on the memory must not grow.
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { DEMONSTRATION, startLoad } from "./load";
import { launch, open, Server } from "./server";

const MINUTES = Number(process.env.SOAK_MINUTES ?? 30);
const PLACES = ["", "tasks", "workers", "pools", "failures", "batches", "schedules", "submit", "benchmark"];
const STAY = 5_000;
/** Growth that is noise: the garbage collector and the allocator keep different amounts. */
const GROWTH_MAX = 1.1;

interface Reading {
  minute: number;
  heapMiB: number;
  nodes: number;
  listeners: number;
  serverMiB: number;
}

test("a tab and its server do not grow", { timeout: (MINUTES + 5) * 60_000 }, async () => {
  const [browser, server] = [await launch(), await new Server(DEMONSTRATION).start()];
  const endLoad = await startLoad(server);
  const readings: Reading[] = [];
  try {
    const { page, complaints } = await open(browser, server.url);
    const session = await page.context().newCDPSession(page);
    await session.send("HeapProfiler.enable");
    const start = Date.now();
    const minute = () => (Date.now() - start) / 60_000;
    for (let at = 0; minute() < MINUTES; at++) {
      await page.evaluate((place) => void (location.hash = `#/${place}`), PLACES[at % PLACES.length]!);
      await page.waitForTimeout(STAY);
      if (at % PLACES.length !== 0) continue;
      // On the same page each time.
      await session.send("HeapProfiler.collectGarbage");
      const { usedSize } = await session.send("Runtime.getHeapUsage");
      const { nodes, jsEventListeners: listeners } = await session.send("Memory.getDOMCounters");
      const reading = { minute: minute(), heapMiB: usedSize / 2 ** 20, nodes, listeners, serverMiB: residentMiB(server.pid) };
      readings.push(reading);
      console.log(Object.entries(reading).map(([name, value]) => `${name} ${value.toFixed(1)}`).join("  "));
    }
    expect(complaints).toEqual([]);
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

function residentMiB(pid: number): number {
  const kib = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
  return Number(kib) / 1024;
}
