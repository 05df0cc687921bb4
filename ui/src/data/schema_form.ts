// A form for the payload, made from the JSON schema of a handler.
import { problem } from "../json";

export type FieldKind = "text" | "number" | "integer" | "choice" | "json";

export interface SchemaField {
  name: string;
  title: string;
  hint: string;
  kind: FieldKind;
  isRequired: boolean;
  /** Values in JSON. */
  choices: string[];
  /** The default, as a text of the field. */
  placeholder: string;
}

const FIELDS_MAX = 40;

type Schema = Record<string, unknown>;
const isObject = (value: unknown): value is Schema => typeof value === "object" && value !== null && !Array.isArray(value);
const textOf = (value: unknown) => (typeof value === "string" ? value : "");

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** The fields of a schema that describes an object; `undefined` for all other schemas. */
export function fieldsOf(schema: string): SchemaField[] | undefined {
  const root = parsed(schema);
  if (!isObject(root) || (root.type !== undefined && root.type !== "object") || !isObject(root.properties)) return undefined;
  const properties = Object.entries(root.properties);
  if (properties.length === 0 || properties.length > FIELDS_MAX) return undefined;
  const required = Array.isArray(root.required) ? root.required : [];
  return properties.map(([name, property]) => {
    const of = isObject(property) ? property : {};
    const type = Array.isArray(of.type) && of.type.length === 1 ? of.type[0] : of.type;
    const choices = Array.isArray(of.enum) ? of.enum : type === "boolean" ? [true, false] : [];
    const kind = choices.length ? "choice" : type === "string" ? "text" : type === "number" || type === "integer" ? type : "json";
    return {
      name,
      title: textOf(of.title) || name,
      hint: textOf(of.description),
      kind,
      isRequired: required.includes(name),
      choices: choices.map((value) => JSON.stringify(value)),
      placeholder: of.default === undefined ? "" : fieldText(kind, of.default),
    };
  });
}

const fieldText = (kind: FieldKind, value: unknown) => (kind === "text" && typeof value === "string" ? value : JSON.stringify(value));

/** The texts of the fields; members of a payload that the schema does not name have JSON. */
export function valuesOf(fields: SchemaField[], payload: string): Record<string, string> {
  const object = parsed(payload);
  if (!isObject(object)) return {};
  const kinds = new Map(fields.map(({ name, kind }) => [name, kind]));
  return Object.fromEntries(Object.entries(object).map(([name, value]) => [name, fieldText(kinds.get(name) ?? "json", value)]));
}

const NUMBERS: Partial<Record<FieldKind, RegExp>> = { number: /^-?\d+(\.\d+)?([eE][+-]?\d+)?$/, integer: /^-?\d+$/ };

/** The payload in JSON, with the digits of its numbers as they were typed, and what is wrong with it, by field. */
export function payloadOf(fields: SchemaField[], values: Record<string, string>): { text: string; wrong: Record<string, string> } {
  const wrong: Record<string, string> = {};
  const members: string[] = [];
  const others = Object.keys(values).filter((name) => !fields.some((field) => field.name === name));
  const all = [...fields, ...others.map((name) => ({ name, kind: "json" as const, isRequired: false }))];
  for (const { name, kind, isRequired } of all) {
    const text = values[name] ?? "";
    if (text === "") {
      if (isRequired) wrong[name] = "required";
      continue;
    }
    const pattern = NUMBERS[kind];
    if (pattern && !pattern.test(text)) wrong[name] = kind === "integer" ? "a whole number" : "a number";
    const found = kind === "json" ? problem(text) : undefined;
    if (found) wrong[name] = `JSON: ${found}`;
    members.push(`${JSON.stringify(name)}: ${kind === "text" ? JSON.stringify(text) : text}`);
  }
  return { text: `{${members.join(", ")}}`, wrong };
}
