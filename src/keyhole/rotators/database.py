"""Two static roles of the engine ``database`` that take turns: the one that is not in use gets a new password.

A user of a database has one password at a time, so its connections would fail between the change at the database and
the change here. With two users that may do the same, the old one goes on working until its grace is over, and then its
password is replaced too. With one role and no secret the engine replaces the password in place, for services that lend
``/database/static-creds/NAME`` itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keyhole.core.errors import InvalidRequest, KeyholeError
from keyhole.core.fields import parse_text, parse_texts
from keyhole.core.path import parse_path
from keyhole.core.value import Secret
from keyhole.rotators import Needs, NotYet, Settings, Value, World, failed


def read(data: Mapping[str, Any]) -> dict[str, Any]:
    """``roles``: names of one or two static roles; ``mount``: where the engine is, ``database`` unless said."""
    roles = parse_texts(data.get("roles") or data.get("role"), "roles", most=2)
    if not roles or len(set(roles)) != len(roles):
        raise InvalidRequest("name one static role, or two that take turns", '{"roles": ["app-a", "app-b"]}')
    mount = parse_path((parse_text(data.get("mount"), "mount") or "database").strip("/"))
    for role in roles:
        parse_path(f"{mount}/rotate-role/{role}")
    return {"mount": mount, "roles": roles}


def needs(settings: Settings) -> Needs:
    """Reading and replacing the passwords of the roles."""
    mount, paths = settings["mount"], []
    for role in settings["roles"]:
        paths += [("update", f"{mount}/rotate-role/{role}"), ("read", f"{mount}/static-creds/{role}")]
        paths.append(("update", f"{mount}/verify-role/{role}"))
    return Needs(paths=tuple(paths), in_place=len(settings["roles"]) == 1)


async def prepare(world: World, old: Value) -> dict[str, Any]:
    """Which role has its turn: the one whose user the secret does not have."""
    role = ""
    for name in world.settings["roles"]:
        fields = await _creds(world, name)
        if fields["username"] != old.fields.get("username"):
            role = role or name
    if not role:
        raise InvalidRequest("both roles have the same user", "make one static role for each of two users")
    return {"role": role}


async def create(world: World, _old: Value) -> Value:
    """Replace the password of the role that has its turn."""
    role = str(world.note["role"])
    await world.ask("update", f"{world.settings['mount']}/rotate-role/{role}", {})
    return Value(await _creds(world, role), {"role": role})


async def verify(world: World, new: Value) -> None:
    """Log in as its user."""
    try:
        await world.ask("update", f"{world.settings['mount']}/verify-role/{new.handle['role']}", {})
    except KeyholeError as error:
        raise NotYet(f"nobody can log in with it: {error.reason}", error.hint) from None


async def revoke(world: World, value: Value, by: Value) -> None:
    """Replace the password of its role once more, which nobody has then."""
    role = value.handle.get("role") or await _role_of(world, value)
    if not role or role == by.handle.get("role"):
        return
    if (await _creds(world, role))["password"] == value.fields.get("password"):
        await world.ask("update", f"{world.settings['mount']}/rotate-role/{role}", {})


async def abandon(_world: World, _old: Value) -> bool:
    """Nothing is left: the role that had its turn has a password that only its engine knows."""
    return True


async def _role_of(world: World, value: Value) -> str:
    for role in world.settings["roles"]:
        if (await _creds(world, role))["username"] == value.fields.get("username"):
            return str(role)
    return ""


async def _creds(world: World, role: str) -> dict[str, Secret]:
    answer = await world.ask("read", f"{world.settings['mount']}/static-creds/{role}", {})
    username, password = answer.get("username"), answer.get("password")
    if not isinstance(username, str) or not isinstance(password, Secret):
        raise failed(f"the static role {role} has no password")
    return {"username": Secret(username), "password": password}
