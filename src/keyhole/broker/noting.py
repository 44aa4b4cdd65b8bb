"""Questions of calls, noted for a replay of policies where an operator turned that on. Names, never a value.

1. It is on for a bounded time and number of calls, and ends by itself. Off, it costs a look at one attribute.
2. What may be a credential in a text that a client chose is masked: shapes and random words at once, the values of the
   org's secrets before anything is stored. A path that holds neither stays as it is.
3. Notes lie in the vault, sealed like all else, and go when their time is over. Those of the last seconds are in memory
   and are lost with the process.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from keyhole.broker.directory import Match
from keyhole.broker.watch import Tripped
from keyhole.core.errors import Conflict, KeyholeError
from keyhole.core.host import Authority
from keyhole.core.identity import Caller
from keyhole.core.looks import is_random
from keyhole.core.message import Call
from keyhole.core.question import TUNNEL, Question
from keyhole.core.record import parameter_names
from keyhole.scrub import Scrubber
from keyhole.scrub.shapes import finder
from keyhole.vault.compiled import OrgState
from keyhole.vault.keys import new_id
from keyhole.vault.storage import Change, Storage, Write

if TYPE_CHECKING:
    from keyhole.vault.vault import Vault

MOUNT = "questions"
SETTING = "setting"
_NOTES = "n"
_PIECE = 200  # calls of one entry
_HELD = 4000  # calls that wait to be stored; more are counted only
_EVERY = 5.0  # seconds after which what was noted is stored
_RETRIES = 50
_BATCH = 50  # entries that are read or removed at once
_LONG = 1000  # characters of a path that is noted
_NAME = 100  # characters of another text
_NAMES = 64  # headers
_WORD = re.compile(r"[A-Za-z0-9_-]{20,}")
_log = logging.getLogger("keyhole")

Learn = Callable[["Vault", OrgState], Awaitable[Scrubber]]
"""What finds the values of an org's secrets, as of now."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What is turned on.

    Attributes:
        id: of this capture.
        since: seconds since the epoch.
        until: when it ends.
        most: calls that are kept.
        keep: seconds for which they are.
        by: who turned it on.
    """

    id: str
    since: float
    until: float
    most: int
    keep: float
    by: str


class Noting:
    """What this node notes of one org.

    Args:
        vault: open.
        org_id: whose calls.
        setting: that is on.
        learn: finds values.
    """

    def __init__(self, vault: Vault, org_id: str, setting: Setting, learn: Learn) -> None:
        self.setting = setting
        self.missed = 0
        self._vault = vault
        self._org_id = org_id
        self._learn = learn
        self._storage = vault.storage(org_id, MOUNT)
        self._held: list[Question] = []
        self._node, self._next = new_id(), 0
        self._full = False
        self._timer: asyncio.TimerHandle | None = None
        self._storing: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()

    @property
    def on(self) -> bool:
        """Whether calls are noted now."""
        return not self._full and self._vault.clock.now() < self.setting.until

    def add(self, caller: Caller, about: dict[str, Any]) -> None:
        """Note a call.

        Args:
            caller: who made it.
            about: the fields of ``Question`` but those of time and caller.
        """
        if not self.on:
            return
        if len(self._held) >= _HELD:
            self.missed += 1
            return
        question = Question(
            at=self._vault.clock.now(),
            agent=caller.name,
            policies=tuple(dict.fromkeys((*caller.policies, *caller.identity_policies))),
            services=None if caller.services is None else tuple(sorted(caller.services)),
            entity=caller.entity.id,
            run=caller.run.as_data(),
            **about,
        )
        self._held.append(question.cleaned(masked))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_EVERY, self._begin)

    def _begin(self) -> None:
        self._timer = None
        self._storing = asyncio.get_running_loop().create_task(self.store())

    async def store(self) -> None:
        """Store what was noted so far; what cannot be is counted and forgotten, what is no longer wanted forgotten."""
        async with self._lock:
            held, self._held = self._held, []
            left = len(held)
            try:
                # Another node may have had everything forgotten meanwhile.
                if held and await setting_of(self._vault, self._org_id) is not None:
                    state = await self._vault.compiled.state(self._org_id)
                    values = await self._learn(self._vault, state)
                    for at in range(0, len(held), _PIECE):
                        await self._store(held[at : at + _PIECE], values)
                        left = len(held[at + _PIECE :])
            except KeyholeError as error:
                self.missed += left
                _log.warning("calls for a replay of policies could not be noted: %s", error)

    async def _store(self, questions: list[Question], values: Scrubber) -> None:
        path = f"taken/{self.setting.id}"
        for _ in range(_RETRIES):
            item = await self._storage.get_one(path)
            taken = 0 if item.data is None else int(json.loads(item.data))
            piece = questions[: max(0, self.setting.most - taken)]
            self._full = self._full or taken + len(piece) >= self.setting.most
            if not piece:
                return
            due = piece[-1].at + self.setting.keep
            data = [question.cleaned(lambda text: _without(values, text)).as_data() for question in piece]
            name = f"{_NOTES}/{self.setting.id}/{self._node}-{self._next}"
            notes = Write(name, json.dumps({"due": due, "calls": data}).encode(), 0, due)
            count = Write(path, str(taken + len(piece)).encode(), item.revision, due + self.setting.keep)
            try:
                await self._storage.commit(Change([notes, count]))
            except Conflict:
                continue
            self._next += 1
            return
        raise Conflict("calls are being noted by many at once", "they are lost for a replay")

    def forget(self) -> None:
        """Store nothing more."""
        self._full, self._held = True, []
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Notings:
    """All notings of this node's open vault.

    Args:
        vault: gives the open one.
        learn: finds values.
    """

    def __init__(self, vault: Callable[[], Vault], learn: Learn) -> None:
        self._vault = vault
        self._learn = learn
        self._of: dict[str, Noting] = {}

    async def of(self, state: OrgState) -> Noting | None:
        """What notes calls of an org as it is configured now; ``None`` where nothing does."""
        known = state.derived.get(MOUNT, self)
        if known is self:
            known = state.derived[MOUNT] = await self._configured(state)
        return known if isinstance(known, Noting) else None

    async def _configured(self, state: OrgState) -> Noting | None:
        vault = self._vault()
        setting = await setting_of(vault, state.org.id)
        current = self._of.get(state.org.id)
        if current is not None and (setting is None or setting.id != current.setting.id):
            await current.store()
            current.forget()
            if self._of.get(state.org.id) is current:
                del self._of[state.org.id]
            current = self._of.get(state.org.id)
        if setting is None or setting.until <= vault.clock.now():
            return None
        if current is None:
            current = self._of[state.org.id] = Noting(vault, state.org.id, setting, self._learn)
        return current

    def last(self, org_id: str) -> Noting | None:
        """What notes calls of an org, as far as this node knows."""
        return self._of.get(org_id)

    async def settle(self) -> None:
        """Store what was noted so far."""
        for noting in list(self._of.values()):
            await noting.store()

    def forget(self) -> None:
        """The vault was sealed."""
        for noting in self._of.values():
            noting.forget()
        self._of.clear()


def asked_of(call: Call, match: Match, target: bytes, error: KeyholeError | None) -> dict[str, Any]:
    """What is noted of a call.

    Args:
        call: as it was asked.
        match: what it was matched to.
        target: canonical; empty where it was refused before that was known.
        error: the refusal; ``None`` for a call that was allowed.
    """
    path, _, query = target.decode("latin-1").partition("?")
    names = list(dict.fromkeys(name[:_NAME].decode("latin-1") for name, _ in call.headers[:_NAMES]))
    if isinstance(error, Tripped) and error.of_value:
        path, query, names = "", "", []  # a value stands in one of them
    service = match.service
    length = 0 if call.body is None else call.body.length
    return {
        "service": call.service[:_NAME],
        "shown": service.name if service is not None and match.shown else "",
        "method": call.method[:_NAME],
        "scheme": call.scheme,
        "host": call.host,
        "port": call.port,
        "path": path if len(path) <= _LONG else "",
        "parameters": tuple(name[:_NAME] for name in parameter_names(query)),
        "headers": tuple(names),
        "size": -1 if length is None else length,
        "upgrade": call.upgrade,
        "through": service.name if service is not None else match.about,
        **_answered(error, match),
    }


def tunnel_asked(authority: Authority, match: Match) -> dict[str, Any]:
    """What is noted of a CONNECT that was refused."""
    asked = {"method": "CONNECT", "scheme": "https", "host": authority.host, "port": authority.port, "path": ""}
    return {**asked, "upgrade": TUNNEL, "through": match.about, **_answered(match.refusal, match)}


def _answered(error: KeyholeError | None, match: Match) -> dict[str, Any]:
    if error is None:
        return {"allowed": True}
    stage = "tripwire" if isinstance(error, Tripped) else "rules" if error is match.refusal else "checks"
    return {"allowed": False, "code": error.code, "stage": stage}


def masked(text: str) -> str:
    """A text without what has the shape of a credential, and without words that nobody typed; of the same length."""
    data = bytearray(text.encode("utf-8", "replace"))
    for match in finder().find(bytes(data), None):
        data[match.start : match.end] = b"*" * (match.end - match.start)
    found = data.decode("utf-8", "replace")
    return _WORD.sub(lambda word: "*" * len(word[0]) if is_random(word[0]) else word[0], found)


def _without(values: Scrubber, text: str) -> str:
    return values.text(text.encode("utf-8", "replace")).decode("utf-8", "replace")


async def setting_of(vault: Vault, org_id: str) -> Setting | None:
    """What is turned on for an org, or was and its notes are kept still."""
    item = await vault.storage(org_id, MOUNT, configures=True).get_one(SETTING)
    return None if item.data is None else Setting(**json.loads(item.data))


async def turn_on(vault: Vault, org_id: str, setting: Setting) -> None:
    """Let calls be noted on every node from the next one on, or until another time."""
    storage = vault.storage(org_id, MOUNT, configures=True)
    item = await storage.get_one(SETTING)
    data = json.dumps(asdict(setting)).encode()
    await storage.commit(Change([Write(SETTING, data, item.revision, setting.until + setting.keep)]))


async def taken(vault: Vault, org_id: str, setting: Setting) -> int:
    """How many calls were stored under a setting."""
    item = await vault.storage(org_id, MOUNT).get_one(f"taken/{setting.id}")
    return 0 if item.data is None else int(json.loads(item.data))


async def pieces(vault: Vault, org_id: str) -> list[str]:
    """The entries with notes of an org."""
    return [f"{_NOTES}/{name}" for name in await vault.storage(org_id, MOUNT).list(_NOTES, recursive=True)]


async def read_piece(storage: Storage, path: str, now: float) -> list[Question]:
    """The notes of one entry; none where its time is over."""
    item = await storage.get_one(path)
    data = None if item.data is None else json.loads(item.data)
    return [Question.from_data(each) for each in data["calls"]] if data is not None and data["due"] > now else []


async def remove_all(vault: Vault, org_id: str) -> None:
    """Forget all notes of an org, and what is turned on."""
    configuring, storage = vault.storage(org_id, MOUNT, configures=True), vault.storage(org_id, MOUNT)
    item = await configuring.get_one(SETTING)
    if item.data is not None:
        await configuring.commit(Change(deletes=[(SETTING, item.revision)]))
    paths = [*await pieces(vault, org_id), *(f"taken/{name}" for name in await storage.list("taken"))]
    for at in range(0, len(paths), _BATCH):
        batch = paths[at : at + _BATCH]
        found = zip(batch, await storage.get(*batch), strict=True)
        await storage.commit(Change(deletes=[(path, item.revision) for path, item in found if item.data is not None]))
