#!/usr/bin/env bash
# Tests the Go package against the real server: LINESHAFT_BINARY, or the binary built from this tree.
set -euo pipefail
cd "$(dirname "$0")/../.."
source tests/tools.sh
need_buf
need_binary
export PATH="$tools_root/bin:$PATH"
export GOPATH="$tools_root/go" GOCACHE="$tools_root/go-build" GOTOOLCHAIN=local GOFLAGS="${GOFLAGS:-} -modcacherw"
cd clients/go

unformatted="$(gofmt -l .)"
if [ -n "$unformatted" ]; then
  echo "not formatted, run gofmt -w: $unformatted" >&2
  exit 1
fi
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
./generate.sh -o "$scratch"
if ! diff -r "$scratch/lineshaftv1" lineshaftv1; then
  echo "clients/go/lineshaftv1 differs from proto/: run clients/go/generate.sh" >&2
  exit 1
fi
go mod tidy -diff
go vet ./...
go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...
go test -race -count=1 ./...
