// One stream of a worker: from `hello` to its end.

import { milliseconds } from "../convert.js";
import { type CallError, callError, Code } from "../errors.js";
import type {
  ServerMessage,
  WorkerHello,
  WorkerWelcome,
  WorkRequest,
  WorkResponse,
} from "../gen/lineshaft/v1/worker_service.js";
import type { Call } from "../rpc/call.js";
import type { Channel } from "../rpc/channel.js";
import { work } from "../rpc/method.js";
import type { Outbox, Report } from "./outbox.js";

const WELCOME_TIMEOUT_MS = 30_000;
/** A server that sends nothing for this many intervals is not alive. */
const SILENT_INTERVALS_MAX = 3;

export interface StreamListener {
  /** Returns the reports that the stream begins with. */
  welcome(welcome: WorkerWelcome): Report[];
  message(message: NonNullable<ServerMessage["kind"]>): void;
}

/** Connects, and resolves with the error that ends the stream; `undefined` if the server ended it without one. */
export async function runStream(
  channel: Channel,
  hello: WorkerHello,
  outbox: Outbox,
  listener: StreamListener,
  closing: AbortSignal,
): Promise<CallError | undefined> {
  let call: Call<WorkRequest, WorkResponse>;
  let timer: NodeJS.Timeout | undefined;
  let receivedAt = Date.now();
  const welcomed = (welcome: WorkerWelcome) => {
    clearTimeout(timer);
    timer = setInterval(() => beat(), interval(welcome) / 2);
    const beat = () => {
      if (Date.now() - receivedAt > SILENT_INTERVALS_MAX * interval(welcome)) {
        // If the event loop was blocked, messages that have arrived are read first.
        setImmediate(() => {
          if (Date.now() - receivedAt > SILENT_INTERVALS_MAX * interval(welcome)) call.cancel(silent());
        });
      }
      if (outbox.isEmpty && Date.now() - outbox.sentAt >= interval(welcome) / 3)
        outbox.push({ $case: "heartbeat", value: {} });
    };
    outbox.open(call, listener.welcome(welcome));
  };
  try {
    return await new Promise<CallError | undefined>((resolve, reject) => {
      const message = (response: WorkResponse) => {
        receivedAt = Date.now();
        if (response.welcome) welcomed(response.welcome);
        for (const { kind } of response.messages) if (kind) listener.message(kind);
      };
      const starting = channel.open(work, { message, end: resolve }, { signal: closing });
      starting.then((opened) => {
        call = opened;
        timer = setTimeout(() => call.cancel(silent()), WELCOME_TIMEOUT_MS);
        call.send({ hello, messages: [] });
      }, reject);
    });
  } finally {
    clearInterval(timer);
    outbox.close();
  }
}

function interval(welcome: WorkerWelcome): number {
  return milliseconds(welcome.heartbeatInterval) || 10_000;
}

function silent(): CallError {
  return callError(Code.UNAVAILABLE, "the server has sent nothing for too long");
}
