// Colours of terminals (ANSI SGR) as spans. The text stays text; all other control sequences are removed.

export interface Span {
  text: string;
  /** Class names of the style. */
  style: string;
}

interface Style {
  foreground: string;
  background: string;
  bold: boolean;
  dim: boolean;
  italic: boolean;
  underline: boolean;
  inverse: boolean;
}

const PLAIN: Style = { foreground: "", background: "", bold: false, dim: false, italic: false, underline: false, inverse: false };

// OSC and other strings up to their end, CSI with its final byte, all shorter sequences.
const SEQUENCE = /\x1b(?:\][^\x07\x1b]*(?:\x07|\x1b\\)?|\[([0-?]*)[ -/]*([@-~])|[PX^_][^\x1b]*(?:\x1b\\)?|[ -/]+[0-~]|[0-Z\\^_`a-~])/g;
// Control characters that have no place in a page; tab and line feed stay.
const CONTROLS = /[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]/g;

/** Reads output in pieces; the style goes on from one piece to the next. */
export class AnsiReader {
  private style: Style = { ...PLAIN };
  private rest = "";

  /** The spans of the next piece. A sequence that is not complete is kept for the piece after it. */
  read(piece: string): Span[] {
    let text = this.rest + piece;
    const start = text.lastIndexOf("\x1b");
    this.rest = "";
    if (start >= 0 && text.length - start < 64 && /^\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b]*)?$/.test(text.slice(start))) {
      this.rest = text.slice(start);
      text = text.slice(0, start);
    }
    const spans: Span[] = [];
    let at = 0;
    for (const match of text.matchAll(SEQUENCE)) {
      this.push(spans, text.slice(at, match.index));
      at = match.index + match[0].length;
      if (match[2] === "m") this.apply(match[1] ?? "");
    }
    this.push(spans, text.slice(at));
    return spans;
  }

  private push(spans: Span[], raw: string) {
    // A carriage return begins the line again; only what replaced it is shown.
    const text = raw.replaceAll("\r\n", "\n").replace(/[^\n]*\r(?!$)/g, "").replace(/\r/g, "").replace(CONTROLS, "");
    if (!text) return;
    const style = classes(this.style);
    const last = spans.at(-1);
    if (last?.style === style) last.text += text;
    else spans.push({ text, style });
  }

  private apply(parameters: string) {
    const codes = parameters.split(/[;:]/).map((code) => Number(code) || 0);
    for (let at = 0; at < codes.length; at++) {
      const code = codes[at]!;
      const style = this.style;
      if (code === 0) this.style = { ...PLAIN };
      else if (code === 1) style.bold = true;
      else if (code === 2) style.dim = true;
      else if (code === 3) style.italic = true;
      else if (code === 4) style.underline = true;
      else if (code === 7) style.inverse = true;
      else if (code === 22) style.bold = style.dim = false;
      else if (code === 23) style.italic = false;
      else if (code === 24) style.underline = false;
      else if (code === 27) style.inverse = false;
      else if (code >= 30 && code <= 37) style.foreground = String(code - 30);
      else if (code >= 90 && code <= 97) style.foreground = String(code - 90 + 8);
      else if (code >= 40 && code <= 47) style.background = String(code - 40);
      else if (code >= 100 && code <= 107) style.background = String(code - 100 + 8);
      else if (code === 39) style.foreground = "";
      else if (code === 49) style.background = "";
      else if (code === 38 || code === 48) {
        const [colour, used] = extended(codes.slice(at + 1));
        at += used;
        if (code === 38) style.foreground = colour;
        else style.background = colour;
      }
    }
  }
}

/** The nearest of the 16 colours, and how many parameters describe it. */
function extended(codes: number[]): [string, number] {
  if (codes[0] === 5) return [nearest(...indexed(codes[1] ?? 0)), 2];
  if (codes[0] === 2) return [nearest(codes[1] ?? 0, codes[2] ?? 0, codes[3] ?? 0), 4];
  return ["", 0];
}

const BASIC: [number, number, number][] = [
  [0, 0, 0], [205, 0, 0], [0, 205, 0], [205, 205, 0], [0, 0, 238], [205, 0, 205], [0, 205, 205], [229, 229, 229],
  [127, 127, 127], [255, 0, 0], [0, 255, 0], [255, 255, 0], [92, 92, 255], [255, 0, 255], [0, 255, 255], [255, 255, 255],
];

function indexed(index: number): [number, number, number] {
  if (index < 16) return BASIC[index]!;
  if (index >= 232) {
    const grey = 8 + (index - 232) * 10;
    return [grey, grey, grey];
  }
  const level = (value: number) => (value ? 55 + value * 40 : 0);
  const cube = index - 16;
  return [level(Math.floor(cube / 36)), level(Math.floor(cube / 6) % 6), level(cube % 6)];
}

function nearest(red: number, green: number, blue: number): string {
  const distance = ([r, g, b]: [number, number, number]) => (r - red) ** 2 + (g - green) ** 2 + (b - blue) ** 2;
  let best = 0;
  BASIC.forEach((colour, at) => {
    if (distance(colour) < distance(BASIC[best]!)) best = at;
  });
  return String(best);
}

function classes(style: Style): string {
  const names = [];
  const [foreground, background] = style.inverse
    ? [style.background || "background", style.foreground || "foreground"]
    : [style.foreground, style.background];
  if (foreground) names.push(`ansi-fg-${foreground}`);
  if (background) names.push(`ansi-bg-${background}`);
  for (const name of ["bold", "dim", "italic", "underline"] as const) if (style[name]) names.push(`ansi-${name}`);
  return names.join(" ");
}

/** The text without the sequences for a terminal. */
export const plain = (text: string) => new AnsiReader().read(text).map((span) => span.text).join("");
