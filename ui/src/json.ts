// JSON for people: indented, with all digits of its numbers, which `JSON.parse` would lose.

export type TokenKind = "key" | "string" | "number" | "literal" | "punctuation" | "space";

export interface Token {
  kind: TokenKind;
  text: string;
}

const PATTERN = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null|[{}[\],:]/g;

/** The tokens of an indented document; `undefined` if the text is not JSON. */
export function prettyTokens(text: string): Token[] | undefined {
  try {
    JSON.parse(text);
  } catch {
    return undefined;
  }
  const raw = text.match(PATTERN) ?? [];
  const tokens: Token[] = [];
  let depth = 0;
  const push = (kind: TokenKind, text: string) => {
    const last = tokens.at(-1);
    if (last?.kind === kind && (kind === "punctuation" || kind === "space")) last.text += text;
    else tokens.push({ kind, text });
  };
  const line = () => push("space", `\n${"  ".repeat(depth)}`);
  for (let at = 0; at < raw.length; at++) {
    const token = raw[at]!;
    const next = raw[at + 1];
    if (token === "{" || token === "[") {
      push("punctuation", token);
      if (next === "}" || next === "]") {
        push("punctuation", next);
        at++;
      } else {
        depth++;
        line();
      }
    } else if (token === "}" || token === "]") {
      depth--;
      line();
      push("punctuation", token);
    } else if (token === ",") {
      push("punctuation", token);
      line();
    } else if (token === ":") {
      push("punctuation", ": ");
    } else if (token[0] === '"') {
      push(next === ":" ? "key" : "string", token);
    } else {
      push(/^[tfn]/.test(token) ? "literal" : "number", token);
    }
  }
  return tokens;
}

export function pretty(text: string): string | undefined {
  return prettyTokens(text)?.map((token) => token.text).join("");
}

/** What is wrong with a text that should be JSON; `undefined` if it is JSON. */
export function problem(text: string): string | undefined {
  try {
    JSON.parse(text);
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

const ROWS_MAX = 1_000;

/** The columns and rows of a list of objects; `undefined` for all other content. */
export function table(text: string): { columns: string[]; rows: string[][] } | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  const isObject = (item: unknown): item is Record<string, unknown> =>
    typeof item === "object" && item !== null && !Array.isArray(item);
  if (!Array.isArray(value) || value.length === 0 || !value.every(isObject)) return undefined;
  const columns = [...new Set(value.slice(0, ROWS_MAX).flatMap((row) => Object.keys(row)))].slice(0, 50);
  const cell = (item: unknown) => (item === undefined ? "" : typeof item === "string" ? item : JSON.stringify(item));
  return { columns, rows: value.slice(0, ROWS_MAX).map((row) => columns.map((column) => cell(row[column]))) };
}
