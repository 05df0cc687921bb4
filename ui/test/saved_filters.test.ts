import { beforeEach, expect, test, vi } from "vitest";

const kept = new Map<string, string>();
vi.stubGlobal("localStorage", { getItem: (key: string) => kept.get(key) ?? null, setItem: (key: string, value: string) => void kept.set(key, value), removeItem: (key: string) => void kept.delete(key) });

async function load() {
  vi.resetModules();
  return import("../src/data/saved_filters");
}

beforeEach(() => kept.clear());

test("filters are kept in the browser until they are forgotten", async () => {
  const first = await load();
  first.save("state=failed&label=team%3Dweb");
  first.save("handler=io");
  const next = await load();
  expect(next.savedFilters.value).toEqual(["state=failed&label=team%3Dweb", "handler=io"]);
  next.forget("handler=io");
  expect((await load()).savedFilters.value).toEqual(["state=failed&label=team%3Dweb"]);
});

test("the oldest filter gives way, and the same one is kept once", async () => {
  const { save, savedFilters, SAVED_MAX } = await load();
  for (let at = 0; at <= SAVED_MAX; at++) save(`handler=h${at}`);
  save("handler=h5");
  expect(savedFilters.value.length).toBe(SAVED_MAX);
  expect(savedFilters.value[0]).toBe("handler=h1");
  expect(savedFilters.value.at(-1)).toBe("handler=h5");
});

test("what the browser has kept may be anything", async () => {
  for (const text of ["", "{", "7", "[1, null, \"pool=io\"]"]) {
    kept.set("lineshaft.filters", text);
    expect((await load()).savedFilters.value).toEqual(text.includes("pool") ? ["pool=io"] : []);
  }
});

test("a filter has words", async () => {
  const { inWords } = await load();
  expect(inWords("state=failed%2Ccancelled&handler=io&since=1h&label=team%3Dweb")).toBe("failed or cancelled, io, since 1h, team=web");
});
