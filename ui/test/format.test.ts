import { describe, expect, test } from "vitest";
import { bytes, exact, isUtc, parseSeconds, percent, relative, seconds, short, shortId } from "../src/format";

describe("numbers", () => {
  test("are shortened without losing their size", () => {
    for (const [value, text] of [
      [0, "0"], [3, "3"], [42.53, "42.5"], [999, "999"], [999.6, "1k"], [1_234, "1.2k"], [99_960, "100k"], [1_500_000, "1.5M"], [2e9, "2G"], [0.034, "0.03"],
    ] as const) {
      expect(short(value), String(value)).toBe(text);
    }
    expect(short(Number.NaN)).toBe("–");
  });

  test("a share below one is never shown as 100 %", () => {
    expect(percent(1)).toBe("100 %");
    expect(percent(0.99999)).toBe("99.9 %");
    expect(percent(0.99999, 0)).toBe("99 %");
    expect(percent(0.5, 0)).toBe("50 %");
  });

  test("bytes have binary units", () => {
    expect([0, 999, 1024, 1_500_000, 3 * 2 ** 30].map(bytes)).toEqual(["0 B", "999 B", "1 KiB", "1.4 MiB", "3 GiB"]);
  });
});

describe("durations", () => {
  test("are shown in two units", () => {
    for (const [value, text] of [
      [undefined, "–"], [-1, "0s"], [0, "0s"], [0.000_04, "40µs"], [0.0042, "4.2ms"], [0.9999, "1s"], [12.34, "12.3s"], [59.97, "1m"], [87.29, "1m27s"], [3_600, "1h"], [3_661, "1h1m"], [90_000, "1d1h"],
    ] as const) {
      expect(seconds(value), String(value)).toBe(text);
    }
  });

  test("are read as people write them", () => {
    for (const [text, value] of [["30", 30], ["30s", 30], ["1m30s", 90], ["1h 5m", 3_900], ["500ms", 0.5], [" 2d ", 172_800], ["1.5h", 5_400]] as const) {
      expect(parseSeconds(text), text).toBeCloseTo(value);
    }
    for (const text of ["", "s", "5 minutes", "-3s", "3x", "1m-2s"]) expect(parseSeconds(text), text).toBeUndefined();
  });
});

test("times are relative to the present", () => {
  const now = 1_000_000_000;
  expect(relative(now - 300, now)).toBe("now");
  expect(relative(now - 75_000, now)).toBe("1m ago");
  expect(relative(now + 7_200_000, now)).toBe("in 2h");
  expect(relative(undefined, now)).toBe("–");
});

test("times are local or in UTC", () => {
  const noon = new Date(2026, 2, 29, 12, 0, 0, 7);
  expect(exact(noon.getTime())).toBe("2026-03-29 12:00:00.007");
  isUtc.value = true;
  expect(exact(Date.UTC(2026, 0, 2, 3, 4, 5, 6))).toBe("2026-01-02 03:04:05.006Z");
  isUtc.value = false;
});

test("a long ID keeps the end that distinguishes it", () => {
  expect(shortId("nap")).toBe("nap");
  expect(shortId("01a2223c-531e-739c-bd43-efd6b4ea989b")).toBe("01a2223c…ea989b");
});
