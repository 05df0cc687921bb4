#!/usr/bin/env bash
# Writes src/gen from the contract. With --check: fails if it is out of date.
set -euo pipefail
cd "$(dirname "$0")"

rm -rf build/gen
npx buf generate --output build/gen
if [ "${1:-}" = --check ]; then
  diff -r src/gen build/gen/src/gen >/dev/null || { echo "src/gen is out of date: run clients/typescript/generate.sh" >&2; exit 1; }
else
  rm -rf src/gen
  mv build/gen/src/gen src/gen
fi
