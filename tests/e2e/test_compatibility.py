"""The table of clients in the documentation says what the tests show, no more and no less."""

import importlib
import importlib.util
from pathlib import Path

from e2e.compatibility import NEEDS, ROWS

HERE = Path(__file__).parent


def _shown() -> set[str]:
    """The names that tests are marked with."""
    found = set()
    for path in HERE.glob("test_*.py"):
        if path != Path(__file__):
            module = importlib.import_module(f"e2e.{path.stem}")
            for test in vars(module).values():
                marks = getattr(test, "pytestmark", ()) if callable(test) else ()
                found.update(name for mark in marks if mark.name == "client" for name in mark.args)
    return found


def test_every_row_has_a_test_and_every_client_that_is_tested_a_row():
    assert _shown() == set(ROWS)


def test_the_page_is_up_to_date():
    path = HERE.parents[1] / "scripts" / "clients_table.py"
    spec = importlib.util.spec_from_file_location("clients_table", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    page = script.PAGE.read_text()
    assert script.updated(page) == page, "python scripts/clients_table.py"


def test_what_a_client_needs_is_said_where_it_needs_something():
    assert {name for name, row in ROWS.items() if row.verdict == NEEDS} == {
        "urllib3",
        "aiohttp",
        "Chromium",
        "Stripe SDK for Python",
        "Stripe SDK for Node",
    }
