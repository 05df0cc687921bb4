#!/usr/bin/env bash
# Tests the export to real OpenTelemetry collectors over gRPC and HTTP, with and without TLS: the spans of a task join the
# trace of its caller, and killing a collector under load loses telemetry but no task. Installs the collectors; needs
# Python 3 and openssl.
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
