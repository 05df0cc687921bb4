"""Runs the lines of docs/http.md against a server and compares what it answers.

An `…` in an expected answer stands for anything; as a key it allows further keys.
"""

import json
import re
import subprocess
import sys
import time

ANY = "…"
# Seconds in which a line that only reads must find what it expects.
PATIENCE = 20


def differences(expected, found, path="answer"):
    """Where the found value is not what was expected."""
    if expected == ANY:
        return []
    if isinstance(expected, dict) and isinstance(found, dict):
        faults = [f"{path} lacks {key!r}" for key in expected if key not in found and key != ANY]
        if ANY not in expected:
            faults += [f"{path} has {key!r} unexpectedly" for key in found if key not in expected]
        for key in expected.keys() & found.keys():
            faults += differences(expected[key], found[key], f"{path}.{key}")
        return faults
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        return [fault for n, pair in enumerate(zip(expected, found)) for fault in differences(*pair, f"{path}[{n}]")]
    same = expected == found and isinstance(expected, bool) == isinstance(found, bool)
    return [] if same else [f"{path} is {found!r}, expected {expected!r}"]


def check(language, expected, answer):
    """Faults of an answer."""
    if language == "json":
        try:
            return differences(json.loads(expected), json.loads(answer))
        except ValueError as error:
            return [f"{error}: {answer!r}"]
    pattern = ".*".join(re.escape(part) for part in expected.strip().split(ANY))
    return [] if re.fullmatch(pattern, answer.strip(), re.DOTALL) else [f"{answer!r} is not like {expected!r}"]


def main(document, address):
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", open(document, encoding="utf-8").read(), re.M | re.S)
    ran = faulty = 0
    for (language, text), (next_language, expected) in zip(blocks, blocks[1:] + [("", "")]):
        if language != "sh":
            continue
        ran += 1
        if next_language not in ("json", "text"):
            sys.exit(f"no answer is shown for:\n{text}")
        command = text.replace("127.0.0.1:7070", address)
        only_reads = " -d " not in command and " -X " not in command
        until = time.monotonic() + PATIENCE
        while True:
            run = subprocess.run(["bash", "-c", "set -o pipefail; " + command], capture_output=True, text=True, timeout=90)
            faults = [run.stderr] if run.returncode else check(next_language, expected, run.stdout)
            # What was asked for before may still be under way.
            if not faults or not only_reads or time.monotonic() > until:
                break
            time.sleep(0.1)
        faulty += bool(faults)
        print(f"{'FAILED' if faults else 'ok'}: {text.splitlines()[0][:100]}")
        for fault in faults:
            print(f"  {fault}")
    if ran < 10:
        sys.exit(f"only {ran} lines were found in {document}")
    sys.exit(f"{faulty} of {ran} failed" if faulty else 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
