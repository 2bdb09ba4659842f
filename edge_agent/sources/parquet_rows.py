"""Prints rows of a Parquet file as JSON; run as a child process by `growing`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def rows_between(path: Path, start: int, count: int) -> dict[str, Any]:
    """Returns column names, the number of rows, and `count` rows from `start` on."""
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        rows: list[dict[str, Any]] = []
        first = 0
        for group in range(file.metadata.num_row_groups):
            length = file.metadata.row_group(group).num_rows
            wanted = range(max(start, first), min(start + count, first + length))
            if wanted:
                table = file.read_row_group(group).slice(wanted.start - first, len(wanted))
                rows += table.to_pylist()
            first += length
        return {
            "columns": file.schema_arrow.names,
            "rows_total": file.metadata.num_rows,
            "rows": rows,
        }


def main() -> int:
    """Reads `PATH START COUNT` from the command line."""
    path, start, count = sys.argv[1:]
    answer = rows_between(Path(path), int(start), int(count))
    json.dump(answer, sys.stdout, default=str)
    return 0


if __name__ == "__main__":
    sys.exit(main())
