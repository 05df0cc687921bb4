#!/usr/bin/env python3
"""Checkov's rules for Kubernetes on every rendered mode; each exception has its reason, and none may be idle.

    policy.py CHECKOV FOLDER_OF_RENDERED_MODES
"""

import json
import subprocess
import sys

# (rule, kind) → why what it asks for is not done.
EXCEPTIONS = {
    ("CKV_K8S_11", "StatefulSet"): "a limit of CPU only makes a server wait that had cores to run on",
    ("CKV_K8S_11", "Pod"): "a limit of CPU only makes a test wait that had cores to run on",
    ("CKV_K8S_15", "StatefulSet"): "a tag of a release never moves; pulling always would tie each start to the registry",
    ("CKV_K8S_15", "Pod"): "as the server, whose image it is",
    ("CKV_K8S_43", "StatefulSet"): "image.digest is there for it; a default would name an image that nobody has",
    ("CKV_K8S_43", "Pod"): "as the server, whose image it is",
    ("CKV_K8S_8", "Pod"): "the test pod serves nothing and ends by itself",
    ("CKV_K8S_9", "Pod"): "the test pod serves nothing and ends by itself",
    ("CKV_K8S_35", "StatefulSet"): "OTEL_EXPORTER_OTLP_HEADERS is OpenTelemetry's own way; programs name theirs in env_pass",
    ("CKV2_K8S_6", "Pod"): "the test pod takes no connection",
    ("CKV_K8S_40", "StatefulSet"): "only where the operator has the cluster assign users, which it does by ranges of its own",
    ("CKV_K8S_40", "Pod"): "as the server",
}


def main():
    checkov, folder = sys.argv[1:]
    command = [checkov, "--directory", folder, "--framework", "kubernetes", "--skip-download", "--output", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    passed, failed = report["results"]["passed_checks"], report["results"]["failed_checks"]
    if len(passed) < 100 or report["results"]["parsing_errors"]:
        raise SystemExit(f"checkov looked at too little: {len(passed)} passed, {report['results']['parsing_errors']}")
    used, faults = set(), []
    for check in failed:
        rule = (check["check_id"], check["resource"].split(".")[0])
        used.add(rule)
        if rule not in EXCEPTIONS:
            faults.append(f"{check['file_path']}: {check['resource']}: {check['check_id']} {check['check_name']}")
    faults += [f"the exception for {rule} of {kind} excuses nothing" for rule, kind in EXCEPTIONS.keys() - used]
    if faults:
        raise SystemExit("\n".join(sorted(faults)))
    print(f"{len(passed)} rules kept, {len(used)} kinds of exception, each explained in tests/helm/policy.py")


if __name__ == "__main__":
    main()
