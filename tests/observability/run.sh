#!/usr/bin/env bash
# Tests metrics, alerts and the dashboard with Prometheus: promtool checks the exposition format, the rules and their unit
# tests; a Prometheus scrapes the server and evaluates every expression. LINESHAFT_BINARY=PATH uses this binary instead of
# building one.
set -euo pipefail
cd "$(dirname "$0")/../.."
source tests/tools.sh

if ! command -v promtool >/dev/null || ! command -v prometheus >/dev/null; then
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq >/dev/null
  apt-get install -y -qq --no-install-recommends prometheus >/dev/null
fi

need_binary

echo "-- rules"
promtool check rules docs/observability/alerts.yaml
promtool test rules docs/observability/alerts_test.yaml

echo "-- scraping with Prometheus"
exec python3 tests/observability/scrape.py
