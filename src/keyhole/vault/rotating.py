"""The steps of a rotation: a new value is made, tried, and put in the place of the old one, which is then taken back.

Each step is stored before it is done, with a claim, by compare-and-set: several nodes never do the same step at once,
and whoever finds a claim that has run out goes on from what is stored. What is certain is only what is stored, so a
``making`` that was cut off is cleaned up and begun anew, and every other step is done again. The old value is taken
back only after the new one has worked and is in its place; on any failure before that the new one is, and the old one
stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from keyhole import rotators
from keyhole.core.errors import InternalError, InvalidRequest, KeyholeError, NotFound, fault_place
from keyhole.core.identity import Caller
from keyhole.core.notice import Notice
from keyhole.core.path import parse_secret_ref
from keyhole.core.record import Phase, Record
from keyhole.core.request import Operation
from keyhole.core.times import format_time, parse_time
from keyhole.core.value import Secret
from keyhole.engines import Call
from keyhole.rotators import Nameless, NotYet, Rotator, Value, World, failed
from keyhole.vault.compiled import OrgState
from keyhole.vault.dispatch import answer
from keyhole.vault.keys import new_request_id
from keyhole.vault.rotation import Both, Rotation, Step
from keyhole.vault.storage import Change, Storage, Write

if TYPE_CHECKING:
    from keyhole.vault.vault import Vault

_log = logging.getLogger("keyhole.rotations")


@dataclass(frozen=True, slots=True)
class RotationLimits:
    """Bounds on rotating. Seconds, unless it says otherwise.

    Attributes:
        step: how long one step may take.
        claim: for how long no other node goes on; longer than one step.
        settle: how long a new value may be unknown to its source.
        poll: wait between two tries of a new value, doubled up to ``slowest_poll``.
        first_retry: wait after a failure, doubled with each further one up to ``last_retry``.
        tries: of taking back, after which a person is told; a number.
        jobs: rotations at the same time; a number.
    """

    step: float = 30.0
    claim: float = 90.0
    settle: float = 900.0
    poll: float = 1.0
    slowest_poll: float = 30.0
    first_retry: float = 60.0
    last_retry: float = 6 * 3600.0
    tries: int = 5
    jobs: int = 8


@dataclass(slots=True)
class Work:
    """One rotation in the hands of whoever has claimed it."""

    name: str
    state: OrgState
    storage: Storage
    rotation: Rotation
    revision: int
    both: Both | None
    both_revision: int

    async def save(self, claim: float = 0.0) -> None:
        """Store it, claimed until then. Raises ``Conflict`` when somebody else has it."""
        self.rotation.claimed = claim
        change = Change([Write(f"r/{self.name}", self.rotation.encode(), self.revision, self.rotation.due)])
        if self.both is not None:
            change.writes.append(Write(f"v/{self.name}", self.both.encode(), self.both_revision))
        elif self.both_revision and (await self.storage.get_one(f"v/{self.name}")).data is not None:
            change.deletes.append((f"v/{self.name}", self.both_revision))
        await self.storage.commit(change)
        self.revision += 1
        self.both_revision += self.both is not None or bool(change.deletes)

    @property
    def values(self) -> Both:
        """Both values. Raises ``InternalError`` where there are none."""
        if self.both is None:
            raise InternalError("a rotation that is under way has no values")
        return self.both


class Steps:
    """Does the steps.

    Args:
        vault: whose rotations they are.

    Attributes:
        limits: bounds.
        commands: whether programs of this machine may be run.
    """

    def __init__(self, vault: Vault) -> None:
        self.limits = RotationLimits()
        self.commands = True
        self._vault = vault

    async def go(self, work: Work, *, asked: bool) -> bool:
        """One step; true when another one can follow at once."""
        rotator, rotation = rotators.load(work.rotation.rotator), work.rotation
        match Step(rotation.step):
            case Step.IDLE:
                due = rotation.due
                if not asked and (due is None or due > self._vault.clock.now()):
                    return False
                return await self._make(work, rotator)
            case Step.MAKING | Step.CLEANING:
                return await self._clean(work, rotator)
            case Step.MADE:
                return await self._verify(work, rotator)
            case Step.VERIFIED:
                return await self._cut_over(work)
            case Step.GRACE:
                if rotation.until > self._vault.clock.now() and not rotation.hurry:
                    return False
                return await self._enter(work, Step.REVOKING)
            case Step.REVOKING:
                return await self._revoke(work, rotator)
            case Step.UNDOING:
                return await self._undo(work, rotator)

    async def _enter(self, work: Work, step: Step, error: str = "") -> bool:
        work.rotation.step, work.rotation.tries = step, 0
        work.rotation.error = error or work.rotation.error
        await work.save(self._vault.clock.now() + self.limits.claim)
        return True

    async def _make(self, work: Work, rotator: Rotator) -> bool:
        rotation, now = work.rotation, self._vault.clock.now()
        rotation.attempt, rotation.began = secrets.token_hex(8), now
        in_place = rotator.needs(rotation.settings).in_place
        try:
            self._require_commands(rotator, rotation)
            fields, version = ({}, 0) if in_place else await self._current(work)
            # A value that was put there by hand since is named by nothing that is known here.
            old = Value(fields, rotation.handle if rotation.placed in {0, version} else {})
            rotation.version = version
            rotation.note = {} if in_place else await self._bounded(rotator.prepare(self._world(work), old))
        except KeyholeError as error:
            return await self._fail(work, error)
        work.both = None if in_place else Both(rotation.secret, old)
        await self._enter(work, Step.MAKING)
        self._record(work, "begun")
        try:
            if in_place:
                rotation.note = {"role": rotation.settings["roles"][0]}
            new = await self._bounded(rotator.create(self._world(work), old))
        except KeyholeError as error:
            rotation.error = error.reason
            return await self._enter(work, Step.CLEANING)
        if in_place:
            rotation.last = now
            return await self._finish(work)
        both = Both(rotation.secret, old, new)
        if not both.replaced():  # nothing may be taken back of what is the only value
            return await self._fail(work, failed("the source gave the value that is in place already"))
        work.both = both
        return await self._enter(work, Step.MADE)

    async def _clean(self, work: Work, rotator: Rotator) -> bool:
        """An attempt has failed, or was cut off, before anybody had its answer."""
        rotation = work.rotation
        cut_off = rotation.step == Step.MAKING
        if cut_off:
            rotation.error = "it was cut off while a new value was being made"
        await self._enter(work, Step.CLEANING)
        clean = rotator.needs(rotation.settings).in_place
        if not clean:
            try:
                clean = await self._bounded(rotator.abandon(self._world(work), work.values.old))
            except KeyholeError as error:
                if rotation.tries + 1 < self.limits.tries:
                    return await self._again(work, error)
        if not clean:
            rotation.left = [*rotation.left, f"the attempt {rotation.attempt}"][-16:]
            await self._tell(
                work, f"the attempt {rotation.attempt} may have left a value at the source: remove it there"
            )
        if cut_off:  # nothing has failed: it begins anew
            rotation.step, work.both, rotation.next = Step.IDLE, None, self._vault.clock.now()
            await work.save()
            return rotation.every > 0
        return await self._fail(work, failed(rotation.error))

    async def _verify(self, work: Work, rotator: Rotator) -> bool:
        rotation, now = work.rotation, self._vault.clock.now()
        await work.save(now + self.limits.claim)
        try:
            await self._bounded(rotator.verify(self._world(work), work.values.whole))
        except NotYet as error:
            if now - rotation.began > self.limits.settle:
                return await self._enter(work, Step.UNDOING, error.reason)
            rotation.tries += 1
            wait = min(self.limits.poll * 2 ** min(rotation.tries - 1, 16), self.limits.slowest_poll)
            rotation.next = self._vault.clock.now() + wait
            await work.save()
            return False
        except KeyholeError as error:
            return await self._enter(work, Step.UNDOING, error.reason)
        return await self._enter(work, Step.VERIFIED)

    async def _cut_over(self, work: Work) -> bool:
        rotation, new = work.rotation, work.values.whole
        await work.save(self._vault.clock.now() + self.limits.claim)
        fields, version = await self._current(work)
        if not work.values.lies_in(fields, new):  # else it was put there before whoever did it could store that
            if version != rotation.version:
                return await self._enter(work, Step.UNDOING, "the secret was changed while it was being rotated")
            try:
                await self._write(work, new, version)
            except (InvalidRequest, NotFound) as error:
                return await self._enter(work, Step.UNDOING, f"the secret cannot be changed: {error.reason}")
            version += 1
        now = self._vault.clock.now()
        rotation.step, rotation.tries, rotation.failures, rotation.error = Step.GRACE, 0, 0, ""
        rotation.last, rotation.until = now, now + (0 if rotation.hurry else rotation.grace)
        rotation.handle, rotation.placed = dict(new.handle), version
        await work.save()
        self._record(work, "cut over")
        return rotation.until <= now

    async def _revoke(self, work: Work, rotator: Rotator) -> bool:
        rotation, both = work.rotation, work.values
        await work.save(self._vault.clock.now() + self.limits.claim)
        with contextlib.suppress(NotFound):
            fields, version = await self._current(work)
            if both.lies_in(fields, both.old):
                # Somebody has gone back to it, so it is the value that works.
                rotation.handle, rotation.placed = dict(both.old.handle), version
                rotation.error = "the secret was set back to its old value, so that one was not revoked"
                await self._tell(work, rotation.error)
                return await self._finish(work)
        try:
            await self._bounded(rotator.revoke(self._world(work), both.old, both.whole))
        except Nameless as error:
            rotation.left = [*rotation.left, f"the value before {format_time(rotation.last)}"][-16:]
            await self._tell(work, f"the old value still works: {error.reason}; take it back there by hand")
        except KeyholeError as error:
            return await self._again(work, error)
        return await self._finish(work)

    async def _undo(self, work: Work, rotator: Rotator) -> bool:
        rotation, both = work.rotation, work.values
        await work.save(self._vault.clock.now() + self.limits.claim)
        by = both.old
        with contextlib.suppress(NotFound):
            fields, _ = await self._current(work)
            if both.lies_in(fields, both.whole):  # it is in its place all the same, and is not to be taken from there
                return await self._enter(work, Step.VERIFIED)
            by = Value(fields, both.old.handle)
        try:
            await self._bounded(rotator.revoke(self._world(work), both.whole, by))
        except KeyholeError as error:
            if not rotation.error:
                rotation.error = error.reason
            return await self._again(work, error)
        return await self._fail(work, failed(rotation.error))

    async def _finish(self, work: Work) -> bool:
        rotation = work.rotation
        rotation.step, rotation.tries, rotation.next, rotation.hurry = Step.IDLE, 0, 0.0, False
        rotation.failures, rotation.until, work.both = 0, 0.0, None
        await work.save()
        self._record(work, "ok")
        return False

    async def _fail(self, work: Work, error: KeyholeError) -> bool:
        """The attempt is over, and the old value is what it was."""
        rotation, limits = work.rotation, self.limits
        rotation.step, rotation.tries, rotation.hurry, work.both = Step.IDLE, 0, False, None
        rotation.error = error.reason
        wait = min(limits.first_retry * 2 ** min(rotation.failures, 16), limits.last_retry)
        rotation.failures += 1
        rotation.next = self._vault.clock.now() + wait
        await work.save()
        self._record(work, error.code)
        if rotation.failures in {1, 3} or rotation.failures % 10 == 0:
            await self._tell(
                work, f"it has failed {rotation.failures} times, the old value is in place: {error.reason}"
            )
        return False

    async def _again(self, work: Work, error: KeyholeError) -> bool:
        """A step that has to be done could not be done; it is tried again for as long as it takes."""
        rotation, limits = work.rotation, self.limits
        rotation.tries += 1
        rotation.error = error.reason
        wait = min(limits.first_retry * 2 ** min(rotation.tries - 1, 16), limits.last_retry)
        rotation.next = self._vault.clock.now() + wait
        await work.save()
        self._record(work, error.code)
        if rotation.tries == limits.tries:
            await self._tell(work, f"the step {rotation.step} could not be done {rotation.tries} times: {error.reason}")
        return False

    async def _tell(self, work: Work, what: str) -> None:
        path = f"sys/rotations/{work.name}"
        key = f"{work.name} {work.rotation.attempt} {work.rotation.step} {work.rotation.failures}"
        text = f"the rotation {work.name} of {work.rotation.secret or 'its source'}: {what}"
        with contextlib.suppress(KeyholeError):  # it is recorded and shown all the same
            await self._vault.notices.tell(work.state.org.id, Notice("rotation-failed", path, text, key))

    def _record(self, work: Work, result: str) -> None:
        record = Record(
            phase=Phase.EVENT,
            id=new_request_id(),
            operation="rotate",
            path=f"sys/rotations/{work.name}",
            result=result,
            secrets=(work.rotation.secret,) if work.rotation.secret else (),
        )
        self._vault.journal.outcome(record.encode(), work.state.org.id)

    def _require_commands(self, rotator: Rotator, rotation: Rotation) -> None:
        if rotator.needs(rotation.settings).server and not self.commands:
            raise InvalidRequest("commands are forbidden on this server", "its administrator can allow them")

    async def _bounded(self, doing: Awaitable[Any]) -> Any:
        """Let a rotator do a step within the time limit. Raises ``KeyholeError``."""
        try:
            async with asyncio.timeout(self.limits.step):
                return await doing
        except TimeoutError:
            raise failed("the source did not answer in time") from None
        except KeyholeError:
            raise
        except Exception as error:  # noqa: BLE001 - a fault of a rotator must not leave its rotation claimed
            _log.error("internal error: %s", fault_place(error))
            raise failed("the rotator failed, see the server's log") from None

    def _world(self, work: Work) -> World:
        vault, rotation = self._vault, work.rotation
        if vault.net is None:
            raise InternalError("nobody can be reached from here")
        needs = rotators.load(rotation.rotator).needs(rotation.settings)

        async def secret(reference: str) -> Secret:
            path, name = parse_secret_ref(reference)
            return await vault.sources.lend(work.state, await self._nobody(work), path, name)

        async def ask(operation: str, path: str, data: Mapping[str, Any]) -> Mapping[str, Any]:
            if (operation, path) not in needs.paths:
                raise InternalError("a rotator asks for what it did not name")
            return await self._ask(work, Operation(operation), path, data)

        settings = rotation.settings
        return World(settings, vault.clock.now(), rotation.attempt, vault.net, secret, ask, rotation.note)

    async def _nobody(self, work: Work) -> Caller:
        org = work.state.org
        return Caller(org.name, org.id, "", "", "full", (), await self._vault.compiled.acl(work.state, ()))

    async def _ask(self, work: Work, operation: Operation, path: str, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """An internal request: whoever wrote the rotation had to have the capabilities."""
        vault = self._vault
        work.state = await vault.compiled.state(work.state.org.id)
        target = work.state.mounts.resolve(operation, path)
        reply = await answer(
            vault, work.state, await self._nobody(work), target, Call(operation, path, target.params, data)
        )
        found = {}
        for name, value in (reply.data or {}).items():
            plain = json.loads(value.reveal()) if isinstance(value, Secret) and operation is Operation.READ else value
            found[name] = Secret(plain) if isinstance(value, Secret) and isinstance(plain, str) else value
        return found

    async def _current(self, work: Work) -> tuple[dict[str, Secret], int]:
        """The fields of the secret that are texts, and its version. Raises ``NotFound``, ``Expired``."""
        found = await self._ask(work, Operation.READ, f"secret/data/{work.rotation.secret}", {})
        data = found.get("data")
        if not isinstance(data, Secret):
            raise NotFound(f"the current version of {work.rotation.secret!r} is deleted", "keyhole set NAME")
        fields = json.loads(data.reveal())
        return {name: Secret(text) for name, text in fields.items() if isinstance(text, str)}, found["metadata"][
            "version"
        ]

    async def _write(self, work: Work, new: Value, version: int) -> None:
        """The next version of the secret; its date moves as far as its life is long."""
        path = work.rotation.secret
        options: dict[str, Any] = {"cas": version}
        life = await self._life(work)
        if life:
            options["expires_in"] = int(life)
        data = {name: value.reveal().decode() for name, value in (work.values.new or new).fields.items()}
        await self._ask(work, Operation.PATCH, f"secret/data/{path}", {"data": data, "options": options})

    async def _life(self, work: Work) -> float:
        about = await self._ask(work, Operation.READ, f"secret/metadata/{work.rotation.secret}", {})
        if not about.get("expires_at"):
            return 0.0
        return max(0.0, parse_time(about["expires_at"]) - parse_time(about["rotated_at"]))
