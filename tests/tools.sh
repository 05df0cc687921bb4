# Functions for the test scripts: tools that are kept between runs, and the binary under test. Source it in the root of
# the repository.

tools_root="${TMPDIR:-/tmp}/lineshaft-test-tools"

# outdated FOLDER LIST…: empties the folder and succeeds, unless it was installed from exactly these lists.
outdated() {
  wanted="$(cat "${@:2}" | sha256sum)"
  if [ "$(cat "$1/installed" 2>/dev/null)" = "$wanted" ]; then return 1; fi
  echo "-- installing tools"
  rm -rf "$1"
  mkdir -p "$1"
}

# filled FOLDER: marks the folder as completely installed.
filled() { echo "$wanted" > "$1/installed"; }

# environment FOLDER LIST: creates a virtual environment with these Python packages.
environment() {
  python3 -m venv "$1"
  "$1/bin/pip" install --quiet --disable-pip-version-check -r "$2"
}

# need_buf: installs buf in $tools_root/bin.
need_buf() {
  if [ ! -x "$tools_root/bin/buf" ]; then
    python3 -m venv "$tools_root"
    "$tools_root/bin/pip" install --quiet --disable-pip-version-check buf-bin==1.75.0
  fi
}

# need_actionlint: installs actionlint, which checks the workflows, in $tools_root/bin.
need_actionlint() {
  if [ ! -x "$tools_root/bin/actionlint" ]; then
    GOBIN="$tools_root/bin" go install github.com/rhysd/actionlint/cmd/actionlint@v1.7.12
  fi
}

# need_binary: sets LINESHAFT_BINARY, unless set, to the binary built from this tree.
need_binary() {
  if [ -z "${LINESHAFT_BINARY:-}" ]; then
    cargo build --quiet --locked --bin lineshaft
    LINESHAFT_BINARY="$(cargo metadata --locked --no-deps --format-version 1 |
      python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')/debug/lineshaft"
  fi
  export LINESHAFT_BINARY PYTHONDONTWRITEBYTECODE=1
}
