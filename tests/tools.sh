# Sourced by the scripts in the folders beside it, at the root of the tree: tools that are kept from one run to the
# next, and the binary under test.

tools_root="${TMPDIR:-/tmp}/lineshaft-test-tools"

# outdated FOLDER LIST…: empties the folder and succeeds, unless it was filled by these very lists.
outdated() {
  wanted="$(cat "${@:2}" | sha256sum)"
  if [ "$(cat "$1/installed" 2>/dev/null)" = "$wanted" ]; then return 1; fi
  echo "-- installing tools"
  rm -rf "$1"
  mkdir -p "$1"
}

# filled FOLDER: it is complete.
filled() { echo "$wanted" > "$1/installed"; }

# environment FOLDER LIST: Python packages in a place of their own.
environment() {
  python3 -m venv "$1"
  "$1/bin/pip" install --quiet --disable-pip-version-check -r "$2"
}

# buf, for what reads or speaks the contract: in $tools_root/bin.
need_buf() {
  if [ ! -x "$tools_root/bin/buf" ]; then
    python3 -m venv "$tools_root"
    "$tools_root/bin/pip" install --quiet --disable-pip-version-check buf-bin==1.75.0
  fi
}

# actionlint, for the workflows: in $tools_root/bin.
need_actionlint() {
  if [ ! -x "$tools_root/bin/actionlint" ]; then
    GOBIN="$tools_root/bin" go install github.com/rhysd/actionlint/cmd/actionlint@v1.7.12
  fi
}

# LINESHAFT_BINARY: what it names already, or the binary built of this tree.
need_binary() {
  if [ -z "${LINESHAFT_BINARY:-}" ]; then
    cargo build --quiet --locked --bin lineshaft
    LINESHAFT_BINARY="$(cargo metadata --locked --no-deps --format-version 1 |
      python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')/debug/lineshaft"
  fi
  export LINESHAFT_BINARY PYTHONDONTWRITEBYTECODE=1
}
