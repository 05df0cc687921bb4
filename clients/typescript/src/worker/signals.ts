// Stops a worker when the process is asked to end.

interface Stoppable {
  stop(): void;
}

/** The first SIGTERM or SIGINT drains the worker, a second one ends the process. Returns a function that ends this. */
export function stopOnSignals(worker: Stoppable, log: (line: string) => void): () => void {
  let isStopping = false;
  const stop = (signal: NodeJS.Signals) => {
    if (isStopping) {
      end();
      process.kill(process.pid, signal);
      return;
    }
    isStopping = true;
    log(`lineshaft: ${signal}: no new tasks are started; signal again to stop immediately`);
    worker.stop();
  };
  const end = () => {
    process.off("SIGTERM", stop);
    process.off("SIGINT", stop);
  };
  process.on("SIGTERM", stop);
  process.on("SIGINT", stop);
  return end;
}
