"""Notices: what the administrators of an org are told, and the way of each notice to each channel.

``tell`` writes a mark and one letter for each channel in one commit. The mark makes a notice unique across nodes and
restarts; the letters are due and found by index. Whoever sends one claims it first by writing its next due time. What
cannot be sent is tried again, later and later, and given up after some tries, which is recorded and shown. Each channel
has a line of its own, so that a dead one delays nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from keyhole import notifiers
from keyhole.core.errors import Conflict, InternalError, KeyholeError, NotFound, UpstreamTimeout, fault_place
from keyhole.core.identity import Caller
from keyhole.core.notice import DAYS, Notice
from keyhole.core.record import Phase, Record
from keyhole.core.times import DAY, format_time
from keyhole.engines import Ending, NetView
from keyhole.notifiers import Message
from keyhole.vault.keys import new_request_id
from keyhole.vault.storage import Change, Storage, Write

if TYPE_CHECKING:
    from keyhole.vault.vault import Vault

MOUNT = "notices"
CONFIG = "config"
_NOW = 1.0  # due before everything else
_log = logging.getLogger("keyhole.notices")


class NoticeLimits(NamedTuple):
    """Bounds on telling. Seconds, unless it says otherwise.

    Attributes:
        attempt: how long one try may take.
        claim: for how long no other node tries; longer than one try.
        first_retry: wait after the first failed try, doubled with each further one, half more or less by chance.
        last_retry: no longer wait than this.
        tries: failed ones after which a letter is given up; a number.
        letters: that wait in one org; what comes on top is recorded only; a number.
        jobs: tries at the same time in one channel; a number.
        kept: how long a mark is kept; longer than a threshold before the date that it is for.
    """

    attempt: float = 20.0
    claim: float = 60.0
    first_retry: float = 15.0
    last_retry: float = 4 * 3600.0
    tries: int = 12
    letters: int = 500
    jobs: int = 2
    kept: float = 400 * DAY


class Notices:
    """The notices of all orgs of an open vault.

    Args:
        vault: whose they are.

    Attributes:
        limits: bounds.
    """

    def __init__(self, vault: Vault) -> None:
        self.limits = NoticeLimits()
        self._vault = vault
        self._lines: dict[tuple[str, str], asyncio.Semaphore] = {}
        self._down: dict[tuple[str, str], float] = {}

    def storage(self, org_id: str) -> Storage:
        """Where they lie: ``config``, ``c/CHANNEL``, ``s/CHANNEL`` how it goes, ``m/MARK``, ``q/CHANNEL/LETTER``."""
        return self._vault.storage(org_id, MOUNT)

    async def days(self, org_id: str) -> Sequence[int]:
        """The days before a date at which administrators want to be told, the earliest first."""
        item = await self.storage(org_id).get_one(CONFIG)
        return DAYS if item.data is None else tuple(json.loads(item.data)["days"])

    async def tell(self, org_id: str, notice: Notice) -> bool:
        """Tell the administrators of an org; false when they were told already."""
        storage, now = self.storage(org_id), self._vault.clock.now()
        mark = hashlib.sha256(f"{notice.kind}\0{notice.key}".encode()).hexdigest()[:32]
        place = f"m/{mark}"
        item = await storage.get_one(place)
        if item.revision:
            return False
        message = {"id": mark, "time": format_time(now), "notice": notice._asdict(), "attempts": 0}
        writes = [Write(place, b"{}", 0, now + self.limits.kept)]
        channels = await self._channels_for(storage, notice.kind)
        waiting = len(await storage.list("q", recursive=True)) if channels else 0
        if waiting >= self.limits.letters:
            _log.warning("%d notices wait already, so one more is recorded only: %s", waiting, notice.text)
            channels = []
        writes += [Write(f"q/{name}/{mark}", json.dumps(message).encode(), 0, _NOW) for name in channels]
        try:
            await storage.commit(Change(writes))
        except Conflict:  # somebody else has told it
            return False
        self._record(org_id, notice.subject, notice.kind)
        _log.info("notice: %s", notice.text)
        return True

    async def _channels_for(self, storage: Storage, kind: str) -> list[str]:
        found = []
        for name in await storage.list("c"):
            item = await storage.get_one(f"c/{name}")
            if item.data is not None:
                kinds = json.loads(item.data)["kinds"]
                found += [name] if not kinds or kind in kinds else []
        return found

    async def take(self, org_id: str, path: str) -> bool:
        """What an entry is due for. False when it has to wait for another one of its channel."""
        storage = self.storage(org_id)
        if path.startswith("m/"):
            item = await storage.get_one(path)
            if item.data is not None:
                await storage.change(deletes=[(path, item.revision)])
            return True
        make = partial(self._look_again, org_id) if path == CONFIG else partial(self._in_turn, org_id, path)
        self._vault.expiry.begin_once(f"notice/{org_id}/{path}", make)
        return False

    async def _look_again(self, org_id: str) -> None:
        """The days were changed: look at every secret, and then be due no more."""
        storage = self.storage(org_id)
        try:
            item = await storage.get_one(CONFIG)
            await self.look(org_id)
            if item.data is not None:
                await storage.change([(CONFIG, item.data, item.revision)])
        except Conflict:  # they were changed again
            return
        except KeyholeError as error:
            _log.warning("the secrets could not be looked at: %s", error.reason)

    async def look(self, org_id: str) -> list[Ending]:
        """Look at every secret of an org now, tell of those that come near their end, and name these."""
        vault, found = self._vault, list[Ending]()
        state = await vault.compiled.state(org_id)
        nobody = Caller(state.org.name, org_id, "", "", "full", (), await vault.compiled.acl(state, ()))
        for mount in state.mounts:
            if mount.type == "kv" and mount.engine.ends is not None:
                found += await mount.engine.ends(vault.context(state, nobody, mount))
        return found

    async def send_all(self, org_id: str) -> None:
        """Try everything that waits in an org once, and return when that is done; for where nobody sweeps."""
        for path in await self.storage(org_id).list("q", recursive=True):
            with contextlib.suppress(KeyholeError):
                await self._in_turn(org_id, f"q/{path}", ripe=False)

    async def _in_turn(self, org_id: str, path: str, *, ripe: bool = True) -> None:
        channel = path.split("/")[1]
        line = self._lines.setdefault((org_id, channel), asyncio.Semaphore(self.limits.jobs))
        try:
            async with line:
                await self._letter(org_id, channel, path, ripe=ripe)
        except Conflict:  # another node has it
            return
        except KeyholeError as error:  # of the store: it is due again after its claim
            _log.warning("a notice could not be sent: %s", error.reason)
        except Exception as error:  # noqa: BLE001 - a fault in one must not end the others
            _log.error("internal error: %s", fault_place(error))

    async def _letter(self, org_id: str, channel: str, path: str, *, ripe: bool) -> None:
        storage, now = self.storage(org_id), self._vault.clock.now()
        settings, letter = await storage.get(f"c/{channel}", path)
        if letter.data is None:
            return
        stored = json.loads(letter.data)
        if ripe and stored.get("next", 0.0) > now:
            return  # another node has tried it since it was found
        if settings.data is None:  # the channel is gone, and its letters with it
            await storage.change(deletes=[(path, letter.revision)])
            return
        down = self._down.get((org_id, channel), 0.0)
        if ripe and down > now:  # it was not there a moment ago: others shall not wait for that again
            stored["next"] = down
            await storage.change([(path, json.dumps(stored).encode(), letter.revision, down)])
            return
        stored["next"] = now + self.limits.claim
        claimed = letter.revision + 1
        await storage.change([(path, json.dumps(stored).encode(), letter.revision, stored["next"])])
        try:
            await self.send(org_id, json.loads(settings.data), self._message(org_id, stored))
        except KeyholeError as error:
            await self._failed(org_id, channel, path, stored, claimed, error)
            return
        self._down.pop((org_id, channel), None)
        await storage.change(deletes=[(path, claimed)])
        await self._note(org_id, channel, "", given_up=0)

    def _message(self, org_id: str, stored: dict[str, Any]) -> Message:
        notice = stored["notice"]
        state = self._vault.compiled.last(org_id)
        org = state.org.name if state is not None else org_id
        return Message(stored["id"], stored["time"], org, notice["kind"], notice["subject"], notice["text"])

    async def send(self, org_id: str, channel: dict[str, Any], message: Message) -> None:
        """Send one message through a channel, once. Raises ``KeyholeError``."""
        del org_id
        net: NetView | None = self._vault.net
        if net is None:
            raise InternalError("nobody can be reached from here")
        try:
            async with asyncio.timeout(self.limits.attempt):
                await notifiers.load(channel["type"]).send(channel["settings"], message, net)
        except TimeoutError:
            raise UpstreamTimeout("the channel did not answer in time", "is it reachable?") from None

    async def _failed(
        self, org_id: str, channel: str, path: str, stored: dict[str, Any], revision: int, error: KeyholeError
    ) -> None:
        limits, storage = self.limits, self.storage(org_id)
        stored["attempts"] += 1
        if stored["attempts"] >= limits.tries:
            await storage.change(deletes=[(path, revision)])
            await self._note(org_id, channel, error.reason, given_up=1)
            self._record(org_id, f"sys/notices/{channel}", f"given up: {error.code}")
            _log.error("the channel %s has failed %d times, a notice is given up", channel, limits.tries)
            return
        import random  # noqa: PLC0415  # few notices fail

        wait = min(limits.first_retry * 2 ** (stored["attempts"] - 1), limits.last_retry)
        stored["next"] = self._vault.clock.now() + wait * random.uniform(0.5, 1.5)  # noqa: S311 - spreads retries
        self._down[(org_id, channel)] = stored["next"]
        await storage.change([(path, json.dumps(stored).encode(), revision, stored["next"])])
        await self._note(org_id, channel, error.reason, given_up=0)

    async def _note(self, org_id: str, channel: str, error: str, *, given_up: int) -> None:
        """How a channel goes, for who looks."""
        storage, now = self.storage(org_id), self._vault.clock.now()
        item = await storage.get_one(f"s/{channel}")
        said = json.loads(item.data) if item.data is not None else {"sent": 0.0, "failed": 0.0, "given_up": 0}
        said |= {"failed": now, "error": error} if error else {"sent": now, "error": ""}
        said["given_up"] += given_up
        with contextlib.suppress(Conflict):  # several letters at once say the same
            await storage.change([(f"s/{channel}", json.dumps(said).encode(), item.revision)])

    def _record(self, org_id: str, path: str, result: str) -> None:
        record = Record(phase=Phase.EVENT, id=new_request_id(), operation="notice", path=path, result=result)
        self._vault.journal.outcome(record.encode(), org_id)


async def channel_of(storage: Storage, name: str) -> tuple[dict[str, Any], int]:
    """A stored channel and its revision. Raises ``NotFound``."""
    item = await storage.get_one(f"c/{name}")
    if item.data is None:
        raise NotFound(f"there is no channel {name!r}", "keyhole notice list")
    return json.loads(item.data), item.revision
