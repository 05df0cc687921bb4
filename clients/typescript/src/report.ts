// Reports of a program that a process handler with `reports = true` starts. Elsewhere a report does nothing, and the result goes
// to stdout.

import { closeSync, constants, openSync, writeFileSync } from "node:fs";

/** Shows the progress, 0 to 1, and a note. */
export function progress(fraction: number, note = ""): void {
  report(`progress ${fraction.toFixed(6)} ${note}`);
}

/** Writes the result. Several calls add to it. Without a content type it has that of the handler. */
export function result(data: string | Uint8Array, contentType?: string): void {
  if (contentType) report(`content-type ${contentType}`);
  const path = process.env.LINESHAFT_RESULT;
  if (path) write(path, data);
  else writeFileSync(1, data);
}

/** Sets the message of the failure if the program exits with another code than 0. */
export function error(message: string): void {
  report(`error ${message}`);
}

/** Prevents a retry if the program exits with another code than 0. */
export function noRetry(): void {
  report("no-retry");
}

/** Sets the time of the retry if the program exits with another code than 0. */
export function retryAfter(milliseconds: number): void {
  report(`retry-after ${(milliseconds / 1000).toFixed(6)}`);
}

function report(line: string): void {
  const path = process.env.LINESHAFT_REPORT;
  if (path) write(path, `${line.split(/\s+/).join(" ")}\n`);
}

function write(path: string, data: string | Uint8Array): void {
  const pipe = openSync(path, constants.O_WRONLY);
  try {
    writeFileSync(pipe, data);
  } finally {
    closeSync(pipe);
  }
}
