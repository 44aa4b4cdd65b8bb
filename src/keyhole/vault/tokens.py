"""Tokens: made once, shown once, stored as keyed hashes only, revoked as a tree.

A token is ``hvs.`` and 44 random base62 characters (262 bits), and for an org other than ``root`` a dot and the id of
the org, as Vault marks the tokens of a namespace. It is looked up by HMAC-SHA256 under a key of the vault, so that a
stolen store holds nothing to guess at and no comparison depends on its bytes.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import string
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from keyhole.core.errors import Conflict, InvalidRequest, Unauthenticated
from keyhole.core.identity import RunContext, Scope
from keyhole.core.lease import SYSTEM_DEFAULT_TTL, SYSTEM_MAX_TTL, Term, compute_term
from keyhole.crypto.mac import MacKey
from keyhole.vault.storage import Change, Storage, Write

MOUNT = "tokens"
_ALPHABET = string.ascii_letters + string.digits
_FORM = re.compile(rb"(?:hvs\.[A-Za-z0-9]{44}(?:\.([a-z2-7]{16}))?|[!-~]{1,256})")
_RETRIES = 20
_AT_ONCE = 1.0  # a used up or half revoked token is due for removal, so that a sweep ends what a crash left


@dataclass(frozen=True, slots=True)
class Token:
    """What is stored of a token.

    Attributes:
        id: keyed hash, the name of the entry.
        accessor: names it without being it.
        name: the identity it stands for: ``agent/NAME``, ``user/NAME``, ``token/NAME``.
        policies: names, sorted.
        scope: ``full`` or ``proxy``.
        created: seconds since the epoch.
        expires: seconds since the epoch; 0 for never.
        ttl: seconds given at creation.
        explicit_max: a cap since creation; 0 for none.
        period: seconds that each renewal gives; 0 for an ordinary token.
        uses: requests left; 0 for unlimited.
        parent: id of the token that made it; empty for an orphan.
        renewable: may its life be extended.
        meta: free text fields.
        run: run context for the audit records.
        bound: placeholders that are its own were given out with it.
        max_ttl: how long renewals can keep it; 0 for the system's own.
        cidrs: addresses from which it counts; none for all.
        path: where it was made.
        entity_id: whose it is; empty for nobody's.
        mount: id of the login method's mount that gave it; empty for one that a token made.
        revision: of the entry.
    """

    id: str
    accessor: str
    name: str
    policies: tuple[str, ...]
    scope: Scope
    created: float
    expires: float
    ttl: int
    explicit_max: int = 0
    period: int = 0
    uses: int = 0
    parent: str = ""
    renewable: bool = True
    meta: Mapping[str, str] = field(default_factory=dict)
    run: RunContext = field(default_factory=RunContext)
    bound: bool = False
    max_ttl: int = 0
    cidrs: tuple[str, ...] = ()
    path: str = "auth/token/create"
    entity_id: str = ""
    mount: str = ""
    revision: int = 0

    def live(self, now: float) -> bool:
        """Is it good for anything? An expired, used up or revoked one stays in the store until it is swept."""
        return self.uses >= 0 and not (self.expires and self.expires <= now)

    def remaining(self, now: float) -> int:
        """Seconds left; 0 for a token without end."""
        return max(1, int(self.expires - now)) if self.expires else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What a new token shall be; see ``Token`` for the fields. ``default_ttl`` is for when ``ttl`` is not set."""

    name: str
    policies: tuple[str, ...]
    scope: Scope = "full"
    ttl: int = 0
    explicit_max: int = 0
    period: int = 0
    uses: int = 0
    renewable: bool = True
    endless: bool = False
    meta: Mapping[str, str] = field(default_factory=dict)
    run: RunContext = field(default_factory=RunContext)
    bound: bool = False
    default_ttl: int = 0
    max_ttl: int = 0
    cidrs: tuple[str, ...] = ()
    path: str = "auth/token/create"
    entity_id: str = ""
    mount: str = ""


def read_form(token: bytes) -> str | None:
    """The org id that a token carries, empty for the org root; ``None`` for anything that is no token."""
    match = _FORM.fullmatch(token)
    return None if match is None else (match[1] or b"").decode()


def org_of(token: bytes) -> str:
    """As ``read_form``. Raises ``Unauthenticated`` for anything that is no token."""
    org_id = read_form(token)
    if org_id is None:
        raise Unauthenticated("the token is not valid", "ask for a new one: keyhole agent token NAME, or keyhole login")
    return org_id


