// The slot of an attempt: given back while the attempt waits for other tasks.

import type { Outbox, Report } from "./outbox.js";

export class Slot {
  readonly #token: string;
  readonly #outbox: Outbox;
  #waits = 0;
  #state: "held" | "released" | "requested" = "held";
  #resumed: (() => void)[] = [];
  #isStopped = false;

  constructor(token: string, outbox: Outbox) {
    this.#token = token;
    this.#outbox = outbox;
  }

  /** Releases the slot until `waiting` has ended and the server has given a slot again. */
  async during<T>(waiting: Promise<T>): Promise<T> {
    this.#waits++;
    if (this.#state === "held") this.#release();
    try {
      return await waiting;
    } finally {
      this.#waits--;
      if (this.#waits === 0 && this.#state === "released") this.#request();
      if (this.#state === "requested" && !this.#isStopped) await new Promise<void>((resolve) => this.#resumed.push(resolve));
    }
  }

  /** The server has given a slot. */
  resume(): void {
    this.#state = "held";
    for (const resolve of this.#resumed.splice(0)) resolve();
    if (this.#waits > 0) this.#release();
  }

  /** The attempt has to stop or has ended: nothing waits for a slot any more. */
  stop(): void {
    this.#isStopped = true;
    for (const resolve of this.#resumed.splice(0)) resolve();
  }

  /** What a new stream has to be told. */
  reports(): Report[] {
    const value = { token: this.#token };
    if (this.#state === "held") return [];
    if (this.#state === "released") return [{ $case: "suspended", value }];
    return [
      { $case: "suspended", value },
      { $case: "resuming", value },
    ];
  }

  #release(): void {
    this.#state = "released";
    this.#outbox.push({ $case: "suspended", value: { token: this.#token } });
  }

  #request(): void {
    this.#state = "requested";
    this.#outbox.push({ $case: "resuming", value: { token: this.#token } });
  }
}
