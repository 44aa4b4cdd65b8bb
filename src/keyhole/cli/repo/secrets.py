"""``repo set``, ``get``, ``list`` and ``rm``."""

from __future__ import annotations

import os
import sys
import time
from datetime import UTC, datetime
from typing import Any

import click

from keyhole.cli.base import Session, pass_session
from keyhole.cli.consent import read_value
from keyhole.cli.repo.environments import environment_options, secret_of
from keyhole.cli.repo.history import release_version
from keyhole.cli.repo.noun import repo
from keyhole.cli.repo.place import Place, place_options
from keyhole.cli.secrets import allow_reveal, no_value
from keyhole.cli.when import expiry_of
from keyhole.core.errors import InvalidRequest
from keyhole.core.times import parse_time
from keyhole.repo import changes
from keyhole.repo.documents import instant
from keyhole.repo.hidden import Kind
from keyhole.repo.names import parse_secret
from keyhole.repo.reads import release


@repo.command("set", examples="keyhole repo set stripe/api-key < key.txt\nkeyhole repo set db/url --expires 2027-01-31")
@click.argument("name")
@click.argument("extra", nargs=-1, metavar="")
@click.option("--from-file", metavar="FILE", default="", help="Read the value from a file.")
@click.option("--group", "groups", multiple=True, metavar="GROUP", help="To which it belongs; may be repeated.")
@click.option(
    "--expires", metavar="WHEN", default="", help="Not given out after this: 90d from now, 2027-01-31, or never."
)
@click.option("--exact", is_flag=True, help="Keep a newline at the end; one is taken off otherwise.")
@environment_options
@place_options
@pass_session
def set_secret(
    session: Session, /, *, name: str, extra: tuple[str, ...], from_file: str, exact: bool, **options: Any
) -> None:
    """Store a value, sealed for the owners and for who is granted its group. It is read from stdin, or asked for."""
    no_value(name, extra, "keyhole repo set")
    place = Place(session, options["directory"], options["key_file"])
    name = secret_of(place, name, options["environment"], options["project"])
    expires = _time(options["expires"]) if options["expires"] else None
    value = read_value(f"Value of {name}: ", from_file, exact=exact)
    change = place.change(
        lambda opened, actor: changes.store(opened, actor, name, value, groups=options["groups"], expires=expires)
    )
    if change.due:
        session.out.warn(f"{name} is due for a new value at its source, and this is the value that it had")
    session.out.done({"name": name, "due": bool(change.due)}, f"stored {name}")


@repo.command("get", examples="keyhole repo get stripe/api-key --reveal\nkeyhole repo get stripe/api-key --version 3")
@click.argument("name")
@click.option("--version", default="", metavar="VERSION", help="An older one, also of what was removed: repo history.")
@click.option("--reveal", is_flag=True, help="Show it on a terminal without asking.")
@environment_options
@place_options
@pass_session
def get(session: Session, /, *, name: str, version: str, reveal: bool, **options: str) -> None:
    """Show a value. This is a reveal: whoever reads the output has it, and it is recorded first (repo reads)."""
    place = Place(session, options["directory"], options["key_file"])
    name = secret_of(place, name, options["environment"], options["project"])
    opened, identity = place.open(), place.identity()
    allow_reveal(name, reveal=reveal)
    if version:
        value = release_version(session, place, opened, identity, name, version)
    else:
        value = release(opened, identity, name, how="get", environ=os.environ)
    text = value.reveal()
    if session.out.json:
        session.out.result({"name": name, "value": text.decode(errors="replace")}, exact=True)
    else:
        sys.stdout.buffer.write(text)
        sys.stdout.buffer.flush()


@repo.command("list", examples="keyhole repo list\nkeyhole repo list --group stripe --json")
@click.option("--group", default="", metavar="GROUP", help="Only what belongs to it.")
@place_options
@pass_session
def list_secrets(session: Session, /, *, group: str, directory: str, key_file: str) -> None:
    """Names, groups and times of all secrets. Opens none."""
    opened = Place(session, directory, key_file).open()
    group = opened.hidden(Kind.GROUP, group) if group else ""
    found: list[dict[str, Any]] = []
    for name in sorted(opened.names(), key=opened.shown):
        meta = opened.meta(name)
        due = opened.sidecar(name).due if opened.signed else ""
        groups = opened.sidecar(name).groups if opened.signed else (meta.group,) if meta is not None else ()
        if meta is not None and (not group or group in groups):
            expires = None if meta.expires is None else instant(meta.expires)
            agents = list(meta.agents)
            times = {"created": instant(meta.created), "rotated": instant(meta.rotated), "expires": expires}
            found.append({"name": name, "group": meta.group, "authorized_agents": agents, **times, "due": due})
    rows = [
        [s["name"], s["group"], " ".join(s["authorized_agents"]) or "-", str(s["rotated"])[:10], s["expires"] or "-"]
        for s in found
    ]
    session.out.table(found, ["name", "group", "agents", "rotated", "expires"], rows, empty="no secrets yet")


@repo.command("rm", examples="keyhole repo rm stripe/api-key")
@click.argument("name")
@place_options
@pass_session
def remove(session: Session, /, *, name: str, directory: str, key_file: str) -> None:
    """Remove a secret. Its older versions stay in the history of the repository."""
    name = parse_secret(name)
    Place(session, directory, key_file).change(lambda opened, actor: changes.remove(opened, actor, name))
    session.out.done({"name": name, "removed": True}, f"removed {name}; change its value at the source as well")


def _time(text: str) -> datetime:
    said = expiry_of(text)
    if "expires_in" in said:
        seconds = time.time() + said["expires_in"]
    elif said["expires_at"] == "":
        return changes.NEVER
    else:
        seconds = said["expires_at"] if isinstance(said["expires_at"], int) else parse_time(said["expires_at"])
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        raise InvalidRequest("--expires is no time", "write 90d, 2027-01-31, or never") from None
