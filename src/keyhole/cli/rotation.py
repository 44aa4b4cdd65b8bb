"""``rotate`` and ``rotation``: new values at their sources."""

from __future__ import annotations

import json
from typing import Any

import click

from keyhole.cli.base import Session, command, group, pass_session
from keyhole.cli.versions import confirm
from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.core.lease import format_duration, parse_duration
from keyhole.core.path import parse_name, parse_path

_ROTATORS = ("aws_iam", "command", "database", "http")


@command(
    "rotate",
    examples="""
    keyhole rotate stripe                # the old value goes on working for its grace
    keyhole rotate stripe/api-key        # the same, by the name of the secret
    keyhole rotate stripe --now          # it has leaked: revoke the old value at once
    keyhole rotate --due                 # all that is due, where no server runs
    """,
)
@click.argument("name", required=False)
@click.option("--now", is_flag=True, help="No grace: what is replaced is revoked at once.")
@click.option("--due", is_flag=True, help="Everything whose time has come, and what was begun.")
@pass_session
def rotate_command(session: Session, /, *, name: str | None, now: bool, due: bool) -> int:
    """Replace a value at its source: make a new one, try it, put it in the place of the old one, revoke that later."""
    if due == (name is not None) or (due and now):
        raise InvalidRequest("say what is to be rotated", "keyhole rotate NAME, or keyhole rotate --due")
    if due or name is None:
        done = session.client.write("sys/rotations/due", {}).data["rotations"]
        rows = [[each, state["step"], state["error"] or "-"] for each, state in sorted(done.items())]
        session.out.table(done, ["rotation", "step", "failure"], rows, empty="nothing is due")
        return 2 if any(state["error"] for state in done.values()) else 0
    rotation = _named(session, name)
    data = session.client.write(f"sys/rotations/{rotation}/rotate", {"now": now}).data
    session.out.done(data, f"{rotation}: {_stands(data)}")
    return 0


def _named(session: Session, name: str) -> str:
    """The rotation of this name, or of the secret of this name."""
    names = session.names("sys/rotations")
    if name in names:
        return name
    for each in names:
        if session.client.read(f"sys/rotations/{each}").data["secret"] == parse_path(name):
            return each
    raise NotFound(f"there is no rotation {name!r}, and none of a secret of that name", "keyhole rotation list")


def _stands(data: dict[str, Any]) -> str:
    if data["step"] == "grace":
        return f"a new value is in place; the old one works until {data['grace_until']}"
    if data["step"] == "idle":
        return f"a new value is in place since {data['rotated_at']}"
    return f"under way: {data['step']}"


@group("rotation", examples="keyhole rotation list\nkeyhole rotation show stripe")
def rotation() -> None:
    """How values are replaced at their sources: by which rotator, how often, and how far it has come."""


@rotation.command(
    "add",
    examples="""
    keyhole rotation add ci-keys --secret aws/ci --rotator aws_iam --set user=ci --every 30d --grace 1d
    keyhole rotation add app --secret db/app --rotator database --set roles=app-a,app-b --every 7d
    keyhole rotation add acme --secret acme/api-key --rotator http --settings recipe.json --every 30d
    """,
)
@click.argument("name")
@click.option("--secret", default="", metavar="SECRET", help="The secret whose value is replaced.")
@click.option("--rotator", type=click.Choice(_ROTATORS), required=True, help="What knows the source.")
@click.option("--set", "pairs", multiple=True, metavar="NAME=VALUE", help="A setting of the rotator.")
@click.option("--arg", "argv", multiple=True, metavar="TEXT", help="Of a command: its program, then its arguments.")
@click.option("--settings", type=click.File("r"), metavar="FILE", help="All settings as a JSON object.")
@click.option("--handle", "handle", multiple=True, metavar="NAME=VALUE", help="What names the present value there.")
@click.option("--every", default="", metavar="DURATION", help="From one new value to the next; else only when asked.")
@click.option(
    "--grace", default="1h", metavar="DURATION", show_default=True, help="How long the old one goes on working."
)
@pass_session
def add(
    session: Session,
    /,
    *,
    name: str,
    secret: str,
    rotator: str,
    pairs: tuple[str, ...],
    argv: tuple[str, ...],
    settings: Any,
    handle: tuple[str, ...],
    every: str,
    grace: str,
) -> None:
    """Say how a value is replaced. Needs read and update on the secret, and read on what the rotator uses."""
    data = {
        "secret": parse_path(secret) if secret else "",
        "rotator": rotator,
        "settings": {**_file(settings), **_pairs(pairs), **({"argv": list(argv)} if argv else {})},
        **({"handle": _pairs(handle)} if handle else {}),
        "every": parse_duration(every, name="--every"),
        "grace": parse_duration(grace, name="--grace"),
    }
    made = session.client.write(f"sys/rotations/{parse_name(name)}", data).data
    when = f"every {_long(made['every'])}" if made["every"] else "when somebody asks"
    session.out.done(made, f"{name} replaces {made['secret'] or 'the password at its source'} {when}")


