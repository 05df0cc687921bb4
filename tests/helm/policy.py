#!/usr/bin/env python3
"""Runs Checkov's Kubernetes rules on every rendered mode. Each exception has a reason, and unused exceptions fail.

    policy.py CHECKOV FOLDER_OF_RENDERED_MODES
"""

import json
import subprocess
import sys

# (rule, kind) → why the rule is not followed.
EXCEPTIONS = {
    ("CKV_K8S_11", "StatefulSet"): "a CPU limit would throttle the server while cores are free",
    ("CKV_K8S_11", "Pod"): "a CPU limit would throttle the test while cores are free",
    ("CKV_K8S_15", "StatefulSet"): "a release tag never moves; always pulling would make each start depend on the registry",
    ("CKV_K8S_15", "Pod"): "uses the image of the server",
    ("CKV_K8S_43", "StatefulSet"): "image.digest exists for it; a default would name an image that is not published",
    ("CKV_K8S_43", "Pod"): "uses the image of the server",
    ("CKV_K8S_8", "Pod"): "the test pod serves nothing and terminates by itself",
    ("CKV_K8S_9", "Pod"): "the test pod serves nothing and terminates by itself",
    ("CKV_K8S_35", "StatefulSet"): "OpenTelemetry reads OTEL_EXPORTER_OTLP_HEADERS from the environment; handlers list theirs in env_pass",
    ("CKV2_K8S_6", "Pod"): "the test pod accepts no connections",
    ("CKV_K8S_40", "StatefulSet"): "only if the cluster assigns users from its own ranges",
    ("CKV_K8S_40", "Pod"): "like the server",
}


def main():
    checkov, folder = sys.argv[1:]
    command = [checkov, "--directory", folder, "--framework", "kubernetes", "--skip-download", "--output", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    passed, failed = report["results"]["passed_checks"], report["results"]["failed_checks"]
    if len(passed) < 100 or report["results"]["parsing_errors"]:
        raise SystemExit(f"checkov checked too little: {len(passed)} passed, {report['results']['parsing_errors']}")
    used, faults = set(), []
    for check in failed:
        rule = (check["check_id"], check["resource"].split(".")[0])
        used.add(rule)
        if rule not in EXCEPTIONS:
            faults.append(f"{check['file_path']}: {check['resource']}: {check['check_id']} {check['check_name']}")
    faults += [f"the exception for {rule} of {kind} is not used" for rule, kind in EXCEPTIONS.keys() - used]
    if faults:
        raise SystemExit("\n".join(sorted(faults)))
    print(f"{len(passed)} checks passed, {len(used)} exceptions, explained in tests/helm/policy.py")


if __name__ == "__main__":
    main()
