"""One-time passwords for hosts: each is good for one login as one user at one address, until its lease ends.

``o/DIGEST`` holds what a password is for, under its SHA-256: it is 160 random bits, which no search comes back from.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.core.fields import parse_text, parse_texts
from keyhole.core.lease import Lease
from keyhole.core.path import parse_name
from keyhole.core.request import Reply
from keyhole.core.value import Secret
from keyhole.engines import Call, Context
from keyhole.engines.ssh.roles import OTP, blocks, key_path, load, load_all

_ANYWHERE = "zero"
_ECHO = ("verify-echo-request", "verify-echo-response")
_LONGEST = 128


async def create(context: Context, call: Call) -> Reply:
    """A password for one login."""
    name = call.params["name"]
    role = await load(context, name)
    if role is None:
        raise InvalidRequest(f"Role {name!r} not found", "list roles/ shows those that there are")
    if role["key_type"] != OTP:
        raise InvalidRequest("the role is not one for one-time passwords", "use sign/NAME")
    user = _user(role, parse_text(call.data.get("username"), "username"))
    address = _address(call)
    if name not in await _anywhere(context) and not _lies_in(role, address):
        raise InvalidRequest("Error validating IP: IP does not belong to role")
    password = secrets.token_hex(20)
    digest = _digest(password)
    lease = await context.leases.begin(
        ttl=context.default_ttl, max_ttl=context.max_ttl, renewable=False, internal={"otp": digest}
    )
    entry = {"role": name, "user": user, "ip": address, "expires": lease.expires}
    await context.storage.change([(f"o/{digest}", json.dumps(entry).encode(), 0)])
    data = {"ip": address, "key": Secret(json.dumps(password)), "key_type": OTP, "port": role["port"], "username": user}
    return Reply(data, lease=lease)


def _user(role: Mapping[str, Any], asked: str) -> str:
    user: str = asked or role["default_user"]
    allowed = [name.strip() for name in role["allowed_users"].split(",") if name.strip()]
    if user == role["default_user"] or user in allowed or allowed == ["*"]:
        return user
    if allowed:
        raise InvalidRequest("Username is not present is allowed users list")
    raise InvalidRequest("Username has to be either in allowed users list or has to be a default username")


def _address(call: Call) -> str:
    text = parse_text(call.data.get("ip"), "ip", most=64)
    if not text:
        raise InvalidRequest("Missing ip", 'send {"ip": "10.0.0.7"}')
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise InvalidRequest("Invalid IP", "send an address, not a name") from None
    if isinstance(address, ipaddress.IPv6Address) and (address.ipv4_mapped or address.scope_id):
        # The same host in another spelling, which blocks of IPv4 would neither hold nor leave out.
        raise InvalidRequest("Invalid IP", "write an address of IPv4 like 10.0.0.7, and one of IPv6 without a zone")
    return str(address)


def _lies_in(role: Mapping[str, Any], address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    inside = any(parsed in block for block in blocks(role["cidr_list"], "cidr_list"))
    return inside and not any(parsed in block for block in blocks(role["exclude_cidr_list"], "exclude_cidr_list"))


async def verify(context: Context, call: Call) -> Reply:
    """What a password is for, once: asked by a host at which somebody shows it."""
    password = parse_text(call.data.get("otp"), "otp", most=_LONGEST)
    if password == _ECHO[0]:
        return Reply({"message": _ECHO[1]})
    path = f"o/{_digest(password)}"
    item = await context.storage.get_one(path)
    if item.data is None:
        raise _unknown()
    entry = json.loads(item.data)
    # Gone before it is answered: of two who show it at once, one is let in.
    await context.storage.change((), [(path, item.revision)])
    if entry["expires"] <= context.now:
        raise _unknown()
    return Reply({"ip": entry["ip"], "role_name": entry["role"], "username": entry["user"]})


async def revoke(context: Context, lease: Lease) -> None:
    """Forget the password of a lease; one that was used is gone already."""
    path = f"o/{lease.internal['otp']}"
    item = await context.storage.get_one(path)
    if item.data is not None:
        await context.storage.change((), [(path, item.revision)])


async def lookup(context: Context, call: Call) -> Reply:
    """The roles that give passwords for an address."""
    address = _address(call)
    anywhere = await _anywhere(context)
    found = [
        name
        for name, role in (await load_all(context)).items()
        if role["key_type"] == OTP and (name in anywhere or _lies_in(role, address))
    ]
    return Reply({"roles": found})


async def _anywhere(context: Context) -> Sequence[str]:
    item = await context.storage.get_one(_ANYWHERE)
    return () if item.data is None else json.loads(item.data)


async def read_anywhere(context: Context, _call: Call) -> Reply:
    """The roles that give passwords for every address."""
    names = await _anywhere(context)
    if not names:
        raise NotFound("no role is for every address")
    return Reply({"roles": list(names)})


async def write_anywhere(context: Context, call: Call) -> None:
    """Sets the roles that give passwords for every address."""
    names = parse_texts(call.data.get("roles"), "roles")
    if not names:
        raise InvalidRequest("Missing roles", 'send {"roles": "name"}')
    known = await load_all(context)
    for name in names:
        if known.get(name, {}).get("key_type") != OTP:
            raise InvalidRequest(f"Invalid role: {name[:64]!r}", "roles of the type otp can be named here")
    item = await context.storage.get_one(_ANYWHERE)
    await context.storage.change([(_ANYWHERE, json.dumps(sorted(set(names))).encode(), item.revision)])


async def delete_role(context: Context, call: Call) -> None:
    """Removes a role; certificates that it gave stay good until their end.

    One that is made under its name later is not for every address, whatever this one was.
    """
    path, name = key_path(call), parse_name(call.params["name"])
    role, item = await context.storage.get(path, _ANYWHERE)
    if role.data is None:
        return
    names = [] if item.data is None else json.loads(item.data)
    left = json.dumps([each for each in names if each != name]).encode()
    await context.storage.change([(_ANYWHERE, left, item.revision)] if name in names else [], [(path, role.revision)])


async def delete_anywhere(context: Context, _call: Call) -> None:
    """No role is for every address any more."""
    item = await context.storage.get_one(_ANYWHERE)
    if item.data is not None:
        await context.storage.change((), [(_ANYWHERE, item.revision)])


def _digest(password: str) -> str:
    return hashlib.sha256(password.encode("utf-8", "replace")).hexdigest()


def _unknown() -> InvalidRequest:
    return InvalidRequest("OTP not found", "it was used, has expired, or never was")
