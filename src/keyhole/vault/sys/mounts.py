"""``sys/mounts``, ``sys/auth``, ``sys/remount``: which engines and login methods answer where, in the caller's org.

Texts of refusals are Vault's. A change is one write of the org's table, see ``vault.mount_table``.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Any

from keyhole import engines
from keyhole.core.errors import InvalidRequest, KeyholeError, NotFound
from keyhole.core.path import parse_path
from keyhole.core.request import Operation, Reply
from keyhole.engines import Call, Context, Field, Route
from keyhole.vault.mount_table import Table, new_entry
from keyhole.vault.mounts import AUTH, Mount, Mounts, unset
from keyhole.vault.sys import mount_config, upgrading
from keyhole.vault.sys.unmounting import remove_disabled
from keyhole.vault.vault import Vault

_PROTECTED = ("audit/", "auth/", "sys/", "cubbyhole/", "identity/")
_KV = {"kv-v1": "1", "kv-v2": "2", "generic": "1"}
_EVERY = frozenset({Operation.READ, Operation.CREATE, Operation.UPDATE, Operation.DELETE})
_FIELDS = (
    Field("type", "which engine", "string"),
    Field("description", "for people", "string"),
    Field("config", "object: default_lease_ttl, max_lease_ttl and the other settings of tune", "map"),
    Field("options", "object of texts for the engine, such as the version of kv", "map"),
    Field("local", "kept; there is no replication", "boolean"),
    Field("seal_wrap", "kept; everything is sealed", "boolean"),
)


@dataclass(frozen=True, slots=True)
class _Kind:
    """What differs between mounts of engines and those of login methods."""

    prefix: str  # of their paths
    name: str  # in Vault's texts

    def full(self, text: str) -> str:
        """The path of a mount, as it was given below ``sys/mounts/`` or ``sys/auth/``."""
        return f"{self.prefix}{parse_path(text.strip('/'))}/"

    def holds(self, mount: Mount) -> bool:
        return mount.path.startswith(AUTH) == (self.prefix == AUTH)


class _Handlers:
    """Handlers of the routes of one kind."""

    def __init__(self, vault: Vault, kind: _Kind) -> None:
        self._vault = vault
        self._kind = kind

    async def all(self, context: Context, _call: Call) -> Reply:
        mounts = filter(self._kind.holds, self._vault.mounts_of(context.caller))
        ordered = sorted(mounts, key=lambda mount: mount.path)
        return Reply({mount.path.removeprefix(self._kind.prefix): describe(mount) for mount in ordered})

    async def read(self, context: Context, call: Call) -> Reply:
        path = self._kind.full(call.params["path"])
        try:
            return Reply(describe(self._vault.mounts_of(context.caller).at(path)))
        except NotFound:
            shown = path.removeprefix(self._kind.prefix)
            raise InvalidRequest(f"No {self._kind.name} engine at {shown}", "read sys/mounts or sys/auth") from None

    async def enable(self, context: Context, call: Call) -> None:
        path, data = self._kind.full(call.params["path"]), call.data
        kind = data.get("type")
        if not isinstance(kind, str) or not kind:
            raise InvalidRequest("backend type must be specified as a string", 'send {"type": "kv"}')
        options = mount_config.parse_options(data.get("options"))
        if kind in _KV and not self._kind.prefix:
            kind, options = "kv", {**options, "version": _KV[kind]}
        if kind == "kv":
            options.setdefault("version", "1")
        self._check_type(path, kind)
        self._vault.tables.make_engine(path, kind, options)
        said = {
            "description": mount_config.parse_description(data.get("description") or ""),
            "options": options,
            "config": mount_config.merge(data.get("config"), unset(path)),
            "local": bool(data.get("local")),
            "seal_wrap": bool(data.get("seal_wrap")),
        }

        def add(table: Table, mounts: Mounts) -> None:
            table.put(new_entry(path, kind, mounts, **said))

        await self._vault.tables.change(context.caller.org_id, add)

    def _check_type(self, path: str, kind: str) -> None:
        if not self._kind.prefix and path.startswith(_PROTECTED):
            raise InvalidRequest(f'cannot mount "{path}"', "choose another path")
        if self._kind.prefix and kind == "token":
            raise InvalidRequest("token credential backend cannot be instantiated", "every org has it at auth/token/")
        if not self._kind.prefix and kind in engines.SINGLE:
            raise InvalidRequest(f'mount type of "{kind}" is not mountable', "every org has it")

    async def disable(self, context: Context, call: Call) -> None:
        path = self._kind.full(call.params["path"])
        org_id = context.caller.org_id

        def take_out(table: Table, mounts: Mounts) -> bool:
            entry = table.at(path)
            if entry is not None:
                table.disable(entry)
            elif any(mount.fixed and mount.path == path for mount in mounts):
                raise InvalidRequest(f'cannot unmount "{path}"', "every org has it")
            return entry is not None

        there = any(mount.path == path for mount in self._vault.mounts_of(context.caller))
        if there and await self._vault.tables.change(org_id, take_out):
            await remove_disabled(self._vault, org_id)

    async def read_tune(self, context: Context, call: Call) -> Reply:
        path = self._kind.full(call.params["path"])
        try:
            mount = self._vault.mounts_of(context.caller).at(path)
        except NotFound:
            raise InvalidRequest(f'cannot fetch sysview for path "{path}"', "there is no mount") from None
        data = {
            **mount.config,
            "description": mount.description,
            "default_lease_ttl": mount.default_ttl,
            "max_lease_ttl": mount.max_ttl,
        }
        return Reply({**data, "options": dict(mount.options)} if mount.options else data)

    async def tune(self, context: Context, call: Call) -> Reply:
        path, org_id = self._kind.full(call.params["path"]), context.caller.org_id

        def edit(table: Table, mounts: Mounts) -> bool:
            mount = next((each for each in mounts if each.path == path), None)
            if mount is None:
                raise InvalidRequest(f'tune of path "{path}" failed: no mount entry found', "there is no mount")
            config = mount_config.merge(call.data, mount.config, login=bool(self._kind.prefix))
            entry = table.at(path)
            upgrade = entry is not None and upgrading.wanted(
                entry, mount_config.parse_options(call.data.get("options"))
            )
            options = {**mount.options, "version": "2"} if upgrade else mount.options
            mount_config.require_same(call.data.get("options"), options)
            said = call.data.get("description")
            description = mount.description if said is None else mount_config.parse_description(said)
            if entry is None:
                table.tuned[path] = {"config": config, "description": description}
                return False
            table.put(entry._replace(config=config, description=description, options=options))
            table.upgrading += [entry.id] if upgrade else []
            return upgrade

        if not await self._vault.tables.change(org_id, edit):
            return Reply()
        doing = self._vault.expiry.begin(self._upgrade(org_id))
        if not self._vault.expiry.background:  # nobody sweeps, and the process may end with the request
            await asyncio.shield(doing)
        return Reply(warnings=[upgrading.WARNING])

    async def _upgrade(self, org_id: str) -> None:
        with contextlib.suppress(KeyholeError):  # the next sweep does the rest
            await upgrading.upgrade_mounts(self._vault, org_id)


class _Remount:
    """Moves of mounts. A move is one write, so it has always succeeded by the time somebody asks."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    async def move(self, context: Context, call: Call) -> Reply:
        source, target = (call.data.get(name) for name in ("from", "to"))
        if not (isinstance(source, str) and source and isinstance(target, str) and target):
            raise InvalidRequest("both 'from' and 'to' path must be specified as a string", 'send {"from": …, "to": …}')
        source, target = (f"{parse_path(text.strip('/'))}/" for text in (source, target))
        if source.startswith(AUTH) != target.startswith(AUTH):
            kinds = ("auth", "non-auth") if source.startswith(AUTH) else ("non-auth", "auth")
            raise InvalidRequest(f'cannot remount {kinds[0]} mount to {kinds[1]} mount "{target}"', "move it elsewhere")
        below = target.removeprefix(AUTH)
        if not below or (below == target and target.startswith(_PROTECTED)):
            raise InvalidRequest(f'cannot remount to "{target}"', "choose another path")

        def edit(table: Table, mounts: Mounts) -> str:
            if any(mount.fixed and mount.path == source for mount in mounts):
                raise InvalidRequest(f'cannot remount "{source}"', "every org has it there")
            entry = table.at(source)
            if entry is None:
                raise InvalidRequest(f'no matching mount at "{source}"', "read sys/mounts or sys/auth")
            mounts.require_free(target, besides=entry.id)
            table.put(entry._replace(path=target))
            return table.note_move(source, target)

        return Reply({"migration_id": await self._vault.tables.change(context.caller.org_id, edit)})

    async def status(self, context: Context, call: Call) -> Reply:
        for move in (await self._vault.tables.read(context.caller.org_id)).moves:
            if move["id"] == call.params["id"]:
                info = {name: move[name] for name in ("source_mount", "target_mount")}
                return Reply({"migration_id": move["id"], "migration_info": {**info, "status": "success"}})
        raise NotFound("there is no such move, or it was long ago")


