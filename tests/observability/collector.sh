#!/usr/bin/env bash
# The real binary against real collectors, over gRPC and over HTTP, with TLS and without: one task of a caller with a trace is one
# tree there; a collector that is killed and comes back under load costs telemetry and no task.
# Installs the collectors; needs Python 3 and openssl.
set -euo pipefail
cd "$(dirname "$0")/../.."
here="$PWD/tests/observability"

tools="${TMPDIR:-/tmp}/lineshaft-test-tools/observability"
wanted="$(sha256sum < "$here/requirements.txt")"
if [ "$(cat "$tools/installed" 2>/dev/null)" != "$wanted" ]; then
  echo "-- installing collectors"
  rm -rf "$tools"
  mkdir -p "$tools"
  python3 -m venv "$tools/venv"
  "$tools/venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
  echo "$wanted" > "$tools/installed"
fi

if [ -z "${LINESHAFT_BINARY:-}" ]; then
  cargo build --quiet --locked --bin lineshaft
  LINESHAFT_BINARY="$(cargo metadata --locked --no-deps --format-version 1 |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')/debug/lineshaft"
fi
export LINESHAFT_BINARY PYTHONDONTWRITEBYTECODE=1
"$tools/venv/bin/python" "$here/collector.py"
