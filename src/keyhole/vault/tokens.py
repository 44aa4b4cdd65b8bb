"""Tokens: made once, shown once, stored as keyed hashes only, revoked as a tree.

A service token is ``hvs.`` and 44 random base62 characters (262 bits), and for an org other than ``root`` a dot and the
id of the org, as Vault marks the tokens of a namespace. It is looked up by HMAC-SHA256 under a key of the vault, so
that a stolen store holds nothing to guess at and no comparison depends on its bytes.

A batch token is ``hvb.`` and, in base64url, all that it is, sealed under the org's key: nothing of it is stored. It
lives until its end, or as long as the token that made it.
"""

from __future__ import annotations

import contextlib
import math
import operator
import os
import string
from collections.abc import Sequence

from keyhole.core.errors import Conflict, InvalidRequest, Unauthenticated
from keyhole.core.identity import Caller
from keyhole.core.lease import SYSTEM_DEFAULT_TTL, SYSTEM_MAX_TTL, Term, compute_term
from keyhole.crypto.mac import MacKey
from keyhole.vault.storage import Along, Change, Storage, Write
from keyhole.vault.token import (
    BATCH,
    Grant,
    Token,
    auth_block,
    decode,
    encode,
    open_batch,
    org_of,
    read_form,
    seal_batch,
)

__all__ = ["MOUNT", "Grant", "Token", "Tokens", "auth_block", "org_of", "read_form"]

