"""Tripwires: what an agent must not send is stopped before it leaves, recorded, and raises an alarm.

1. A placeholder of a session that turns up in another session's request, on its way to another service's host, or in a
   place where its service attaches nothing, was copied to where it does not belong.
2. A real value of a secret in any form that the scrubber knows should be nowhere: no agent was ever given it.

Heads are judged before anything is lent. Bodies are judged while they stream: what may be the beginning of a value is
held back until it is decided, so that no whole value leaves. Placeholders that a person chose are not marked, and stay
what they are: text.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from keyhole.broker.lendings import Lendings
from keyhole.broker.loan import Loan
from keyhole.broker.messages import MessagesWatch
from keyhole.broker.watch import FrameWatch, Tripped, Watch, WatchedBody, foreign
from keyhole.broker.watched import MOST_VALUES, Watched
from keyhole.core import grpc
from keyhole.core.identity import Caller
from keyhole.core.inject import KINDS
from keyhole.core.message import Call, Headers
from keyhole.core.placeholder import MARK, end_of, marked
from keyhole.core.record import Phase, Record
from keyhole.core.service import Service
from keyhole.core.session import placeholder_key, service_of_session
from keyhole.injections.placeholder import decode_basic
from keyhole.net.together import Together
from keyhole.scrub import Scrubber
from keyhole.vault.compiled import OrgState
from keyhole.vault.keys import new_request_id
from keyhole.vault.vault import Vault

# What this proxy adds to every request alone. A client's own ``Via`` is not that: it stands in one value with ours.
_OWN_VIA = re.compile(rb"1\.1 keyhole-[A-Za-z0-9.-]{1,64}")
_TAKEN_OUT = frozenset({"header", "query"})  # where a client's placeholder is taken out, whatever is attached
_MORE = {"body": "body", "form": "body", "path": "path"}
_SESSIONS = 4096


@dataclass(frozen=True, slots=True)
class Wires:
    """What is looked for in requests of one org.

    Attributes:
        epoch: of the org's configuration for which they are good; -1 once something was lent that they do not know.
        values: finds the values of its secrets.
        lent: the values themselves, by what services lend.
        known: all of them, to notice a changed one.
        of: what each service lends, by its name.
        made: epoch from which they were made.
        stamp: stands for ``values`` where those themselves may not stay.
    """

    epoch: int
    values: Scrubber
    lent: Mapping[str, tuple[bytes, ...]] = field(repr=False)
    known: frozenset[bytes] = field(repr=False)
    of: Mapping[str, str] = field(default_factory=dict, repr=False)
    made: int = 0
    stamp: object = field(default_factory=object, repr=False)


class Tripwires:
    """The tripwires of all orgs of a node."""

    def __init__(self) -> None:
        self._wires: dict[str, Wires] = {}
        self._watched: dict[str, Watched] = {}
        self._arming: Together[str, None] = Together()
        self._sessions: OrderedDict[tuple[str, int], tuple[Service, Service]] = OrderedDict()
        self._keys: dict[str, bytes] = {}

    def session(self, vault: Vault, caller: Caller, service: Service) -> Service:
        """The service as a session sees it: with the placeholders that are its own."""
        if not caller.bound:
            return service
        name = (caller.token_id, id(service))
        known = self._sessions.get(name)
        if known is None or known[0] is not service:
            made = service_of_session(service, self.key(vault, caller.org_id), caller.token_id)
            known = self._sessions[name] = (service, made)
            if len(self._sessions) > _SESSIONS:
                self._sessions.popitem(last=False)
        return known[1]

    async def judge(self, vault: Vault, state: OrgState, call: Call, service: Service | None) -> None:
        """Look at a request's head.

        Args:
            vault: open.
            state: of the caller's org.
            call: what is asked.
            service: as the session sees it; ``None`` where the call goes through none.

        Raises:
            Tripped: it must not leave.
        """
        if state.org.tripwire == "off" or (service is not None and KINDS[service.inject.kind].answers):
            return
        wires = self._wires.get(state.org.id)
        if wires is None or wires.epoch < state.epoch:
            wires = await self._armed(vault, state)
        if call.heading.clean is wires.stamp:
            return
        shown = [pair for pair in call.headers if pair[0] != b"via" or not _OWN_VIA.fullmatch(pair[1])]
        head = b"\n".join([call.target, call.host.encode(), *_claims(call), *[part for pair in shown for part in pair]])
        plain = MARK not in head and b"asic " not in head
        if not plain:
            _judge_placeholders(self.key(vault, state.org.id), call, service)
        if wires.values.is_clean(head):
            call.heading.clean = wires.stamp if plain else None
        elif wires.values.text(head) is not head:
            _judge_values(wires, call, service)

    def key(self, vault: Vault, org_id: str) -> bytes:
        """The key of an org's placeholders."""
        key = self._keys.get(org_id)
        if key is None:
            key = self._keys[org_id] = placeholder_key(vault.keys.token_key, org_id)
        return key

    def watch(
        self, vault: Vault, state: OrgState, caller: Caller, call: Call, service: Service | None, request_id: str
    ) -> FrameWatch | None:
        """Have the call's body watched while it is sent; for a WebSocket, what watches its messages."""
        wires = self._wires.get(state.org.id)
        if (call.body is None and not call.upgrade) or wires is None or state.org.tripwire == "off":
            return None
        if service is not None and KINDS[service.inject.kind].answers:
            return None

        async def alarm(error: Tripped) -> None:
            await vault.alarm(state, caller, request_id, service.name if service is not None else "", error.what)

        key = self.key(vault, state.org.id)
        places = _places(service) if service is not None else frozenset()
        own = _own_ends(service) if service is not None else frozenset()
        if call.body is not None:
            ends = own if "body" in places else frozenset[bytes]()
            watch: Watch | MessagesWatch
            if grpc.has_messages(call.headers):
                watch = MessagesWatch(partial(Watch, wires.values, key, ends), grpc.coding(call.headers))
            else:
                coding = b", ".join(value for name, value in call.headers if name == b"content-encoding")
                watch = Watch(wires.values, key, ends, coding=coding)
            trailing = partial(Watch, wires.values, key, frozenset[bytes](), place="trailers")
            in_turn = partial(vault.shares.admission.pause, (caller.org_id, caller.name))
            call.body = WatchedBody(call.body, watch, trailing, alarm, in_turn)
        if not call.upgrade:
            return None
        mine = own if "frame" in places else frozenset[bytes]()
        return FrameWatch(lambda: Watch(wires.values, key, mine, place="frame"), alarm)

    def lent(self, vault: Vault, state: OrgState, loan: Loan) -> None:
        """Values were lent: where one is new, it is looked for from the next request on."""
        wires = self._wires.get(state.org.id)
        if wires is None or len(wires.known) >= MOST_VALUES or wires.known.issuperset(values := loan.secrets()):
            return
        new = [value for value in values if value not in wires.known]
        self._watched[state.org.id].lent(loan.service.name, new, vault.clock.now())
        self._wires[state.org.id] = replace(wires, epoch=-1)

    def known(self, org_id: str) -> Scrubber | None:
        """What finds the values of an org's secrets, where it was made already."""
        wires = self._wires.get(org_id)
        return None if wires is None else wires.values

    async def learn(self, vault: Vault, state: OrgState) -> Scrubber:
        """What finds them as of now."""
        return (await self._armed(vault, state)).values

    async def _armed(self, vault: Vault, state: OrgState) -> Wires:
        """What to look for as of now; the first request after a change waits for it."""
        org_id, waits = state.org.id, 0
        while True:
            wires = self._wires.get(org_id)
            # What the second wait was for began after this request had come, so it knows all that was lent before.
            if wires is not None and (wires.epoch >= state.epoch or (waits > 1 and wires.made >= state.epoch)):
                return wires
            await self._arming.wait(org_id, lambda: self._arm(vault, state))
            waits += 1

    async def _arm(self, vault: Vault, state: OrgState) -> None:
        await vault.services(state)
        lendings = state.bindings.compiled(Lendings)
        watched = self._watched.setdefault(state.org.id, Watched())
        lent = await watched.learn(vault, state, lendings)
        known = frozenset(value for values in lent.values() for value in values)
        before = self._wires.get(state.org.id)
        if before is not None and before.known == known:
            scrubber = before.values
        else:
            scrubber = await asyncio.to_thread(Scrubber.compile, tuple(known))
        epoch = -1 if watched.behind else state.epoch
        self._wires[state.org.id] = Wires(epoch, scrubber, lent, known, lendings.of, state.epoch)
        said = f"the values of {len(known)} secrets are watched for"
        record = Record(phase=Phase.EVENT, id=new_request_id(), operation="watch", result=said)
        vault.journal.outcome(record.encode(), state.org.id)


