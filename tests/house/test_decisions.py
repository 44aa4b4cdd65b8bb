"""Decisions in docs/adr: each has a number of its own, and the list names each."""

import re
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "docs" / "adr"


def test_each_decision_has_a_number_of_its_own_and_a_line_in_the_list():
    files = sorted(path.name for path in FOLDER.glob("[0-9]*.md"))
    numbers = [name.partition("-")[0] for name in files]
    assert len(numbers) == len(set(numbers)), numbers
    listed = re.findall(r"^\| \[(\d{4})\]\((\S+?)\) \|", (FOLDER / "README.md").read_text(), re.MULTILINE)
    assert listed == list(zip(numbers, files, strict=True))
    for name, number in zip(files, numbers, strict=True):
        assert (FOLDER / name).read_text().startswith(f"# {number} ")