class Tokens:
    """The tokens of all orgs. Every method takes the storage of the org's token mount.

    Args:
        key: for the keyed hash.
    """

    def __init__(self, key: bytes) -> None:
        self._key = MacKey(key)

    def hash(self, token: bytes) -> str:
        """The id under which a token is stored."""
        return self._key.hexdigest(token)

    async def create(
        self,
        storage: Storage,
        grant: Grant,
        *,
        now: float,
        parent: Token | None = None,
        org_id: str = "",
        clear: str = "",
    ) -> tuple[str, Token, str]:
        """Make a token; returns it in clear (for the only time), its entry, and a warning or ``""``.

        Args:
            storage: of the org.
            grant: what it shall be.
            now: seconds since the epoch.
            parent: whose revocation revokes it too; ``None`` for an orphan.
            org_id: written into the token for orgs other than root.
            clear: a token that somebody chose; only a development server does.

        Raises:
            Unauthenticated: the parent was revoked meanwhile.
        """
        clear = clear or f"hvs.{_random(44)}" + (f".{org_id}" if org_id else "")
        term = _term(grant)
        token = Token(
            id=self.hash(clear.encode()),
            accessor=_random(24),
            name=grant.name,
            policies=tuple(sorted(set(grant.policies))),
            scope=grant.scope,
            created=now,
            expires=0.0 if grant.endless else now + term.ttl,
            ttl=0 if grant.endless else term.ttl,
            explicit_max=grant.explicit_max,
            period=grant.period,
            uses=grant.uses,
            parent=parent.id if parent else "",
            renewable=grant.renewable and not grant.endless,
            meta=grant.meta,
            run=grant.run,
            bound=grant.bound,
            max_ttl=grant.max_ttl,
            cidrs=grant.cidrs,
            path=grant.path,
            entity_id=grant.entity_id,
            mount=grant.mount,
        )
        for _ in range(_RETRIES):
            try:
                await storage.commit(_creation(token, parent))
            except Conflict:
                # The parent moved: it was renewed, which is fine, or revoked, which ends this.
                parent = await self.get(storage, parent.id) if parent else None
                if token.parent and (parent is None or parent.uses < 0):
                    break
            else:
                return clear, replace(token, revision=1), term.warning
        raise Unauthenticated("the parent token was revoked", "ask for a new one")

    async def get(self, storage: Storage, token_id: str) -> Token | None:
        """The entry of a token, expired or not."""
        item = await storage.get_one(f"t/{token_id}")
        return _decode(token_id, item.data, item.revision) if item.data is not None else None

    async def get_many(self, storage: Storage, token_ids: Sequence[str]) -> list[Token]:
        """The entries of those of these tokens that are there."""
        items = await storage.get(*(f"t/{token_id}" for token_id in token_ids))
        pairs = zip(token_ids, items, strict=True)
        return [_decode(token_id, item.data, item.revision) for token_id, item in pairs if item.data is not None]

    async def by_accessor(self, storage: Storage, accessor: str) -> Token | None:
        """The entry that an accessor names."""
        item = await storage.get_one(f"a/{accessor}")
        return await self.get(storage, item.data.decode()) if item.data is not None else None

    async def accessors(self, storage: Storage) -> list[str]:
        """All accessors."""
        return await storage.list("a")

    async def spend(self, storage: Storage, token: Token) -> Token | None:
        """Take one use from a use-limited token; ``None`` when this was the last, which is still good for one request.

        Raises:
            Unauthenticated: there was none left.
        """
        current: Token | None = token
        while current is not None and current.uses > 0:
            left = replace(current, uses=current.uses - 1 or -1)
            try:
                await storage.commit(Change([_write(left)]))
            except Conflict:
                current = await self.get(storage, token.id)
                continue
            return None if left.uses < 0 else replace(left, revision=left.revision + 1)
        raise Unauthenticated("the token is used up", "ask for a new one")

    async def renew(self, storage: Storage, token: Token, *, increment: int, now: float) -> tuple[Token, str]:
        """Extend a token's life; returns it and a warning or ``""``. Raises ``InvalidRequest`` when it cannot be."""
        if not token.expires:
            raise InvalidRequest("invalid lease ID", "a token without end needs no renewal")
        if not token.renewable:
            raise InvalidRequest("lease is not renewable")
        term = compute_term(
            requested=increment,
            default=token.ttl,
            maximum=_maximum(token.max_ttl),
            explicit_max=token.explicit_max,
            period=token.period,
            age=int(now - token.created),
        )
        renewed = replace(token, expires=now + term.ttl)
        await storage.commit(Change([_write(renewed)]))
        return replace(renewed, revision=token.revision + 1), term.warning

    async def disable(self, storage: Storage, token_id: str, *, orphan_children: bool = False) -> list[str]:
        """Make a token and all that descend from it unusable; returns their ids, each after its parent.

        A token is disabled before its children are listed, so none can be made behind the walk's back. What a crash
        leaves disabled is due at once, and a sweep ends it. Without recursion: a chain of tokens can be of any length.
        """
        disabled = []
        waiting = [token_id]
        while waiting:
            current = waiting.pop()
            if not await self._disable(storage, current):
                continue
            disabled.append(current)
            children = await storage.list(f"c/{current}")
            if orphan_children:
                for child in children:
                    await self._orphan(storage, current, child)
            else:
                waiting += children
        return disabled

    async def remove(self, storage: Storage, token_id: str) -> None:
        """Remove a disabled token whose children are gone."""
        if token := await self.get(storage, token_id):
            await storage.commit(await self._removal(storage, token))

    async def _disable(self, storage: Storage, token_id: str) -> bool:
        """Whether there is such a token; then nobody can use it any more."""
        while token := await self.get(storage, token_id):
            if token.uses < 0:
                return True
            with contextlib.suppress(Conflict):
                await storage.commit(Change([_write(replace(token, uses=-1))]))
        return False

    async def _orphan(self, storage: Storage, parent_id: str, token_id: str) -> None:
        link = f"c/{parent_id}/{token_id}"
        while token := await self.get(storage, token_id):
            item = await storage.get_one(link)
            if item.data is None:
                return
            with contextlib.suppress(Conflict):
                await storage.commit(Change([_write(replace(token, parent=""))], deletes=[(link, item.revision)]))

    async def _removal(self, storage: Storage, token: Token) -> Change:
        paths = [f"t/{token.id}", f"a/{token.accessor}", f"e/{token.name}/{token.id}"]
        if token.parent:
            paths.append(f"c/{token.parent}/{token.id}")
        items = await storage.get(*paths)
        pairs = zip(paths, items, strict=True)
        return Change(deletes=[(path, item.revision) for path, item in pairs if item.data is not None])

    async def of_entity(self, storage: Storage, name: str) -> list[str]:
        """Ids of the tokens that stand for an identity."""
        return await storage.list(f"e/{name}")