MOUNT = "tokens"
_ALPHABET = (string.ascii_letters + string.digits).encode()
# A random byte as a character. Bytes beyond the last whole alphabet are left out, so that all are equally likely.
_CHARACTERS = bytes(_ALPHABET[byte % len(_ALPHABET)] for byte in range(256))
_LEFT_OUT = bytes(range(256 - 256 % len(_ALPHABET), 256))
_RETRIES = 20
_OWN = frozenset({"endless", "default_ttl", "policies", "ttl", "renewable"})
_SAME = tuple(name for name in Grant._fields if name not in _OWN)
_values = operator.attrgetter(*_SAME)
_AT_ONCE = 1.0  # a used up or half revoked token is due for removal, so that a sweep ends what a crash left


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
        along: Along | None = None,
    ) -> tuple[str, Token, str]:
        """Make a token; returns it in clear (for the only time), its entry, and a warning or ``""``.

        Args:
            storage: of the org.
            grant: what it shall be.
            now: seconds since the epoch.
            parent: whose revocation revokes it too; ``None`` for an orphan.
            org_id: written into the token for orgs other than root.
            clear: a token that somebody chose.
            along: see ``Storage.commit``. It is not asked for a batch token, which is not stored.

        Raises:
            Unauthenticated: the parent was revoked meanwhile.
            InvalidRequest: a token that was chosen exists, or a batch token would be too long.
        """
        chosen, suffix = clear, f".{org_id}" if org_id else ""
        clear = clear or f"hvs.{_random(44)}{suffix}"
        token, warning = self._made(grant, parent, now, self.hash(clear.encode()), _random(24))
        if token.type == "batch":
            clear = await seal_batch(storage, token, suffix)
            return clear, token._replace(id=self.hash(clear.encode()), accessor=""), warning
        for _ in range(_RETRIES):
            change = _creation(token, parent)
            if chosen:
                change, token = await _anew(storage, change, token)
            first, along = along, None
            try:
                await storage.commit(change, along=first)
            except Conflict:
                # The parent moved: it was renewed, which is fine, or revoked, which ends this.
                parent = await self.get(storage, parent.id) if parent else None
                if token.parent and (parent is None or parent.uses < 0):
                    break
            else:
                return clear, token._replace(revision=token.revision + 1), warning
        raise Unauthenticated("the parent token was revoked", "ask for a new one")

    @staticmethod
    def _made(grant: Grant, parent: Token | None, now: float, token_id: str, accessor: str) -> tuple[Token, str]:
        """What a grant gives; and a warning or ``""``."""
        term = _term(grant)
        same = dict(zip(_SAME, _values(grant), strict=True))
        token = Token(
            id=token_id,
            accessor=accessor,
            policies=tuple(sorted(set(grant.policies))),
            created=now,
            expires=0.0 if grant.endless else now + term.ttl,
            ttl=0 if grant.endless else term.ttl,
            parent=parent.id if parent else "",
            renewable=grant.renewable and not grant.endless and grant.type != "batch",
            **same,
        )
        return token, term.warning

    async def find(self, storage: Storage, clear: bytes) -> Token | None:
        """The token that was sent, expired or not; a batch token ends with the one that made it at the latest."""
        token_id = self.hash(clear)
        if not clear.startswith(BATCH) or (token := open_batch(storage, clear, token_id)) is None:
            return await self.get(storage, token_id)
        if not token.parent:
            return token
        parent = await self.get(storage, token.parent)
        if parent is None or parent.uses < 0:
            return None
        return token._replace(expires=min(filter(None, (token.expires, parent.expires)), default=0.0))

    async def get(self, storage: Storage, token_id: str) -> Token | None:
        """The entry of a token, expired or not."""
        item = await storage.get_one(f"t/{token_id}")
        return decode(token_id, item.data, item.revision) if item.data is not None else None

    async def still(self, storage: Storage, caller: Caller, now: float) -> float:
        """When the token of who was authenticated earlier ends, in seconds since the epoch; infinity for never.

        One that has been used up since counts until it is swept.

        Raises:
            Unauthenticated: it has expired or was revoked meanwhile.
        """
        ends = caller.until or math.inf
        if caller.holder:
            token = await self.get(storage, caller.holder)
            if token is None or (caller.type == "batch" and token.uses < 0):
                raise _gone()
            ends = min(ends, token.expires or math.inf)
        if ends <= now:
            raise _gone()
        return ends

    async def get_many(self, storage: Storage, token_ids: Sequence[str]) -> list[Token]:
        """The entries of those of these tokens that are there."""
        items = await storage.get(*(f"t/{token_id}" for token_id in token_ids))
        pairs = zip(token_ids, items, strict=True)
        return [decode(token_id, item.data, item.revision) for token_id, item in pairs if item.data is not None]

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
            left = current._replace(uses=current.uses - 1 or -1)
            try:
                await storage.commit(Change([_write(left)]))
            except Conflict:
                current = await self.get(storage, token.id)
                continue
            return None if left.uses < 0 else left._replace(revision=left.revision + 1)
        raise Unauthenticated("the token is used up", "ask for a new one")

    async def renew(self, storage: Storage, token: Token, *, increment: int, now: float) -> tuple[Token, str]:
        """Extend a token's life; returns it and a warning or ``""``. Raises ``InvalidRequest`` when it cannot be."""
        if not token.expires:
            raise InvalidRequest("invalid lease ID", "a token without end needs no renewal")
        if not token.renewable:
            raise InvalidRequest("lease is not renewable")
        term = compute_term(
            requested=increment,
            default=token.granted or token.ttl,
            maximum=_maximum(token.max_ttl),
            explicit_max=token.explicit_max,
            period=token.period,
            age=int(now - token.created),
        )
        renewed = token._replace(expires=now + term.ttl, renewed=now, granted=term.ttl)
        await storage.commit(Change([_write(renewed)]))
        return renewed._replace(revision=token.revision + 1), term.warning

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
                await storage.commit(Change([_write(token._replace(uses=-1))]))
        return False

    async def _orphan(self, storage: Storage, parent_id: str, token_id: str) -> None:
        link = f"c/{parent_id}/{token_id}"
        while token := await self.get(storage, token_id):
            item = await storage.get_one(link)
            if item.data is None:
                return
            with contextlib.suppress(Conflict):
                await storage.commit(Change([_write(token._replace(parent=""))], deletes=[(link, item.revision)]))

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


def _gone() -> Unauthenticated:
    return Unauthenticated("permission denied", "the token expired or was revoked meanwhile")


def _random(length: int) -> str:
    found = b""
    while len(found) < length:
        found += os.urandom(2 * length).translate(_CHARACTERS, _LEFT_OUT)
    return found[:length].decode()


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


async def _anew(storage: Storage, change: Change, token: Token) -> tuple[Change, Token]:
    """The creation of a token that was chosen: one of that name may have ended before, and left its revisions.

    Raises:
        InvalidRequest: there is one.
    """
    items = await storage.get(*(write.path for write in change.writes))
    if any(item.data is not None for item in items):
        raise InvalidRequest("cannot create a token with a duplicate ID", "choose another")
    writes = [write._replace(expected=item.revision) for write, item in zip(change.writes, items, strict=True)]
    return Change(writes, change.deletes, change.checks), token._replace(revision=items[0].revision)


def _write(token: Token) -> Write:
    due = _AT_ONCE if token.uses < 0 else token.expires or None
    return Write(f"t/{token.id}", encode(token), token.revision, due)
