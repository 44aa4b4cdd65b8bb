"""What a service lends that does not lie in ``secret/``: the answer of another mount, asked for at the moment of use.

A reference with a leading slash (``/database/creds/readonly``) is the API path whose READ reveals the source, so that
who binds it needs ``read`` on that very path, and who uses the service needs nothing of it. A route that can be one
says so (``Route.source``).

What is made for a use is leased to the caller's token. One lease serves the uses of one token: its values are kept in
memory until nine tenths of its time have gone, and are lent only while the store says that the lease is active.
"""

from __future__ import annotations

import contextlib
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from keyhole.core.errors import Expired, InvalidRequest, NotFound, PolicyDenied
from keyhole.core.identity import Caller
from keyhole.core.lease import Lease, LeaseState
from keyhole.core.path import DEFAULT_FIELD
from keyhole.core.request import Limits, Operation
from keyhole.core.value import Secret
from keyhole.engines import Call, Context
from keyhole.net.together import OneByOne
from keyhole.vault.compiled import OrgState
from keyhole.vault.dispatch import answer
from keyhole.vault.lending import open_loan
from keyhole.vault.mounts import Target

if TYPE_CHECKING:
    from keyhole.core.service import Service
    from keyhole.vault.vault import Vault

_SECRETS = "secret/"
_MOST = 10_000  # leases whose values are kept
_RECENT = 8  # values of one source that are remembered, to be noticed where they must not be
_MEMORY = 600.0  # seconds for which a value without a lease is remembered
_USED = 0.9  # part of a lease's time for which its values are lent again
_Key = tuple[str, str, str]


class Taken(NamedTuple):
    """What a source answered.

    Attributes:
        path: of the source, without its leading slash.
        fields: each as the bytes that are lent.
        default: the field that is meant when none is named; empty for none.
        hosts: where alone it may go, as ``Reply.hosts``.
        lease: which it is leased under, if it is.
        until: seconds since the epoch until which it is lent again; 0 for this once.
    """

    path: str
    fields: Mapping[str, Secret]
    default: str
    hosts: Limits = ()
    lease: Lease | None = None
    until: float = 0.0

    def field(self, name: str) -> Secret:
        """One field. Raises ``NotFound``, naming the fields that there are."""
        found = self.fields.get(name)
        if found is None and name == DEFAULT_FIELD and self.default:
            found = self.fields.get(self.default)
        if found is None:
            known = ", ".join(sorted(self.fields))
            raise NotFound(f"the source /{self.path} has no field {name!r}", f"name one of them: {known}")
        return found


class Destination(Protocol):
    """What something is lent through: a service, or a server of tools."""

    @property
    def name(self) -> str:
        """Of it."""

    def beyond(self, limits: Limits) -> str:
        """A destination of it to which these limits let nothing go; empty for none."""

    def secret_refs(self) -> list[tuple[str, str]]:
        """``(path, field)`` of all that it lends."""


