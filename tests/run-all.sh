#!/usr/bin/env bash
# The tests. Without arguments: everything that has to pass before a change lands; installs the tools that it needs and
# expects a Rust toolchain, a C compiler, Python 3, and for the clients Node 20, Go 1.26, a JDK 17, and Maven.
# With --fast: format, lints, unit tests, and contract, for daily work.
set -euo pipefail
cd "$(dirname "$0")/.."
source tests/tools.sh

case "${1:-}" in
  "" | --fast) tier="${1:-}" ;;
  *) echo "usage: tests/run-all.sh [--fast]" >&2; exit 2 ;;
esac

step() { printf '\n== %s\n' "$*"; }

step "format"
cargo fmt --check

step "lints"
cargo clippy --locked --all-targets -- -D warnings

if [ "$tier" = --fast ]; then
  step "unit tests and contract"
  cargo test --locked --no-fail-fast --lib --test contract --test tidy
else
  step "tests"
  cargo test --locked --no-fail-fast
fi

step "contract: buf lint"
need_buf
"$tools_root/bin/buf" lint

step "contract: changes since the last release"
# A released contract stays compatible. Before the first release tag, breaking changes are printed; CHANGELOG.md
# explains them.
# With the suffix, a release candidate sorts before its release.
release="$(git -c versionsort.suffix=- tag --list 'v[0-9]*' --sort=-version:refname | head -n 1)"
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

if [ "$tier" = --fast ]; then
  step "all of --fast passed"
  exit
fi

step "workflows"
need_actionlint
"$tools_root/bin/actionlint"

step "real collectors"
tests/observability/collector.sh

step "clients in other languages"
tests/clients/run.sh

step "Helm chart and image"
tests/helm/run.sh

step "WebAssembly guests in C, Go and Python"
tests/wasm/run.sh

step "exports of PostgreSQL"
tests/export/run.sh

step "artifacts in S3"
tests/s3/run.sh

step "dashboard"
tests/ui/run.sh

step "without gRPC: curl, Connect, gRPC-Web"
tests/http/run.sh

step "metrics, alerts and dashboard with Prometheus"
tests/observability/run.sh

# Last, because it puts its own build of the binary into the target directory.
step "package"
cargo package --locked --allow-dirty --quiet

step "all passed"
