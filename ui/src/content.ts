// How the bytes of a payload or a result can be shown.

export type View = "json" | "table" | "text" | "image" | "hex";

const IMAGES = ["image/png", "image/jpeg", "image/gif", "image/webp", "image/avif", "image/svg+xml"];

/** The text, if the bytes are UTF-8. */
export function asText(data: Uint8Array): string | undefined {
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(data);
    return text.includes("\0") ? undefined : text;
  } catch {
    return undefined;
  }
}

export const isImage = (contentType: string) => IMAGES.includes(mediaType(contentType));

export const mediaType = (contentType: string) => (contentType.split(";")[0] ?? "").trim().toLowerCase();

const HEX_MAX = 16_384;

/** Lines of offset, bytes and characters. */
export function hex(data: Uint8Array): string {
  const lines: string[] = [];
  for (let at = 0; at < Math.min(data.length, HEX_MAX); at += 16) {
    const row = [...data.subarray(at, at + 16)];
    const codes = row.map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
    const characters = row.map((byte) => (byte >= 32 && byte < 127 ? String.fromCharCode(byte) : ".")).join("");
    lines.push(`${at.toString(16).padStart(8, "0")}  ${codes.padEnd(47)}  ${characters}`);
  }
  if (data.length > HEX_MAX) lines.push(`… ${data.length - HEX_MAX} more bytes`);
  return lines.join("\n");
}
