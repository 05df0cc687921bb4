import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { Client, TaskFailedError } from "../src/index.js";
import { Server } from "./server.js";

const program = fileURLToPath(new URL("./reporting-program.js", import.meta.url));
let server: Server;
let client: Client;

before(async () => {
  server = await new Server(`
[[handler]]
name = "shout"
runner = "process"
argv = ["${process.execPath}", "${program}"]
reports = true
retry = { attempts = 3, delay = "10m" }
`).start();
  client = new Client({ address: server.address });
});

after(async () => {
  await client.close();
  await server.end();
});

test("a program reports its progress, its result and retries", async () => {
  const bytes = (text: string) => new TextEncoder().encode(text);
  const task = await client.submit("shout", bytes("later"));
  const info = await task.wait();
  assert.equal(await task.result(), "LATER!", "as text, which its content type makes it");
  assert.equal(info.attempt, 2);
  assert.equal(await task.outputText({ stream: "stderr" }), "half way\n", "the note of the progress");
  await assert.rejects(client.run("shout", bytes("never")), (error: Error) => {
    assert(error instanceof TaskFailedError);
    return error.message.includes("no such customer");
  });
});

test("without a server the result goes to stdout", () => {
  const ended = spawnSync(process.execPath, [program], { input: "x", env: {} });
  assert.equal(ended.stdout.toString(), "not the result\nX!");
  assert.equal(ended.status, 0);
});
