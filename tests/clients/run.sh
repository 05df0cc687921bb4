#!/usr/bin/env bash
# Tests the clients in other languages against the real server.
# `tests/clients/run.sh python go` runs only these languages.
set -euo pipefail
cd "$(dirname "$0")/../.."
source tests/tools.sh

languages=("$@")
if [ "$#" -eq 0 ]; then languages=(java browser go node-connect node-grpc python); fi

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
python3 tests/clients/harness.py --binary "$scratch/lineshaft" --scratch "$scratch/clients" "${languages[@]}"
