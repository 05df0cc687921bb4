// A server for the tests of one file, and a proxy in front of it whose connections can be broken.

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync, watch, writeFileSync } from "node:fs";
import { connect, createServer, type Server as TcpServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

const binary = process.env.LINESHAFT_BINARY;
if (!binary) throw new Error("set LINESHAFT_BINARY to the server to test with");

const CONFIG = `
[[pool]]
name = "default"
size = 4

[[pool]]
name = "small"
size = 1
queue_limit = 5

[[handler]]
name = "brief"
runner = "builtin"
builtin = "io"
pool = "small"

[[handler]]
name = "echo"
runner = "process"
argv = ["/bin/cat"]

[[handler]]
name = "speak"
runner = "process"
argv = ["/bin/sh", "-c", "echo one; echo two >&2; read line; echo three"]

[[handler]]
name = "fail"
runner = "process"
argv = ["/bin/sh", "-c", "echo broken >&2; exit 3"]
retry = { attempts = 1 }
`;

export class Server {
  readonly directory = mkdtempSync(join(tmpdir(), "lineshaft-ts-"));
  readonly #config: string;
  #process: ChildProcess | undefined;
  address = "";

  constructor(config = CONFIG) {
    this.#config = config;
  }

  /** Starts the server, or starts it again on the same data. */
  async start(): Promise<this> {
    const ready = join(this.directory, "ready");
    rmSync(ready, { force: true });
    writeFileSync(join(this.directory, "config.toml"), this.#config);
    const environment = Object.entries(process.env).filter(([name]) => !name.startsWith("LINESHAFT_"));
    const path = (name: string) => join(this.directory, name);
    const args = [
      "serve",
      "--listen",
      "127.0.0.1:0",
      "--ready-file",
      ready,
      "--config",
      path("config.toml"),
      "--data-dir",
      path("data"),
    ];
    const appearing = watch(this.directory);
    const child = spawn(binary!, args, { env: Object.fromEntries(environment), stdio: ["ignore", "pipe", "inherit"] });
    this.#process = child;
    let log = "";
    child.stdout!.on("data", (chunk) => (log += chunk));
    const ended = once(child, "exit").then(() => {
      throw new Error(`the server did not start:\n${log}`);
    });
    ended.catch(() => {});
    while (!existsSync(ready) || !readFileSync(ready, "utf8").endsWith("\n")) {
      await Promise.race([once(appearing, "change"), ended]);
    }
    appearing.close();
    this.address = readFileSync(ready, "utf8").trim();
    return this;
  }

  async kill(): Promise<void> {
    const child = this.#process!;
    if (child.exitCode === null && child.signalCode === null) {
      child.kill("SIGKILL");
      await once(child, "exit");
    }
  }

  async end(): Promise<void> {
    await this.kill();
    rmSync(this.directory, { recursive: true, force: true });
  }
}

/** Forwards connections to the present address of a server. */
export class Proxy {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #listener: TcpServer;
  address = "";

  constructor(server: Server) {
    this.#server = server;
    this.#listener = createServer((caller) => this.#forward(caller));
  }

  async start(): Promise<this> {
    this.#listener.listen(0, "127.0.0.1");
    await once(this.#listener, "listening");
    this.address = `127.0.0.1:${(this.#listener.address() as { port: number }).port}`;
    return this;
  }

  #forward(caller: Socket): void {
    const [host, port] = this.#server.address.split(":");
    const upstream = connect(Number(port), host);
    for (const [from, to] of [
      [caller, upstream],
      [upstream, caller],
    ] as const) {
      from.setNoDelay(true);
      this.#sockets.add(from);
      from.pipe(to);
      from.on("error", () => {});
      from.on("close", () => {
        this.#sockets.delete(from);
        to.destroy();
      });
    }
  }

  /** Resets all connections. Returns how many there were. */
  cut(): number {
    const count = this.#sockets.size;
    for (const socket of this.#sockets) {
      // Node never closes a socket that is reset while it is shutting down.
      if (socket.writableEnded) socket.destroy();
      else socket.resetAndDestroy();
    }
    return count;
  }

  end(): void {
    this.#listener.close();
    this.cut();
  }
}
