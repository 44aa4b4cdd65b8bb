"""User names and passwords, as Vault's ``userpass``. Passwords are kept as Argon2id hashes with a salt of their own.

One password is tried at a time, so that memory stays bounded and no burst of guesses slips past the lock of a name.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import os
from collections.abc import Mapping
from typing import Any

from keyhole.auth import settings
from keyhole.auth.guesses import Guesses
from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.core.request import Operation, Reply
from keyhole.crypto import kdf
from keyhole.engines import Call, Context, Engine, Field, Route
from keyhole.net.tasks import to_its_end

_RESERVED = frozenset({"owner", "root", "admin"})  # Keyhole's own identities are called user/owner and so on
_LONGEST = 1024
_NOBODY = {"salt": "00" * kdf.SALT_SIZE, "hash": "00" * kdf.KEY_SIZE, "profile": kdf.DEFAULT.name}
_PASSWORD = (Field("password", "the password"),)


class _Method:
    """The handlers of a mount."""

    def __init__(self, guesses: Guesses) -> None:
        self.guesses = guesses

    async def stretch(self, password: str, salt: bytes, profile: kdf.Profile) -> bytes:
        """The hash of a password, in a thread; only under the lock."""
        work = asyncio.ensure_future(asyncio.to_thread(kdf.derive, profile, password.encode(), salt))
        return await to_its_end(work)  # the turn is held as long as the memory, also for who hangs up

    async def exists(self, context: Context, params: Mapping[str, str]) -> bool:
        return (await context.storage.get_one(_path(params["name"]))).data is not None

    async def write(self, context: Context, call: Call) -> None:
        name = settings.read_name(call.params["name"], "user")
        if name in _RESERVED:
            raise InvalidRequest(f"a user cannot be called {name}", "choose another name")
        item = await context.storage.get_one(_path(name))
        call.require_new(stored=item.data is not None)
        before = json.loads(item.data) if item.data is not None else {}
        after = settings.merge(settings.TOKEN, call.data, before)
        settings.require_grantable(context.caller, call.path, before, after)
        if not before or call.data.get("password") is not None:
            after |= await self.hashed(context, call.data)
        await context.storage.change([(_path(name), json.dumps(after).encode(), item.revision)])
        if "password" in call.data:
            self.guesses.forgive(_place(context), name)

    async def hashed(self, context: Context, data: Mapping[str, Any]) -> dict[str, str]:
        """What is stored of a new password."""
        if data.get("password_hash") is not None:
            raise InvalidRequest("password_hash is not taken", "send the password; it is kept as Argon2id")
        password = data.get("password")
        if not isinstance(password, str) or not password:
            raise InvalidRequest("missing password", 'send {"password": "…"}')
        if len(password) > _LONGEST:
            raise InvalidRequest(f"a password has at most {_LONGEST} characters")
        salt = os.urandom(kdf.SALT_SIZE)
        async with self.guesses.turn(context.caller.org, context.caller.name):
            digest = await self.stretch(password, salt, kdf.DEFAULT)
        return {"salt": salt.hex(), "hash": digest.hex(), "profile": kdf.DEFAULT.name}

    async def change(self, context: Context, call: Call) -> None:
        """A new password, or new policies, of a user that there is."""
        if not await self.exists(context, call.params):
            raise InvalidRequest("username does not exist", f"make it first: auth/userpass/users/{call.params['name']}")
        wanted = "password" if call.path.endswith("/password") else "token_policies"
        data = {name: value for name, value in call.data.items() if name in (wanted, wanted.removeprefix("token_"))}
        if not data:
            raise InvalidRequest(f"missing {wanted}")
        user = call.path.rpartition("/")[0]
        await self.write(context, Call(Operation.UPDATE, user, call.params, data, call.remote))

    async def read(self, context: Context, call: Call) -> Reply:
        item = await context.storage.get_one(_path(call.params["name"]))
        if item.data is None:
            raise NotFound("there is no such user")
        return Reply(settings.show(settings.TOKEN, json.loads(item.data)))

    async def delete(self, context: Context, call: Call) -> None:
        item = await context.storage.get_one(_path(call.params["name"]))
        if item.data is not None:
            await context.storage.change((), [(_path(call.params["name"]), item.revision)])

    async def names(self, context: Context, _call: Call) -> Reply:
        keys = await context.storage.list("user")
        if not keys:
            raise NotFound("there are no users")
        return Reply({"keys": list(keys)})

    async def login(self, context: Context, call: Call) -> Reply:
        password, name = call.data.get("password"), call.params["name"].lower()
        if not isinstance(password, str) or not password:
            raise InvalidRequest("missing password", 'send {"password": "…"}')
        place = _place(context)
        self.guesses.check_address(call.remote, context.now)
        self.guesses.check_name(place, name, context.now)
        async with self.guesses.turn(context.caller.org, call.remote):
            self.guesses.check_name(place, name, context.now)  # others may have failed while this one waited
            user = await self.prove(context, name, password)
            if user is None:
                self.guesses.fail_address(call.remote, context.now)
                self.guesses.fail_name(place, name, context.now)
                raise InvalidRequest("invalid username or password")
            self.guesses.forgive(place, name)
        return Reply(login=settings.login_of(f"user/{name}", user, {"username": name}, alias=name))

    async def prove(self, context: Context, name: str, password: str) -> dict[str, Any] | None:
        """The user, if this is the password. The work is the same for a name that nobody has."""
        item = await context.storage.get_one(_path(name))
        user = json.loads(item.data) if item.data is not None else _NOBODY
        profile = kdf.stored_profile(user["profile"])
        digest = await self.stretch(password[:_LONGEST], bytes.fromhex(user["salt"]), profile)
        same = hmac.compare_digest(digest, bytes.fromhex(user["hash"]))
        return user if same and user is not _NOBODY and len(password) <= _LONGEST else None


def make(guesses: Guesses) -> Engine:
    """The method, for one mount."""
    r = _Method(guesses)
    password, update = {Operation.CREATE: r.change}, settings.fields(settings.TOKEN)
    return Engine(
        "userpass",
        (
            Route("login/{name}", {Operation.CREATE: r.login}, open=True, fields=_PASSWORD, help="A password's token."),
            Route("users", {Operation.LIST: r.names}, help="Names of the users."),
            Route("users/{name}/password", password, fields=_PASSWORD, help="A new password."),
            Route("users/{name}/policies", password, fields=update[:1], help="Other policies."),
            Route(
                "users/{name}",
                {Operation.READ: r.read, Operation.CREATE: r.write, Operation.DELETE: r.delete},
                exists=r.exists,
                fields=(*_PASSWORD, *update),
                help="A user: its password, and what its tokens may do.",
            ),
        ),
    )


def _place(context: Context) -> str:
    return f"{context.caller.org}/{context.mount}"


def _path(name: str) -> str:
    return f"user/{name.lower()}"
