"""``list`` and ``show``: secrets without their values."""

from __future__ import annotations

from typing import Any

import click

from keyhole.cli.base import Session, command, pass_session
from keyhole.cli.names import secrets
from keyhole.core.errors import KeyholeError, NotFound, PolicyDenied
from keyhole.core.lease import format_duration
from keyhole.core.path import parse_path
from keyhole.core.times import DAY

_MOST = 10_000


@command("list", examples="keyhole list\nkeyhole list stripe\nkeyhole list --names --json")
@click.argument("prefix", default="", shell_complete=secrets)
@click.option("--names", is_flag=True, help="Names only: one request a folder.")
@pass_session
def list_command(session: Session, /, *, prefix: str, names: bool) -> None:
    """Names of secrets with type, version and expiry, never values."""
    folder = parse_path(prefix, listing=True) if prefix else ""
    found = _below(session, folder)
    if not found and folder:
        raise NotFound(f"there are no secrets below {folder.rstrip('/')!r}", "keyhole list")
    entries = [{"name": name, **({} if names else _metadata(session, name))} for name in sorted(found)]
    rows = [[e["name"], *([] if names else _columns(e))] for e in entries]
    head = ["name"] if names else ["name", "type", "version", "expires"]
    session.out.table(entries, head, rows, empty="no secrets yet: keyhole set NAME")


def _below(session: Session, folder: str) -> list[str]:
    """All names below a folder, folder by folder."""
    waiting, found = [folder], list[str]()
    while waiting and len(found) < _MOST:
        current = waiting.pop()
        keys = session.names(f"secret/metadata/{current}".rstrip("/"))
        waiting += [current + key for key in keys if key.endswith("/")]
        found += [current + key for key in keys if not key.endswith("/")]
    return found


def _metadata(session: Session, name: str) -> dict[str, Any]:
    """What the columns need; who may list may not always read the metadata of each."""
    try:
        data = session.client.read(f"secret/metadata/{name}").data
    except (PolicyDenied, NotFound):
        return {}
    return {
        "type": data.get("type") or "",
        "version": data["current_version"],
        "expires_at": data.get("expires_at"),
        "rotate_every": data.get("rotate_every") or 0,
        "rotated_at": data.get("rotated_at"),
        "owner": data.get("owner") or "",
        "tags": data.get("tags") or [],
    }


def _columns(entry: dict[str, Any]) -> list[Any]:
    return [entry.get("type", ""), entry.get("version", "?"), entry.get("expires_at") or "never"]


@command("show", examples="keyhole show stripe/api-key\nkeyhole show stripe/api-key --json")
@click.argument("name", shell_complete=secrets)
@pass_session
def show_command(session: Session, /, *, name: str) -> None:
    """All about a secret but its values: fields, type, owner, tags, expiry, versions, and who can use it."""
    name = parse_path(name)
    data = session.client.read(f"secret/metadata/{name}").data
    try:
        data["services"] = session.client.read(f"sys/who-can/{name}").data["services"]
    except KeyholeError:
        data["services"] = []  # who may see the metadata may not always ask about grants
    lines = {
        "name": name,
        "type": data.get("type") or "-",
        "owner": data.get("owner") or "-",
        "tags": ", ".join(data.get("tags") or []) or "-",
        "fields": ", ".join(data.get("fields") or []) or "-",
        "version": f"{data['current_version']} (since {data['updated_time']})",
        "created": data["created_time"],
        "expires": data.get("expires_at") or "never",
        "rotated": _rotated(data),
        "services": ", ".join(data["services"]) or "-",
    }
    session.out.result({"name": name, **data}, [f"{key + ':':<10}{value}" for key, value in lines.items()])


def _rotated(data: dict[str, Any]) -> str:
    """When the value was last another one, and how often it should be."""
    every = data.get("rotate_every")
    return (data.get("rotated_at") or "-") + (f", every {_long(every)}" if every else "")


def _long(seconds: int) -> str:
    return format_duration(seconds) if seconds % DAY else f"{seconds // DAY}d"
