"""Checks that the programs shown in the documentation equal the tested files.

In a document, `<!-- file: PATH -->` before a code block means that the block is the content of this file. Without
arguments the script fails if a block differs; with `--update` it rewrites the documents.
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
DOCUMENTS = ("README.md", "docs/clients.md")
BLOCK = re.compile(r"(<!-- file: (?P<path>\S+) -->\n```\w*\n)(?P<text>.*?)(?=^```$)", re.DOTALL | re.MULTILINE)


def main():
    update = sys.argv[1:] == ["--update"]
    shown, different = 0, []

    def current(block):
        nonlocal shown
        shown += 1
        text = (ROOT / block["path"]).read_text()
        if block["text"] != text:
            different.append(block["path"])
        return block[1] + text

    for name in DOCUMENTS:
        document = ROOT / name
        before = document.read_text()
        after = BLOCK.sub(current, before)
        if update and after != before:
            document.write_text(after)
    if shown == 0:
        sys.exit("no `<!-- file: PATH -->` marker found in the documents")
    if different and not update:
        sys.exit(f"the documents differ from {', '.join(different)}; run {__file__} --update")
    print(f"{shown} programs in the documents equal their files")


if __name__ == "__main__":
    main()
