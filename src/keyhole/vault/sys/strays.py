"""What was made and no lease knows, at the targets of all mounts of an org."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from keyhole.core.errors import InvalidRequest
from keyhole.core.identity import Caller
from keyhole.core.lease import Lease
from keyhole.core.record import Phase, Record
from keyhole.engines.strays import Stray
from keyhole.vault.compiled import OrgState
from keyhole.vault.keys import new_request_id
from keyhole.vault.mounts import Mount
from keyhole.vault.vault import Vault

_MOST = 10_000
Named = frozenset[tuple[str, str, str]]


def parse_named(value: Any) -> Named:
    """Mount, target and name of what is to go. Raises ``InvalidRequest``."""
    if value is None:
        return frozenset()
    if not isinstance(value, list) or len(value) > _MOST:
        raise InvalidRequest(f"drop is a list of at most {_MOST:,}", "send what strays said")
    named: set[tuple[str, str, str]] = set()
    for each in value:
        match each:
            case {"mount": str(mount), "target": str(target), "name": str(name)}:
                named.add((mount, target, name))
            case _:
                raise InvalidRequest("each of drop has a mount, a target and a name", "send what strays said")
    return frozenset(named)


async def look_for_strays(vault: Vault, state: OrgState, caller: Caller, drop: Named) -> dict[str, Any]:
    """What no lease knows, and where nobody could look; what is named is taken away, with a record of each."""
    mounts = [mount for mount in state.mounts if mount.engine.strays is not None]
    found = await asyncio.gather(*(_of_mount(vault, state, caller, mount, drop) for mount in mounts))
    every = [(mount, stray) for mount, strays in zip(mounts, found, strict=True) for stray in strays]
    for mount, stray in every:
        if stray.name and (mount.path, stray.target, stray.name) in drop:
            _record(vault, state, caller, mount, stray)
    return {
        "strays": [_shown(mount, stray) for mount, stray in every if stray.name],
        "unseen": [_shown(mount, stray) for mount, stray in every if not stray.name],
    }


async def _of_mount(vault: Vault, state: OrgState, caller: Caller, mount: Mount, drop: Named) -> list[Stray]:
    wanted = {(target, name) for path, target, name in drop if path == mount.path}
    if mount.engine.strays is None:
        return []
    leases = partial(leases_of, vault, mount.engine.type)
    return await mount.engine.strays(vault.context(state, caller, mount), leases, wanted)


async def leases_of(vault: Vault, engine: str) -> list[Lease]:
    """All leases of mounts of a type, in every org and state: another org may use the same database."""
    found: list[Lease] = []
    for org in await vault.orgs.all():
        state = await vault.compiled.state(org.id)
        mounts = {mount.id for mount in state.mounts if mount.engine.type == engine}
        if mounts:
            found += [lease for lease in await vault.leases.every(org.id) if lease.mount in mounts]
    return found


def _shown(mount: Mount, stray: Stray) -> dict[str, Any]:
    about = {"name": stray.name, "dropped": stray.dropped} if stray.name else {}
    return {"mount": mount.path, "target": stray.target, **about, **({"error": stray.error} if stray.error else {})}


def _record(vault: Vault, state: OrgState, caller: Caller, mount: Mount, stray: Stray) -> None:
    record = Record(
        phase=Phase.EVENT,
        id=new_request_id(),
        caller=caller.name,
        accessor=caller.accessor,
        operation="drop-stray",
        path=f"{mount.path}{stray.target}/{stray.name}",
        result="ok" if stray.dropped else "target_failed",
    )
    vault.journal.outcome(record.encode(), state.org.id)
