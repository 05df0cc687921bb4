// Builds the dashboard into src/api/http/ui/dist of the server, and the Rust list of its files.
import { readdirSync, writeFileSync } from "node:fs";
import type { ClientRequest } from "node:http";
import { join } from "node:path";
import type { Plugin } from "vite";
import { defineConfig } from "vitest/config";

/** The folder of the server with `dist` and the list. */
const target = process.env.LINESHAFT_UI_TARGET ?? join(import.meta.dirname, "../src/api/http/ui");
const out = join(target, "dist");

/** Writes the list that the server embeds. */
function rustList(): Plugin {
  return {
    name: "rust-list",
    apply: "build",
    closeBundle() {
      const files = readdirSync(out, { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile())
        .map((entry) => join(entry.parentPath, entry.name).slice(out.length + 1))
        .sort();
      const rows = files.map((path) => `    ("${path}", include_bytes!("dist/${path}")),\n`);
      const text =
        "//! The files of the dashboard: path below `/ui/`, and content. Written by `ui/build.sh`.\n\n" +
        `pub const FILES: [(&str, &[u8]); ${files.length}] = [\n${rows.join("")}];\n`;
      writeFileSync(join(target, "files.rs"), text);
    },
  };
}

/** Writes the descriptors of the contract as plain text: base64 hides from gzip what they have in common, which takes 5 kB. */
function plainDescriptors(): Plugin {
  return {
    name: "plain-descriptors",
    apply: "build",
    enforce: "pre",
    transform(code, id) {
      if (!/_pb\.[jt]s$/.test(id)) return undefined;
      const plain = (_: string, text: string) => `fileDesc(/*@__PURE__*/ btoa(${JSON.stringify(atob(text))})`;
      return { code: code.replace(/fileDesc\("([\w+/=]+)"/g, plain), map: null };
    },
  };
}

/** The server refuses calls from pages of other origins, as that of the development server is. */
function asSameOrigin(proxy: { on(event: "proxyReq", use: (request: ClientRequest) => void): void }) {
  proxy.on("proxyReq", (request) => request.removeHeader("origin"));
}

const server = process.env.LINESHAFT_SERVER ?? "http://127.0.0.1:7070";

export default defineConfig({
  base: "./",
  plugins: [plainDescriptors(), rustList()],
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: {
    outDir: out,
    emptyOutDir: true,
    target: ["chrome123", "firefox121", "safari17.5"],
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
    chunkSizeWarningLimit: 400,
  },
  test: { include: ["test/*.test.ts"] },
  server: { proxy: { "^/(lineshaft\\.v1\\..*|artifacts/.*)": { target: server, changeOrigin: true, configure: asSameOrigin } } },
});
