"""Approvals as stored: requests that wait for a person, and standing rules. They have no value in them.

    r/AGENT/ID      one request: what it asks, by its names and digests, and what was decided
    d/DIGEST        names the request of this agent with this digest
    s/DIGEST        a standing rule of this agent: requests with this digest of all, of target or of path are approved

1. An approval is for one agent, one digest, one use. Using it deletes it, by compare-and-set on its revision: of many
   that use it at once one does.
2. Everything ends by itself: a request that nobody decides, an approval that nobody uses, a standing rule.
3. An agent has at most ``MOST`` requests at a time.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from keyhole.core.errors import ApprovalRequired, Conflict, InvalidRequest, NotFound, PolicyDenied, RateLimited
from keyhole.vault.storage import Change, Item, Storage, Write

if TYPE_CHECKING:
    from keyhole.core.checks.approval import Subject  # loaded for the services that have checks alone

MOUNT = "approvals"
_RETRIES = 20
MOST = 100  # requests of one agent
MOST_STANDING = 1000  # rules of one org
LONGEST_STANDING = 30 * 86_400  # seconds
PENDING, APPROVED, DENIED = "pending", "approved", "denied"
KINDS = ("exact", "target", "path")
ACCESS = "access"  # the kind of a request for the use of a service, instead of for one call


@dataclass(frozen=True, slots=True)
class Wish:
    """A request that needs an approval.

    Attributes:
        agent: who asks.
        subject: its digests.
        ttl: seconds for which it waits, and its approval is good.
        facts: what an approver is shown; JSON-ready, without a value.
        entity: id of the entity of who asks; empty for none.
    """

    agent: str
    subject: Subject
    ttl: int
    facts: Mapping[str, Any] = field(default_factory=dict)
    entity: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """What is stored about a wish.

    Attributes:
        standing: a rule that approves it.
        request: the request as stored; ``None`` where there is none that counts.
        path: where that is.
        revisions: of the request and of what names it.
    """

    standing: dict[str, Any] | None
    request: dict[str, Any] | None
    path: str
    revisions: tuple[int, int]

    @property
    def approved(self) -> str:
        """The id of what approves it, or ``""``."""
        if self.standing is not None:
            return str(self.standing["id"])
        return str(self.request["id"]) if self.request and self.request["state"] == APPROVED else ""


async def find(storage: Storage, wish: Wish, now: float) -> Found:
    """What was decided about a wish so far."""
    digests = (wish.subject.exact, wish.subject.target, wish.subject.path)
    names = [f"s/{_key(wish.agent, kind, digest)}" for kind, digest in zip(KINDS, digests, strict=True)]
    index, *rules = await storage.get(f"d/{_key(wish.agent, 'exact', wish.subject.exact)}", *names)
    standing = next(filter(None, (_live(rule, now) for rule in rules)), None)
    if index.data is None:
        return Found(standing, None, "", (0, index.revision))
    path = index.data.decode()
    item = await storage.get_one(path)
    return Found(standing, _live(item, now), path, (item.revision, index.revision))


async def ask(storage: Storage, wish: Wish, now: float, found: Found) -> str:
    """Store a request; returns its id.

    Raises:
        RateLimited: the agent has too many already.
        Conflict: somebody asked for the same meanwhile.
    """
    folder = f"r/{_folder(wish.agent)}"
    if len(await storage.list(folder)) >= MOST:
        raise RateLimited(
            f"{wish.agent} waits for {MOST} approvals already", "have them decided: keyhole requests", retry_after=60
        )
    request_id = secrets.token_hex(6)
    data = {
        "id": request_id,
        "state": PENDING,
        "agent": wish.agent,
        **wish.facts,
        "entity": wish.entity,
        "digest": wish.subject.exact,
        "target_digest": wish.subject.target,
        "path_digest": wish.subject.path,
        "created": now,
        "ttl": wish.ttl,
        "expires": now + wish.ttl,
    }
    path, index = f"{folder}/{request_id}", f"d/{_key(wish.agent, 'exact', wish.subject.exact)}"
    due = now + wish.ttl
    await storage.commit(
        Change([Write(path, _encode(data), 0, due), Write(index, path.encode(), found.revisions[1], due)])
    )
    return request_id


async def take(storage: Storage, wish: Wish, found: Found) -> None:
    """Use an approval up. Raises ``Conflict`` when somebody else did."""
    index = f"d/{_key(wish.agent, 'exact', wish.subject.exact)}"
    await storage.commit(Change(deletes=[(found.path, found.revisions[0]), (index, found.revisions[1])]))


async def use_up(storage: Storage, wish: Wish, found: Found, look: Callable[[], Awaitable[Found]], hint: str) -> str:
    """Use an approval; returns its id. Standing ones stay.

    Args:
        storage: of approvals.
        wish: what was approved.
        found: what there was when it was looked for.
        look: looks again.
        hint: for whoever comes too late.

    Raises:
        ApprovalRequired: another call did.
    """
    for _ in range(_RETRIES):
        if not found.approved:
            break
        if found.standing is not None:
            return found.approved
        try:
            await take(storage, wish, found)
        except Conflict:  # used by another call, or decided once more
            found = await look()
        else:
            return found.approved
    raise ApprovalRequired("the approval was used up by another call", hint)


async def requests(storage: Storage, now: float) -> list[dict[str, Any]]:
    """All requests that have not ended, the oldest first."""
    return await _all(storage, "r", now)


async def requests_of(storage: Storage, agent: str, now: float) -> list[dict[str, Any]]:
    """The requests of one agent that have not ended, the oldest first."""
    return await _all(storage, f"r/{_folder(agent)}", now)


async def end(storage: Storage, request_id: str, now: float) -> None:
    """Away with a request that was answered for good. Raises ``NotFound``."""
    data, path, revision = await one(storage, request_id, now)
    index = await storage.get_one(f"d/{_key(data['agent'], 'exact', data['digest'])}")
    named = [(f"d/{_key(data['agent'], 'exact', data['digest'])}", index.revision)] if index.data is not None else []
    await storage.commit(Change(deletes=[(path, revision), *named]))


async def standing(storage: Storage, now: float) -> list[dict[str, Any]]:
    """All standing rules that have not ended, the oldest first."""
    return await _all(storage, "s", now)


async def one(storage: Storage, request_id: str, now: float) -> tuple[dict[str, Any], str, int]:
    """A request with its path and revision. Raises ``NotFound``."""
    for path in await storage.list("r", recursive=True):
        if path.rpartition("/")[2] == request_id:
            found = f"r/{path}"
            item = await storage.get_one(found)
            if data := _live(item, now):
                return data, found, item.revision
    raise NotFound(f"there is no request {request_id[:40]!r}, or it has ended", "keyhole requests")


async def decide(storage: Storage, request_id: str, now: float, *, approved: bool, by: str) -> dict[str, Any]:
    """Approve a request once, or deny it, from now on for as long as it may wait; returns it."""
    data, path, revision = await one(storage, request_id, now)
    data |= {"state": APPROVED if approved else DENIED, "by": by, "decided": now, "expires": now + data["ttl"]}
    index = f"d/{_key(data['agent'], 'exact', data['digest'])}"
    named = await storage.get_one(index)
    if named.data is None or named.data.decode() != path:
        raise NotFound("the request has ended", "keyhole requests")
    due = data["expires"]
    await storage.commit(
        Change([Write(path, _encode(data), revision, due), Write(index, path.encode(), named.revision, due)])
    )
    return data


async def stand(storage: Storage, request_id: str, now: float, *, by: str, kind: str, seconds: int) -> dict[str, Any]:
    """Make a standing rule of a request, which it takes the place of; returns the rule."""
    if kind not in KINDS or not 0 < seconds <= LONGEST_STANDING:
        raise InvalidRequest(
            f"a standing approval is for at most {LONGEST_STANDING // 86_400} days", "keyhole approve ID --for 1h"
        )
    data, path, revision = await one(storage, request_id, now)
    if len(await storage.list("s")) >= MOST_STANDING:
        raise InvalidRequest("there are too many standing approvals", "take some back: keyhole requests --standing")
    digest = data["digest" if kind == "exact" else f"{kind}_digest"]
    shown: dict[str, Any] = {
        name: data[name] for name in ("agent", "service", "method", "host", "target") if name in data
    }
    rule: dict[str, Any] = {
        "id": secrets.token_hex(6),
        **shown,
        "kind": kind,
        "digest": digest,
        "by": by,
        "created": now,
        "expires": now + seconds,
    }
    place, index = f"s/{_key(data['agent'], kind, digest)}", f"d/{_key(data['agent'], 'exact', data['digest'])}"
    old, named = await storage.get(place, index)
    await storage.commit(
        Change(
            [Write(place, _encode(rule), old.revision, rule["expires"])],
            [(path, revision), *([(index, named.revision)] if named.data is not None else [])],
        )
    )
    return rule


async def take_back(storage: Storage, rule_id: str, now: float) -> dict[str, Any]:
    """End a standing rule; returns it. Raises ``NotFound``."""
    for name in await storage.list("s"):
        item = await storage.get_one(f"s/{name}")
        if (data := _live(item, now)) and data["id"] == rule_id:
            await storage.commit(Change(deletes=[(f"s/{name}", item.revision)]))
            return data
    raise NotFound(f"there is no standing approval {rule_id[:40]!r}", "keyhole requests --standing")


async def forget(storage: Storage, agent: str) -> None:
    """End everything that was decided for an agent: another one of its name starts without it."""
    folder = f"r/{_folder(agent)}"
    paths = [f"{folder}/{name}" for name in await storage.list(folder)]
    paths += [f"s/{name}" for name in await storage.list("s")]
    for path in paths:
        item = await storage.get_one(path)
        if item.data is not None and json.loads(item.data)["agent"] == agent:
            await storage.commit(Change(deletes=[(path, item.revision)]))


def require_other(data: Mapping[str, Any], names: set[str]) -> None:
    """Raises ``PolicyDenied`` when one of these names and ids of entities is that of the one that asks."""
    if data["agent"] in names or data.get("entity") in names:
        raise PolicyDenied(f"{data['agent']} cannot approve its own request", "somebody else has to")


async def _all(storage: Storage, folder: str, now: float) -> list[dict[str, Any]]:
    paths = [f"{folder}/{path}" for path in await storage.list(folder, recursive=True)]
    found = []
    for start in range(0, len(paths), 200):
        found += [data for item in await storage.get(*paths[start : start + 200]) if (data := _live(item, now))]
    return sorted(found, key=lambda data: (data["created"], data["id"]))


def _live(item: Item, now: float) -> dict[str, Any] | None:
    if item.data is None:
        return None
    data: dict[str, Any] = json.loads(item.data)
    return data if data["expires"] > now else None


def _encode(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data, ensure_ascii=False).encode()


def _folder(agent: str) -> str:
    return hashlib.sha256(agent.encode()).hexdigest()[:32]


def _key(agent: str, kind: str, digest: str) -> str:
    return hashlib.sha256(f"{agent}\0{kind}\0{digest}".encode()).hexdigest()
