#!/usr/bin/env bash
# The port without gRPC: every line of docs/http.md, and a client of others' making over Connect, gRPC-Web
# and gRPC.
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
# Its last line ends the server.
wait "$server" || { echo "the server did not end well"; cat "$directory/log"; exit 1; }

start --memory
call() { # protocol, method, message
  local flags=(--protocol "$1" --schema proto)
  [ "$1" != grpc ] || flags+=(--http2-prior-knowledge)
  "$tools_root/bin/buf" curl "${flags[@]}" -d "$3" "http://$address/lineshaft.v1.$2" 2>&1
}
expect() { # what, pattern, text
  grep -q "$2" <<<"$3" || { printf 'FAILED: %s: no %s in:\n%s\n' "$1" "$2" "$3"; exit 1; }
  echo "ok: $1"
}
for protocol in connect grpcweb grpc; do
  run='{"task":{"handler":"compute","payload":{"json":10}}}'
  expect "$protocol: a stream to its end" '"TASK_STATE_COMPLETED"' "$(call $protocol TaskService/RunTask "$run")"
  expect "$protocol: one answer" '"version"' "$(call $protocol SystemService/GetServerInfo '{}')"
  refused="$(call $protocol TaskService/SubmitTask '{"handler":"nosuch"}' || true)"
  expect "$protocol: a refusal" '"not_found"' "$refused"
  expect "$protocol: its details" 'google.rpc.ErrorInfo' "$refused"
done
