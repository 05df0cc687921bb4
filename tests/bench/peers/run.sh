#!/usr/bin/env bash
# Compares Lineshaft with the task queues of a language: `tests/bench/peers/run.sh python`, `node` or `go`.
# LINESHAFT_BINARY is the release binary to measure; without it, this tree is built. Options: README.md.
set -euo pipefail
cd "$(dirname "$0")/../../.."
source tests/tools.sh
here="$PWD/tests/bench/peers"
language="${1:?usage: tests/bench/peers/run.sh python|node|go [OPTION...]}"
shift

if [ -z "${LINESHAFT_BINARY:-}" ]; then
  cargo build --quiet --locked --release --bin lineshaft
  LINESHAFT_BINARY="$(cargo metadata --locked --no-deps --format-version 1 |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')/release/lineshaft"
fi
# need COMMAND PACKAGE: installs a package of the distribution.
need() {
  if ! command -v "$1" >/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2" >/dev/null
  fi
}
need redis-server redis-server

tools="$tools_root/peers-$language"
export PYTHONDONTWRITEBYTECODE=1
case "$language" in
  python)
    if outdated "$tools" "$here/requirements.txt"; then
      environment "$tools" "$here/requirements.txt"
      filled "$tools"
    fi
    export PYTHONPATH="$PWD/clients/python/src"
    program="$tools/bin/python $here/peers.py" ;;
  node)
    # The modules are found from the folder of the program.
    export npm_config_cache="$tools_root/npm" npm_config_audit=false npm_config_fund=false
    (cd clients/typescript && npm ci --silent && npm run --silent build)
    if outdated "$tools" "$here/package.json"; then
      cp "$here/package.json" "$tools"
      (cd "$tools" && npm install --silent --no-package-lock)
      filled "$tools"
    fi
    rm -rf "$tools/node_modules/lineshaft"
    mkdir -p "$tools/node_modules/lineshaft"
    cp -r clients/typescript/package.json clients/typescript/dist "$tools/node_modules/lineshaft"
    cp "$here/peers.mjs" "$tools"
    program="node $tools/peers.mjs" ;;
  go)
    export PATH="$PATH:$(echo /usr/lib/postgresql/*/bin)"
    need initdb postgresql
    export GOPATH="$tools_root/go" GOCACHE="$tools_root/go-build" GOTOOLCHAIN=local GOFLAGS="${GOFLAGS:-} -modcacherw"
    mkdir -p "$tools"
    (cd "$here/go" && go build -o "$tools/peers" .)
    program="$tools/peers" ;;
  *) echo "no such language: $language; use python, node or go" >&2; exit 2 ;;
esac
exec python3 "$here/compare.py" "$language" --binary "$(realpath "$LINESHAFT_BINARY")" --program "$program" "$@"
