#!/usr/bin/env bash
# Exports a PostgreSQL database, and opens the files with independent readers.
set -euo pipefail
cd "$(dirname "$0")/../.."
source tests/tools.sh

missing=()
for package in postgresql poppler-utils; do
  dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
done
if [ "${#missing[@]}" -gt 0 ]; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
python="$tools_root/openpyxl"
if outdated "$python" tests/export/requirements.txt; then
  environment "$python" tests/export/requirements.txt
  filled "$python"
fi

# A database server of our own, on a free port. It does not run as root.
directory="$(mktemp -d)"
chmod 755 "$directory"
database="$directory/postgres"
mkdir "$database"
as_user=()
if [ "$(id -u)" = 0 ]; then
  chown postgres "$database"
  as_user=(setpriv --reuid postgres --regid postgres --clear-groups)
fi
programs="$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1)"
port="$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')"
echo secret > "$directory/password"
chmod 644 "$directory/password"
end() {
  (cd / && "${as_user[@]}" "$programs/pg_ctl" -D "$database/data" -m immediate stop >/dev/null 2>&1) || true
  rm -rf "$directory"
}
trap end EXIT
(
  cd /
  "${as_user[@]}" "$programs/initdb" -D "$database/data" -U postgres -A scram-sha-256 --pwfile "$directory/password" -E UTF8 >/dev/null
  "${as_user[@]}" "$programs/pg_ctl" -D "$database/data" -l "$database/log" -w \
    -o "-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories=$database -c fsync=off" start >/dev/null
)
export PGHOST=127.0.0.1 PGPORT="$port" PGUSER=postgres PGDATABASE=postgres PGPASSWORD=secret
"$programs/psql" --quiet --set ON_ERROR_STOP=1 --file tests/export/park.sql

need_binary
"$python/bin/python" tests/export/check.py "$LINESHAFT_BINARY" "$directory" "$port"
