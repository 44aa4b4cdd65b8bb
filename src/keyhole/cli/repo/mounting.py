"""``repo mount``: the secrets of a repo vault, for the services of the local vault or of a server on this machine."""

from __future__ import annotations

import os
from pathlib import Path

import click

from keyhole.cli.base import Session, pass_session
from keyhole.cli.repo.noun import repo
from keyhole.cli.repo.place import Place, place_options
from keyhole.core.errors import InvalidRequest, KeyholeError, NotFound
from keyhole.core.path import parse_name
from keyhole.repo import keys
from keyhole.repo.kept import KEYCHAIN


@repo.command(
    "mount",
    examples="""
    keyhole repo mount team
    keyhole service add stripe --host api.stripe.com --secret /team/data/stripe/api-key --bearer
    """,
)
@click.argument("name")
@place_options
@pass_session
def mount(session: Session, /, *, name: str, directory: str, key_file: str) -> None:
    """Mount the vault around this folder, so that services can lend its secrets as /NAME/data/GROUP/SECRET.

    The place of your key is named, and not copied; it has to open with nobody there.
    """
    place = Place(session, directory, key_file)
    found = keys.place_of(os.environ, key_file)
    path = found if found.startswith(KEYCHAIN) else str(Path(found).resolve())
    place.open()
    keys.load_unattended(os.environ, path)
    name = parse_name(name)
    try:
        session.client.write(f"sys/mounts/{name}", {"type": "repo", "description": str(place.tree.root)})
    except InvalidRequest:
        if not _half_made(session, name):
            raise
    try:
        session.client.write(f"{name}/config", {"path": str(place.tree.root), "key_file": path})
    except BaseException:
        session.client.delete(f"sys/mounts/{name}")
        raise
    data = {"mount": f"{name}/", "path": str(place.tree.root), "key_file": path}
    session.out.done(data, f"mounted {place.tree.root}; its secrets are sources such as /{name}/data/GROUP/SECRET")


def _half_made(session: Session, name: str) -> bool:
    """Whether a command was ended after it made this mount, and before that knew its vault."""
    try:
        if session.client.read(f"sys/mounts/{name}").data.get("type") != "repo":
            return False
        session.client.read(f"{name}/config")
    except NotFound:
        return True
    except KeyholeError:
        pass
    return False
