#!/usr/bin/env bash
# Generates the Python code of the contract into src/lineshaft. `generate.sh --check` fails if the committed code is out of
# date. The generator is of the oldest protobuf version that the package supports: newer code requires a newer runtime.
set -euo pipefail
cd "$(dirname "$0")"
tools="${TMPDIR:-/tmp}/lineshaft-test-tools/python-protoc"
if [ ! -x "$tools/bin/python" ]; then
  python3 -m venv "$tools"
  "$tools/bin/pip" install --quiet --disable-pip-version-check grpcio-tools==1.62.3 protobuf==4.25.9 setuptools==80.9.0
fi
out="$(mktemp -d)"
trap 'rm -rf "$out"' EXIT
"$tools/bin/python" -W ignore -m grpc_tools.protoc -I ../../proto -I proto --python_out="$out" --pyi_out="$out" \
  ../../proto/lineshaft/v1/*.proto proto/lineshaft/_details.proto
echo '"""Messages of the contract, generated from proto/lineshaft/v1."""' > "$out/lineshaft/v1/__init__.py"
if [ "${1:-}" = --check ]; then
  if ! diff -rq --exclude __pycache__ "$out/lineshaft/v1" src/lineshaft/v1 ||
    ! cmp "$out/lineshaft/_details_pb2.py" src/lineshaft/_details_pb2.py; then
    echo "the generated code is out of date; run clients/python/generate.sh" >&2
    exit 1
  fi
else
  rm -rf src/lineshaft/v1
  cp -r "$out/lineshaft/." src/lineshaft/
fi
