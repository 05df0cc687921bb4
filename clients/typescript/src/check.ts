// Checks options of programs that TypeScript does not check: an unknown option would be ignored, and a value of another type
// would fail far from here or mean something else.

/** @throws TypeError with the path of the option, its value and what it must be */
export type Check = (value: unknown, path: string) => void;

export type Checks<Options> = Record<keyof Required<Options>, Check>;

export function rule(must: string, isRight: (value: unknown) => boolean): Check {
  return (value, path) => {
    if (!isRight(value)) throw new TypeError(`${path} is ${shown(value)}, must be ${must}`);
  };
}

export const text = rule("a string", (value) => typeof value === "string");
export const flag = rule("true or false", (value) => typeof value === "boolean");
export const number = rule("a finite number", Number.isFinite);
export const whole = rule("a whole number", Number.isInteger);
/** Zero would mean that the option is not set. */
export const positive = rule("a whole number, at least 1", (value) => Number.isInteger(value) && (value as number) >= 1);
export const callable = rule("a function", (value) => typeof value === "function");
export const signal = rule("an AbortSignal", (value) => isObject(value) && typeof value.addEventListener === "function");
export const anything: Check = () => {};

const array = rule("an array", Array.isArray);
const object = rule("an object", (value) => isObject(value) && !Array.isArray(value));

/** An array of such values. */
export function list(check: Check): Check {
  return (value, path) => {
    array(value, path);
    for (const [index, item] of (value as unknown[]).entries()) check(item, `${path}[${index}]`);
  };
}

/** An object whose values are strings, under any names. */
export const labels: Check = (value, path) => {
  object(value, path);
  for (const [name, label] of Object.entries(value as object)) text(label, `${path}[${JSON.stringify(name)}]`);
};

/** An object with no other fields than these. */
export function fields<Options>(checks: Checks<Options>): Check {
  const known = new Map<string, Check>(Object.entries(checks));
  return (value, path) => {
    object(value, path || "options");
    for (const [name, field] of Object.entries(value as object)) {
      if (field === undefined) continue;
      const at = path ? `${path}.${name}` : name;
      const check = known.get(name);
      if (!check) throw new TypeError(`${at} is unknown, must be one of ${[...known.keys()].join(", ")}`);
      check(field, at);
    }
  };
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

function shown(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value);
  if (Array.isArray(value)) return "an array";
  return isObject(value) || typeof value === "function" ? `a value of type ${typeof value}` : String(value);
}
