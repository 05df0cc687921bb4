// Installs the package as a user does, runs the programs of README.md whose first line is a comment with a file name, and
// checks the types of all its TypeScript.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Server } from "./server.js";

const root = join(import.meta.dirname ?? new URL(".", import.meta.url).pathname, "../..");
const directory = mkdtempSync(join(tmpdir(), "lineshaft-readme-"));
const readme = readFileSync(join(root, "README.md"), "utf8");
const server = await new Server("").start();

function run(command: string, ...args: string[]): string {
  return execFileSync(command, args, {
    cwd: directory,
    encoding: "utf8",
    env: { ...process.env, LINESHAFT_SERVER: server.address },
  });
}

try {
  const [packed] = JSON.parse(
    execFileSync("npm", ["pack", "--json", "--silent", "--pack-destination", directory], {
      cwd: root,
      encoding: "utf8",
    }),
  );
  writeFileSync(join(directory, "package.json"), '{ "private": true, "type": "module" }');
  run("npm", "install", "--silent", "--no-audit", "--no-fund", `./${packed.filename}`);

  const blocks = [...readme.matchAll(/^```(js|ts)\n([\s\S]*?)^```$/gm)].map(([, language, text]) => ({
    language,
    text: text!,
  }));
  const programs = new Map<string, string>();
  for (const [index, { language, text }] of blocks.entries()) {
    if (language === "ts") writeFileSync(join(directory, `block-${index}.ts`), text);
    const name = /^\/\/ (\S+\.mjs)$/m.exec(text.split("\n", 1)[0]!)?.[1];
    // The address of the README is that of a server with its defaults.
    if (name) writeFileSync(join(directory, name), text.replaceAll("127.0.0.1:7070", server.address));
    if (name) programs.set(name, text);
  }
  assert.deepEqual([...programs.keys()], ["worker.mjs", "submit.mjs"]);
  const worker = spawn(process.execPath, ["worker.mjs"], { cwd: directory, stdio: ["ignore", "inherit", "pipe"] });
  const ended = once(worker, "exit");
  const failed = ended.then(() => assert.fail("the worker has ended"));
  failed.catch(() => {});
  for (let log = ""; !/ runs greet /.test(log);) log += (await Promise.race([once(worker.stderr, "data"), failed]))[0];
  const submitted = spawn(process.execPath, ["submit.mjs"], { cwd: directory, stdio: ["ignore", "pipe", "inherit"] });
  let text = "";
  submitted.stdout.on("data", (chunk) => (text += chunk));
  await Promise.race([once(submitted, "close"), failed]);
  assert.equal(text, "Hello, Ada!\n");
  worker.kill("SIGTERM");
  assert.deepEqual(await ended, [0, null]);

  for (const folder of ["@types", "typescript", "undici-types"]) {
    symlinkSync(join(root, "node_modules", folder), join(directory, "node_modules", folder));
  }
  const options = ["--noEmit", "--strict", "--module", "nodenext", "--target", "es2022", "--types", "node"];
  const sources = blocks.flatMap(({ language }, index) => (language === "ts" ? [`block-${index}.ts`] : []));
  assert(sources.length > 0);
  run(process.execPath, join(root, "node_modules/typescript/bin/tsc"), ...options, ...sources);
  console.log(`${programs.size} programs and ${sources.length} listings of README.md are correct`);
} finally {
  await server.end();
  rmSync(directory, { recursive: true, force: true });
}
