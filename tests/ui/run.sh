#!/usr/bin/env bash
# Tests the dashboard: that what the server embeds is the build of ui/, its unit tests, and its pages in a browser against
# the real server.
set -euo pipefail
cd "$(dirname "$0")/../.."
source tests/tools.sh

if ! command -v chromium >/dev/null; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null
fi
export npm_config_cache="$tools_root/npm" npm_config_audit=false npm_config_fund=false

echo "-- the build of ui/"
ui/build.sh --check
need_binary
cd ui
echo "-- unit tests"
npx vitest run
echo "-- in a browser"
npx vitest run --config vitest.browser.config.ts
