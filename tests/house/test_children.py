"""A test that fails leaves no process behind, and waits for none."""

import subprocess
import sys
from pathlib import Path

import pytest

from children import child

TESTS = Path(__file__).parents[1]


def test_a_process_ends_with_the_test_that_fails_while_it_runs():
    with pytest.raises(ZeroDivisionError), child([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        raise ZeroDivisionError
    assert process.returncode < 0


def test_no_test_leaves_a_process_to_popen_which_waits_for_ever():
    entered = "with subprocess." + "Popen("
    found = [path for path in TESTS.rglob("*.py") if entered in path.read_text()]
    assert [path.name for path in found] == ["children.py"]
