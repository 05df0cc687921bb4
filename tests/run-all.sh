#!/usr/bin/env bash
# Everything that has to pass before a change lands. Installs what it needs; a new machine with a
# Rust toolchain, a C compiler, Python 3, and for the clients Node 20, Go 1.26, a JDK 17 and Maven is enough.
set -euo pipefail
cd "$(dirname "$0")/.."
source tests/tools.sh

step() { printf '\n== %s\n' "$*"; }

step "format"
cargo fmt --check

step "lints"
cargo clippy --locked --all-targets -- -D warnings

step "tests"
cargo test --locked --no-fail-fast

step "contract: buf lint"
need_buf
"$tools_root/bin/buf" lint

step "contract: no breaking change"
# Against the commit before: what has landed is in the hands of clients.
if git rev-parse --quiet --verify HEAD~1:buf.yaml >/dev/null; then
  before="$(mktemp -d)"
  trap 'rm -rf "$before"' EXIT
  base="$(git rev-parse --quiet --verify origin/main || true)"
  if [ -z "$base" ] || [ "$base" = "$(git rev-parse HEAD)" ]; then base="HEAD~1"; fi
  git archive "$base" proto buf.yaml | tar -x -C "$before"
  "$tools_root/bin/buf" breaking --against "$before"
else
  echo "the first commit with a contract: nothing to compare with"
fi

step "real collectors"
tests/observability/collector.sh

step "clients in other languages"
tests/clients/run.sh

step "Helm chart and image"
tests/helm/run.sh

step "without gRPC: curl, Connect, gRPC-Web"
tests/http/run.sh

step "metrics, alerts and dashboard with Prometheus"
tests/observability/run.sh

step "all passed"
