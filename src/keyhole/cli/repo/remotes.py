"""``repo remote``: where a vault travels besides the branch that git follows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from keyhole.cli.base import Session, group, pass_session
from keyhole.cli.repo.noun import repo
from keyhole.cli.repo.place import Place, place_options
from keyhole.config import home
from keyhole.core.path import parse_name
from keyhole.remotes.settings import GIT, Settings, parse_address, require_free


@group(
    "remote",
    examples="""
    keyhole repo remote add stick /media/stick/team
    keyhole repo remote add bucket s3://team-secrets/vault
    keyhole repo remote add server keyhole+https://keyhole.internal:8200/vaults/team
    """,
)
def remote() -> None:
    """Remotes of the vault: folders, buckets, servers. They are kept on this machine, and not in the vault."""


repo.add_command(remote)


@remote.command("add", examples="keyhole repo remote add bucket s3://team-secrets/vault")
@click.argument("name")
@click.argument("url")
@place_options
@pass_session
def add(session: Session, /, *, name: str, url: str, directory: str, key_file: str) -> None:
    """Name a remote. Nothing is sent yet. The URL has no password in it: the environment or a login has it."""
    place = Place(session, directory, key_file)
    address = parse_address(url, Path.cwd())
    require_free(address)
    Settings(home(), place.tree.root).add(name, address)
    data = {"name": name, "url": address.url, "kind": address.kind}
    session.out.done(data, f"added {name}: {address.url}; the first push fills it: keyhole repo push {name}")


@remote.command("list", examples="keyhole repo remote list\nkeyhole repo remote list --json")
@place_options
@pass_session
def list_remotes(session: Session, /, *, directory: str, key_file: str) -> None:
    """Remotes of the vault, with when each was last in step. Asks none of them."""
    place = Place(session, directory, key_file)
    met = place.open().seen.remotes
    found: list[dict[str, Any]] = []
    if place.git is not None and (branch := place.git.upstream()):
        found.append({"name": GIT, "kind": "git", "url": branch})
    for name, address in Settings(home(), place.tree.root).all().items():
        found.append({"name": name, "kind": address.kind, "url": address.url})
    for each in found:
        each["synced"] = (met[each["name"]].at or None) if each["name"] in met else None
    rows = [[each["name"], each["kind"], each["url"], (each["synced"] or "-")[:16]] for each in found]
    session.out.table(found, ["name", "kind", "url", "synced"], rows, empty="no remotes yet")


@remote.command("rm", examples="keyhole repo remote rm stick")
@click.argument("name")
@place_options
@pass_session
def remove(session: Session, /, *, name: str, directory: str, key_file: str) -> None:
    """Forget a remote. What lies there stays."""
    place = Place(session, directory, key_file)
    with place.tree.lock():
        opened = place.open()
        Settings(home(), place.tree.root).remove(name)
        opened.seen.remotes.pop(name, None)
        opened.seen.sent.pop(name, None)
        opened.seen.store()
    session.out.done({"name": name, "removed": True}, f"forgot {name}; what lies there stays")


@remote.command("host", examples="keyhole repo remote host vaults --vault https://keyhole.internal:8200")
@click.argument("mount")
@pass_session
def host(session: Session, /, *, mount: str) -> None:
    """Let a server keep repo vaults: mount a place for them. It sees ciphertext only."""
    mount = parse_name(mount)
    session.client.write(f"sys/mounts/{mount}", {"type": "remote"})
    said = f"a vault lies there as {mount}/NAME; let members read, list and update {mount}/NAME/*"
    session.out.done({"mount": f"{mount}/"}, said)
