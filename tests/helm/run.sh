#!/usr/bin/env bash
# Tests the Helm chart and the image. Installs its tools; needs Python 3, Node.js, and root or a kernel that allows user
# namespaces. With --write it writes the generated files instead of comparing them.
set -euo pipefail
cd "$(dirname "$0")/../.."
source tests/tools.sh
here="$PWD/tests/helm"

tools="$tools_root/helm"
if outdated "$tools" "$here"/requirements*.txt "$here/package.json" "$here/tools.py"; then
  mkdir -p "$tools/crds"
  environment "$tools/venv" "$here/requirements.txt"
  # In an environment of its own, because it needs older versions of shared packages.
  environment "$tools/policy" "$here/requirements-policy.txt"
  cp "$here/package.json" "$tools/crds/"
  npm install --prefix "$tools/crds" --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null
  python3 "$here/tools.py" "$tools"
  filled "$tools"
fi
# Node looks for modules beside the script.
cp "$here/crds.mjs" "$tools/crds/"
export HELM3="$tools/helm3/helm" HELM4="$tools/helm4/helm" KUBECTL="$tools/kubectl/kubectl" CRD_CHECKER="$tools/crds/crds.mjs"
export PYTHONPATH="$here"
bin="$tools/venv/bin"

need_binary

if [ "${1:-}" = --write ]; then
  cp docs/observability/dashboard.json docs/observability/alerts.yaml helm/files/
  "$bin/python" "$here/generate_schema.py" --write "$LINESHAFT_BINARY"
  exit
fi

echo "-- generated files"
# A chart can only contain files of its own directory, so these are copies.
for file in dashboard.json alerts.yaml; do
  cmp "docs/observability/$file" "helm/files/$file" || { echo "run tests/helm/run.sh --write"; exit 1; }
done
"$bin/python" "$here/generate_schema.py" "$LINESHAFT_BINARY"

echo "-- lint"
"$bin/hadolint" helm/Dockerfile
"$bin/yamllint" --config-file "$here/yamllint.yaml" --strict helm/Chart.yaml helm/values.yaml helm/ci
rendered="$(mktemp -d)"
trap 'rm -rf "$rendered"' EXIT
for mode in helm/ci/*.yaml; do
  "$HELM3" lint --strict --quiet --values "$mode" helm
  "$HELM4" lint --strict --quiet --values "$mode" helm
  "$HELM4" template demo helm --namespace work --values "$mode" > "$rendered/$(basename "$mode")"
done
"$HELM4" package --destination "$rendered/package" helm >/dev/null

echo "-- policy"
"$bin/python" "$here/policy.py" "$tools/policy/bin/checkov" "$rendered"

echo "-- rendering, refused values, schemas, and the running pod"
"$bin/python" -m pytest --quiet -p no:cacheprovider "$here"
