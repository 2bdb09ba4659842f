"""Where the data sets are."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def data_folder() -> Path:
    """`PERIMETER_DATA`, or `shared/data` beside the checkout; ends the program without one."""
    stated = os.environ.get("PERIMETER_DATA")
    folder = Path(stated) if stated else Path(__file__).resolve().parents[3] / "shared" / "data"
    if not (folder / "pii_synth.parquet").is_file():
        sys.exit("no data; set PERIMETER_DATA to the folder of the data sets")
    return folder
