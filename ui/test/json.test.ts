import { expect, test } from "vitest";
import { pretty, prettyTokens, problem, table } from "../src/json";

test("a document is indented and keeps all digits", () => {
  expect(pretty('{"a":90071992547409931234567890,"b":[1.10,{}],"c":[]}')).toBe(
    '{\n  "a": 90071992547409931234567890,\n  "b": [\n    1.10,\n    {}\n  ],\n  "c": []\n}',
  );
});

test("strings that look like syntax stay strings", () => {
  const text = '{"a{[\\"]}":"},:<script>\\\\"}';
  expect(JSON.parse(pretty(text)!)).toEqual(JSON.parse(text));
  expect(prettyTokens(text)?.filter(({ kind }) => kind === "key").map((token) => token.text)).toEqual(['"a{[\\"]}"']);
});

test("scalars and their kinds", () => {
  for (const [text, kind] of [["true", "literal"], ["null", "literal"], ["-1e9", "number"], ['"x"', "string"]] as const) {
    expect(prettyTokens(text)).toEqual([{ kind, text }]);
  }
});

test("what is not JSON is reported", () => {
  for (const text of ["", "{", "{'a':1}", "nan", "1 2"]) {
    expect(pretty(text), text).toBeUndefined();
    expect(problem(text), text).toBeTruthy();
  }
  expect(problem("[1]")).toBeUndefined();
});

test("a list of objects is a table", () => {
  expect(table('[{"a":1,"b":"x"},{"b":{"c":2}}]')).toEqual({ columns: ["a", "b"], rows: [["1", "x"], ["", '{"c":2}']] });
  for (const text of ["[]", "[1]", "{}", "[{}, null]", "["]) expect(table(text), text).toBeUndefined();
});
