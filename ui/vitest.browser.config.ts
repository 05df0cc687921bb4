// The tests in a browser, against a real server. `tests/ui/run.sh` runs them.
import { defineConfig } from "vitest/config";

export default defineConfig({
  test: { include: ["browser/*.test.ts"], testTimeout: 120_000, hookTimeout: 120_000, fileParallelism: false },
});