def _file(file: Any) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        found = json.load(file)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InvalidRequest("the file of --settings holds no JSON object", "see docs/rotation.md for one")
    return found


def _pairs(pairs: tuple[str, ...]) -> dict[str, str]:
    split = [pair.partition("=") for pair in pairs]
    if not all(name and sign for name, sign, _ in split):
        raise InvalidRequest("--set and --handle take NAME=VALUE", "for example --set user=ci")
    return {name: value for name, _, value in split}


def _long(seconds: int) -> str:
    return format_duration(seconds) if seconds % 86_400 else f"{seconds // 86_400}d"


@rotation.command("list", examples="keyhole rotation list\nkeyhole rotation list --json")
@pass_session
def list_rotations(session: Session, /) -> None:
    """All rotations, and how they stand."""
    found = [session.client.read(f"sys/rotations/{name}").data for name in session.names("sys/rotations")]
    rows = [
        [e["name"], e["secret"] or "-", e["rotator"], e["step"], e["next_at"] or "-", e["error"] or "-"] for e in found
    ]
    head = ["name", "secret", "rotator", "step", "next", "failure"]
    session.out.table(found, head, rows, empty="no rotations: keyhole rotation add NAME")


@rotation.command("show", examples="keyhole rotation show stripe")
@click.argument("name")
@pass_session
def show(session: Session, /, *, name: str) -> None:
    """One rotation: what it does, how far it has come, and what has failed."""
    data = session.client.read(f"sys/rotations/{parse_name(name)}").data
    lines = {
        "name": data["name"],
        "secret": data["secret"] or "- (the source keeps it)",
        "rotator": data["rotator"],
        "every": _long(data["every"]) if data["every"] else "when somebody asks",
        "grace": _long(data["grace"]),
        "step": data["step"] + (f", the old value works until {data['grace_until']}" if data["grace_until"] else ""),
        "rotated": data["rotated_at"] or "never",
        "next": data["next_at"] or "-",
        "failure": f"{data['error']} ({data['failures']} in a row)" if data["error"] else "-",
    }
    if data["left"]:
        lines["left"] = f"may be alive at the source still: {', '.join(data['left'])}"
    session.out.result(data, [f"{key + ':':<10}{value}" for key, value in lines.items()])


@rotation.command("rm", examples="keyhole rotation rm stripe")
@click.argument("name")
@click.option("--force", is_flag=True, help="Also while it is under way; a value may stay alive at the source.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@pass_session
def remove(session: Session, /, *, name: str, force: bool, yes: bool) -> None:
    """Remove a rotation; the secret keeps its value."""
    name = parse_name(name)
    if force:
        confirm(f"Forget {name} also while it is under way?", yes=yes)
        session.client.write(f"sys/rotations/{name}/forget", {})
    else:
        session.client.delete(f"sys/rotations/{name}")
    session.out.done({"name": name, "removed": True}, f"removed the rotation {name}")
