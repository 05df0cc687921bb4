#!/usr/bin/env bash
# Writes lineshaftv1/, the code generated from proto/. Needs buf and Go. With `-o FOLDER` it writes into this folder instead.
set -euo pipefail
cd "$(dirname "$0")"
type buf > /dev/null
if [ "$#" -eq 0 ]; then rm -f lineshaftv1/*.pb.go; fi
buf generate ../../proto --path ../../proto/lineshaft "$@"
