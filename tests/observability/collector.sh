#!/usr/bin/env bash
# The real binary against real collectors, over gRPC and over HTTP, with TLS and without: one task of a caller with a trace is one
# tree there; a collector that is killed and comes back under load costs telemetry and no task.
# Installs the collectors; needs Python 3 and openssl.
set -euo pipefail
cd "$(dirname "$0")/../.."
source tests/tools.sh
here="$PWD/tests/observability"

tools="$tools_root/observability"
if outdated "$tools" "$here/requirements.txt"; then
  environment "$tools/venv" "$here/requirements.txt"
  filled "$tools"
fi

need_binary
"$tools/venv/bin/python" "$here/collector.py"
