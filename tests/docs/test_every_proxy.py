"""The tables of attacks on every proxy name tests that there are."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "security.md"


def test_each_attack_on_every_proxy_is_answered_by_tests_that_exist():
    section = PAGE.read_text().partition("## Attacks on every proxy\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ") and not line.startswith("| attack")]
    assert len(rows) > 60
    for row in rows:
        named = re.findall(r"`([\w/]+\.py)(?:::(test_\w+))?`", row.split("|")[-2])
        assert named, row
        for file, function in named:
            assert (TESTS / file).is_file(), f"{row}\nthere is no tests/{file}"
            assert f"def {function}(" in (TESTS / file).read_text() or not function, f"{row}\nthere is no {function}"
