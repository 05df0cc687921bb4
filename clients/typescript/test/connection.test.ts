import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:net";
import { after, before, test } from "node:test";
import { Client, LineshaftError, UnavailableError } from "../src/index.js";
import { endpoint } from "../src/rpc/endpoint.js";
import { Proxy, Server } from "./server.js";

let server: Server;
let proxy: Proxy;
let client: Client;

before(async () => {
  server = await new Server().start();
  proxy = await new Proxy(server).start();
  client = new Client(proxy.address);
});

after(async () => {
  client.close();
  proxy.end();
  await server.end();
});

async function restart(): Promise<void> {
  await server.kill();
  proxy.cut();
  await server.start();
}

test("submissions and waits survive broken connections and a killed server", async () => {
  await client.run("io", 0);
  const tasks = await Promise.all(Array.from({ length: 40 }, () => client.submit("io", 0.05)));
  const results = Promise.all(tasks.map((task) => task.result()));
  await tasks[0]!.result();
  assert(proxy.cut() > 0);
  await tasks[20]!.result();
  await restart();
  assert.deepEqual(
    await results,
    tasks.map(() => ({ waited_seconds: 0.05 })),
  );
});

test("submissions made while the server is away are accepted once", async () => {
  await client.run("io", 0);
  await server.kill();
  proxy.cut();
  const submissions = Array.from({ length: 100 }, () => client.submit("io", 0, { labels: { away: "yes" } }));
  await server.start();
  const tasks = await Promise.all(submissions);
  await Promise.all(tasks.map((task) => task.result()));
  const listed: string[] = [];
  for await (const { id } of client.list({ labels: { away: "yes" } })) listed.push(id);
  assert.deepEqual(listed.sort(), tasks.map(({ id }) => id).sort());
});

test("a watch continues without gaps after broken connections and a killed server", async () => {
  const tasks = await client.batch(Array.from({ length: 30 }, () => ({ handler: "io", payload: 0.02 })));
  const { batchId } = await tasks[0]!.refresh();
  const { resumeToken } = (await tasks[0]!.watch().next()).value!;
  const seen: string[] = [];
  let completed = 0;
  for await (const event of client.watch({ batchId }, { resumeToken })) {
    seen.push(event.resumeToken);
    if (seen.length === 10) assert(proxy.cut() > 0);
    if (seen.length === 40) await restart();
    if (event.state === "COMPLETED" && ++completed === 30) break;
  }
  const replayed: string[] = [];
  for await (const event of client.watch({ batchId }, { resumeToken })) {
    replayed.push(event.resumeToken);
    if (event.resumeToken === seen.at(-1)) break;
  }
  assert.deepEqual(seen, replayed);
});

test("output continues after a broken connection", async () => {
  const text = "0123456789".repeat(10_000);
  const task = await client.submit("echo", Buffer.from(text));
  await task.wait();
  const stored = await task.outputText();
  const parts: string[] = [];
  for await (const { data } of task.output()) {
    parts.push(Buffer.from(data).toString());
    if (parts.length === 1) proxy.cut();
  }
  assert.equal(parts.join(""), stored);
});

test("without a server the first call fails soon, with a hint", async () => {
  const listener = createServer().listen(0, "127.0.0.1");
  await once(listener, "listening");
  const { port } = listener.address() as { port: number };
  listener.close();
  const nobody = new Client(`127.0.0.1:${port}`);
  await assert.rejects(nobody.submit("io", 0), (error) => {
    assert(error instanceof UnavailableError);
    assert.match(error.message, /ECONNREFUSED.*lineshaft serve/);
    return true;
  });
  await assert.rejects(nobody.task("some").result(), UnavailableError);
  nobody.close();
});

test("the second address is used when the first is away", async () => {
  const both = new Client({ address: `127.0.0.1:1, ${server.address}` });
  assert.deepEqual(await both.run("io", 0), { waited_seconds: 0 });
  both.close();
});

test("a closed client refuses calls and ends waits", async () => {
  const closed = new Client(server.address);
  const tasks = await Promise.all(Array.from({ length: 10 }, () => closed.submit("io", 60)));
  const waits = Promise.allSettled(tasks.map((task) => task.result()));
  closed.close();
  assert((await waits).every(({ status }) => status === "rejected"));
  await assert.rejects(closed.submit("io", 0), /closed/);
  await Promise.all(tasks.map(({ id }) => client.task(id).cancel()));
});

test("a program ends by itself when it waits for nothing more", async () => {
  const program = `
    import { Client } from ${JSON.stringify(new URL("../src/index.js", import.meta.url).href)};
    const client = new Client(${JSON.stringify(server.address)});
    console.log((await Promise.all(Array.from({ length: 20 }, () => client.run("io", 0)))).length);
  `;
  const child = spawn(process.execPath, ["--input-type=module", "--eval", program], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  let text = "";
  child.stdout.on("data", (chunk) => (text += chunk));
  const [code] = await once(child, "close"); // all of its output has been read
  assert.deepEqual([code, text], [0, "20\n"]);
});

test("the address, the token and TLS come from options or the environment", () => {
  assert.deepEqual(endpoint({}, {}).urls, ["http://127.0.0.1:7070"]);
  assert.deepEqual(endpoint({}, { LINESHAFT_SERVER: "a:1,b:2" }).urls, ["http://a:1", "http://b:2"]);
  assert.deepEqual(endpoint({}, { LINESHAFT_SERVER: "http://a:1" }).urls, ["http://a:1"]);
  assert.deepEqual(endpoint({ address: "https://a:1" }, { LINESHAFT_SERVER: "b:2" }).urls, ["https://a:1"]);
  assert.deepEqual(endpoint({ address: "[::1]:1", tls: true }, {}).urls, ["https://[::1]:1"]);
  assert.equal(endpoint({}, { LINESHAFT_TOKEN: " secret\n" }).token(), "secret");
  assert.equal(endpoint({ token: () => "mine" }, { LINESHAFT_TOKEN: "secret" }).token(), "mine");
  assert.throws(() => endpoint({ address: "a:1", token: "secret" }, {}), /unencrypted/);
  assert.throws(() => endpoint({ address: "http://a:1", tls: true }, {}), /https/);
  for (const address of ["http://a:1/path", "user@a:1", "a:70000", "a b"]) {
    assert.throws(() => endpoint({ address }, {}), LineshaftError, address);
  }
});
