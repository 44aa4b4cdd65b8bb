"""Audit devices: a second record of every request, where other programs read it, in Vault's format.

The journal stays the record that proves something. A device gets an entry of each request before it is acted upon, and
one of each answer before it is released. Where there are devices and none of them writes, the request fails; one that
hangs holds up nobody for longer than its time. Devices are the vault's: they get the entries of all orgs, and the org
root alone configures them. What is configured holds for the next request on every server.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from keyhole.core.errors import AuditUnavailable, Conflict, InvalidRequest, KeyholeError
from keyhole.core.identity import ROOT_ORG, Caller
from keyhole.core.record import Intent, Phase, Record, clip
from keyhole.core.request import Operation, Reply, Request
from keyhole.crypto.mac import MacKey
from keyhole.vault.devices import entries
from keyhole.vault.devices.entries import Seen, Style
from keyhole.vault.keys import new_request_id

if TYPE_CHECKING:
    from keyhole.net.delivery import Outgoing
    from keyhole.vault.asked import Asked
    from keyhole.vault.compiled import OrgState
    from keyhole.vault.devices import kinds
    from keyhole.vault.devices.lane import Lane
    from keyhole.vault.mounts import Mount
    from keyhole.vault.storage import Storage
    from keyhole.vault.vault import Vault

MOUNT = "audit-devices"
MOST = 16
"""Devices that a vault can have."""

_HEADERS = "headers"
_CREDENTIALS = frozenset({"authorization", "cookie", "proxy-authorization", "x-vault-token"})
_log = logging.getLogger("keyhole.audit")


class NoDeviceWrote(AuditUnavailable):
    """There are devices, and none of them took the entry; the status is Vault's."""

    status = 500


class Device:
    """A device that is in use.

    Attributes:
        name: its path, without a slash at the end.
        stored: what was configured.
        revision: of that.
        made: where its lines go.
        style: how it writes.
        lane: its queue.
        state: what was last said of it in the journal.
    """

    def __init__(
        self,
        name: str,
        stored: Mapping[str, Any],
        revision: int,
        made: kinds.Made,
        style: Style,
        lane: Lane,
        state: str = "ok",
    ) -> None:
        self.name = name
        self.stored = stored
        self.revision = revision
        self.made = made
        self.style = style
        self.lane = lane
        self.state = state


