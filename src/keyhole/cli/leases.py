"""``leases``: what was made for somebody for a time."""

from __future__ import annotations

import sys
from typing import Any

import click

from keyhole.cli.base import Session, group, pass_session
from keyhole.cli.leases_run import run_leased
from keyhole.cli.versions import confirm
from keyhole.core.errors import InvalidRequest, NotFound, PolicyDenied
from keyhole.core.lease import format_duration, parse_duration
from keyhole.core.path import parse_path

_MOST = 10_000


@group("leases", examples="keyhole leases list\nkeyhole leases renew database/creds/reader/… --increment 1h")
def leases() -> None:
    """What was made for somebody for a time, and is taken back at its source when that is over."""


@leases.command("list", examples="keyhole leases list\nkeyhole leases list database\nkeyhole leases list --irrevocable")
@click.argument("prefix", default="")
@click.option("--irrevocable", is_flag=True, help="Those that could not be taken back, and why.")
@pass_session
def list_leases(session: Session, /, *, prefix: str, irrevocable: bool) -> None:
    """Leases below an API path."""
    if irrevocable:
        said = session.client.read("sys/leases", type="irrevocable").data["leases"]
        wanted = [entry for entry in map(_lost, said) if f"{entry['id']}/".startswith(_folder(prefix))]
        rows = [[entry["id"], entry["attempts"], entry["error"]] for entry in wanted]
        session.out.table(wanted, ["lease", "tries", "why"], rows, empty="every lease could be taken back")
        return
    listed = [entry for lease_id in _below(session, _folder(prefix)) if (entry := _looked_up(session, lease_id))]
    rows = [[e["id"], format_duration(e["ttl"]), "yes" if e["renewable"] else "no", e["expire_time"]] for e in listed]
    session.out.table(listed, ["lease", "left", "renewable", "ends"], rows, empty="no leases")


@leases.command("renew", examples="keyhole leases renew database/creds/reader/… --increment 1h")
@click.argument("lease")
@click.option("--increment", default="", help="How long from now; as long as at first unless said.")
@pass_session
def renew(session: Session, /, *, lease: str, increment: str) -> None:
    """Let a lease live longer, up to its limit."""
    seconds = parse_duration(increment, name="--increment")
    name = _lease_id(lease)
    try:
        said = session.client.write("sys/leases/renew", {"lease_id": name, "increment": seconds})
    except InvalidRequest:
        if _looked_up(session, name) is None:
            raise NotFound(f"there is no lease {name}", "it may have ended: keyhole leases list") from None
        raise
    for warning in said.warnings:
        session.out.warn(warning)
    data = {"id": said.lease_id, "ttl": said.lease_duration, "renewable": said.renewable}
    session.out.done(data, f"renewed; it ends in {format_duration(said.lease_duration)}")


@leases.command(
    "revoke", examples="keyhole leases revoke database/creds/reader/…\nkeyhole leases revoke --prefix database --yes"
)
@click.argument("lease")
@click.option("--prefix", is_flag=True, help="All below this path.")
@click.option("--force", is_flag=True, help="Forget what cannot be taken back at its source; it may stay alive there.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@pass_session
def revoke(session: Session, /, *, lease: str, prefix: bool, force: bool, yes: bool) -> None:
    """Take back what was leased, and wait until that is done at its source."""
    name = _lease_id(lease)
    if prefix:
        confirm(f"Take back all that is leased below {name}?", yes=yes)
    if force:
        confirm(f"Forget what cannot be taken back of {name}? It may stay alive at its source.", yes=yes)
    if prefix or force:
        session.client.write(f"sys/leases/revoke-{'force' if force else 'prefix'}/{name}", {"sync": True})
    else:
        session.client.write("sys/leases/revoke", {"lease_id": name, "sync": True})
    session.out.done({"id": name, "revoked": True}, f"taken back: {name}")


@leases.command("sweep", examples="keyhole leases sweep\nkeyhole leases sweep --drop")
@click.option("--drop", is_flag=True, help="Take away users of databases that no lease knows, after asking.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@pass_session
def sweep(session: Session, /, *, drop: bool, yes: bool) -> int:
    """Take back now what is due, and try again what could not be taken back. A server does this by itself.

    Then look, at the databases of the org, for users whose names begin as those that are made here and that no lease
    knows. They may be another vault's: nothing happens to them without --drop.

    Exit code 1 when something still cannot be taken back, or such users are there; 2 when a database cannot be asked.
    """
    data = session.client.write("sys/leases/sweep", {"strays": True}).data
    if drop and data["strays"]:
        session.out.say(_strays(data))
        if not yes and not sys.stdin.isatty():
            raise PolicyDenied("nobody is there to be asked whether these users may go", "look at them, then add --yes")
        confirm(f"Take these {len(data['strays'])} away? They may be another vault's.", yes=yes)
        named = [{key: stray[key] for key in ("mount", "target", "name")} for stray in data["strays"]]
        data |= session.client.write("sys/leases/sweep", {"drop": named}).data
    left = data["waiting"] + data["irrevocable"] + sum(not stray["dropped"] for stray in data["strays"])
    said = f"taken back: {data['revoked']}; to be tried again: {data['waiting']}; irrevocable: {data['irrevocable']}"
    session.out.result(data, "\n".join([said, *filter(None, [_strays(data)])]))
    return 1 if left else 2 if data["unseen"] else 0


def _strays(data: dict[str, Any]) -> str:
    """What no lease knows, a line each, and where nobody could look."""
    lines = []
    for stray in data["strays"]:
        end = "dropped" if stray["dropped"] else stray.get("error", "")
        lines.append(f"no lease knows {stray['name']} at {stray['mount']}{stray['target']}" + f": {end}" * bool(end))
    lines += [f"cannot look at {each['mount']}{each['target']}: {each['error']}" for each in data["unseen"]]
    return "\n".join(lines)


leases.add_command(run_leased)


def _folder(prefix: str) -> str:
    return f"{parse_path(prefix.strip('/'))}/" if prefix.strip("/") else ""


def _lease_id(text: str) -> str:
    """The id as a path. Raises ``InvalidRequest`` for what cannot be one."""
    if not text.strip("/"):
        raise InvalidRequest("no lease is named", "keyhole leases list")
    return parse_path(text.strip("/"))


def _below(session: Session, folder: str) -> list[str]:
    waiting, found = [folder], list[str]()
    while waiting and len(found) < _MOST:
        current = waiting.pop()
        keys = session.names(f"sys/leases/lookup/{current}".rstrip("/"))
        waiting += [current + key for key in keys if key.endswith("/")]
        found += [current + key for key in keys if not key.endswith("/")]
    return sorted(found)


def _looked_up(session: Session, lease_id: str) -> dict[str, Any] | None:
    """What is known of a lease; ``None`` of one that has ended meanwhile."""
    try:
        return dict(session.client.write("sys/leases/lookup", {"lease_id": lease_id}).data)
    except (InvalidRequest, NotFound):
        return None


def _lost(entry: dict[str, Any]) -> dict[str, Any]:
    return {"id": entry["lease_id"], "attempts": entry["attempts"], "error": entry["error"]}
