// The tests in a browser, against a real server. `tests/ui/run.sh` runs them. BROWSER_SCRIPT names another file of `browser/`:
// `pictures.ts` or `soak.ts`.
import { defineConfig } from "vitest/config";

export default defineConfig({
  test: { include: [process.env.BROWSER_SCRIPT ?? "browser/*.test.ts"], testTimeout: 120_000, hookTimeout: 120_000, fileParallelism: false },
});