class Devices:
    """The devices of an open vault, as this process uses them.

    Args:
        vault: gives the storage, the clock and the journal.

    Attributes:
        outgoing: how network devices reach others; of its own unless the server gives its own.
    """

    def __init__(self, vault: Vault) -> None:
        self.outgoing: Outgoing | None = None
        self.headers: dict[str, bool] = {}
        self._vault = vault
        self._devices: dict[str, Device] = {}
        self._open: dict[str, Seen] = {}
        self._generation: int | None = None
        self._epoch = -1
        self._lock = asyncio.Lock()

    def concern(self, generation: int | None = None) -> bool:
        """Whether there is anything to do for a request at this generation of the store."""
        if self._devices or self._generation is None:
            return True
        return generation is not None and generation != self._generation

    async def present(self, state: OrgState) -> bool:
        """Whether there are any now."""
        if state.generation != self._generation:
            await self._refresh(state.generation)
        return bool(self._devices)

    async def asked(self, state: OrgState, caller: Caller, asked: Asked) -> None:
        """An entry of a request that is about to be acted upon. Raises ``NoDeviceWrote``."""
        mount = asked.target.mount
        await self._begin(state, self._seen(state, caller, asked.request, asked.path, asked.operation, mount))

    async def asking(self, state: OrgState, caller: Caller, request: Request, path: str, operation: Operation) -> None:
        """As ``asked``, of what does not go through the tables of routes: a use, a login, an unwrapping."""
        mount = next(mount for mount in state.mounts if path.startswith(mount.path))
        await self._begin(state, self._seen(state, caller, request, path, operation, mount))

    async def answered(self, request: Request, reply: Reply) -> None:
        """An entry of an answer that is about to be released. Raises ``NoDeviceWrote``."""
        seen = self._open.pop(request.id, None)
        if seen is not None and self._devices:
            now = self._vault.clock.now()
            await self._write(seen, lambda style: entries.response_entry(style, seen, now, reply))

    async def failed(self, request: Request, error: KeyholeError) -> None:
        """An entry of how a request failed that was being acted upon. Raises ``NoDeviceWrote``."""
        seen = self._open.pop(request.id, None)
        if seen is not None and self._devices and not isinstance(error, NoDeviceWrote):
            now, reason = self._vault.clock.now(), clip(error.reason)
            await self._write(seen, lambda style: entries.response_entry(style, seen, now, None, reason))

    async def refused(
        self, request: Request, error: KeyholeError, state: OrgState | None = None, caller: Caller | None = None
    ) -> None:
        """Entries of a request that is not acted upon, by somebody unknown or a caller. Raises ``NoDeviceWrote``."""
        if self._generation is None:
            await self._refresh(None)
        if not self._devices:
            return
        now, reason = self._vault.clock.now(), clip(error.reason)
        org = ("", "root") if state is None or state.org.name == ROOT_ORG else (state.org.name, state.org.id)
        operation, path = request.operation.value, request.path
        seen = Seen(request, path, operation, org, caller, headers=self.headers)
        await self._write(seen, lambda style: entries.request_entry(style, seen, now, reason))
        await self._write(seen, lambda style: entries.response_entry(style, seen, now, None, reason))

    def concluded(self, intent: Record | Intent, result: str, facts: Mapping[str, Any]) -> None:
        """How a use ended. Nobody waits for this entry."""
        if not self._open:
            return
        request_id = (intent if isinstance(intent, Record) else intent.record()).id
        seen = self._open.get(request_id)
        if seen is None or seen.operation != Operation.USE.value:
            return
        del self._open[request_id]
        now, error = self._vault.clock.now(), "" if result == "ok" else result
        reply = Reply({name: value for name, value in facts.items() if value})
        for device in self._devices.values():
            line = entries.response_entry(device.style, seen, now, reply, error)
            device.lane.put(device.made.prefix + line)

    def forget(self, request: Request) -> None:
        """Whoever asked has gone; there will be no answer."""
        self._open.pop(request.id, None)

    def reopen(self) -> None:
        """Open the files again, as after they were moved away."""
        for device in self._devices.values():
            again = getattr(device.made.way, "reopen", None)
            if again is not None:
                again()

    async def close(self) -> None:
        """Hand over what is queued, and let the devices go."""
        devices, self._devices = self._devices, {}
        await asyncio.gather(*(device.lane.close() for device in devices.values()))

    async def described(self) -> dict[str, Any]:
        """All devices, as ``sys/audit`` lists them."""
        found = await self._load()
        return {f"{name}/": {**_shown(stored), "path": f"{name}/"} for name, (stored, _) in found.items()}

    async def enable(self, name: str, stored: Mapping[str, Any]) -> None:
        """Add a device. Raises ``InvalidRequest`` when it cannot be, or cannot be opened."""
        known = await self._load()
        if any(f"{name}/".startswith(f"{other}/") or f"{other}/".startswith(f"{name}/") for other in known):
            raise InvalidRequest("path already in use", "choose another, or disable that device")
        if len(known) >= MOST:
            raise InvalidRequest(f"there are {MOST} devices already", "disable one")
        from keyhole.vault.devices import kinds  # noqa: PLC0415  # most vaults have no devices

        made = kinds.make(str(stored["type"]), stored["options"], self._outgoing)
        opens = getattr(made.way, "open", None)
        if opens is not None:
            try:
                async with asyncio.timeout(made.seconds):
                    await opens()
            except TimeoutError:
                raise InvalidRequest("the device does not answer", "look at its file system") from None
            finally:
                made.way.close()
        item = await self._storage().get_one(f"d/{name}")
        if item.data is not None:
            raise Conflict("path already in use")
        data = json.dumps({**stored, "salt": os.urandom(32).hex()}).encode()
        await self._storage().change([(f"d/{name}", data, item.revision)])
        await self._refresh(None)

    async def disable(self, name: str) -> None:
        """Remove a device; an unknown one counts as removed."""
        item = await self._storage().get_one(f"d/{name}")
        if item.data is not None:
            await self._storage().change(deletes=[(f"d/{name}", item.revision)])
        await self._refresh(None)

    async def hashed(self, name: str, text: str) -> str:
        """A text as the entries of a device have it. Raises ``InvalidRequest``."""
        found = (await self._load()).get(name)
        if found is None:
            raise InvalidRequest("unknown audit backend", "see sys/audit")
        return Style(MacKey(bytes.fromhex(found[0]["salt"]))).hashed(text)

    async def set_header(self, name: str, hashed: bool | None) -> None:  # noqa: FBT001 - None: no longer
        """Write a header of requests from now on, hashed or as it is, or do not. Raises ``InvalidRequest``."""
        name = name.lower()
        if name in _CREDENTIALS:
            raise InvalidRequest(f"the header {name} is a credential", "its accessor is in every entry")
        item = await self._storage().get_one(_HEADERS)
        headers: dict[str, bool] = json.loads(item.data) if item.data is not None else {}
        headers.pop(name, None)
        if hashed is not None:
            headers[name] = hashed
        await self._storage().change([(_HEADERS, json.dumps(headers).encode(), item.revision)])
        await self._refresh(None)

    async def known_headers(self) -> dict[str, bool]:
        """Headers that are written, by lower-case name, each with whether it is hashed."""
        item = await self._storage().get_one(_HEADERS)
        return json.loads(item.data) if item.data is not None else {}

    def _storage(self) -> Storage:
        return self._vault.storage(self._vault.root_org, MOUNT, configures=True)

    async def _load(self) -> dict[str, tuple[dict[str, Any], int]]:
        storage, found = self._storage(), {}
        for name in await storage.list("d", recursive=True):
            item = await storage.get_one(f"d/{name}")
            if item.data is not None:
                found[name] = (json.loads(item.data), item.revision)
        return found

    def _outgoing(self) -> Outgoing:
        if self.outgoing is None:
            from keyhole.net.delivery import Outgoing  # noqa: PLC0415 - commands start without it

            self.outgoing = Outgoing()
        return self.outgoing

    async def _begin(self, state: OrgState, seen: Seen) -> None:
        if await self.present(state):
            self._open[seen.request.id] = seen
            now = self._vault.clock.now()
            await self._write(seen, lambda style: entries.request_entry(style, seen, now))

    def _seen(
        self, state: OrgState, caller: Caller, request: Request, path: str, operation: Operation, mount: Mount
    ) -> Seen:
        root = state.org.name == ROOT_ORG
        return Seen(
            request=request,
            path=path,
            operation=operation.value,
            org=("", "root") if root else (state.org.name, state.org.id),
            caller=caller,
            mount={
                "mount_point": mount.path,
                "mount_type": mount.type,
                "mount_accessor": mount.accessor,
                "mount_class": "auth" if mount.path.startswith("auth/") else "secret",
            },
            plain_request=frozenset(mount.config.get("audit_non_hmac_request_keys") or ()),
            plain_response=frozenset(mount.config.get("audit_non_hmac_response_keys") or ()),
            headers=self.headers,
        )

    async def _refresh(self, generation: int | None) -> None:
        """Use what is configured now."""
        async with self._lock:
            state = await self._vault.compiled.state(self._vault.root_org)
            if state.epoch != self._epoch:
                await self._change(await self._load())
                self.headers = await self.known_headers()
                self._epoch = state.epoch
            self._generation = state.generation if generation is None else generation

    async def _change(self, wanted: Mapping[str, tuple[dict[str, Any], int]]) -> None:
        gone = [d for d in self._devices.values() if d.name not in wanted or wanted[d.name][1] != d.revision]
        kept = {device.name: device for device in self._devices.values() if device not in gone}
        for name, (stored, revision) in wanted.items():
            if name not in kept:
                from keyhole.vault.devices import kinds  # noqa: PLC0415  # as above
                from keyhole.vault.devices.lane import Lane  # noqa: PLC0415  # as above

                made = kinds.make(stored["type"], stored["options"], self._outgoing)
                style = Style(MacKey(bytes.fromhex(stored["salt"])), made.hash_accessors, made.elide_lists)
                kept[name] = Device(name, stored, revision, made, style, Lane(made.way, made.seconds))
        self._devices = kept
        for device in gone:
            await device.lane.close()

    async def _write(self, seen: Seen, entry: Callable[[Style], bytes]) -> None:
        devices = list(self._devices.values())
        from keyhole.vault.devices.lane import write_all  # noqa: PLC0415  # as above

        written = await write_all({d.lane: d.made.prefix + entry(d.style) for d in devices})
        for device in devices:
            self._note(device)
        # Who may change the devices can also do it while none of them works; the journal has it all the same.
        if not written and not seen.path.startswith("sys/audit/"):
            raise NoDeviceWrote("internal error", "no audit device takes entries: mend one, or disable it at sys/audit")

    def _note(self, device: Device) -> None:
        """Say in the journal when a device has begun to fail or to work again."""
        lane = device.lane
        state = "behind" if lane.behind else "failing" if lane.problem else "ok"
        if state == device.state:
            return
        device.state = state
        if state != "ok":
            _log.warning("the audit device %s is %s: %s", device.name, state, lane.problem or "it is too slow")
        record = Record(
            phase=Phase.EVENT,
            id=new_request_id(),
            operation="audit-device",
            path=f"sys/audit/{device.name}",
            result=state,
            count=lane.lost,
        )
        self._vault.journal.outcome(record.encode(), self._vault.root_org)


def _shown(stored: Mapping[str, Any]) -> dict[str, Any]:
    return {name: stored[name] for name in ("type", "description", "local", "options")}
