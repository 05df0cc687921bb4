#!/usr/bin/env bash
# Builds guests in C, Go and Python from source, and runs them as tasks of a server.
set -euo pipefail
cd "$(dirname "$0")/../.."
source tests/tools.sh

for tool in python3 go; do
  if ! command -v "$tool" >/dev/null; then
    echo "tests/wasm needs Python 3 and Go 1.26: $tool not found" >&2
    exit 1
  fi
done
missing=()
for package in clang lld wasi-libc libclang-rt-dev-wasm32; do
  dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
done
if [ "${#missing[@]}" -gt 0 ]; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

directory="$(mktemp -d)"
trap 'rm -rf "$directory"' EXIT
clang --target=wasm32-wasi -O2 -Wall -Werror -o "$directory/c.wasm" tests/wasm/c/guest.c
export GOCACHE="$tools_root/go-build" GOTOOLCHAIN=local
(cd tests/wasm/go && GOOS=wasip1 GOARCH=wasm go build -o "$directory/go.wasm" .)
python="$tools_root/componentize-py"
if outdated "$python" tests/wasm/python/requirements.txt; then
  environment "$python" tests/wasm/python/requirements.txt
  filled "$python"
fi
(cd tests/wasm/python && "$python/bin/componentize-py" -d guest.wit -w guest componentize guest -o "$directory/python.wasm")

need_binary
python3 tests/wasm/check.py "$LINESHAFT_BINARY" "$directory"
