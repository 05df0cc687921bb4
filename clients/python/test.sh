#!/usr/bin/env bash
# Tests the package against the server LINESHAFT_BINARY: the generated code, types, lints, the tests, and the wheel in an
# environment of its own with the programs of README.md and docs/moving.md, and examples/media.
set -euo pipefail
cd "$(dirname "$0")"
tools="${TMPDIR:-/tmp}/lineshaft-test-tools/python-sdk"
wanted="$(sha256sum < tests/requirements.txt)"
if [ "$(cat "$tools/installed" 2>/dev/null)" != "$wanted" ]; then
  rm -rf "$tools"
  python3 -m venv "$tools"
  "$tools/bin/pip" install --quiet --disable-pip-version-check -r tests/requirements.txt
  echo "$wanted" > "$tools/installed"
fi

./generate.sh --check
"$tools/bin/mypy"
"$tools/bin/ruff" check --quiet
"$tools/bin/ruff" format --check --quiet
PYTHONPATH="$PWD/src" "$tools/bin/python" -m pytest -p no:cacheprovider "$@"

scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
# From a copy: setuptools writes into the folder that it builds.
cp -r pyproject.toml README.md src "$scratch"
rm -rf "$scratch"/src/*.egg-info
"$tools/bin/pip" wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation -w "$scratch/dist" "$scratch"
python3 -m venv "$scratch/user"
"$scratch/user/bin/pip" install --quiet --disable-pip-version-check "$scratch"/dist/lineshaft-*.whl
"$scratch/user/bin/python" tests/documents.py "$scratch/user/bin"
"$scratch/user/bin/pip" install --quiet --disable-pip-version-check -r ../../examples/media/requirements.txt
"$scratch/user/bin/python" tests/media.py "$scratch/user/bin"