def describe(mount: Mount) -> dict[str, Any]:
    """A mount as ``sys/mounts`` shows it."""
    return {
        "accessor": mount.accessor,
        "config": dict(mount.config),
        "deprecation_status": "supported",
        "description": mount.description,
        "external_entropy_access": False,
        "local": mount.local,
        "options": dict(mount.options) or (None if mount.fixed else {}),
        "plugin_version": "",
        "running_plugin_version": "",
        "running_sha256": "",
        "seal_wrap": mount.seal_wrap,
        "type": mount.type,
        "uuid": mount.uuid,
    }


def routes(vault: Vault) -> tuple[Route, ...]:
    """The table."""
    moves = _Remount(vault)
    write, change = Operation.CREATE, frozenset({Operation.CREATE, Operation.UPDATE})
    both = (Field("from", "path of a mount", "string"), Field("to", "where it goes", "string"))
    return (
        *_table(_Handlers(vault, _Kind("", "secret")), "mounts", frozenset()),
        *_table(_Handlers(vault, _Kind(AUTH, "auth")), "auth", _EVERY),
        Route("remount", {write: moves.move}, sudo=change, fields=both, help="Move a mount, with all it holds."),
        Route("remount/status/{id}", {Operation.READ: moves.status}, help="How a move went."),
    )


def _table(r: _Handlers, noun: str, sudo: frozenset[Operation]) -> tuple[Route, ...]:
    each = {Operation.READ: r.read, Operation.CREATE: r.enable, Operation.DELETE: r.disable}
    tune = {Operation.READ: r.read_tune, Operation.CREATE: r.tune}
    settings = (*mount_config.FIELDS, _FIELDS[1], _FIELDS[3])
    return (
        Route(noun, {Operation.READ: r.all}, help="All mounts of the org."),
        Route(f"{noun}/{{path...}}/tune", tune, sudo=sudo, fields=settings, help="Settings of a mount."),
        Route(f"{noun}/{{path...}}", each, sudo=sudo, fields=_FIELDS, help="A mount: make one, look at it, end it."),
    )
