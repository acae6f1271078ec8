#!/usr/bin/env python3
"""Puts tables of measurements into Markdown: between `<!-- table FILE.csv -->` and `<!-- end -->` of the files given
(README.md), the rows of that CSV. Its lines that begin with # say how it was measured and stay out; columns whose
cells are all numbers are set right. With --check nothing is written, and the exit code is 1 where something would be."""

import csv
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"(<!-- table (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return cell == ""
    return True


def table(path: pathlib.Path) -> str:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    head, *rows = csv.reader(lines)
    for row in rows:
        if len(row) != len(head):
            sys.exit(f"{path}: wanted {len(head)} cells as in the first row, got {len(row)}: {row}")
    right = [all(is_number(row[i]) for row in rows) for i in range(len(head))]
    rule = ["--:" if numbers else "---" for numbers in right]
    return "".join("| " + " | ".join(row) + " |\n" for row in [head, rule, *rows])


def spliced(text: str) -> str:
    return BLOCK.sub(lambda m: m[1] + table(ROOT / m[2]) + m[3], text)


def main(args: list[str]) -> int:
    check = "--check" in args
    files = [ROOT / name for name in args if name != "--check"] or [ROOT / "README.md"]
    stale = 0
    for file in files:
        before = file.read_text()
        after = spliced(before)
        if before != after:
            stale = 1
            if check:
                print(f"{file.name}: a table is not that of its CSV; run tools/splice.py")
            else:
                file.write_text(after)
    return stale if check else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
