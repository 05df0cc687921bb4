// Artifacts with the real server.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { createReadStream, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { after, before, test } from "node:test";
import { CallError, ChecksumError, Client, NotFoundError, type Task, type TaskContext, Worker } from "../src/index.js";
import { Proxy, Server } from "./server.js";

/** It does not fit into the buffers between a server and a client. */
const LARGE = Buffer.alloc(16 << 20, "0123456789abcdef");
const HANDLERS = ["leave", "leaveInThread"];
const CONFIG = HANDLERS.map(
  (name) => `[[handler]]\nname = "${name}"\nrunner = "remote"\nretry = { attempts = 1 }\n`,
).join("");

let server: Server;
let proxy: Proxy;
let client: Client;
let worker: Worker;
let running: Promise<void>;
let path: string;
/** What the handler `leave` does. */
let leaving: (context: TaskContext) => Promise<unknown>;

before(async () => {
  server = await new Server(CONFIG).start();
  proxy = await new Proxy(server).start();
  client = new Client(proxy.address);
  path = join(server.directory, "large");
  writeFileSync(path, LARGE);
  worker = new Worker({ address: proxy.address, log: () => {} });
  worker.handle("leave", (_, context) => leaving(context));
  worker.handleInThread("leaveInThread", new URL("./functions.js", import.meta.url), { export: "leave" });
  running = worker.run({ signals: false });
});

after(async () => {
  worker.stop();
  await running;
  client.close();
  proxy.end();
  await server.end();
});

async function leave(content: (context: TaskContext) => Promise<unknown>): Promise<Task> {
  leaving = async (context) => void (await content(context));
  const task = await client.submit("leave");
  await task.wait();
  return task;
}

async function read(task: Task, name: string, arrived: (bytes: number) => void = () => {}): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  let bytes = 0;
  for await (const part of task.readArtifact(name)) {
    parts.push(part);
    arrived((bytes += part.length));
  }
  return Buffer.concat(parts);
}

const sha256 = (content: Buffer) => createHash("sha256").update(content).digest("hex");

test("a function leaves artifacts of bytes, streams and files", async () => {
  const task = await leave(async (context) => {
    await context.artifact("a.bin", { path });
    await context.artifact("b.csv", Buffer.from("first"));
    await context.artifact("b.csv", Readable.from(["sec", Buffer.from("ond")]), "text/x-csv");
    await context.artifact("c.bin", createReadStream(path));
    await context.artifact("d.bin", LARGE);
    await context.artifact("一.txt", new Uint8Array());
  });
  await task.result();
  const expected: [string, string, Buffer][] = [
    ["a.bin", "application/octet-stream", LARGE],
    ["b.csv", "text/x-csv", Buffer.from("second")],
    ["c.bin", "application/octet-stream", LARGE],
    ["d.bin", "application/octet-stream", LARGE],
    ["一.txt", "text/plain", Buffer.alloc(0)],
  ];
  const artifacts = await task.artifacts();
  assert.deepEqual(
    artifacts.map(({ link, ...artifact }) => artifact),
    expected.map(([name, contentType, content]) => ({
      name,
      contentType,
      sha256: sha256(content),
      size: content.length,
    })),
  );
  assert(artifacts.every(({ link }) => link.startsWith("/artifacts/")));
  for (const [name, , content] of expected) assert((await read(task, name)).equals(content), name);
  await assert.rejects(read(task, "x"), NotFoundError);
});

test("a function in a thread leaves an artifact", async () => {
  const task = await client.submit("leaveInThread");
  assert.equal(await task.result(), "left");
  assert.equal((await read(task, "x.txt")).toString(), "from the thread");
});

test("a failed attempt leaves no artifacts, and a refused upload is its failure", async () => {
  const task = await leave(async (context) => {
    await context.artifact("kept", Buffer.from("x"));
    await context.artifact("../x", { path });
  });
  assert.match((await task.wait()).failure!.message, /InvalidArgumentError: .*`name` contains the character '\/'/);
  assert.deepEqual(await task.artifacts(), []);
});

test("content that cannot be read fails the upload", async () => {
  const broken = async function* () {
    yield LARGE;
    throw new RangeError("broken content");
  };
  const task = await leave(async (context) => {
    await assert.rejects(context.artifact("a", broken()), /broken content/);
    await assert.rejects(context.artifact("b", { path: `${path}.missing` }), /ENOENT/);
  });
  await task.result();
  assert.deepEqual(await task.artifacts(), []);
});

test("an upload begins anew after a broken connection", async () => {
  let cuts = 0;
  async function* cutting() {
    yield LARGE;
    cuts += proxy.cut();
    yield LARGE;
  }
  /** A file whose connection is cut when it is read for the first time. */
  let opened = 0;
  const file = {
    get path() {
      if (opened++ === 0) setImmediate(() => proxy.cut());
      return path;
    },
  };
  const before = kept();
  const task = await leave(async (context) => {
    await context.artifact("file", file);
    await context.artifact("stream", cutting());
  });
  await task.result();
  assert(opened > 1, "the upload of the file was not repeated");
  assert(cuts > 0);
  assert.deepEqual((await task.artifacts()).map(({ name }) => name), ["file", "stream"]);
  assert((await read(task, "file")).equals(LARGE));
  assert((await read(task, "stream")).equals(Buffer.concat([LARGE, LARGE])));
  assert.deepEqual(kept(), before);
});

test("a stream that cannot be kept is uploaded once", async () => {
  let [cuts, isReturned] = [0, false];
  async function* cutting() {
    try {
      yield LARGE;
      cuts += proxy.cut();
      yield LARGE;
      yield LARGE;
    } finally {
      isReturned = true;
    }
  }
  const temporary = process.env.TMPDIR;
  process.env.TMPDIR = join(server.directory, "missing");
  try {
    const task = await leave(async (context) => {
      await context.artifact("whole", Readable.from([LARGE]));
      await assert.rejects(context.artifact("cut", cutting()), CallError);
    });
    await task.result();
    assert.deepEqual((await task.artifacts()).map(({ name }) => name), ["whole"]);
  } finally {
    if (temporary === undefined) delete process.env.TMPDIR;
    else process.env.TMPDIR = temporary;
  }
  assert(cuts > 0 && isReturned);
});

/** The temporary files of uploads. */
const kept = () => readdirSync(tmpdir()).filter((name) => name.startsWith("lineshaft-artifact-"));

test("a download continues after a broken connection", async () => {
  const task = await leave((context) => context.artifact("large", { path }));
  let cuts = 0;
  const content = await read(task, "large", (bytes) => {
    if (cuts === 0 && bytes >= LARGE.length / 2) cuts = proxy.cut();
  });
  assert(cuts > 0);
  assert(content.equals(LARGE));
});

test("a damaged artifact is an error", async () => {
  const content = Buffer.from("the only content of its kind");
  const task = await leave((context) => context.artifact("damaged", content));
  const directory = join(server.directory, "data/artifacts");
  const files = readdirSync(directory, { recursive: true, encoding: "utf8" }).map((name) => join(directory, name));
  const damaged = files.filter((file) => statSync(file).isFile() && readFileSync(file).equals(content));
  assert.equal(damaged.length, 1);
  writeFileSync(damaged[0]!, "not the same content as then");
  await assert.rejects(read(task, "damaged"), (error) => {
    assert(error instanceof ChecksumError, `${error}`);
    assert.match(error.message, /artifact damaged of task .*: 28 bytes with SHA-256/);
    return true;
  });
});
