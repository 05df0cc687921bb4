"""Runs the commands of a document against a server and compares the responses: `docs.py DOCUMENT ADDRESS`.

`…` in an expected response stands for any value; as a key it allows further keys.
"""

import json
import re
import subprocess
import sys
import time

ANY = "…"
# Seconds to retry a command that only reads until its response is as expected.
TIMEOUT = 20


def differences(expected, found, path="response"):
    """The differences between two JSON values."""
    if expected == ANY:
        return []
    if isinstance(expected, dict) and isinstance(found, dict):
        faults = [f"{path} has no {key!r}" for key in expected if key not in found and key != ANY]
        if ANY not in expected:
            faults += [f"{path} has an unexpected {key!r}" for key in found if key not in expected]
        for key in expected.keys() & found.keys():
            faults += differences(expected[key], found[key], f"{path}.{key}")
        return faults
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        return [fault for n, pair in enumerate(zip(expected, found)) for fault in differences(*pair, f"{path}[{n}]")]
    same = expected == found and isinstance(expected, bool) == isinstance(found, bool)
    return [] if same else [f"{path} is {found!r}, expected {expected!r}"]


def check(language, expected, response):
    """The differences between a response and the expected text."""
    if language == "json":
        try:
            return differences(json.loads(expected), json.loads(response))
        except ValueError as error:
            return [f"{error}: {response!r}"]
    pattern = ".*".join(re.escape(part) for part in expected.strip().split(ANY))
    return [] if re.fullmatch(pattern, response.strip(), re.DOTALL) else [f"{response!r} does not match {expected!r}"]


def main(document, address):
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", open(document, encoding="utf-8").read(), re.M | re.S)
    ran = faulty = 0
    for (language, text), (next_language, expected) in zip(blocks, blocks[1:] + [("", "")]):
        if language != "sh":
            continue
        ran += 1
        if next_language not in ("json", "text"):
            sys.exit(f"no response is shown for:\n{text}")
        command = text.replace("127.0.0.1:7070", address)
        only_reads = " -d " not in command and " -X " not in command
        until = time.monotonic() + TIMEOUT
        while True:
            run = subprocess.run(["bash", "-c", "set -o pipefail; " + command], capture_output=True, text=True, timeout=90)
            faults = [run.stderr] if run.returncode else check(next_language, expected, run.stdout)
            # An earlier command may not have taken effect yet.
            if not faults or not only_reads or time.monotonic() > until:
                break
            time.sleep(0.1)
        faulty += bool(faults)
        print(f"{'FAILED' if faults else 'ok'}: {text.splitlines()[0][:100]}")
        for fault in faults:
            print(f"  {fault}")
    if not ran:
        sys.exit(f"no commands found in {document}")
    sys.exit(f"{faulty} of {ran} failed" if faulty else 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
