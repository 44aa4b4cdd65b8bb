"""``identity/oidc/key``: what identity tokens are signed with.

A key is a row of key pairs: one signs, the next one is published already, so that verifiers know it before it signs,
and those that signed before stay published until their tokens have expired. No pair ever leaves the vault.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from keyhole.core.errors import Conflict, InvalidRequest, NotFound
from keyhole.core.lease import parse_duration
from keyhole.core.request import Operation, Reply
from keyhole.crypto import id_token
from keyhole.engines import Call, Context, Field, Route, StorageView
from keyhole.vault.identity import fields
from keyhole.vault.keys import new_request_id

if TYPE_CHECKING:
    from keyhole.vault.vault import Vault

EVERYBODY = "*"
_DAY = 24 * 3600
_SHORTEST, _LONGEST_FACTOR = 60, 10
_PUBLISHED = 64  # key pairs of one key
_RETRIES = 20


@dataclass(frozen=True, slots=True)
class Pair:
    """One key pair.

    Attributes:
        id: header ``kid`` of what it signs.
        algorithm: by which it signs.
        private: PKCS #8 in DER, base64; the entry is sealed as all others.
        public: as it is published; anybody may ask for it, so it is not worked out each time.
        until: seconds since the epoch until which it is published; 0 while it signs, or is about to.
    """

    id: str
    algorithm: str
    private: str
    public: Mapping[str, str]
    until: float = 0

    def __repr__(self) -> str:
        return f"Pair({self.id!r}, ***)"

    @property
    def der(self) -> bytes:
        """The private key."""
        return base64.b64decode(self.private)


@dataclass(frozen=True, slots=True)
class Key:
    """A named key.

    Attributes:
        algorithm: of its next pairs.
        rotation_period: seconds after which another pair signs.
        verification_ttl: seconds that a pair is published after it has signed for the last time.
        allowed: ids of the clients for whom it may sign; ``*`` for all.
        rotated: when the pair that signs began to, in seconds since the epoch.
        pairs: the one that signs, the next one, and those before.
    """

    algorithm: str
    rotation_period: int
    verification_ttl: int
    allowed: tuple[str, ...]
    rotated: float
    pairs: tuple[Pair, ...]

    def may_sign_for(self, client_id: str) -> bool:
        """Is it allowed for this client?"""
        return EVERYBODY in self.allowed or client_id in self.allowed

    def published(self, now: float) -> list[Pair]:
        """The pairs whose public halves verifiers are to know."""
        return [pair for pair in self.pairs if not pair.until or pair.until > now]


async def rotated(key: Key, now: float, verification_ttl: int) -> Key:
    """The key after another pair has taken over: the one that was published before, if it has the right algorithm."""
    last, upcoming, *before = key.pairs
    gone = [pair for pair in before if pair.until > now][: _PUBLISHED - 3]
    first = upcoming if upcoming.algorithm == key.algorithm else await new_pair(key.algorithm)
    pairs = (first, await new_pair(key.algorithm), replace(last, until=now + verification_ttl), *gone)
    return replace(key, pairs=pairs, rotated=now)


async def new_pair(algorithm: str) -> Pair:
    """A new key pair; RSA is made in a thread."""
    private, key_id = await asyncio.to_thread(id_token.generate, algorithm), new_request_id()
    public = id_token.public_jwk(private, algorithm, key_id)
    return Pair(key_id, algorithm, base64.b64encode(private).decode(), public)


async def load(storage: StorageView, name: str) -> tuple[Key | None, int]:
    """A key and the revision that a write must expect."""
    item = await storage.get_one(_path(name))
    if item.data is None:
        return None, item.revision
    stored = json.loads(item.data)
    pairs = tuple(Pair(**pair) for pair in stored["pairs"])
    return Key(**{**stored, "pairs": pairs, "allowed": tuple(stored["allowed"])}), item.revision


async def load_signing(storage: StorageView, name: str, now: float) -> Key | None:
    """A key that is ready to sign: when its time has come, the next pair takes over first."""
    for _ in range(_RETRIES):
        key, revision = await load(storage, name)
        if key is None or now < key.rotated + key.rotation_period:
            return key
        fresh = await rotated(key, now, key.verification_ttl)
        try:
            await save(storage, name, fresh, revision)
        except Conflict:
            continue  # another node did it
        return fresh
    raise Conflict("the key is being changed by many at once", "try again")


async def save(storage: StorageView, name: str, key: Key, revision: int) -> None:
    """Write a key. Raises ``Conflict``."""
    await storage.change([(_path(name), json.dumps(asdict(key)).encode(), revision)])


async def names(storage: StorageView) -> list[str]:
    """Names of all keys."""
    return list(await storage.list("oidc/key"))


class _Handlers:
    """Handlers of the key routes."""

    async def write(self, context: Context, call: Call) -> None:
        name = read_name(call.params["name"])
        before, revision = await load(context.storage, name)
        data = call.data
        rotation = _duration(data, "rotation_period", before.rotation_period if before else _DAY)
        ttl = _duration(data, "verification_ttl", before.verification_ttl if before else _DAY)
        algorithm = fields.text(data, "algorithm") or (before.algorithm if before else "RS256")
        allowed = fields.listed(data, "allowed_client_ids")
        if rotation < _SHORTEST:
            raise InvalidRequest("rotation_period must be at least one minute")
        if ttl > _LONGEST_FACTOR * rotation:
            raise InvalidRequest("verification_ttl cannot be longer than 10x rotation_period")
        if algorithm not in id_token.ALGORITHMS:
            raise InvalidRequest("unknown signing algorithm", f"one of {', '.join(id_token.ALGORITHMS)}")
        if before is None:
            pairs = (await new_pair(algorithm), await new_pair(algorithm))
            key = Key(algorithm, rotation, ttl, allowed or (), context.now, pairs)
        else:
            kept = before.allowed if allowed is None else allowed
            key = Key(algorithm, rotation, ttl, kept, before.rotated, before.pairs)
            if algorithm != before.algorithm:
                key = await rotated(key, context.now, ttl)
        await save(context.storage, name, key, revision)

    async def read(self, context: Context, call: Call) -> Reply:
        key, _ = await load(context.storage, call.params["name"])
        if key is None:
            raise NotFound("there is no such key", "list identity/oidc/key")
        return Reply(
            {
                "algorithm": key.algorithm,
                "allowed_client_ids": list(key.allowed),
                "rotation_period": key.rotation_period,
                "verification_ttl": key.verification_ttl,
            }
        )

    async def delete(self, context: Context, call: Call) -> None:
        name = call.params["name"]
        key, revision = await load(context.storage, name)
        if key is None:
            return
        roles = [role for role in await context.storage.list("oidc/role") if await _uses(context.storage, role, name)]
        if roles:
            raise InvalidRequest(
                f'unable to delete key "{name}" because it is currently referenced by these roles: {", ".join(roles)}',
                "name another key in these roles first",
            )
        await context.storage.change((), [(_path(name), revision)])

    async def rotate(self, context: Context, call: Call) -> None:
        key, revision = await load(context.storage, call.params["name"])
        if key is None:
            raise InvalidRequest("no named key found", "list identity/oidc/key")
        ttl = _duration(call.data, "verification_ttl", key.verification_ttl)
        await save(context.storage, call.params["name"], await rotated(key, context.now, ttl), revision)

    async def names(self, context: Context, _call: Call) -> Reply:
        keys = await names(context.storage)
        if not keys:
            raise NotFound("there are no keys")
        return Reply({"keys": keys})


async def _uses(storage: StorageView, role: str, name: str) -> bool:
    item = await storage.get_one(f"oidc/role/{role}")
    return item.data is not None and json.loads(item.data)["key"] == name


def read_name(text: str) -> str:
    """The name of a key or role. Raises ``InvalidRequest``."""
    if len(text) > fields.LONGEST_NAME:
        raise InvalidRequest(f"a name has at most {fields.LONGEST_NAME} characters")
    return text


def _duration(data: Any, name: str, default: int) -> int:
    return default if data.get(name) is None else parse_duration(data[name], name=name)


def _path(name: str) -> str:
    return f"oidc/key/{name}"


def routes(_vault: Vault) -> tuple[Route, ...]:
    """The table."""
    r = _Handlers()
    body = (
        Field("algorithm", f"RS256 unless said; {', '.join(id_token.ALGORITHMS)}", "string"),
        Field("rotation_period", "duration after which another pair signs; 24h unless said", "duration"),
        Field("verification_ttl", "duration that a pair is published after it has signed; 24h unless said", "duration"),
        Field("allowed_client_ids", "clients for whom it may sign; * for all", "list"),
    )
    return (
        Route("oidc/key", {Operation.LIST: r.names}, help="Names of the keys of identity tokens."),
        Route(
            "oidc/key/{name}",
            {Operation.READ: r.read, Operation.CREATE: r.write, Operation.DELETE: r.delete},
            fields=body,
            help="A key that signs identity tokens.",
        ),
        Route(
            "oidc/key/{name}/rotate",
            {Operation.CREATE: r.rotate},
            fields=(Field("verification_ttl", "of the pair that stops signing", "duration"),),
            help="Another pair signs from now on.",
        ),
    )
