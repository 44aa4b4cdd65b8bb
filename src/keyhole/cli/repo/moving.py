"""``repo import`` and ``repo export``: between a repo vault and other managers of secrets."""

from __future__ import annotations

import os
from collections.abc import Sequence

from keyhole.cli.base import Group, Session
from keyhole.cli.import_sources import file_kinds
from keyhole.cli.moving import entering, leaving
from keyhole.cli.moving.entering import Options
from keyhole.cli.moving.sinks import RepoSink
from keyhole.cli.repo.noun import repo
from keyhole.cli.repo.place import Place, place_options
from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.core.path import DEFAULT_FIELD
from keyhole.core.value import Secret
from keyhole.importers.found import Item
from keyhole.repo.reads import release

_IMPORT, _EXPORT = "keyhole repo import", "keyhole repo export"


@repo.group(
    "import",
    cls=Group,
    examples=f"{_IMPORT} sops secrets.yaml\n{_IMPORT} dotenv .env --under shop\n{_IMPORT} 1password export.1pux",
)
def import_group() -> None:
    """Bring secrets in from other managers and from files, in one commit. Values that others may have seen are due."""


@repo.group("export", cls=Group, examples=f"{_EXPORT} sops --to secrets.yaml --recipient age1…")
def export_group() -> None:
    """Write secrets into a file that other programs read. A reveal: it is asked about, and recorded first."""


def to_repo(session: Session, options: Options) -> RepoSink:
    """The repo vault around a folder."""
    place = Place(session, options["directory"], options["key_file"])
    return RepoSink(place, over=options["replace"], dry=options["dry_run"])


def from_this_repo(session: Session, options: Options, wanted: Sequence[str]) -> list[Item]:
    """Secrets of the repo vault around a folder: each read is on record there before its value is let go."""
    place = Place(session, options["directory"], options["key_file"])
    opened, identity = place.open(), place.identity()
    found = list[Item]()
    stems = {opened.shown(stem): stem for stem in opened.names()}
    for name in leaving.chosen(list(stems), wanted):
        try:
            value = release(opened, identity, stems[name], how="export", environ=os.environ)
        except NotFound as error:
            session.out.warn(f"left: {name} {error.reason}")
            continue
        found.append(Item(name, {DEFAULT_FIELD: _text(name, value)}))
    return found


def _text(name: str, value: Secret) -> str:
    try:
        return value.reveal().decode()
    except UnicodeDecodeError:
        raise InvalidRequest(
            f"{name} is not text in UTF-8, which no export can say", "leave it out: name others"
        ) from None


for each in entering.commands(_IMPORT, to_repo, place_options, tuple(file_kinds())):
    import_group.add_command(each)
for each in leaving.commands(_EXPORT, from_this_repo, place_options):
    export_group.add_command(each)
