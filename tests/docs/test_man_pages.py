"""The manual pages are those of the commands as they are, and roff has nothing against them."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("man_pages", ROOT / "scripts/man_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_command_has_its_page_as_it_is(script: ModuleType) -> None:
    there = {path.name: path.read_text("utf-8") for path in (ROOT / "man").glob("*.1")}
    stale = sorted(name for name, text in script.pages().items() if there.get(name) != text)
    assert not stale, "run: python scripts/man_pages.py"
    assert set(there) == set(script.pages())


def test_pages_are_sound(script: ModuleType) -> None:
    for path in sorted((ROOT / "man").glob("*.1")):
        done = subprocess.run(
            ["groff", "-man", "-Tutf8", "-ww", "-z", str(path)], capture_output=True, text=True, check=True
        )
        assert done.stderr == "", path.name


def test_a_line_that_begins_like_a_request_stays_text(script: ModuleType) -> None:
    assert script.escape(".env\n'a'\nplain-one") == "\\&.env\n\\&\\(aqa\\(aq\nplain\\-one"
