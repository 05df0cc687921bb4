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

step "contract: changes since the last release"
# A released contract stays compatible. Before the first release tag, breaking changes are printed; CHANGELOG.md
# explains them.
release="$(git tag --list 'v[0-9]*' --sort=-version:refname | head -n 1)"
base="${release:-$(git rev-parse --quiet --verify HEAD~1 || true)}"
if [ -n "$base" ]; then
  before="$(mktemp -d)"
  trap 'rm -rf "$before"' EXIT
  git archive "$base" proto buf.yaml | tar -x -C "$before"
  if ! "$tools_root/bin/buf" breaking --against "$before"; then
    if [ -n "$release" ]; then echo "breaks the contract of $release" >&2; exit 1; fi
    echo "no release yet: the changes above are allowed"
  fi
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
