"""What is compiled per org: the mounts, access lists of sets of policies, the services, the callers of live tokens.

Everything here is derived from the store and checked against it on every request: while the store's generation is the
same nothing was written at all; when it moved, the org's epoch tells whether its configuration changed, and a token is
read again. So a change holds for the next request on every node, and nothing is compiled twice without need.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from keyhole.core import EMPTY
from keyhole.core.errors import NotFound, Unauthenticated
from keyhole.core.identity import NOBODY, Caller, IdentityView
from keyhole.core.policy import ROOT, Acl, PathRule
from keyhole.core.value import Secret
from keyhole.stores import Store
from keyhole.vault.bindings import Bindings
from keyhole.vault.identity.known import Known
from keyhole.vault.mount_table import MountTables
from keyhole.vault.mounts import Mounts
from keyhole.vault.orgs import Org, Orgs
from keyhole.vault.tokens import Token

if TYPE_CHECKING:
    from keyhole.core.service import Service

_CALLERS = 20_000
_ACLS = 5_000


class OrgState:
    """Everything compiled for one org at one epoch.

    Attributes:
        org: the org.
        epoch: revision of its epoch entry.
        generation: of the store when that was last found true.
        mounts: what answers at which path.
        known: its identities; replaced when they change, which happens with logins and costs nothing else.
        rules: of each policy by name, loaded when first needed.
        acls: of each set of policies, for an entity at a version of it, and for these services only.
        bindings: its services; kept while other things of its configuration change.
        lending: those that were used, by path, each with the names of its secrets.
        callers: by token id, each with the generation at which its token was last read.
        logins: who is about to get a token, by name.
        honey: names of the secrets that are bait; ``None`` until first needed.
        former: both values of each field that is being rotated, by path and field; ``None`` until first needed.
        derived: what else was compiled of its configuration.
    """

    def __init__(
        self,
        org: Org,
        epoch: int,
        generation: int,
        mounts: Mounts,
        known: Known,
        bindings: Bindings,
        rules: Mapping[str, list[PathRule]] = EMPTY,
    ) -> None:
        self.org = org
        self.epoch = epoch
        self.generation = generation
        self.mounts = mounts
        self.known = known
        self.bindings = bindings
        self.rules = dict(rules)
        self.acls: dict[tuple[object, ...], Acl] = {}
        self.lending: dict[str, tuple[Service, tuple[str, ...]]] = {}
        self.callers: dict[str, tuple[int, Token, Caller]] = {}
        self.logins: dict[str, Caller] = {}
        self.honey: frozenset[str] | None = None
        self.former: Mapping[tuple[str, str], tuple[Secret, ...]] | None = None
        self.derived: dict[str, object] = {}


class Compiled:
    """The compiled states of all orgs.

    Args:
        store: asked for its generation on every request.
        orgs: to read an org anew.
        tables: to read the mounts of an org.
        load_policy: ``(org_id, name)`` to its rules; an unknown policy grants nothing.
    """

    def __init__(
        self,
        store: Store,
        orgs: Orgs,
        tables: MountTables,
        load_policy: Callable[[str, str], Awaitable[list[PathRule]]],
    ) -> None:
        self._store = store
        self._orgs = orgs
        self._tables = tables
        self._load_policy = load_policy
        self._states: dict[str, OrgState] = {}

    def forget(self) -> None:
        """Compile everything anew."""
        self._states.clear()

    def current(self, org_id: str) -> OrgState | None:
        """The state of an org as of now, when that is known at once; else ask ``state``."""
        state = self._states.get(org_id)
        return state if state is not None and state.generation == self._store.latest() else None

    async def state(self, org_id: str) -> OrgState:
        """The state of an org as of now. Raises ``Unauthenticated`` when the org does not exist (any more)."""
        generation = await self._store.generation()
        state = self._states.get(org_id)
        if state is not None and state.generation == generation:
            return state
        epoch, people, services = await self._store.get(
            [self._orgs.epoch_key(org_id), self._orgs.people_key(org_id), self._orgs.services_key(org_id)]
        )
        if state is not None and state.epoch == epoch.revision:
            state.generation = generation
            if state.known.revision != people.revision:
                state.known = Known(people.revision)
            return state
        try:
            org = await self._orgs.by_id(org_id)
        except NotFound:
            self._states.pop(org_id, None)
            raise Unauthenticated("the token is not valid", "its org does not exist any more") from None
        mounts = await self._tables.load(org_id, state.mounts if state is not None else None)
        bindings = state.bindings.at(services.revision) if state is not None else Bindings(services.revision)
        known = Known(people.revision)
        state = self._states[org_id] = OrgState(org, epoch.revision, generation, mounts, known, bindings)
        return state

    async def settle(self) -> None:
        """Wait for what engines have under way and must not lose; nobody asks them for more by now."""
        engines = [mount.engine for state in self._states.values() for mount in state.mounts if mount.used]
        await asyncio.gather(*(engine.settle() for engine in engines if engine.settle is not None))

    def last(self, org_id: str) -> OrgState | None:
        """The state as it was when it was last asked for; for one who was authenticated in this same request."""
        return self._states.get(org_id)

    async def acl(
        self,
        state: OrgState,
        policies: tuple[str, ...],
        view: IdentityView = NOBODY,
        services: frozenset[str] | None = None,
    ) -> Acl:
        """The compiled union of policies.

        Args:
            state: of the org.
            policies: names; an unknown one grants nothing.
            view: fills in their templates; a rule that cannot be filled in is left out.
            services: the only ones whose use can be allowed; ``None`` for no such limit.
        """
        key = (policies, view.id, view.version, services)
        acl = state.acls.get(key)
        if acl is None:
            rules: list[PathRule] = []
            for name in policies:
                if name == ROOT:
                    continue
                if name not in state.rules:
                    state.rules[name] = await self._load_policy(state.org.id, name)
                rules += state.rules[name]
            filled = [rule for rule in (each.filled(view) for each in rules) if rule is not None]
            if len(state.acls) >= _ACLS:
                state.acls.clear()
            acl = state.acls[key] = Acl(filled, root=ROOT in policies, services=services)
        return acl

    def remember(self, state: OrgState, generation: int, token: Token, caller: Caller) -> None:
        """Keep a caller whose token was read at a generation of the store, until that moves."""
        if len(state.callers) >= _CALLERS:
            state.callers.clear()
        state.callers[token.id] = (generation, token, caller)