class Sources:
    """Asks the mounts that services name as the sources of what they lend.

    Args:
        vault: whose mounts they are.
    """

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._held: OrderedDict[_Key, Taken] = OrderedDict()
        self._turns: OneByOne[_Key] = OneByOne()
        self._recent: OrderedDict[tuple[str, str], list[tuple[Taken, float]]] = OrderedDict()
        self._news: OrderedDict[tuple[str, str], int] = OrderedDict()  # numbered, the latest last
        self._number = 0

    def opening(
        self, state: OrgState, caller: Caller, *, own: bool = False, service: Destination | None = None
    ) -> Opening:
        """For one loan.

        Args:
            state: of the caller's org.
            caller: who uses it, and for whom it is leased.
            own: what is leased is for this loan alone, and who made it ends it.
            service: through which it is lent; without one, nothing whose hosts are limited is.
        """
        return Opening(self._vault, state, caller, service, own=own)

    async def lend(self, state: OrgState, caller: Caller, path: str, field: str) -> Secret:
        """A field of a secret in ``secret/`` that the settings of a mount name. Raises ``NotFound``, ``Expired``."""
        if path.startswith("/"):
            raise InvalidRequest("what a mount names lies in secret/", "name it like vault/token#value")
        return await self.opening(state, caller).lend(path, field)

    def resolve(self, state: OrgState, path: str) -> Target:
        """The route that answers for a source. Raises ``NotFound`` where none can."""
        try:
            target = state.mounts.resolve(Operation.READ, path)
        except NotFound:
            target = None
        if target is None or target.route.source is None:
            raise NotFound(
                f"there is no source at /{path}",
                "a source is what a READ of another mount answers, such as /database/creds/NAME",
            )
        return target

    async def take(self, state: OrgState, caller: Caller, path: str, *, own: bool) -> Taken:
        """What the source at a path has for a caller, made where it is needed.

        Raises:
            NotFound: there is no such source, or nothing in it.
            KeyholeError: what its engine raises, such as that a database cannot be reached.
        """
        target = self.resolve(state, path)
        if own:
            return await self._ask(state, caller, target, path)
        key = (state.org.id, caller.holder, path)
        async with self._turns.turn(key):  # many uses at once make one lease
            held = self._held.get(key)
            if held is not None and await self._lendable(state, held):
                return held
            self._held.pop(key, None)
            taken = await self._ask(state, caller, target, path)
            if taken.until:
                self._held[key] = taken
                now = self._vault.clock.now()
                while len(self._held) > _MOST or next(iter(self._held.values())).until <= now:
                    self._held.popitem(last=False)
            return taken

    def can_relend(self, state: OrgState, service: Service) -> bool:
        """Whether there can be other values when an upstream refuses those that a service lends."""
        try:
            targets = [self.resolve(state, path[1:]) for path, _ in service.secret_refs() if path.startswith("/")]
        except NotFound:  # unmounted since it was lent
            return False
        return any(target.mount.engine.relend is not None for target in targets)

    async def relend(
        self, state: OrgState, caller: Caller, service: Destination, refused: Mapping[str, bytes]
    ) -> dict[str, Secret]:
        """What there is instead of lent values which an upstream has refused, by field; empty where there is no other.

        Args:
            state: of the caller's org.
            caller: for whom they were lent.
            service: through which.
            refused: the values by field.

        Raises:
            KeyholeError: nothing can be lent any more.
        """
        found = {}
        for path, field in service.secret_refs():
            if not path.startswith("/") or field not in refused:
                continue
            target = self.resolve(state, path[1:])
            if target.mount.engine.relend is not None:
                context = self._vault.context(state, caller, target.mount)
                other = await target.mount.engine.relend(context, target.params["path"], field, refused[field])
                if other != Secret(refused[field]):
                    found[field] = other
        return found

    async def check(self, state: OrgState, caller: Caller, service: Service) -> None:
        """Whether a service can lend, as far as can be told without asking its sources.

        Raises:
            NotFound, Expired: there is no such source or secret (any more).
            PolicyDenied: what it lends may not go to where it sends.
            Expired: what the caller was lent of a source has ended meanwhile.
        """
        await self.require_lendable(state, caller, service)
        opening = self.opening(state, caller)

        async def probe(path: str, field: str) -> Secret:
            if not path.startswith("/"):
                return await opening.lend(path, field)
            source = path.removeprefix("/")
            self.resolve(state, source)
            held = self._held.get((state.org.id, caller.holder, source))
            if held is not None and held.lease is not None and not await self._active(state, held.lease):
                raise Expired(f"the lease of what was lent of {path} has ended", "call again; it is made anew")
            return Secret(b"")

        await open_loan(probe, service)

    async def require_lendable(self, state: OrgState, caller: Caller, service: Service) -> None:
        """Judge a service by the limits of its sources, as far as they are there yet. Makes nothing.

        Raises:
            PolicyDenied: what a source lends may not go to where the service sends.
        """
        for path in {path.removeprefix("/") for path, _ in service.secret_refs() if path.startswith("/")}:
            with contextlib.suppress(NotFound):
                target = self.resolve(state, path)
                if target.mount.engine.hosts is not None:
                    context = self._vault.context(state, caller, target.mount)
                    limits = await target.mount.engine.hosts(context, target.params["path"])
                    _require_within(path, limits, service)

    async def require_audience(self, state: OrgState, caller: Caller, path: str, url: str) -> None:
        """Judge a URL by the resource that a source is for, if it is for one.

        Raises:
            PolicyDenied: what it lends may not go there.
            NotFound: there is no such source.
        """
        target = self.resolve(state, path.removeprefix("/"))
        if target.mount.engine.audience is None:
            return
        from keyhole.core.audience import covers  # noqa: PLC0415  # few sources have one

        context = self._vault.context(state, caller, target.mount)
        resource = await target.mount.engine.audience(context, target.params["path"])
        if resource and not covers(resource, url):
            raise PolicyDenied(
                f"what is lent of {path} is for {resource} alone, and not for where this sends it",
                "each server has a connection of its own: keyhole mcp server login NAME",
            )

    async def recent(self, state: OrgState, caller: Caller, service: Service) -> list[tuple[str, Secret]]:
        """What a service lends, by field; of its sources what they answered lately."""
        opening, found = self.opening(state, caller), list[tuple[str, Secret]]()
        for path in {path for path, _ in service.secret_refs() if path.startswith("/")}:
            for taken, until in self._recent.get((state.org.id, path.removeprefix("/")), ()):
                if until > self._vault.clock.now():
                    found += taken.fields.items()
        for path, field in service.secret_refs():
            if not path.startswith("/"):
                with contextlib.suppress(NotFound, Expired):
                    found.append((field, await opening.lend(path, field)))
        return found

    def answered(self, org_id: str, since: int) -> tuple[int, list[str]]:
        """References to sources that have answered something new since a number was given, and the next number."""
        found = []
        for (org, path), number in reversed(self._news.items()):
            if number <= since:
                break
            if org == org_id:
                found.append(f"/{path}")
        return self._number, found

    async def marks(self, state: OrgState, paths: Sequence[str]) -> Sequence[object] | None:
        """Of each path in ``secret/`` what is another once other values are lent of it; ``None`` if that is not known.

        A time that comes, such as the end of a secret, is none.
        """
        if not paths:
            return ()
        try:
            mount = state.mounts.at(_SECRETS)
        except NotFound:
            return None
        if mount.engine.marks is None:
            return None
        nobody = Caller(state.org.name, state.org.id, "", "", "full", (), await self._vault.compiled.acl(state, ()))
        found = await mount.engine.marks(self._vault.context(state, nobody, mount), paths)
        return [(mount.id, mark) for mark in found]

    async def _lendable(self, state: OrgState, held: Taken) -> bool:
        if self._vault.clock.now() >= held.until or held.lease is None:
            return False
        return await self._active(state, held.lease)

    async def _active(self, state: OrgState, lease: Lease) -> bool:
        now = await self._vault.leases.get(state.org.id, lease.id)
        return now is not None and now.state is LeaseState.ACTIVE and now.expires > self._vault.clock.now()

    async def _ask(self, state: OrgState, caller: Caller, target: Target, path: str) -> Taken:
        vault, default = self._vault, target.route.source or ""
        call = Call(Operation.READ, path, target.params, {})
        reply = await answer(vault, state, caller, target, call)
        fields = {name: _bytes(value) for name, value in (reply.data or {}).items()}
        if not fields:
            raise NotFound(f"the source /{path} answered nothing")
        until = 0.0
        if reply.lease is not None:
            until = vault.clock.now() + _USED * (reply.lease.expires - vault.clock.now())
        taken = Taken(path, fields, default, reply.hosts, reply.lease, until)
        self._remember(state, taken)
        return taken

    def _remember(self, state: OrgState, taken: Taken) -> None:
        """Keep what was lent, for as long as it counts, so that it is noticed where it must not be."""
        now = self._vault.clock.now()
        until = now + _MEMORY if taken.lease is None else taken.lease.expires
        key = (state.org.id, taken.path)
        recent = self._recent.setdefault(key, [])
        if not any(known[1] > now and known[0].fields == taken.fields for known in recent):
            self._number += 1
            self._news[key] = self._number
            self._news.move_to_end(key)
            if len(self._news) > _MOST:
                self._news.popitem(last=False)
        recent[:] = [known for known in recent if known[1] > now and known[0].fields != taken.fields][1 - _RECENT :]
        recent.append((taken, until))
        self._recent.move_to_end(key)
        while self._recent:
            oldest = next(iter(self._recent.values()))
            if len(self._recent) <= _MOST and any(each > now for _, each in oldest):
                break
            self._recent.popitem(last=False)


