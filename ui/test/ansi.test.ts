import { expect, test } from "vitest";
import { AnsiReader, plain } from "../src/ansi";

const read = (...pieces: string[]) => {
  const reader = new AnsiReader();
  return pieces.flatMap((piece) => reader.read(piece)).map(({ text, style }) => [text, style]);
};

test("colours become classes and the text stays", () => {
  expect(read("a \x1b[1;31mred\x1b[0m b")).toEqual([["a ", ""], ["red", "ansi-fg-1 ansi-bold"], [" b", ""]]);
  expect(read("\x1b[92;44mx\x1b[39;49my")).toEqual([["x", "ansi-fg-10 ansi-bg-4"], ["y", ""]]);
  expect(read("\x1b[7mx")).toEqual([["x", "ansi-fg-background ansi-bg-foreground"]]);
});

test("colours of 256 and of 24 bits become the nearest of 16", () => {
  expect(read("\x1b[38;5;196mx")).toEqual([["x", "ansi-fg-9"]]);
  expect(read("\x1b[38;2;0;200;10mx")).toEqual([["x", "ansi-fg-2"]]);
  expect(read("\x1b[48;5;244;1mx")).toEqual([["x", "ansi-bg-8 ansi-bold"]]);
});

test("a sequence that is cut between two pieces is one", () => {
  expect(read("a\x1b[3", "1mb\x1b", "[0mc")).toEqual([["a", ""], ["b", "ansi-fg-1"], ["c", ""]]);
});

test("all other sequences and control characters are removed", () => {
  expect(read("\x1b[2J\x1b[10;5Hx\x1b]0;title\x07y\x1b(Bz\b\x9b")).toEqual([["xyz", ""]]);
  expect(read("\x1b]8;;javascript:alert(1)\x1b\\link\x1b]8;;\x1b\\")).toEqual([["link", ""]]);
  expect(read("\x1b[1x\x1b[?25l")).toEqual([]);
});

test("markup in the output is text", () => {
  expect(read("<img src=x onerror=alert(1)>")).toEqual([["<img src=x onerror=alert(1)>", ""]]);
});

test("a carriage return begins the line again", () => {
  expect(read("10 %\r20 %\r30 %\ndone\r\n")).toEqual([["30 %\ndone\n", ""]]);
});

test("any bytes are read without an error, and no escape is left", () => {
  let seed = 1;
  const random = (below: number) => (seed = (seed * 48_271) % 2_147_483_647) % below;
  const alphabet = ["\x1b", "[", "]", "m", ";", "3", "1", "8", "5", "2", "\x07", "x", "\r", "\n", "\\", "?", "P"];
  for (let round = 0; round < 2_000; round++) {
    const text = Array.from({ length: random(40) }, () => alphabet[random(alphabet.length)]).join("");
    const at = random(text.length + 1);
    for (const [shown] of read(text.slice(0, at), text.slice(at))) expect(shown).not.toMatch(/[\x00-\x08\x0b-\x1f\x7f]/);
  }
});

test("a text is shown without its sequences", () => {
  expect(plain("\x1b[1;32m✓\x1b[0m done\n\x1b[33mnext")).toBe("✓ done\nnext");
});
