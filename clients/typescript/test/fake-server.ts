// A WorkerService whose every message is written by a test.

import { once } from "node:events";
import { createServer, type Http2Server, type ServerHttp2Session, type ServerHttp2Stream } from "node:http2";
import {
  AttemptAssigned,
  type ServerMessage,
  type WorkerHello,
  type WorkerMessage,
  WorkRequest,
  WorkResponse,
} from "../src/gen/lineshaft/v1/worker_service.js";
import { Payload } from "../src/gen/lineshaft/v1/task.js";
import { FrameReader, frame } from "../src/rpc/frames.js";

type Message = NonNullable<ServerMessage["kind"]>;
type Report = NonNullable<WorkerMessage["kind"]>;
type Values = { [R in Report as R["$case"]]: R["value"] };

export class FakeServer {
  readonly #server: Http2Server = createServer();
  readonly #sessions = new Set<ServerHttp2Session>();
  #streams: FakeStream[] = [];
  #arrived: () => void = () => {};
  address = "";

  async start(): Promise<this> {
    this.#server.on("session", (session) => this.#sessions.add(session));
    this.#server.on("stream", (stream) => {
      this.#streams.push(new FakeStream(stream));
      this.#arrived();
    });
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
    this.address = `127.0.0.1:${(this.#server.address() as { port: number }).port}`;
    return this;
  }

  /** The next stream of a worker. */
  async stream(): Promise<FakeStream> {
    while (this.#streams.length === 0) await new Promise<void>((resolve) => (this.#arrived = resolve));
    return this.#streams.shift()!;
  }

  /** Breaks all connections. */
  cut(): void {
    for (const session of this.#sessions) session.destroy();
    this.#sessions.clear();
  }

  end(): void {
    this.#server.close();
    this.cut();
  }
}

export class FakeStream {
  readonly #stream: ServerHttp2Stream;
  readonly #reader = new FrameReader();
  #hello: WorkerHello | undefined;
  #reports: Report[] = [];
  #isEnded = false;
  #arrived: () => void = () => {};

  constructor(stream: ServerHttp2Stream) {
    this.#stream = stream;
    stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
    stream.on("error", () => {});
    stream.on("data", (chunk: Buffer) => this.#reader.read(chunk, (bytes) => this.#message(WorkRequest.decode(bytes))));
    stream.on("end", () => {
      this.#isEnded = true;
      this.#arrived();
    });
  }

  #message({ hello, messages }: WorkRequest): void {
    if (hello) this.#hello = hello;
    for (const { kind } of messages) if (kind && kind.$case !== "heartbeat") this.#reports.push(kind);
    this.#arrived();
  }

  async #arrival(): Promise<void> {
    await new Promise<void>((resolve) => (this.#arrived = resolve));
  }

  async hello(): Promise<WorkerHello> {
    while (!this.#hello) await this.#arrival();
    return this.#hello;
  }

  welcome(stale: string[] = [], heartbeatSeconds = 10, maxResultBytes = 0n): void {
    const heartbeatInterval = { seconds: BigInt(heartbeatSeconds), nanos: 0 };
    this.#write({
      welcome: { pool: "remote", lease: { seconds: 30n, nanos: 0 }, heartbeatInterval, stale, maxResultBytes },
      messages: [],
    });
  }

  send(...messages: Message[]): void {
    this.#write({ welcome: undefined, messages: messages.map((kind) => ({ kind })) });
  }

  assign(token: string, handler: string, value?: unknown, traceparent = ""): void {
    const data = Buffer.from(JSON.stringify(value) ?? "");
    const payload =
      value === undefined
        ? undefined
        : Payload.fromPartial({ kind: { $case: "data", value: data }, contentType: "application/json" });
    this.send({
      $case: "assigned",
      value: {
        token,
        handler,
        payload,
        taskId: `task-${token}`,
        namespace: "default",
        attempt: 1,
        priority: 2,
        labels: {},
        timeout: { seconds: 300n, nanos: 0 },
        traceparent,
        tracestate: "",
        payloadBytes: 0n,
      },
    });
  }

  /** Assigns an attempt whose payload follows in chunks. */
  assignLarge(token: string, handler: string, payloadBytes: number): void {
    const payload = Payload.fromPartial({ contentType: "application/octet-stream" });
    const value = AttemptAssigned.fromPartial({ token, handler, payload, payloadBytes: BigInt(payloadBytes) });
    this.send({ $case: "assigned", value });
  }

  chunk(token: string, offset: number, data: Buffer): void {
    this.send({ $case: "chunk", value: { token, offset: BigInt(offset), data } });
  }

  #write(response: WorkResponse): void {
    this.#stream.write(frame(WorkResponse, response));
  }

  /** The next report. */
  async report(): Promise<Report> {
    while (this.#reports.length === 0) await this.#arrival();
    return this.#reports.shift()!;
  }

  /** The next report, which must be of this kind. */
  async expect<K extends keyof Values>(kind: K): Promise<Values[K]> {
    const report = await this.report();
    if (report.$case !== kind) throw new Error(`${report.$case} instead of ${kind}: ${JSON.stringify(report.value)}`);
    return report.value as Values[K];
  }

  /** Resolves when the worker has ended its side. */
  async ended(): Promise<void> {
    while (!this.#isEnded) await this.#arrival();
  }

  /** Ends the stream with this status. */
  end(code = 0, message = ""): void {
    this.#stream.once("wantTrailers", () =>
      this.#stream.sendTrailers({ "grpc-status": String(code), "grpc-message": message }),
    );
    this.#stream.end();
  }
}
