// A real server, a browser, and a proxy for the tests.
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import http from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Browser, chromium, type Page } from "playwright-core";

const BINARY = process.env.LINESHAFT_BINARY ?? join(import.meta.dirname, "../../target/debug/lineshaft");

export const CONFIG = `
[telemetry]
trace_url = "https://traces.test/trace/{trace_id}"

[[pool]]
name = "default"
size = 4

[[pool]]
name = "reports"
size = 2

[[pool]]
name = "images"
kind = "remote"
max_wait = "30s"
weights = [{ namespace = "default", weight = 3 }, { namespace = "default", fairness_key = "tenant-*", weight = 0.5 }]

[[task_limit]]
name = "mail"
max_running = 5
rate = "100/1m"
burst = 10

[[handler]]
name = "compute"
runner = "builtin"
builtin = "compute"

[[handler]]
name = "io"
runner = "builtin"
builtin = "io"

[[handler]]
name = "echo"
runner = "process"
argv = ["/bin/sh", "-c", "cat; cat /dev/null >&2"]

[[handler]]
name = "greet"
runner = "process"
argv = ["/bin/cat"]
schema = '{"type": "object", "required": ["who"], "properties": {"who": {"type": "string", "title": "Who"}, "times": {"type": "integer"}, "loud": {"type": "boolean"}}}'

[[handler]]
name = "shout"
runner = "process"
argv = ["/bin/sh", "-c", "tee /dev/stderr"]

[[handler]]
name = "steps"
runner = "process"
pool = "reports"
argv = ["/bin/sh", "-c", 'for i in 1 2 3 4 5 6 7 8; do printf "\\\\033[1;32mstep %d\\\\033[0m\\\\n" $i; sleep 0.4; done']

[[handler]]
name = "report"
runner = "process"
artifacts = true
argv = ["/bin/sh", "-c", 'printf "month;sum\\n" >"$LINESHAFT_ARTIFACTS/Übersicht <b>.csv"']

[[handler]]
name = "fails"
runner = "process"
pool = "reports"
argv = ["/bin/sh", "-c", "echo cannot connect >&2; exit 3"]
[handler.retry]
attempts = 2
delay = "100ms"
`;

export class Server {
  readonly directory = mkdtempSync(join(tmpdir(), "lineshaft-ui-"));
  private child: ChildProcess | undefined;
  address = "127.0.0.1:0";

  private static all: Server[] = [];

  constructor(config = CONFIG) {
    Server.all.push(this);
    writeFileSync(join(this.directory, "config.toml"), config);
  }

  async start(): Promise<this> {
    const ready = join(this.directory, "ready");
    rmSync(ready, { force: true });
    const log = join(this.directory, "log");
    const command = `exec "$0" serve --listen "$1" --config "$2" --data-dir "$3" --ready-file "$4" >>"$5" 2>&1`;
    const child = spawn("/bin/sh", ["-c", command, BINARY, this.address, join(this.directory, "config.toml"), join(this.directory, "data"), ready, log]);
    this.child = child;
    await until(() => {
      if (child.exitCode !== null) throw new Error(`the server exited: ${readFileSync(log, "utf8")}`);
      return existsSync(ready) && readFileSync(ready, "utf8").trim();
    });
    this.address = readFileSync(ready, "utf8").trim();
    return this;
  }

  /** Ends it with SIGKILL. The next start listens at the same address. */
  async kill() {
    const child = this.child;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGKILL");
    await ended;
  }

  async remove() {
    await this.kill();
    rmSync(this.directory, { recursive: true, force: true });
  }

  static async removeAll() {
    for (const server of Server.all) await server.remove();
  }

  get pid(): number {
    if (this.child?.pid === undefined) throw new Error("the server does not run");
    return this.child.pid;
  }

  get url() {
    return `http://${this.address}/ui/`;
  }

  async call<T = Record<string, unknown>>(method: string, message: unknown, token?: string): Promise<T> {
    const response = await fetch(`http://${this.address}/lineshaft.v1.${method}`, {
      method: "POST",
      headers: { "content-type": "application/json", ...(token && { authorization: `Bearer ${token}` }) },
      body: JSON.stringify(message),
    });
    const answer = await response.json();
    if (!response.ok) throw new Error(`${method}: ${JSON.stringify(answer)}`);
    return answer as T;
  }

  async submit(task: unknown): Promise<string> {
    return (await this.call<{ taskId: string }>("TaskService/SubmitTask", task)).taskId;
  }

  async finished(taskId: string) {
    const { task } = await this.call<{ task: { state: string; finishedAt: string } }>("TaskService/WaitTask", { taskId, timeout: "60s" });
    return task;
  }
}

/** The newest task of the handler in the state. */
export async function someTask(server: Server, handler: string, state: string): Promise<string> {
  const newest = async () => (await server.call<{ tasks?: { taskId: string }[] }>("TaskService/ListTasks", { filter: { handler, states: [state] }, pageSize: 1 })).tasks?.[0];
  return (await until(newest, `${handler} ${state}`)).taskId;
}

/** Waits until the check gives something. */
export async function until<T>(check: () => T | Promise<T>, what = "the condition"): Promise<NonNullable<T>> {
  const end = Date.now() + 60_000;
  while (Date.now() < end) {
    const found = await check();
    if (found) return found;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`${what} did not come true`);
}

export function launch(): Promise<Browser> {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"],
  });
}

export interface Tab {
  page: Page;
  /** What the browser complained about. */
  complaints: string[];
}

export async function open(browser: Browser, url: string, options: { width?: number; dark?: boolean; scale?: number } = {}): Promise<Tab> {
  const width = options.width ?? 1280;
  const context = await browser.newContext({
    viewport: { width, height: width < 600 ? 844 : 900 },
    colorScheme: options.dark ? "dark" : "light",
    ...(options.scale && { deviceScaleFactor: options.scale }),
  });
  const page = await context.newPage();
  page.setDefaultTimeout(30_000);
  const complaints: string[] = [];
  page.on("console", (message) => {
    if (message.type() === "error" || message.type() === "warning") complaints.push(message.text());
  });
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("dialog", (dialog) => {
    complaints.push(`dialog: ${dialog.message()}`);
    void dialog.dismiss();
  });
  await page.goto(url);
  return { page, complaints };
}

/** A proxy that serves the server below a path. */
export async function proxy(target: string, prefix: string, changed: http.OutgoingHttpHeaders = {}): Promise<{ url: string; close: () => void }> {
  const [host, port] = target.split(":");
  const listener = http.createServer((request, response) => {
    const path = request.url ?? "/";
    if (!path.startsWith(`${prefix}/`)) {
      response.writeHead(404).end();
      return;
    }
    const sent = http.request(
      { host, port, path: path.slice(prefix.length), method: request.method, headers: { ...request.headers, ...changed } },
      (answer) => {
        response.writeHead(answer.statusCode ?? 502, answer.headers);
        answer.pipe(response);
      },
    );
    sent.on("error", () => response.destroy());
    response.on("close", () => sent.destroy());
    request.pipe(sent);
  });
  await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve));
  const { port: own } = listener.address() as AddressInfo;
  return { url: `http://127.0.0.1:${own}${prefix}`, close: () => listener.closeAllConnections() ?? listener.close() };
}
