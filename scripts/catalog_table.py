"""Write the table of docs/catalog.md again from the entries: python scripts/catalog_table.py."""

from pathlib import Path

from keyhole.catalog import Catalog, CatalogEntry

PAGE = Path(__file__).parents[1] / "docs" / "catalog.md"
BEGIN, END = "<!-- the table: scripts/catalog_table.py -->\n", "<!-- end of the table -->\n"


def row(entry: CatalogEntry) -> str:
    """One line: the name, what it is, what reads the key, how it is attached, and what is asked for besides."""
    variables = " ".join(f"`{name}`" for name in entry.variables)
    kinds = dict.fromkeys(str(service.inject["kind"]) for service in entry.services)
    asks = "; ".join(blank.ask + (" (optional)" if blank.optional else "") for blank in entry.blanks)
    return f"| `{entry.name}` | {entry.title} | {variables} | {', '.join(kinds)} | {asks} |\n"


def table() -> str:
    """All of it, in alphabetical order."""
    entries, wrong = Catalog.load().entries()
    if wrong:
        raise wrong[0]
    head = "| name | what | variables | as | asks for |\n|---|---|---|---|---|\n"
    return f"{len(entries)} services:\n\n{head}{''.join(map(row, entries))}"


def updated(page: str) -> str:
    """The page with the table of today."""
    before, _, rest = page.partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise ValueError(f"{PAGE.name} has no place for the table")
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text()))
