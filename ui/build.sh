#!/usr/bin/env bash
# Builds the dashboard into src/api/http/ui of the server. With --check: fails if what is there is not the build of these
# sources.
set -euo pipefail
cd "$(dirname "$0")"

npm ci --loglevel error
npx buf generate
npx tsc
target=../src/api/http/ui
if [ "${1:-}" = --check ]; then
  built="$(mktemp -d)"
  trap 'rm -rf "$built"' EXIT
  LINESHAFT_UI_TARGET="$built" npx vite build --logLevel warn
  if ! diff -r "$built/dist" "$target/dist" || ! diff "$built/files.rs" "$target/files.rs"; then
    echo "src/api/http/ui is not the build of ui/: run ui/build.sh" >&2
    exit 1
  fi
else
  npx vite build --logLevel warn
fi
