"""Write the table of docs/clients.md again from the rows that the tests stand for: python scripts/clients_table.py."""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "clients.md"
BEGIN, END = "<!-- the table: scripts/clients_table.py -->\n", "<!-- end of the table -->\n"
sys.path.insert(0, str(ROOT / "tests"))

from e2e.compatibility import ROWS, Row  # noqa: E402  # the tests are no package of ours


def version(row: Row) -> str:
    """The version that the tests run, from the file that pins it."""
    source, mark, package = row.package.partition(":")
    if not mark:
        return source
    if source == "node":
        lock = json.loads((ROOT / "tests/e2e/clients/package-lock.json").read_text())
        return str(lock["packages"][f"node_modules/{package}"]["version"])
    pinned = (ROOT / {"python": "requirements-clients.txt", "dev": "requirements-dev.txt"}[source]).read_text()
    found = re.search(rf"^{re.escape(package)}==([^ ;]+)", pinned, re.MULTILINE)
    if found is None:
        raise ValueError(f"{package} is not pinned")
    return found[1]


def table() -> str:
    """One row a client."""
    head = "| client | tested | | what it needs, and what to know |\n|---|---|---|---|\n"
    lines = []
    for name, row in ROWS.items():
        words = "; ".join(filter(None, (row.needs, row.note)))
        lines.append(f"| {name} | {version(row)} | {row.verdict} | {words} |\n")
    return head + "".join(lines)


def updated(page: str) -> str:
    """The page with the table of today."""
    before, _, rest = page.partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise ValueError(f"{PAGE.name} has no place for the table")
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text()))
