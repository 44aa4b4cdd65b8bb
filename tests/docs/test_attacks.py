"""The table of attacks names tests that there are."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "security.md"


def test_each_attack_is_answered_by_tests_that_exist():
    rows = [line for line in PAGE.read_text().splitlines() if re.match(r"\| \d+ \|", line)]
    assert [int(row.split("|")[1]) for row in rows] == list(range(1, len(rows) + 1))
    for row in rows:
        named = re.findall(r"`([\w/]+\.py)(?:::(test_\w+))?`", row.split("|")[-2])
        assert named, row
        for file, function in named:
            assert (TESTS / file).is_file(), f"{row}\nthere is no tests/{file}"
            assert f"def {function}(" in (TESTS / file).read_text() or not function, f"{row}\nthere is no {function}"
