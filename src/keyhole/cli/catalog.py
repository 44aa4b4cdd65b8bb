"""``catalog``: the services that ``add`` knows, and a user's own in the same form."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from keyhole.catalog import Catalog, CatalogEntry
from keyhole.catalog.catalog import read_entry
from keyhole.cli.base import Session, group, pass_session
from keyhole.core.errors import Conflict, InvalidRequest, KeyholeError, NotFound

VIOLATION = 1


def own_folder() -> Path:
    """Where a user's own entries lie."""
    from keyhole.config import home  # noqa: PLC0415  # --help needs no paths

    return home() / "catalog"


def complete_name(_context: click.Context, _parameter: click.Parameter, begin: str) -> list[str]:
    """Names for the shell's completion. No entry is read for it."""
    return [name for name in Catalog.load(own_folder()).names() if name.startswith(begin)]


def list_entries(session: Session, catalog: Catalog) -> None:
    """The table of all entries; a file that cannot be read is warned of."""
    entries, wrong = catalog.entries()
    own = catalog.own_names()
    rows = [(e.name, e.title, ", ".join(e.variables), e.services[0].hosts[0]) for e in entries]
    known = [
        {"name": e.name, "title": e.title, "variables": list(e.variables), "own": e.name in own, "key_page": e.key_page}
        for e in entries
    ]
    session.out.table(known, ("name", "what", "variables", "host"), rows)
    for error in wrong:
        session.out.warn(error.reason)


@group("catalog", examples="keyhole catalog list\nkeyhole catalog show stripe\nkeyhole catalog add acme.toml")
def catalog() -> None:
    """The services that add knows, and your own in the same form."""


@catalog.command("list", examples="keyhole catalog list\nkeyhole catalog list --json")
@pass_session
def list_command(session: Session, /) -> None:
    """All that keyhole add knows."""
    list_entries(session, Catalog.load(own_folder()))


@catalog.command("show", examples="keyhole catalog show stripe")
@click.argument("name", shell_complete=complete_name)
@pass_session
def show(session: Session, /, *, name: str) -> None:
    """One entry: where its keys may go, how they are attached, and what reads them."""
    found = Catalog.load(own_folder())
    entry = found.get(name)
    session.out.result(_data(entry, own=name in found.own_names()), _lines(entry))


@catalog.command("check", examples="keyhole catalog check acme.toml")
@click.argument("file", type=click.Path(path_type=Path))
@pass_session
def check(session: Session, /, *, file: Path) -> int:
    """Say whether a file is a right entry, and what would come of it. Exit code 1 if it is not."""
    try:
        entry = _read(file)
    except InvalidRequest as error:
        session.out.error(error)
        return VIOLATION
    session.out.result(_data(entry, own=True), [f"{file} is right", *_lines(entry)])
    _warn(session, entry)
    return 0


@catalog.command("add", examples="keyhole catalog add acme.toml\nkeyhole catalog add acme.toml --replace")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--replace", is_flag=True, help="Take the place of your own entry of that name.")
@pass_session
def add(session: Session, /, *, file: Path, replace: bool) -> None:
    """Check a file and keep a copy, so that keyhole add knows it. Its name without .toml is the entry's.

    Whoever adds a key by an entry sends it to the hosts of that entry: read a file that is not yours first.
    """
    entry = _read(file)
    folder = own_folder()
    target = folder / f"{entry.name}.toml"
    if target.exists() and not replace:
        raise Conflict(f"you have an entry {entry.name!r} already", "take its place with --replace")
    _warn(session, entry)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = folder / f".{entry.name}.{os.getpid()}"
    try:
        temporary.write_bytes(file.read_bytes())
        temporary.replace(target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise KeyholeError(f"{target} cannot be written: {error.strerror}", "check the folder") from None
    hosts = ", ".join(host for service in entry.services for host in service.hosts)
    session.out.done(
        {"name": entry.name, "file": str(target)},
        f"{entry.title} is in your catalog; its keys go to {hosts}\nnow: keyhole add {entry.name}",
    )


@catalog.command("rm", examples="keyhole catalog rm acme")
@click.argument("name", shell_complete=complete_name)
@pass_session
def remove(session: Session, /, *, name: str) -> None:
    """Remove an entry of your own. Services that were made by it stay."""
    if name not in Catalog.load(own_folder()).own_names():
        raise NotFound(f"you have no entry {name[:64]!r} of your own", "keyhole catalog list")
    (own_folder() / f"{name}.toml").unlink()
    session.out.done({"name": name, "removed": True}, f"removed {name} from your catalog")


def _read(file: Path) -> CatalogEntry:
    if file.suffix != ".toml":
        raise InvalidRequest(f"{file} does not end in .toml", "its name without .toml is the entry's name")
    return read_entry(file)


def _warn(session: Session, entry: CatalogEntry) -> None:
    ours = Catalog.load()
    if entry.name in ours.names():
        session.out.warn(f"it takes the place of the entry {entry.name!r} that comes with Keyhole")
    for other in ours.entries()[0]:
        both = [name for name in entry.variables if name in other.variables and name not in entry.shared]
        if both and other.name != entry.name:
            session.out.warn(f"{both[0]} is a variable of {other.name} too: an agent that may use both finds one")


def _data(entry: CatalogEntry, *, own: bool) -> dict[str, Any]:
    return {
        "name": entry.name,
        "title": entry.title,
        "own": own,
        "key_page": entry.key_page,
        "note": entry.note,
        "variables": dict(entry.fields) or list(entry.variables),
        "settings": dict(entry.settings),
        "keys": {
            field: {"title": shape.title, "pattern": shape.pattern.pattern} for field, shape in entry.keys.items()
        },
        "blanks": {
            blank.name: {
                "ask": blank.ask,
                "kind": blank.kind,
                "choices": list(blank.choices),
                "default": blank.default,
                "example": blank.example,
                "optional": blank.optional,
            }
            for blank in entry.blanks
        },
        "services": [
            {
                "name": service.name,
                "hosts": list(service.hosts),
                "inject": dict(service.inject),
                "methods": list(service.methods),
                "paths": list(service.paths),
                "deny_paths": list(service.deny_paths),
            }
            for service in entry.services
        ],
        "test": entry.test.as_data(),
    }


def _lines(entry: CatalogEntry) -> Iterator[str]:
    yield f"{entry.name}: {entry.title}"
    yield f"  keys are made at  {entry.key_page}"
    for field, shape in entry.keys.items():
        yield f"  {'a key' if len(entry.keys) == 1 else field:<16}  {shape.pattern.pattern}"
    for service in entry.services:
        yield f"  service           {service.name}: {' '.join(service.hosts)}"
        how = ", ".join(f"{name} {_shown(value)}" for name, value in service.inject.items() if name != "kind")
        yield f"    as              {service.inject.get('kind')}{f' ({how})' if how else ''}"
        for name, globs in (("methods", service.methods), ("paths", service.paths), ("never", service.deny_paths)):
            if globs:
                yield f"    {name:<14}  {' '.join(globs)}"
    if entry.variables:
        yield f"  variables         {' '.join(entry.variables)}"
    for name, text in entry.settings.items():
        yield f"  sets              {name}={text}"
    for blank in entry.blanks:
        option = "--host" if entry.hosts_with(blank) else f"--set {blank.name}="
        known = blank.default or ("may stay empty" if blank.optional else f"such as {blank.sample()}")
        yield f"  asks              {blank.ask} ({option}; {', '.join(blank.choices) or known})"
    yield f"  test              {entry.test.method} {entry.test.path}"
    if entry.note:
        yield f"  {entry.note}"


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
