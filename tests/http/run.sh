#!/usr/bin/env bash
# Tests the port without gRPC clients: runs every command of docs/http.md and docs/moving.md, and calls the server with `buf curl` over
# Connect, gRPC-Web and gRPC.
set -euo pipefail
cd "$(dirname "$0")/../.."
source tests/tools.sh

need_buf
if ! command -v curl >/dev/null; then
  apt-get update -qq && apt-get install -y -qq curl
fi

need_binary
directory="$(mktemp -d)"
server=""
finish() {
  if [ -n "$server" ]; then kill "$server" 2>/dev/null || true; wait "$server" || true; fi
  rm -rf "$directory"
}
trap finish EXIT

start() { # flags of serve; sets server and address
  rm -f "$directory/ready"
  "$LINESHAFT_BINARY" serve --listen 127.0.0.1:0 --ready-file "$directory/ready" "$@" \
    >"$directory/log" 2>&1 &
  server=$!
  for _ in $(seq 600); do
    [ ! -e "$directory/ready" ] || break
    kill -0 "$server" 2>/dev/null || { cat "$directory/log"; exit 1; }
    sleep 0.1
  done
  address="$(cat "$directory/ready")"
}

start --data-dir "$directory/data"
python3 tests/http/docs.py docs/http.md "$address"
# The last command of the page shuts down the server.
wait "$server" || { echo "the server did not exit with 0"; cat "$directory/log"; exit 1; }

sed -n '/^```toml$/,/^```$/{//!p}' docs/moving.md >"$directory/moving.toml"
start --memory --config "$directory/moving.toml"
PATH="$(dirname "$LINESHAFT_BINARY"):$PATH" LINESHAFT_SERVER="http://$address" \
  python3 tests/http/docs.py docs/moving.md "$address"
kill "$server" && wait "$server"

start --memory
call() { # protocol, method, message
  local flags=(--protocol "$1" --schema proto)
  [ "$1" != grpc ] || flags+=(--http2-prior-knowledge)
  "$tools_root/bin/buf" curl "${flags[@]}" -d "$3" "http://$address/lineshaft.v1.$2" 2>&1
}
expect() { # what, pattern, text
  grep -q "$2" <<<"$3" || { printf 'FAILED: %s: %s not found in:\n%s\n' "$1" "$2" "$3"; exit 1; }
  echo "ok: $1"
}
for protocol in connect grpcweb grpc; do
  run='{"task":{"handler":"compute","payload":{"json":10}}}'
  expect "$protocol: stream" '"TASK_STATE_COMPLETED"' "$(call $protocol TaskService/RunTask "$run")"
  expect "$protocol: unary call" '"version"' "$(call $protocol SystemService/GetServerInfo '{}')"
  refused="$(call $protocol TaskService/SubmitTask '{"handler":"nosuch"}' || true)"
  expect "$protocol: error code" '"not_found"' "$refused"
  expect "$protocol: error details" 'google.rpc.ErrorInfo' "$refused"
done
