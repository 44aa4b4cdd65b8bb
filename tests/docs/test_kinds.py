"""The table of ways of attaching in the docs is the table in the code."""

from pathlib import Path

from keyhole.core.inject import KINDS

PAGE = Path(__file__).parents[2] / "docs" / "service.md"


def test_the_page_lists_every_way_of_attaching_with_its_options():
    wanted = [
        f"| `{name}` | {kind.help} | {', '.join(f'`{option.name}`' for option in kind.options) or '-'} |"
        for name, kind in KINDS.items()
    ]
    lines = PAGE.read_text().splitlines()
    start = lines.index("| kind | attaches the secret | options |") + 2
    assert lines[start : lines.index("", start)] == wanted, "let the table be\n" + "\n".join(wanted)