def auth_block(token: Token, now: float, clear: str, identity_policies: tuple[str, ...] = ()) -> dict[str, Any]:
    """What an answer says of a token that was made or renewed, in Vault's field names."""
    return {
        "client_token": clear,
        "accessor": token.accessor,
        "policies": sorted({*token.policies, *identity_policies}),
        "token_policies": list(token.policies),
        **({"identity_policies": list(identity_policies)} if identity_policies else {}),
        "metadata": dict(token.meta) or None,
        "lease_duration": token.remaining(now),
        "renewable": token.renewable,
        "entity_id": token.entity_id,
        "token_type": "service",
        "orphan": not token.parent,
        "num_uses": max(0, token.uses),
        "mfa_requirement": None,
    }


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def _term(grant: Grant) -> Term:
    return compute_term(
        requested=grant.ttl,
        default=grant.default_ttl or SYSTEM_DEFAULT_TTL,
        maximum=_maximum(grant.max_ttl),
        explicit_max=grant.explicit_max,
        period=grant.period,
    )


def _maximum(max_ttl: int) -> int:
    return max_ttl or SYSTEM_MAX_TTL


def _creation(token: Token, parent: Token | None) -> Change:
    change = Change(
        [
            _write(token),
            Write(f"a/{token.accessor}", token.id.encode(), 0),
            Write(f"e/{token.name}/{token.id}", b"", 0),
        ]
    )
    if parent is not None:
        change.writes.append(Write(f"c/{parent.id}/{token.id}", b"", 0))
        change.checks.append((f"t/{parent.id}", parent.revision))
    return change


def _write(token: Token) -> Write:
    data: dict[str, Any] = asdict(token)
    for name in ("id", "revision"):
        del data[name]
    due = _AT_ONCE if token.uses < 0 else token.expires or None
    return Write(f"t/{token.id}", json.dumps(data).encode(), token.revision, due)


def _decode(token_id: str, data: bytes, revision: int) -> Token:
    fields = json.loads(data)
    fields["policies"] = tuple(fields["policies"])
    fields["cidrs"] = tuple(fields.get("cidrs", ()))
    fields["run"] = RunContext(**fields["run"])
    return Token(id=token_id, revision=revision, **fields)
