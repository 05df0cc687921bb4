#!/usr/bin/env bash
# Tests the SDKs, and clients generated from the contract in other languages, against the real server.
# `tests/clients/run.sh python sdk-typescript` runs only these.
set -euo pipefail
cd "$(dirname "$0")/../.."
source tests/tools.sh

names=("$@")
if [ "$#" -eq 0 ]; then names=(java browser go node-connect node-grpc python sdk-python sdk-typescript sdk-go); fi
sdks=() languages=()
for name in "${names[@]}"; do
  case "$name" in
    sdk-*) sdks+=("${name#sdk-}") ;;
    *) languages+=("$name") ;;
  esac
done

for tool in python3 node npm go java mvn; do
  if ! command -v "$tool" >/dev/null; then
    echo "tests/clients needs Python 3, Node 20, Go 1.26, a JDK 17 and Maven: $tool not found" >&2
    exit 1
  fi
done

python3 tests/clients/docs.py

# All downloads stay in one directory, so that the next run is fast.
tools="$tools_root"
need_buf
export PATH="$tools/bin:$PATH"
export GOPATH="$tools/go" GOCACHE="$tools/go-build" GOTOOLCHAIN=local GOFLAGS="${GOFLAGS:-} -modcacherw"
export MAVEN_OPTS="${MAVEN_OPTS:-} -Dmaven.repo.local=$tools/maven"
export npm_config_cache="$tools/npm" npm_config_audit=false npm_config_fund=false
export PIP_CACHE_DIR="$tools/pip" PIP_DISABLE_PIP_VERSION_CHECK=1

case " ${languages[*]} " in *" browser "*)
  if ! command -v chromium >/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null
  fi ;;
esac

scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
need_binary
cp "$LINESHAFT_BINARY" "$scratch/lineshaft"
if [ "${#languages[@]}" -gt 0 ]; then
  python3 tests/clients/harness.py --binary "$scratch/lineshaft" --scratch "$scratch/clients" "${languages[@]}"
fi
for sdk in "${sdks[@]}"; do
  printf '\n-- SDK: %s\n' "$sdk"
  LINESHAFT_BINARY="$scratch/lineshaft" "clients/$sdk/test.sh"
done
