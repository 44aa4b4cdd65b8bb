"""``repo members``, ``role`` and ``hosts``: who may do what, and where the secrets of a group may go."""

from __future__ import annotations

import hashlib
from typing import Any

import click

from keyhole.cli.base import Session, pass_session
from keyhole.cli.repo.members import public_key, warn_due
from keyhole.cli.repo.noun import repo
from keyhole.cli.repo.place import Place, place_options
from keyhole.core.errors import InvalidRequest
from keyhole.repo.hidden import Kind
from keyhole.repo.members import Member, Role
from keyhole.repo.ruling import give_role, limit_hosts
from keyhole.repo.sealing import require_group

_ROLES = [role.value for role in Role if role is not Role.AGENT]


@repo.command("members", examples="keyhole repo members\nkeyhole repo members --json")
@place_options
@pass_session
def members(session: Session, /, *, directory: str, key_file: str) -> None:
    """Who is in, with role, groups and public key. Compare fingerprints before you believe a key."""
    opened = Place(session, directory, key_file).open()
    everybody = opened.require_members()
    order = list(Role)
    found = sorted(everybody.members.values(), key=lambda each: (order.index(each.role), opened.shown(each.name)))
    data = [_described(each) for each in found]
    rows = [
        [each["name"], each["role"], " ".join(each["groups"]) or ("(all)" if each["role"] == "owner" else "-"),
         each["fingerprint"], each["due"] or "-"]
        for each in data
    ]  # fmt: skip
    session.out.table(data, ["name", "role", "groups", "fingerprint", "due"], rows)


def _described(member: Member) -> dict[str, Any]:
    return {
        "name": member.name,
        "role": member.role.value,
        "groups": sorted(member.groups),
        "recipient": member.recipient.text,
        "sign": member.sign.hex() or None,
        "fingerprint": fingerprint(member),
        "due": member.due or None,
    }


def fingerprint(member: Member) -> str:
    """Of both public keys, short enough to be read to somebody: 16 hexadecimal digits of SHA-256, in fours."""
    text = hashlib.sha256(member.recipient.text.encode() + b"\n" + member.sign).hexdigest()
    return "-".join(text[start : start + 4] for start in range(0, 16, 4))


@repo.command("role", examples="keyhole repo role ben admin\nkeyhole repo role ben reader")
@click.argument("name")
@click.argument("role", type=click.Choice(_ROLES))
@click.option("--sign", default="", metavar="HEX", help="The public key of signatures, of one who signed nothing yet.")
@place_options
@pass_session
def role_command(session: Session, /, *, name: str, role: str, sign: str, directory: str, key_file: str) -> None:
    """Give a member another role. What it can read no more is sealed again without it, and due for new values."""
    public = public_key(sign)
    change = Place(session, directory, key_file).change(
        lambda opened, actor: give_role(opened, actor, name, Role(role), public)
    )
    data = {"name": name, "role": role, "due": list(change.due), "keys": list(change.keys)}
    session.out.done(data, f"{name} is {role} now")
    warn_due(session, change)


@repo.command(
    "hosts",
    examples="""
    keyhole repo hosts stripe api.stripe.com
    keyhole repo hosts stripe --any
    keyhole repo hosts
    """,
)
@click.argument("group", required=False, default="")
@click.argument("hosts", nargs=-1, metavar="[HOST]...")
@click.option("--any", "any_", is_flag=True, help="Take the limit away: to any host that a service says.")
@place_options
@pass_session
def hosts_command(
    session: Session, /, *, group: str, hosts: tuple[str, ...], any_: bool, directory: str, key_file: str
) -> None:
    """The only hosts to which services may lend the secrets of a group: where the vault is mounted, it is enforced."""
    if any_ and (hosts or not group):
        raise InvalidRequest("--any takes one group and no host", "keyhole repo hosts GROUP --any")
    place = Place(session, directory, key_file)
    if hosts or any_:
        place.change(lambda opened, actor: limit_hosts(opened, actor, group, hosts))
        said = f"{group} may go to {', '.join(hosts)} alone" if hosts else f"{group} may go where a service says"
        session.out.done({"group": group, "hosts": list(hosts) or None}, said)
        return
    opened = place.open()
    limits = {name: sorted(map(opened.shown, each)) for name, each in opened.require_members().hosts.items()}
    if group:
        hidden = opened.hidden(Kind.GROUP, group)
        wanted = limits.get(hidden)
        if hidden not in limits:
            require_group(opened, group)
        session.out.result({"group": group, "hosts": wanted}, wanted or ["any that a service says"])
        return
    data = [
        {"group": name, "hosts": each} for name, each in sorted(limits.items(), key=lambda two: opened.shown(two[0]))
    ]
    rows = [[each["group"], " ".join(each["hosts"])] for each in data]
    session.out.table(data, ["group", "hosts"], rows, empty="no group is limited")
