"""What SQLite itself finds wrong with a file; it is read and not changed."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

_MOST = 100


def examine(path: Path) -> list[str]:
    """Problems in words, at most a hundred; empty where there are none."""
    try:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as file:
            rows = [str(row[0]) for row in file.execute(f"PRAGMA integrity_check({_MOST})")]
    except sqlite3.Error as error:
        return [str(error)]
    return [row for row in rows if row != "ok"]
