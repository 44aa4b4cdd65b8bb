"""What there is of credentials, and who may do what with them now."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from keyhole.core.errors import NotFound, Unauthenticated
from keyhole.core.path import revealing
from keyhole.core.policy import DEFAULT, ROOT, Acl
from keyhole.core.request import Operation
from keyhole.core.service import Service
from keyhole.engines import Call, Context
from keyhole.vault.compiled import OrgState
from keyhole.vault.dispatch import answer
from keyhole.vault.identity import standing
from keyhole.vault.identity.book import Book
from keyhole.vault.reports.usage import named
from keyhole.vault.sys.agents import MOUNT as AGENTS
from keyhole.vault.sys.agents import agent_now
from keyhole.vault.token import Grant, Token
from keyhole.vault.tokens import MOUNT as TOKENS
from keyhole.vault.vault import Vault

_PAGE = 200
_DETAILS = "detailed-metadata"
_OPERATIONS = ("read", "update", "delete")


@dataclass(frozen=True, slots=True)
class Rights:
    """What one caller may do with one credential.

    Attributes:
        uses_through: services that it may use and that lend the credential.
        may: operations on the credential itself.
    """

    uses_through: list[str]
    may: list[str]

    def __bool__(self) -> bool:
        return bool(self.uses_through or self.may)


@dataclass(slots=True)
class Holder:
    """Somebody, with all that its tokens and its own policies allow.

    Attributes:
        acls: each with whether it counts for uses only, as that of a token of the proxy does.
    """

    acls: dict[Acl, bool] = field(default_factory=dict)

    @property
    def everything(self) -> bool:
        """One of its tokens has the policy ``root``."""
        return any(acl.capabilities("sys") == [ROOT] for acl, uses_only in self.acls.items() if not uses_only)

    def rights(self, name: str, binding: list[str]) -> Rights:
        """What it may do with the credential of this name, which these services lend."""
        path = revealing(name)
        through = [s for s in binding if any(acl.decide("use", f"services/{s}") for acl in self.acls)]
        full = [acl for acl, uses_only in self.acls.items() if not uses_only]
        return Rights(through, [op for op in _OPERATIONS if any(acl.decide(op, path) for acl in full)])


class Inventory:
    """Of one org, for one request.

    Args:
        vault: where it is.
        state: of the org.
        context: of the request.
    """

    def __init__(self, vault: Vault, state: OrgState, context: Context) -> None:
        self._vault = vault
        self._state = state
        self._context = context
        self._revealing: dict[str, bool] = {}

    def reveals(self, path: str) -> bool:
        """Whether a READ of an API path reveals a credential, as the org's mounts are now."""
        found = self._revealing.get(path)
        if found is None:
            if len(self._revealing) >= _PAGE * _PAGE:
                self._revealing.clear()
            try:
                found = self._state.mounts.resolve(Operation.READ, path).route.source is not None
            except NotFound:
                found = False
            self._revealing[path] = found
        return found

    async def services(self) -> dict[str, Service]:
        """The services by name."""
        return dict(await self._vault.services(self._state))

    async def lent_by(self) -> dict[str, tuple[str, ...]]:
        """Names of the credentials of each service."""
        found = await self.services()
        return {
            name: tuple(sorted({_plain(ref) for ref, _ in service.secret_refs()})) for name, service in found.items()
        }

    async def secrets(self) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """The secrets of every mount that keeps metadata of them, with it."""
        for mount in sorted(self._state.mounts, key=lambda each: each.path):
            waiting = [f"{mount.path}{_DETAILS}"] if mount.type == "kv" else []
            while waiting:
                folder = waiting.pop()
                try:
                    target = self._state.mounts.resolve(Operation.LIST, f"{folder}/")
                    call = Call(Operation.LIST, f"{folder}/", target.params, {})
                    found = (await answer(self._vault, self._state, self._context.caller, target, call)).data or {}
                except NotFound:  # kv of version 1 has none, and so has an empty folder
                    continue
                # The last is taken first, so that folders come in their order.
                waiting += [f"{folder}/{key.rstrip('/')}" for key in reversed(found["keys"]) if key.endswith("/")]
                below = folder.removeprefix(f"{mount.path}{_DETAILS}").lstrip("/")
                for key, about in found.get("key_info", {}).items():
                    yield named(f"{mount.path}data/{below}/{key}".replace("//", "/")), about

    async def agents(self) -> dict[str, float]:
        """When each agent was made, by name."""
        storage = self._vault.storage(self._state.org.id, AGENTS, configures=True)
        names = await storage.list("a")
        found = {}
        for name in names:
            item = await storage.get_one(f"a/{name}")
            if item.data is not None:
                found[name] = float(json.loads(item.data)["created"])
        return found

    async def tokens(self) -> AsyncIterator[Token]:
        """The tokens that are good for something."""
        storage = self._vault.storage(self._state.org.id, TOKENS)
        ids = await storage.list("t")
        for start in range(0, len(ids), _PAGE):
            for token in await self._vault.tokens.get_many(storage, ids[start : start + _PAGE]):
                if token.live(self._context.now):
                    yield token

    async def holders(self, wanted: str = "") -> dict[str, Holder]:
        """Whoever may do anything, by the name of the caller: agents, who has a token, and other entities."""
        found: dict[str, Holder] = {}
        for name in await self.agents():
            if wanted in {"", f"agent/{name}"}:
                found[f"agent/{name}"] = Holder({(await agent_now(self._vault, self._state, name)).acl: False})
        seen = set()
        async for token in self.tokens():
            seen.add(token.entity_id)
            if wanted in {"", token.name} and (acl := await self._acl(token)) is not None:
                holder = found.setdefault(token.name, Holder())
                holder.acls[acl] = holder.acls.get(acl, True) and token.scope == "proxy"
        mount = self._state.mounts.at("agents/").accessor
        for entity in await Book(self._vault.orgs.identities(self._state.org.id)).entities():
            name = f"entity/{entity.name}"
            if entity.id in seen or entity.at(mount) is not None or wanted not in {"", name}:
                continue
            acl = await self._acl(Grant(name=name, policies=(DEFAULT,), entity_id=entity.id))
            if acl is not None:
                found[name] = Holder({acl: False})
        return found

    async def _acl(self, token: Token | Grant) -> Acl | None:
        try:
            return await standing.acl_of(self._vault, self._state, token)
        except Unauthenticated:  # its entity is disabled, or gone
            return None


def _plain(reference: str) -> str:
    """The name of a credential that a service refers to."""
    return named(revealing(reference.partition("#")[0]))
