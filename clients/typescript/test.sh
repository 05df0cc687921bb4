#!/usr/bin/env bash
# Tests the package against the server LINESHAFT_BINARY: the generated code, the tests, the package as a user installs it,
# and the programs of README.md.
set -euo pipefail
cd "$(dirname "$0")"

npm ci --silent
./generate.sh --check
npm test
node build/test/readme.js
