// Messages between a stream and the loop that reads them.

const HIGH_WATER = 256;

export class Queue<T> {
  #items: T[] = [];
  #error: unknown;
  #isEnded = false;
  #wake: (() => void) | undefined;

  /** Returns true if the sender should pause until `read` has emptied the queue. */
  push(item: T): boolean {
    this.#items.push(item);
    this.#wake?.();
    return this.#items.length >= HIGH_WATER;
  }

  end(error?: unknown): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    this.#error = error;
    this.#wake?.();
  }

  /** `emptied` is called each time that all items have been read. */
  async *read(emptied: () => void): AsyncGenerator<T, void, undefined> {
    for (;;) {
      while (this.#items.length > 0) {
        const items = this.#items;
        this.#items = [];
        yield* items;
        emptied();
      }
      if (this.#isEnded) {
        if (this.#error !== undefined) throw this.#error;
        return;
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      this.#wake = undefined;
    }
  }
}
