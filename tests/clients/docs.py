"""Keeps the programs that the documentation shows the same as those that are tested.

In a document, `<!-- file: PATH -->` stands before a code block that has to be the content of that file.
Without arguments differences are reported and fail; with `--update` the documents are rewritten.
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
        sys.exit("no document shows a program: the markers are gone")
    if different and not update:
        sys.exit(f"shown differently than they are: {', '.join(different)}; run {__file__} --update")
    print(f"{shown} programs are shown as they are")


if __name__ == "__main__":
    main()
