// A program that reports, for report.test.ts.

import { readFileSync } from "node:fs";
import { report } from "../src/index.js";

const word = readFileSync(0, "utf8");
report.progress(0.5, "half\n way");
if (word === "never") {
  report.error("no such customer");
  report.noRetry();
  process.exit(1);
}
if (word === "later" && process.env.LINESHAFT_ATTEMPT === "1") {
  report.retryAfter(10);
  process.exit(1);
}
console.log("not the result");
report.result(word.toUpperCase(), "text/x-upper");
report.result(new TextEncoder().encode("!"));
