"""Verbs of ``repo`` about its members: who is in, what is granted, and the keys of agents."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from keyhole.cli.base import Session, pass_session
from keyhole.cli.repo.asking import asked_of
from keyhole.cli.repo.keys import IN_HELP, make_key, public_of
from keyhole.cli.repo.noun import repo
from keyhole.cli.repo.place import Place, place_options
from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.crypto import age
from keyhole.crypto.age import Recipient
from keyhole.crypto.low_order import is_sound_ed25519
from keyhole.repo import changes, keys
from keyhole.repo.members import WRITERS, Role
from keyhole.repo.opened import Opened
from keyhole.repo.sealing import Actor, require_group
from keyhole.repo.tree import Change

_JOINS = [role.value for role in Role if role is not Role.AGENT]


@repo.command("add-agent", examples="keyhole repo add-agent coder --group stripe")
@click.argument("name")
@click.option("--group", "groups", multiple=True, metavar="GROUP", help="Granted at once; may be repeated.")
@click.option("--to", default="", metavar="FILE", help="Where its key is written; ~/.agent-vault/agents/NAME.key else.")
@click.option("--key-in", default="file", metavar="PLACE", help=f"Where its key is kept: {IN_HELP}")
@place_options
@pass_session
def add_agent(
    session: Session, /, *, name: str, groups: tuple[str, ...], to: str, key_in: str, directory: str, key_file: str
) -> None:
    """Make an agent with a key of its own, which the owners can recover."""
    path = Path(to) if to else keys.free(keys.agent_file(os.environ, name))
    place = Place(session, directory, key_file)
    identity = make_key(session, path, key_in)
    with place.undoing(lambda: keys.unmake(path, asked_of(session))):  # nobody knows this key
        sign = identity.signing.public
        _add(session, place, name, identity.recipient, sign=sign, groups=groups, escrow=identity)
    data = {"name": name, "key_file": str(path), "recipient": identity.recipient.text, "groups": list(groups)}
    session.out.done(data, f"made the agent {name}; its key is in {path}")


@repo.command("add-member", examples="keyhole repo add-member ben --recipient age1… --role member --group stripe")
@click.argument("name")
@click.option("--recipient", required=True, metavar="KEY", help="Public: age1…, age1NAME1… of a plugin, or of SSH.")
@click.option("--sign", default="", metavar="HEX", help="The public key of signatures: keyhole repo my-key shows it.")
@click.option("--role", type=click.Choice(_JOINS), default="reader", help="What the member may do; reader unless said.")
@click.option("--group", "groups", multiple=True, metavar="GROUP", help="Granted at once; may be repeated.")
@place_options
@pass_session
def add_member(
    session: Session,
    /,
    *,
    name: str,
    recipient: str,
    sign: str,
    role: str,
    groups: tuple[str, ...],
    directory: str,
    key_file: str,
) -> None:
    """Let somebody in who has made a key of their own. You never see it."""
    public = public_key(sign)
    wanted, found = Role(role), age.parse_recipient(recipient)
    if wanted in WRITERS and not found.kind.signs:
        raise age.cannot_sign(found.kind)
    if wanted in WRITERS and not public:
        raise InvalidRequest(f"a {role} signs what it writes", "ask for both lines of: keyhole repo my-key")
    place = Place(session, directory, key_file)
    _add(session, place, name, found, role=wanted, sign=public, groups=groups)
    session.out.done({"name": name, "role": role, "groups": list(groups)}, f"{name} is {role} now")


def _add(
    session: Session, place: Place, name: str, recipient: Recipient, *, groups: tuple[str, ...], **more: Any
) -> None:
    """Let somebody in, and say which of the groups nobody has used yet: it may be a slip."""

    def make(opened: Opened, actor: Actor) -> Change:
        for group in groups:
            try:
                require_group(opened, group)
            except NotFound:
                session.out.warn(f"there is no secret in the group {group} yet")
        return changes.add(opened, actor, name, recipient, groups=groups, **more)

    place.change(make)


@repo.command("my-key", examples="keyhole repo my-key")
@click.option("--key", "key_file", default="", metavar="FILE", help="Your key; else KEYHOLE_REPO_KEY.")
@pass_session
def my_key(session: Session, /, *, key_file: str) -> None:
    """The public part of your key, to be given to an owner. A key is made where you have none."""
    if not key_file and not any(os.environ.get(name) for name in keys.VARIABLES):
        path = keys.owner_file(os.environ)
        if not path.exists():
            keys.write(path, age.generate())
            session.out.say(f"made your key {path}; keep a copy of it where you keep such things")
    identity = keys.find(os.environ, key_file, asked_of(session))
    data = public_of(identity)
    recipient = f"'{data['recipient']}'" if " " in data["recipient"] else data["recipient"]
    lines = [f"--recipient {recipient}"]
    if identity.signs:
        lines.append(f"--sign {data['sign']}")
    else:
        session.out.say("this key cannot sign, so its holder is a reader")
    session.out.result(data, lines)


@repo.command("remove-agent", examples="keyhole repo remove-agent coder")
@click.argument("name")
@place_options
@pass_session
def remove_agent(session: Session, /, *, name: str, directory: str, key_file: str) -> None:
    """Take an agent or a member out. What it could read is sealed again without it, and due for new values."""
    change = Place(session, directory, key_file).change(lambda opened, actor: changes.take_out(opened, actor, name))
    session.out.done({"name": name, "removed": True, "due": list(change.due)}, f"{name} is no member any more")
    warn_due(session, change)


@repo.command("list-agents", examples="keyhole repo list-agents --json")
@place_options
@pass_session
def list_agents(session: Session, /, *, directory: str, key_file: str) -> None:
    """Members and their groups."""
    opened = Place(session, directory, key_file).open()
    if opened.members is None:
        found = [{"name": name, "groups": list(groups)} for name, groups in opened.manifest.agents.items()]
    else:
        found = [
            {"name": member.name, "groups": sorted(member.groups), "role": member.role.value}
            for member in opened.members.members.values()
        ]
    rows = [[each["name"], each.get("role", "agent"), " ".join(each["groups"]) or "(no groups)"] for each in found]
    session.out.table(found, ["name", "role", "groups"], rows, empty="No agents configured.")


@repo.command("grant", examples="keyhole repo grant coder stripe")
@click.argument("name")
@click.argument("group")
@place_options
@pass_session
def grant(session: Session, /, *, name: str, group: str, directory: str, key_file: str) -> None:
    """Let a member open the secrets of a group."""
    Place(session, directory, key_file).change(lambda opened, actor: changes.grant(opened, actor, name, group))
    session.out.done({"name": name, "group": group}, f"{name} can open {group}")


@repo.command("revoke", examples="keyhole repo revoke coder stripe")
@click.argument("name")
@click.argument("group")
@place_options
@pass_session
def revoke(session: Session, /, *, name: str, group: str, directory: str, key_file: str) -> None:
    """Take a grant back. What it opened is sealed again, and due for new values at their sources."""
    change = Place(session, directory, key_file).change(
        lambda opened, actor: changes.revoke(opened, actor, name, group)
    )
    session.out.done({"name": name, "group": group, "due": list(change.due)}, f"{name} cannot open {group} any more")
    warn_due(session, change)


@repo.command("recover-agent", examples="keyhole repo recover-agent coder")
@click.argument("name")
@click.option("--to", default="", metavar="FILE", help="Where the new key is written.")
@place_options
@pass_session
def recover_agent(session: Session, /, *, name: str, to: str, directory: str, key_file: str) -> None:
    """Give an agent a new key. Its old one opens nothing that is stored from now on, and what it opened is due."""
    path = Path(to) if to else keys.free(keys.agent_file(os.environ, name))
    identity = age.generate()
    place = Place(session, directory, key_file)
    keys.write(path, identity)
    with place.undoing(path.unlink):  # nobody knows this key
        change = place.change(lambda opened, actor: changes.replace_key(opened, actor, name, identity))
    data = {"name": name, "key_file": str(path), "due": list(change.due)}
    session.out.done(data, f"{name} has a new key in {path}")
    warn_due(session, change)


@repo.command("restore-agent", examples="keyhole repo restore-agent coder --to coder.key")
@click.argument("name")
@click.option("--to", required=True, metavar="FILE", help="Where the key is written.")
@place_options
@pass_session
def restore_agent(session: Session, /, *, name: str, to: str, directory: str, key_file: str) -> None:
    """Write the key of an agent again, from the copy that is sealed for the owners."""
    identity = Place(session, directory, key_file).escrowed(name)
    keys.write(Path(to), identity)
    session.out.done({"name": name, "key_file": to}, f"the key of {name} is in {to}")


def warn_due(session: Session, change: Change) -> None:
    """Say which values, and which keys of agents, have to be replaced because of a change."""
    if change.due:
        session.out.warn(
            "the old commits still open with the old key. Change these values at their sources, and store them:"
        )
        for name in change.due:
            session.out.warn(f"  {name}: keyhole repo set {name}")
    for name in change.keys:
        session.out.warn(f"an owner who left could open the key of {name}: keyhole repo recover-agent {name}")


def public_key(text: str) -> bytes:
    """What ``--sign`` says. Raises ``InvalidRequest``."""
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b"?"
    if found and (len(found) != 32 or not is_sound_ed25519(found)):
        raise InvalidRequest("--sign is no public key of signatures", "ask for it: keyhole repo my-key")
    return found
