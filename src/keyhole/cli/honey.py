"""``honey``: secrets that are bait."""

from __future__ import annotations

import secrets
import string

import click

from keyhole.cli.base import Session, group, pass_session
from keyhole.core.errors import NotFound
from keyhole.core.path import parse_path

_LETTERS = string.ascii_letters + string.digits
_LENGTH = 40


@group("honey", examples="keyhole honey add aws/old-root-key --like aws\nkeyhole audit query --operation alarm")
def honey() -> None:
    """Secrets that nobody has a reason to touch. Reading or lending one works, and raises an alarm."""


@honey.command("add", examples="keyhole honey add stripe/backup --like stripe\nkeyhole honey add prod/db-admin")
@click.argument("name")
@click.option("--like", metavar="SERVICE", help="Make the value look like a key of this catalog entry.")
@pass_session
def add(session: Session, /, *, name: str, like: str | None) -> None:
    """Make a secret bait, and make the secret with an invented value where there is none."""
    name = parse_path(name)
    try:
        session.client.read(f"secret/metadata/{name}")
        made = False
    except NotFound:
        data = {"data": {"value": _invented(like)}, "options": {"cas": 0, "type": "api-key"}}
        session.client.write(f"secret/data/{name}", data)
        made = True
    session.client.write(f"sys/honey/{name}", {})
    session.out.done({"name": name, "made": made}, f"{name} is bait{', with an invented value' if made else ''}")


@honey.command("list", examples="keyhole honey list")
@pass_session
def list_honey(session: Session, /) -> None:
    """Names of the secrets that are bait."""
    names = session.names("sys/honey")
    session.out.result(names, names)


@honey.command("rm", examples="keyhole honey rm stripe/backup")
@click.argument("name")
@pass_session
def remove(session: Session, /, *, name: str) -> None:
    """Make a secret an ordinary one again; it stays."""
    name = parse_path(name)
    session.client.delete(f"sys/honey/{name}")
    session.out.done({"name": name, "honey": False}, f"{name} is an ordinary secret")


def _invented(like: str | None) -> str:
    """A value in the shape of a real key, which opens nothing."""
    if not like:
        return "".join(secrets.choice(_LETTERS) for _ in range(_LENGTH))
    from keyhole.catalog import Catalog  # noqa: PLC0415  # the catalog is read for this alone

    entry = Catalog.load().get(like)
    begin = entry.key.placeholder.partition("keyhole")[0].rstrip("-_")
    begin = entry.key.placeholder[: len(begin) + 1] if begin else ""
    return begin + "".join(secrets.choice(_LETTERS) for _ in range(max(16, entry.key.length - len(begin))))
