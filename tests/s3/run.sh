#!/usr/bin/env bash
# Keeps artifacts in a store with the interface of S3.
set -euo pipefail
cd "$(dirname "$0")/../.."
source tests/tools.sh

python="$tools_root/moto"
if outdated "$python" tests/s3/requirements.txt; then
  environment "$python" tests/s3/requirements.txt
  filled "$python"
fi
need_binary
directory="$(mktemp -d)"
trap 'rm -rf "$directory"' EXIT
"$python/bin/python" tests/s3/check.py "$LINESHAFT_BINARY" "$directory"