def _own_ends(service: Service) -> frozenset[bytes]:
    return frozenset(end for end in map(end_of, service.shown()) if end)


def _places(service: Service) -> frozenset[str]:
    """Where a service's own placeholder may stand: where it is replaced, or taken out again."""
    kind = service.inject.kind
    if kind == "placeholder":
        return frozenset(service.inject["in"])
    return _TAKEN_OUT if kind not in _MORE else _TAKEN_OUT | {_MORE[kind]}


def _judge_placeholders(key: bytes, call: Call, service: Service | None) -> None:
    own = _own_ends(service) if service is not None else frozenset()
    places = _places(service) if service is not None else frozenset()
    path, _, query = call.target.partition(b"?")
    for place, text in (("path", path), ("query", query), ("header", _header_texts(call.headers))):
        for end in marked(text, key):
            if end not in own:
                raise foreign(place)
            if place not in places:
                raise Tripped(
                    f"placeholder in {place}",
                    f"the request carries a placeholder in its {place}, where its service attaches nothing",
                )


def _header_texts(headers: Headers) -> bytes:
    texts = []
    for name, value in headers:
        texts.append(value)
        if name.endswith(b"authorization"):
            texts.append(decode_basic(value) or b"")
    return b"\n".join(texts)


def _judge_values(wires: Wires, call: Call, service: Service | None) -> None:
    """A value was found in the head. One that its own service would put into that header anyway may stand there."""
    own, headers = None, frozenset[bytes]()
    if service is not None and (lent := wires.lent.get(wires.of.get(service.name, ""))) is not None:
        own = Scrubber.compile(lent)
        headers = frozenset({b"authorization", str(service.inject.get("name", "")).encode()})
    if any(wires.values.text(name) is not name for name, _ in call.headers):
        raise Tripped("value in a header's name", "the request carries the value of a secret in the name of a header")
    said = [(b"the context", claim) for claim in _claims(call)]
    for name, text in ((b"the target", call.target), (b"the host", call.host.encode()), *said, *call.headers):
        found = wires.values.text(text)
        if found is text or (own is not None and name in headers and own.text(text) == found):
            continue
        place = name.decode("latin-1")
        raise Tripped(f"value in {place}", f"the request carries the value of a secret in {place}")


def _claims(call: Call) -> list[bytes]:
    """What the caller says of its work: that goes to no upstream, and on record."""
    return [] if call.stated is None else [text.encode() for text in call.stated.claims.values()]
