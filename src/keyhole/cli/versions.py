"""``history``, ``rollback``, ``expire`` and ``rm``: the life of a secret after it was stored."""

from __future__ import annotations

import sys
from typing import Any

import click

from keyhole.cli.base import Session, command, pass_session
from keyhole.cli.consent import ask_yes
from keyhole.cli.names import secrets
from keyhole.cli.when import NEVER, expiry_of
from keyhole.core.errors import InvalidRequest, NotFound, PolicyDenied
from keyhole.core.path import parse_path


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something that cannot be undone, where a person sits; a script has said what it wants."""
    if not yes and sys.stdin.isatty() and not ask_yes(question):
        raise PolicyDenied("nothing was changed", "answer y, or add --yes")


def _versions(data: dict[str, Any]) -> list[dict[str, Any]]:
    found = []
    for number, version in sorted(data["versions"].items(), key=lambda item: int(item[0])):
        state = "destroyed" if version["destroyed"] else "deleted" if version["deletion_time"] else "kept"
        current = int(number) == data["current_version"]
        state = "current" if state == "kept" and current else state
        found.append({"version": int(number), "created": version["created_time"], "state": state})
    return found


@command("history", examples="keyhole history stripe/api-key\nkeyhole history stripe/api-key --json")
@click.argument("name", shell_complete=secrets)
@pass_session
def history_command(session: Session, /, *, name: str) -> None:
    """Versions of a secret, without values."""
    found = _versions(session.client.read(f"secret/metadata/{parse_path(name)}").data)
    rows = [[v["version"], v["created"], v["state"]] for v in found]
    session.out.table(found, ["version", "created", "state"], rows, empty="no versions yet")


@command("rollback", examples="keyhole rollback stripe/api-key --to 2")
@click.argument("name", shell_complete=secrets)
@click.option("--to", "version", type=int, required=True, metavar="N", help="The version whose value is wanted.")
@pass_session
def rollback_command(session: Session, /, *, name: str, version: int) -> None:
    """Make an older version's value the current one again, as a new version.

    A deleted version comes back; a destroyed one cannot. Needs read, as the value is read and written again.
    """
    name = parse_path(name)
    metadata = session.client.read(f"secret/metadata/{name}").data
    states = {entry["version"]: entry["state"] for entry in _versions(metadata)}
    state = states.get(version)
    if state is None or state == "destroyed":
        raise NotFound(f"there is no value of version {version} any more", f"keyhole history {name}")
    if state == "current":
        session.out.done(
            {"name": name, "version": version, "changed": False}, f"{name} is at version {version} already"
        )
        return
    if state == "deleted":
        session.client.write(f"secret/undelete/{name}", {"versions": [version]})
    current = metadata["current_version"]
    if version != current:
        old = session.client.read(f"secret/data/{name}", version=version).data["data"]
        written = session.client.write(f"secret/data/{name}", {"data": old, "options": {"cas": current}}).data
        current = written["version"]
    message = f"{name} has the value of version {version} again, as version {current}"
    session.out.done({"name": name, "version": current, "from": version, "changed": True}, message)


@command(
    "expire",
    examples="""
    keyhole expire stripe/api-key 90d
    keyhole expire stripe/api-key 2027-01-31
    keyhole expire stripe/api-key never
    keyhole expire --check
    """,
)
@click.argument("name", required=False, shell_complete=secrets)
@click.argument("when", required=False)
@click.option("--at", metavar="TIME", help="A date, or a time such as 2027-01-31T12:00:00Z.")
@click.option("--in", "duration", metavar="DURATION", help="From now, such as 90d.")
@click.option("--never", is_flag=True, help="Take the expiry away.")
@click.option("--check", is_flag=True, help="Say what comes near its end, and tell the administrators; needs sudo.")
@pass_session
def expire_command(
    session: Session,
    /,
    *,
    name: str | None,
    when: str | None,
    at: str | None,
    duration: str | None,
    never: bool,
    check: bool,
) -> int:
    """Say when a secret expires. An expired one is neither shown nor used until a new value is stored.

    With --check nothing is set: it does once what a server does by itself, and ends with 1 when something has expired.
    """
    said = [when is not None, at is not None, duration is not None, never, check].count(True)
    if said != 1 or (name is None) != check:
        raise InvalidRequest("say one time, or never", f"keyhole expire {name or 'NAME'} 90d")
    if check or name is None:
        return _check_ends(session)
    name = parse_path(name)
    session.client.read(f"secret/metadata/{name}")
    session.client.write(f"secret/metadata/{name}", expiry_of(NEVER if never else str(when or at or duration)))
    expires = session.client.read(f"secret/metadata/{name}").data["expires_at"]
    session.out.done({"name": name, "expires_at": expires}, f"{name} expires {expires or 'never'}")
    return 0


def _check_ends(session: Session) -> int:
    data = session.client.write("sys/notices/check", {}).data
    said = {("expires", False): "expires", ("expires", True): "has expired"}
    rows = [
        [each["name"], said.get((each["what"], each["past"]), "new value due"), each["at"]] for each in data["secrets"]
    ]
    session.out.table(data, ["name", "what", "at"], rows, empty="no secret comes near its end")
    return 1 if any(each["past"] for each in data["secrets"]) else 0


@command(
    "rm",
    examples="""
    keyhole rm stripe/api-key             # rollback brings it back
    keyhole rm stripe/api-key --destroy   # the current version's value, for good
    keyhole rm stripe/api-key --all --yes # every version and all that is known of it
    """,
)
@click.argument("name", shell_complete=secrets)
@click.option("--version", "chosen", type=int, multiple=True, metavar="N", help="This version; may be repeated.")
@click.option("--destroy", is_flag=True, help="Remove the value for good.")
@click.option("--all", "everything", is_flag=True, help="Remove the secret with all versions for good.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@pass_session
def rm_command(
    session: Session, /, *, name: str, chosen: tuple[int, ...], destroy: bool, everything: bool, yes: bool
) -> None:
    """Delete a secret: its current version, or what the options say."""
    name = parse_path(name)
    metadata = session.client.read(f"secret/metadata/{name}").data
    versions = list(chosen) or [metadata["current_version"]]
    unknown = [number for number in versions if str(number) not in metadata["versions"]]
    if unknown and not everything:
        raise NotFound(f"{name} has no version {unknown[0]}", f"keyhole history {name}")
    listed = ", ".join(map(str, versions))
    if everything:
        confirm(f"Remove {name} with all its versions for good?", yes=yes)
        session.client.delete(f"secret/metadata/{name}")
        done, message = "removed", f"removed {name} with all its versions"
    elif destroy:
        confirm(f"Destroy version {listed} of {name} for good?", yes=yes)
        session.client.write(f"secret/destroy/{name}", {"versions": versions})
        done, message = "destroyed", f"destroyed version {listed} of {name}"
    else:
        session.client.write(f"secret/delete/{name}", {"versions": versions})
        done, message = (
            "deleted",
            f"deleted version {listed} of {name}; back again: keyhole rollback {name} --to {versions[0]}",
        )
    session.out.done({"name": name, done: True if everything else versions}, message)
