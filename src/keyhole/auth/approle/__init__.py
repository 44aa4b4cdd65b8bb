"""AppRole: machines log in with a role id, which names, and a secret id, which proves. Semantics of Vault's method."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Mapping
from typing import Any

from keyhole.auth import settings
from keyhole.auth.approle import secret_ids
from keyhole.auth.guesses import Guesses
from keyhole.auth.settings import Setting
from keyhole.core.cidr import covers, parse_cidrs, within
from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.core.numbers import parse_count, parse_flag
from keyhole.core.request import Operation, Reply
from keyhole.core.value import Secret
from keyhole.engines import Call, Context, Engine, Field, Handler, Route

_LONGEST_ID = 4096
_TIDY = (
    "Tidy operation successfully started. Any information from the operation will be printed to Vault's server logs."
)
ROLE = (
    Setting("bind_secret_id", parse_flag, default=True, help="a login needs a secret id"),
    Setting("secret_id_bound_cidrs", parse_cidrs, [], "addresses that may log in", "bound_cidr_list"),
    Setting("secret_id_num_uses", parse_count, 0, "logins that a secret id is good for; 0 for unlimited"),
    Setting("secret_id_ttl", settings.duration, 0, "how long a secret id counts; 0 for ever"),
    Setting("local_secret_ids", parse_flag, default=False, help="said when the role is made"),
    *settings.TOKEN,
)
# Sub-path -> the setting that it reads, writes and sets back.
_SINGLE = {
    "policies": "token_policies",
    "bind-secret-id": "bind_secret_id",
    "secret-id-num-uses": "secret_id_num_uses",
    "secret-id-ttl": "secret_id_ttl",
    "secret-id-bound-cidrs": "secret_id_bound_cidrs",
    "token-bound-cidrs": "token_bound_cidrs",
    "period": "token_period",
    "token-ttl": "token_ttl",
    "token-max-ttl": "token_max_ttl",
    "token-num-uses": "token_num_uses",
}
_NOBODY: dict[str, Any] = {"uid": "nobody", "key": "00" * 32, "name": "", "revision": 0, "bind_secret_id": True}
_NO_SECRET_ID: dict[str, Any] = {"metadata": {}, "cidr_list": [], "token_bound_cidrs": []}


class _Method:
    """The handlers of a mount."""

    def __init__(self, guesses: Guesses) -> None:
        self.guesses = guesses

    async def exists(self, context: Context, params: Mapping[str, str]) -> bool:
        return (await context.storage.get_one(f"role/{params['role'].lower()}")).data is not None

    async def role(self, context: Context, call: Call) -> dict[str, Any]:
        """The role of the path. Raises ``NotFound``."""
        role = await _load(context, call.params["role"].lower())
        if role is None:
            raise NotFound(f"there is no role {call.params['role']!r}", "LIST auth/approle/role")
        return role

    async def write(self, context: Context, call: Call) -> None:
        name = settings.read_name(call.params["role"], "role")
        item = await context.storage.get_one(f"role/{name}")
        call.require_new(stored=item.data is not None)
        before = json.loads(item.data) if item.data is not None else {}
        after = settings.merge(ROLE, call.data, before)
        if before and after["local_secret_ids"] != before["local_secret_ids"]:
            raise InvalidRequest("local_secret_ids can only be set when the role is made")
        after.setdefault("uid", uuid.uuid4().hex)
        after.setdefault("key", os.urandom(32).hex())
        after["role_id"] = _role_id(call.data.get("role_id") or before.get("role_id") or str(uuid.uuid4()))
        await self.save(context, call.path, name, before, after, item.revision)

    async def save(
        self, context: Context, path: str, name: str, before: dict[str, Any], after: dict[str, Any], revision: int
    ) -> None:
        """Store a role, and where its role id leads to."""
        if not (after["bind_secret_id"] or after["secret_id_bound_cidrs"] or after["token_bound_cidrs"]):
            raise InvalidRequest("at least one constraint should be enabled on the role", "keep bind_secret_id true")
        settings.require_grantable(context.caller, path, before, after)
        deletes = []
        index = await context.storage.get_one(_index(after["role_id"]))
        if index.data is not None and index.data.decode() != name:
            raise InvalidRequest("role_id already in use", "choose another")
        if before and before["role_id"] != after["role_id"]:
            old = await context.storage.get_one(_index(before["role_id"]))
            deletes.append((_index(before["role_id"]), old.revision))
        stored = {key: value for key, value in after.items() if key not in ("name", "revision")}
        writes = [(f"role/{name}", json.dumps(stored).encode(), revision)]
        if index.data is None:
            writes.append((_index(after["role_id"]), name.encode(), index.revision))
        await context.storage.change(writes, deletes)

    async def read(self, context: Context, call: Call) -> Reply:
        return Reply(settings.show(ROLE, await self.role(context, call)))

    async def delete(self, context: Context, call: Call) -> None:
        role = await _load(context, call.params["role"].lower())
        if role is None:
            return
        index = await context.storage.get_one(_index(role["role_id"]))
        gone = [(f"role/{role['name']}", role["revision"]), (_index(role["role_id"]), index.revision)]
        await context.storage.change((), gone)
        await secret_ids.purge(context.storage, role["uid"])

    async def names(self, context: Context, _call: Call) -> Reply:
        keys = await context.storage.list("role")
        if not keys:
            raise NotFound("there are no roles")
        return Reply({"keys": list(keys)})

    async def read_role_id(self, context: Context, call: Call) -> Reply:
        return Reply({"role_id": (await self.role(context, call))["role_id"]})

    async def write_role_id(self, context: Context, call: Call) -> None:
        role = await self.role(context, call)
        after = {**role, "role_id": _role_id(call.data.get("role_id"))}
        await self.save(context, call.path, role["name"], role, after, role["revision"])

    async def generate(self, context: Context, call: Call) -> Reply:
        return await self.issue(context, call, str(uuid.uuid4()))

    async def custom(self, context: Context, call: Call) -> Reply:
        return await self.issue(context, call, _text(call.data, "secret_id"))

    async def issue(self, context: Context, call: Call, secret_id: str) -> Reply:
        role = await self.role(context, call)
        if not role["bind_secret_id"]:
            raise InvalidRequest("bind_secret_id is not set on the role", "its logins need no secret id")
        accessor, entry = await secret_ids.issue(context.storage, role, call.data, secret_id, context.now)
        return Reply(
            {
                "secret_id": Secret(json.dumps(secret_id)),
                "secret_id_accessor": accessor,
                "secret_id_ttl": entry["ttl"],
                "secret_id_num_uses": entry["uses"],
            }
        )

    async def accessors(self, context: Context, call: Call) -> Reply:
        role = await self.role(context, call)
        keys = await context.storage.list(f"acc/{role['uid']}")
        if not keys:
            raise NotFound("the role has no secret ids")
        return Reply({"keys": list(keys)})

    async def lookup(self, context: Context, call: Call) -> Reply | None:
        """By the secret id; as Vault, an unknown one is no mistake."""
        role = await self.role(context, call)
        name = await secret_ids.find(context.storage, role, secret_id=_text(call.data, "secret_id"))
        found = await secret_ids.read(context.storage, role, name, context.now) if name else None
        return None if found is None else Reply(found)

    async def lookup_accessor(self, context: Context, call: Call) -> Reply:
        role = await self.role(context, call)
        name = await secret_ids.find(context.storage, role, accessor=_text(call.data, "secret_id_accessor"))
        found = await secret_ids.read(context.storage, role, name, context.now) if name else None
        if found is None:
            raise NotFound("no secret id has this accessor")
        return Reply(found)

    async def destroy(self, context: Context, call: Call) -> None:
        role = await self.role(context, call)
        by_accessor = "/secret-id-accessor/" in call.path
        if by_accessor:
            name = await secret_ids.find(context.storage, role, accessor=_text(call.data, "secret_id_accessor"))
        else:
            name = await secret_ids.find(context.storage, role, secret_id=_text(call.data, "secret_id"))
        if name:
            await secret_ids.destroy(context.storage, role["uid"], name)
        elif by_accessor:
            raise NotFound("no secret id has this accessor")

    async def tidy(self, context: Context, _call: Call) -> Reply:
        roles = [await _load(context, name) for name in await context.storage.list("role")]
        await secret_ids.tidy(context.storage, {role["uid"] for role in roles if role is not None}, context.now)
        return Reply(warnings=[_TIDY], status=202)

    async def login(self, context: Context, call: Call) -> Reply:
        role_id, secret_id = _text(call.data, "role_id"), call.data.get("secret_id")
        with self.guesses.one(call.remote, context.now):
            return await self.prove(context, call, role_id, secret_id)

    async def role_of(self, context: Context, data: Mapping[str, Any]) -> str:
        """The name of the role that a login names by its role id."""
        role_id = data.get("role_id")
        if not isinstance(role_id, str) or not role_id:
            return ""
        index = await context.storage.get_one(_index(role_id))
        return index.data.decode() if index.data is not None else ""

    async def prove(self, context: Context, call: Call, role_id: str, secret_id: Any) -> Reply:
        """The same reads and hashes whether there is such a role or not. A use is taken before addresses are judged."""
        index = await context.storage.get_one(_index(role_id))
        name = index.data.decode() if index.data is not None else ""
        role = await _load(context, name or "nobody ") or _NOBODY
        if role["bind_secret_id"] and (not isinstance(secret_id, str) or not secret_id):
            raise InvalidRequest("missing secret_id")
        entry: dict[str, Any] | None = dict(_NO_SECRET_ID)
        if role["bind_secret_id"]:
            entry = await secret_ids.spend(context.storage, role, secret_id, context.now)
        if entry is None or role is _NOBODY:
            raise InvalidRequest("invalid role or secret id")
        for cidrs in (role["secret_id_bound_cidrs"], entry["cidr_list"], role["token_bound_cidrs"]):
            if cidrs and not within(call.remote, cidrs):
                raise InvalidRequest("invalid role or secret id")
        meta = {**entry["metadata"], "role_name": role["name"]}
        named = {"role_name": role["name"]}
        outer, inner = role["token_bound_cidrs"], entry["token_bound_cidrs"]
        cidrs = inner if not outer or covers(outer, inner) else outer  # narrowed since the secret id was made
        login = settings.login_of(f"approle/{role['name']}", role, meta, cidrs, alias=role["role_id"], alias_meta=named)
        return Reply(login=login)

    def single(self, name: str) -> dict[Operation, Handler]:
        """Handlers of the path that has one setting of a role."""
        [setting] = (each for each in ROLE if each.name == name)

        async def read(context: Context, call: Call) -> Reply:
            return Reply({name: (await self.role(context, call))[name]})

        async def set_to(context: Context, call: Call, data: Mapping[str, Any]) -> None:
            role = await self.role(context, call)
            after = settings.merge(ROLE, data, role)
            path = call.path.rpartition("/")[0]
            await self.save(context, path, role["name"], role, after, role["revision"])

        async def write(context: Context, call: Call) -> None:
            data = {key: value for key, value in call.data.items() if key in (name, setting.older)}
            if not data:
                raise InvalidRequest(f"missing {name}")
            await set_to(context, call, data)

        async def reset(context: Context, call: Call) -> None:
            await set_to(context, call, {name: setting.default})

        return {Operation.READ: read, Operation.CREATE: write, Operation.DELETE: reset}


def make(guesses: Guesses) -> Engine:
    """The method, for one mount."""
    r = _Method(guesses)
    write, both = Operation.CREATE, (Operation.CREATE, Operation.DELETE)
    secret, accessor = (Field("secret_id", "the secret id"),), (Field("secret_id_accessor", "its accessor"),)
    new = (
        Field("metadata", "JSON object of texts, which the token gets"),
        Field("cidr_list", "addresses that may log in with it"),
        Field("token_bound_cidrs", "addresses from which its tokens count"),
        Field("num_uses", "logins that it is good for"),
        Field("ttl", "how long it counts"),
    )
    role = "role/{role}"
    return Engine(
        "approle",
        (
            Route("login", {write: r.login}, open=True, fields=(Field("role_id", "names"), *secret), help="Log in."),
            Route("role", {Operation.LIST: r.names}, help="Names of the roles."),
            Route("tidy/secret-id", {write: r.tidy}, help="Remove secret ids that are too old."),
            Route(
                f"{role}/role-id", {Operation.READ: r.read_role_id, write: r.write_role_id}, help="What names a role."
            ),
            Route(
                f"{role}/secret-id",
                {write: r.generate, Operation.LIST: r.accessors},
                fields=new,
                help="A new secret id, and the accessors of all.",
            ),
            Route(f"{role}/custom-secret-id", {write: r.custom}, fields=secret + new, help="A secret id of your own."),
            Route(f"{role}/secret-id/lookup", {write: r.lookup}, fields=secret, help="What a secret id is good for."),
            Route(f"{role}/secret-id/destroy", dict.fromkeys(both, r.destroy), fields=secret, help="End a secret id."),
            Route(f"{role}/secret-id-accessor/lookup", {write: r.lookup_accessor}, fields=accessor, help="The same."),
            Route(
                f"{role}/secret-id-accessor/destroy",
                dict.fromkeys(both, r.destroy),
                fields=accessor,
                help="End a secret id by its accessor.",
            ),
            *(Route(f"{role}/{path}", r.single(name), help=f"The setting {name}.") for path, name in _SINGLE.items()),
            Route(
                role,
                {Operation.READ: r.read, write: r.write, Operation.DELETE: r.delete},
                exists=r.exists,
                fields=(Field("role_id", "what names it, if it is not to be random"), *settings.fields(ROLE)),
                help="A role: who may log in, and what its tokens may do.",
            ),
        ),
        role_of=r.role_of,
    )


async def _load(context: Context, name: str) -> dict[str, Any] | None:
    item = await context.storage.get_one(f"role/{name}")
    return None if item.data is None else {**json.loads(item.data), "name": name, "revision": item.revision}


def _index(role_id: str) -> str:
    return f"id/{hashlib.sha256(role_id.encode()).hexdigest()}"


def _role_id(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_ID:
        raise InvalidRequest("missing role_id", f"a role_id is a text of at most {_LONGEST_ID} characters")
    return value


def _text(data: Mapping[str, Any], name: str) -> str:
    value = data.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidRequest(f"missing {name}")
    return value
