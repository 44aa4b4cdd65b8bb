"""A token: what it is, and its two forms, as an entry of the store and as a batch token that holds all of it."""

import json
import operator
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from keyhole.core import EMPTY, base64url
from keyhole.core.errors import IntegrityError, InvalidRequest, Unauthenticated
from keyhole.core.identity import NO_RUN, RunContext, Scope, TokenType
from keyhole.vault.storage import Storage

BATCH = b"hvb."
_FORM = re.compile(rb"(?:(?:hvs\.[A-Za-z0-9]{44}|hvb\.[A-Za-z0-9_-]{100,4096})(?:\.([a-z2-7]{16}))?|[!-~]{1,256})")
_LONGEST_BATCH = 4096  # characters; clients send it in a header, or to the proxy as a password
_APART = "batch"


class Token(NamedTuple):
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
        alone: the policies of its entity do not add to its own: it was made for some policies only.
        mount: id of the login method's mount that gave it; empty for one that a token made.
        type: ``service``, or ``batch`` for one that is not stored.
        role: the token role through which it was made.
        display: name for people; empty for one made of ``name``.
        renewed: when it was last renewed, seconds since the epoch; 0 for never.
        granted: seconds that the last renewal gave, which the next one gives too unless it says otherwise.
        services: the only ones that it may use; ``None`` for no such limit.
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
    meta: Mapping[str, str] = EMPTY
    run: RunContext = NO_RUN
    bound: bool = False
    max_ttl: int = 0
    cidrs: tuple[str, ...] = ()
    path: str = "auth/token/create"
    entity_id: str = ""
    alone: bool = False
    mount: str = ""
    type: TokenType = "service"
    role: str = ""
    display: str = ""
    renewed: float = 0.0
    granted: int = 0
    services: tuple[str, ...] | None = None
    revision: int = 0

    def live(self, now: float) -> bool:
        """Is it good for anything? An expired, used up or revoked one stays in the store until it is swept."""
        return self.uses >= 0 and not (self.expires and self.expires <= now)

    def remaining(self, now: float) -> int:
        """Seconds left, to the nearest; 0 for a token without end."""
        return max(1, round(self.expires - now)) if self.expires else 0


class Grant(NamedTuple):
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
    meta: Mapping[str, str] = EMPTY
    run: RunContext = NO_RUN
    bound: bool = False
    default_ttl: int = 0
    max_ttl: int = 0
    cidrs: tuple[str, ...] = ()
    path: str = "auth/token/create"
    entity_id: str = ""
    alone: bool = False
    mount: str = ""
    type: TokenType = "service"
    role: str = ""
    display: str = ""
    services: tuple[str, ...] | None = None


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
        "token_type": token.type,
        "orphan": not token.parent,
        "num_uses": max(0, token.uses),
        "mfa_requirement": None,
    }


def encode(token: Token) -> bytes:
    """The entry of a token in the store, which is named by its id."""
    data: dict[str, Any] = dict(zip(_STORED, _values(token), strict=True))
    data["meta"], data["run"] = dict(token.meta), dict(zip(_RUN, _values_of_run(token.run), strict=True))
    return json.dumps(data).encode()


def decode(token_id: str, data: bytes, revision: int) -> Token:
    """The token that was encoded or sealed."""
    found = json.loads(data)
    for name in ("policies", "cidrs", "services"):
        if found.get(name) is not None:
            found[name] = tuple(found[name])
    found["run"] = RunContext(**found.get("run", {}))
    return Token(**{"id": token_id, "accessor": "", "scope": "full", **found, "revision": revision})


async def seal_batch(storage: Storage, token: Token, suffix: str) -> str:
    """A batch token in clear. Raises ``InvalidRequest`` when it would be too long for a header."""
    data = {**token._asdict(), "run": token.run._asdict()}
    plain = {name: value for name, value in data.items() if value != _DEFAULTS.get(name) and name not in _UNSEALED}
    blob = await storage.seal_apart(json.dumps(plain, separators=(",", ":")).encode(), _APART)
    clear = f"hvb.{base64url.encode(blob)}{suffix}"
    if len(clear) > _LONGEST_BATCH:
        raise InvalidRequest(
            "a batch token holds all that it is, and this is too much", "give it fewer policies or less meta"
        )
    return clear


def open_batch(storage: Storage, clear: bytes, token_id: str) -> Token | None:
    """What a batch token is; ``None`` for one that was not made by this org."""
    text = clear[len(BATCH) :].partition(b".")[0].decode("latin-1")
    try:
        data = storage.open_apart(base64url.decode(text), _APART)
    except (IntegrityError, ValueError):
        return None
    return decode(token_id, data, 0)._replace(renewable=False)


_STORED = tuple(name for name in Token._fields if name not in {"id", "revision"})
_RUN = RunContext._fields
_values, _values_of_run = operator.attrgetter(*_STORED), operator.attrgetter(*_RUN)
_UNSEALED = frozenset({"id", "accessor", "revision", "renewable"})
_DEFAULTS = Token._field_defaults | {"meta": {}, "run": {}}
