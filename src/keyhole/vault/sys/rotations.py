"""``sys/rotations``: what is replaced at its source, by which rotator, and how often."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keyhole import rotators
from keyhole.core.errors import InvalidRequest, KeyholeError, NotFound, PolicyDenied, TargetFailed
from keyhole.core.fields import parse_map, parse_text
from keyhole.core.identity import ROOT_ORG, Caller
from keyhole.core.lease import parse_duration
from keyhole.core.numbers import parse_flag
from keyhole.core.path import parse_name, parse_path, parse_secret_ref
from keyhole.core.request import Operation, Reply
from keyhole.core.times import format_time
from keyhole.engines import Call, Context, Field, Route
from keyhole.rotators import Needs
from keyhole.vault.rotation import Rotation, Step
from keyhole.vault.vault import Vault

_GRACE = 3600  # seconds
_LONGEST_GRACE = 90 * 86_400
_SHORTEST = 300  # seconds from one new value to the next
_MOST = 1000  # rotations of an org
_WAIT = 60.0  # seconds that a request waits for a source that does not know its new value yet
_DUE = "due"
_KNOWN = frozenset({"secret", "rotator", "settings", "every", "grace", "handle", "name"})


class _Handlers:
    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._rotations = vault.rotations

    async def exists(self, context: Context, params: Mapping[str, str]) -> bool:
        storage = self._rotations.storage(context.caller.org_id)
        return (await storage.get_one(f"r/{params['name']}")).data is not None

    async def write(self, context: Context, call: Call) -> Reply:
        name, org_id = _name(call), context.caller.org_id
        unknown = call.data.keys() - _KNOWN
        if unknown:
            raise InvalidRequest(f"unknown field {min(unknown)[:40]!r}", f"known: {', '.join(sorted(_KNOWN))}")
        storage = self._rotations.storage(org_id)
        item = await storage.get_one(f"r/{name}")
        call.require_new(stored=item.data is not None)
        rotation = _read(call.data, context.now)
        needs = rotators.load(rotation.rotator).needs(rotation.settings)
        self._require(context.caller, call.path, rotation, needs)
        if item.data is not None:
            before, _ = await self._rotations.load(org_id, name)
            if before.step != Step.IDLE:
                raise InvalidRequest(
                    "this rotation is under way", f"wait until it has ended: keyhole rotation show {name}"
                )
            if (before.secret, before.rotator) == (rotation.secret, rotation.rotator):
                if before.last or not rotation.handle:
                    rotation.handle, rotation.placed = before.handle, before.placed
                rotation.last, rotation.left = before.last, before.left
                rotation.made = before.made
        else:
            names = await storage.list("r")
            if len(names) >= _MOST:
                raise InvalidRequest(f"there are {_MOST} rotations already", "keyhole rotation rm NAME")
        if rotation.secret:
            await self._require_alone(org_id, name, rotation.secret)
        await storage.change([(f"r/{name}", rotation.encode(), item.revision, rotation.due)])
        return Reply(rotation.shown(name))

    def _require(self, caller: Caller, path: str, rotation: Rotation, needs: Needs) -> None:
        """Who may bind may leak. Raises ``PolicyDenied``."""
        wanted = list(needs.paths)
        if rotation.secret:
            wanted += [("read", f"secret/data/{rotation.secret}"), ("update", f"secret/data/{rotation.secret}")]
        wanted += [("read", f"secret/data/{parse_secret_ref(reference)[0]}") for reference in needs.secrets]
        for operation, asked in wanted:
            if not caller.allows(operation, asked):
                raise PolicyDenied(
                    f"a rotation takes what it uses: you have no {operation} on {asked}",
                    "ask its owner to write the rotation, or to grant you that",
                )
        if needs.server and caller.org != ROOT_ORG:
            raise PolicyDenied("commands run on the server itself, for which only the org root may say so")
        if needs.server and not self._rotations.steps.commands:
            raise InvalidRequest("commands are forbidden on this server", "its administrator can allow them")
        if needs.sudo and not caller.allows("update", path, sudo=True):
            raise PolicyDenied(f"{needs.sudo} needs sudo on the rotation", "ask an administrator")

    async def _require_alone(self, org_id: str, name: str, secret: str) -> None:
        storage = self._rotations.storage(org_id)
        for other in await storage.list("r"):
            if other != name and (await self._rotations.load(org_id, other))[0].secret == secret:
                raise InvalidRequest(
                    f"the rotation {other!r} replaces this secret already", "change or remove that one"
                )

    async def read(self, context: Context, call: Call) -> Reply:
        name = _name(call)
        rotation, _ = await self._rotations.load(context.caller.org_id, name)
        return Reply(rotation.shown(name))

    async def delete(self, context: Context, call: Call) -> None:
        await self._remove(context, _name(call), force=False)

    async def forget(self, context: Context, call: Call) -> None:
        await self._remove(context, _name(call), force=True)

    async def _remove(self, context: Context, name: str, *, force: bool) -> None:
        storage = self._rotations.storage(context.caller.org_id)
        item, both = await storage.get(f"r/{name}", f"v/{name}")
        if item.data is None:
            return
        rotation, _ = await self._rotations.load(context.caller.org_id, name)
        if rotation.step != Step.IDLE and not force:
            raise InvalidRequest(
                f"this rotation is under way ({rotation.step}), and both values may work at the source",
                f"wait, or end the grace: keyhole rotate {name} --now; or: keyhole rotation rm {name} --force",
            )
        gone = [(f"r/{name}", item.revision)]
        await storage.change(deletes=gone if both.data is None else [*gone, (f"v/{name}", both.revision)])

    async def names(self, context: Context, _call: Call) -> Reply:
        keys = await self._rotations.storage(context.caller.org_id).list("r")
        if not keys:
            raise NotFound("there are no rotations", "keyhole rotation add NAME")
        return Reply({"keys": keys})

    async def rotate(self, context: Context, call: Call) -> Reply:
        name, org_id = _name(call), context.caller.org_id
        hurry = parse_flag(call.data.get("now") or False, "now")
        before, _ = await self._rotations.load(org_id, name)
        if before.step == Step.GRACE and before.until > context.now and not hurry:
            raise InvalidRequest(
                f"its value was replaced, and the old one works until {format_time(before.until)}",
                f"to revoke that now: keyhole rotate {name} --now",
            )
        rotation = await self._rotations.run(org_id, name, asked=True, hurry=hurry, wait=_WAIT)
        if rotation.error:
            raise TargetFailed(f"the rotation {name} is not done: {rotation.error}", f"keyhole rotation show {name}")
        return Reply(rotation.shown(name))

    async def due(self, context: Context, _call: Call) -> Reply:
        """All that is due, one after the other."""
        org_id, done = context.caller.org_id, {}
        for name in await self._rotations.storage(org_id).list("r"):
            before, _ = await self._rotations.load(org_id, name)
            if before.due is None or before.due > context.now:
                continue
            try:
                after = await self._rotations.run(org_id, name, wait=_WAIT)
            except KeyholeError as error:
                done[name] = {"step": before.step, "error": error.reason}
            else:
                done[name] = {"step": str(after.step), "error": after.error}
        return Reply({"rotations": done})


def _name(call: Call) -> str:
    name = parse_name(call.params["name"])
    if name == _DUE:
        raise InvalidRequest(f"a rotation cannot be called {name}", "choose another name")
    return name


def _read(data: Mapping[str, Any], now: float) -> Rotation:
    rotator = parse_text(data.get("rotator"), "rotator", most=64)
    settings = data.get("settings") or {}
    if not isinstance(settings, Mapping):
        raise InvalidRequest("settings is an object", "which ones depends on the rotator: docs/rotation.md")
    member = rotators.load(rotator)
    found = member.read(settings)
    secret = parse_text(data.get("secret"), "secret", most=512)
    in_place = member.needs(found).in_place
    if bool(secret) == in_place:
        raise InvalidRequest(
            "one user of a database has one password at a time, so there is no grace for a secret"
            if in_place
            else "no secret is named",
            'name two static roles, or leave the secret out and let services lend "/database/static-creds/ROLE"'
            if in_place
            else "send secret, such as stripe/api-key",
        )
    every = parse_duration(data.get("every") or 0, name="every")
    if 0 < every < _SHORTEST:
        raise InvalidRequest(f"every is {_SHORTEST} seconds or more", "write like 30d")
    grace = parse_duration(_GRACE if data.get("grace") is None else data["grace"], name="grace")
    if grace > _LONGEST_GRACE or (every and grace >= every):
        raise InvalidRequest("the grace is as long as the interval, or longer than 90 days", "choose a shorter one")
    handle = parse_map(data.get("handle"), "handle", most=16)
    return Rotation(parse_path(secret) if secret else "", rotator, found, every, grace, now, handle=handle)


def routes(vault: Vault) -> tuple[Route, ...]:
    """The table."""
    r = _Handlers(vault)
    return (
        Route("rotations", {Operation.LIST: r.names}, help="Names of the rotations."),
        Route(
            "rotations/due", {Operation.CREATE: r.due}, help="Does what is due now, where no server does it by itself."
        ),
        Route(
            "rotations/{name}",
            {Operation.READ: r.read, Operation.CREATE: r.write, Operation.DELETE: r.delete},
            exists=r.exists,
            fields=(
                Field("secret", "path of the secret in secret/", "string"),
                Field("rotator", f"one of {', '.join(rotators.MEMBERS)}", "string"),
                Field("settings", "object; which ones depends on the rotator", "map"),
                Field(
                    "handle",
                    "what names the present value at its source, such as the id of a key",
                    "map",
                ),
                Field("every", "from one new value to the next; 0 for only when somebody asks", "duration"),
                Field("grace", "for which the old value goes on working; an hour unless said", "duration"),
            ),
            help="How the value of a secret is replaced at its source.",
        ),
        Route(
            "rotations/{name}/forget",
            {Operation.CREATE: r.forget},
            help="Removes it also while it is under way; a value may stay alive at the source.",
        ),
        Route(
            "rotations/{name}/rotate",
            {Operation.CREATE: r.rotate},
            fields=(Field("now", "without any grace: the old value is revoked at once", "boolean"),),
            help="Replaces the value now.",
        ),
    )
