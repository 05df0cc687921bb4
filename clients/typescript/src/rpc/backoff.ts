// Growing pauses between attempts.

import { setTimeout as sleep } from "node:timers/promises";

const FIRST_MS = 50;
const MAX_MS = 2_000;

export class Backoff {
  #pause = 0;

  /** Waits, if the last attempt failed. */
  async pause(signal?: AbortSignal): Promise<void> {
    if (this.#pause > 0) await sleep(this.#pause * (0.8 + 0.4 * Math.random()), undefined, { signal });
  }

  failed(): void {
    this.#pause = Math.min(MAX_MS, Math.max(FIRST_MS, this.#pause * 2));
  }

  succeeded(): void {
    this.#pause = 0;
  }
}
