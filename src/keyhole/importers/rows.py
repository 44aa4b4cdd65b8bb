"""Tables of comma-separated values (RFC 4180) with a head, as password managers export them."""

from __future__ import annotations

import csv
import io

from keyhole.core.errors import InvalidRequest
from keyhole.importers.found import LIMITS


def rows(content: bytes, needed: str) -> list[tuple[int, dict[str, str]]]:
    """Every row with its line, as columns in lower case to texts.

    Args:
        content: of the file.
        needed: a column by which the table is known.

    Raises:
        InvalidRequest: it is no such table, is not UTF-8, has a column twice, or is too large.
    """
    if len(content) > LIMITS.file:
        raise InvalidRequest(f"it is larger than {LIMITS.file // 2**20} MiB", "export less at a time")
    try:
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        head = [name.strip().lower() for name in next(reader, [])]
        if needed not in head or len(set(head)) != len(head):
            raise InvalidRequest(f"it is no table with a column {needed}, or has a column twice", "export again as CSV")
        found = list[tuple[int, dict[str, str]]]()
        for cells in reader:
            if len(found) >= LIMITS.entries:
                raise InvalidRequest(f"it has more than {LIMITS.entries} entries", "export less at a time")
            if cells:
                found.append((reader.line_num, dict(zip(head, cells, strict=False))))
    except UnicodeDecodeError:
        raise InvalidRequest("it is not UTF-8", "export again as CSV in UTF-8") from None
    except csv.Error:
        raise InvalidRequest("it is not CSV: a quote is not closed, or a cell is too long", "export again") from None
    return found


def table(head: list[str], lines: list[list[str]]) -> bytes:
    """The bytes of a table."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([head, *lines])
    return out.getvalue().encode()