class Opening:
    """Opens the fields of one loan. A source is asked once, whatever fields of it are wanted.

    Attributes:
        leases: of what was leased for this loan alone.
        hidden: by field, values that belong to what was lent, and are not.
    """

    __slots__ = ("_caller", "_context", "_own", "_service", "_state", "_taken", "_vault", "hidden", "leases")

    def __init__(
        self, vault: Vault, state: OrgState, caller: Caller, service: Destination | None, *, own: bool
    ) -> None:
        self._vault = vault
        self._state = state
        self._caller = caller
        self._own = own
        self._service = service
        self._context: Context | None = None
        self._taken: dict[str, Taken] = {}
        self.leases: tuple[str, ...] = ()
        self.hidden: dict[str, tuple[Secret, ...]] = {}

    async def lend(self, path: str, field: str) -> Secret:
        """The value of one field.

        Raises:
            NotFound: there is no such secret, source or field.
            KeyholeError: what ``Sources.take`` raises.
        """
        if path.startswith("/"):
            return await self._of_source(path[1:], field)
        mount = self._state.mounts.at(_SECRETS)
        lend = mount.engine.lend
        if lend is None:
            raise NotFound(f"what is mounted at {_SECRETS} does not lend", "services lend from kv of version 2 there")
        if self._context is None:
            self._context = self._vault.context(self._state, self._caller, mount)
        return await lend(self._context, path, field)

    async def give_up(self) -> None:
        """Take back what was leased for this loan alone."""
        if self.leases:
            await self._vault.expiry.end(self._state, self.leases)

    async def _of_source(self, path: str, field: str) -> Secret:
        target = self._vault.sources.resolve(self._state, path)
        lend = target.mount.engine.lend
        if lend is not None:
            context = self._vault.context(self._state, self._caller, target.mount)
            if target.mount.engine.hosts is not None:
                limits = await target.mount.engine.hosts(context, target.params["path"])
                _require_within(path, limits, self._service)
            value = await lend(context, target.params["path"], field)
            if target.mount.engine.hides is not None:
                self.hidden[field] = tuple(await target.mount.engine.hides(context, target.params["path"]))
            return value
        taken = self._taken.get(path)
        if taken is None:
            taken = await self._vault.sources.take(self._state, self._caller, path, own=self._own)
            self._taken[path] = taken
            if self._own and taken.lease is not None:
                self.leases += (taken.lease.id,)
        _require_within(path, taken.hosts, self._service)
        return taken.field(field)


def _require_within(path: str, limits: Limits, service: Destination | None) -> None:
    """Raises ``PolicyDenied`` for what may not be lent through this service."""
    beyond = service.beyond(limits) if service is not None else "nowhere in particular" if limits else ""
    if beyond:
        raise PolicyDenied(
            f"what is lent of /{path} may go to {' and '.join(', '.join(limit) for limit in limits)} alone, "
            f"and {service.name if service is not None else 'this'} sends it to {beyond}",
            "correct the hosts of the service, or ask who limits them, for a repo vault: keyhole repo hosts GROUP",
        )


def _bytes(value: object) -> Secret:
    """A field of an answer as it is lent: text as it is, all else as JSON."""
    if isinstance(value, Secret):
        value = json.loads(value.reveal())
    if value is None:
        raise InvalidRequest("a field of the source is empty", "ask for it in another way")
    return Secret(value if isinstance(value, str) else json.dumps(value))
