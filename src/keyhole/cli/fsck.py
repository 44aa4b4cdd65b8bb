"""``operator fsck``: is everything whole, and what a command that was killed has left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from keyhole.cli.base import Session, command, pass_session
from keyhole.core.errors import InvalidRequest
from keyhole.stores.sqlite.examine import examine
from keyhole.stores.sqlite.place import locate

WRONG = 1
_SQLITE = "sqlite:"


@command(
    "fsck",
    examples="""
    keyhole operator fsck
    keyhole operator fsck ~/team
    keyhole operator fsck ~/team --repair
    """,
)
@click.argument("path", required=False)
@click.option("--repair", is_flag=True, help="A repo vault: also put aside what cannot be carried on with.")
@pass_session
def fsck(session: Session, /, *, path: str | None, repair: bool) -> int:
    """Look at the vault; with PATH, at the repo vault there, and finish what a killed command has left in it.

    The vault is read and not changed: the file of the store, every entry, every chain of the journal. Exit code 0 if
    all is well by now, 1 if something is wrong that has to be put right by hand.
    """
    if path is not None:
        from keyhole.cli.repo.mending import mend  # noqa: PLC0415  # it loads what only repo vaults need

        report = mend(session, path, discard=repair)
        lines = [*(f"did: {each}" for each in report.did), *(f"wrong: {each}" for each in report.wrong)]
        session.out.result({"did": report.did, "wrong": report.wrong}, lines or ["nothing is wrong"])
        return WRONG if report.wrong else 0
    if repair:
        raise InvalidRequest(
            "a vault of a store repairs itself, or not at all", "restore a copy; for a repo vault, name its folder"
        )
    return _vault(session)


def _vault(session: Session) -> int:
    wrong: list[str] = []
    if session.where.location.startswith(_SQLITE):
        file = locate(session.where.location.removeprefix(_SQLITE))
        if Path(file).exists():
            wrong += [f"{file}: {each}: restore a copy" for each in examine(file)]
    entries = session.client.read("sys/fsck").data
    journal = session.client.write("sys/audit-log/verify", {}).data
    wrong += [f"the entry {key} does not open: restore a copy" for key in entries["broken"]]
    if entries["more"]:
        wrong.append(f"{entries['more']} more entries do not open")
    wrong += [f"journal: {_words(each)}: keyhole audit verify" for each in journal["problems"]]
    data = {"entries": entries["entries"], "records": journal["records"], "wrong": wrong}
    lines = [f"{entries['entries']} entries, {journal['records']} records of the journal"]
    session.out.result(data, [*lines, *(f"wrong: {each}" for each in wrong)] if wrong else [*lines, "nothing is wrong"])
    return WRONG if wrong else 0


def _words(problem: dict[str, Any]) -> str:
    return "; ".join(f"{name} {value}" for name, value in problem.items())
