"""Run every benchmark and keep its rows: ``python benchmarks/run.py [name] > rows.csv``.

The benchmarks are `terrarium.bench`; ``terrarium bench`` shows the same as a table.
"""

from __future__ import annotations

import csv
import sys

from terrarium.bench import run


def main() -> None:
    """Write the rows of all benchmarks (or of the one named) as CSV."""
    rows = run(only=sys.argv[1] if len(sys.argv) > 1 else None)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(sys.stdout, columns)
    writer.writeheader()
    writer.writerows(rows)


if __name__ == "__main__":
    main()
