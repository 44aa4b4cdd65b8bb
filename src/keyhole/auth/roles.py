"""Roles of a login method: a table of settings at a name, kept and listed alike for every method."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from keyhole.auth import settings
from keyhole.auth.settings import Setting
from keyhole.core.errors import NotFound
from keyhole.core.request import Operation, Reply
from keyhole.engines import Call, Context, Route


@dataclass(frozen=True, slots=True)
class Roles:
    """The roles of a mount.

    Attributes:
        settings: of a role.
        check: raises ``InvalidRequest`` for settings that do not go together, and may put others in their place; given
            the name of the role too.
        noun: what they are called in paths.
    """

    settings: tuple[Setting, ...]
    check: Callable[[dict[str, Any], str], None]
    noun: str = "role"

    def routes(self) -> tuple[Route, ...]:
        """Their part of the method's table."""
        return (
            Route(self.noun, {Operation.LIST: self.list_all}, help="Names of the roles."),
            Route(
                f"{self.noun}/{{name}}",
                {Operation.READ: self._read, Operation.CREATE: self._write, Operation.DELETE: self._delete},
                exists=self._exists,
                fields=settings.fields(self.settings),
                help="A role: who may log in, and what its tokens may do.",
            ),
        )

    async def load(self, context: Context, name: str) -> dict[str, Any] | None:
        """The settings of one, and its ``name``; ``None`` where there is none."""
        item = await context.storage.get_one(self._path(name))
        return None if item.data is None else {**json.loads(item.data), "name": name.lower()}

    async def names(self, context: Context) -> list[str]:
        """The names of all."""
        return [*await context.storage.list(self.noun)]

    def _path(self, name: str) -> str:
        return f"{self.noun}/{name.lower()}"

    async def _exists(self, context: Context, params: Mapping[str, str]) -> bool:
        return (await context.storage.get_one(self._path(params["name"]))).data is not None

    async def _write(self, context: Context, call: Call) -> None:
        name = settings.read_name(call.params["name"], "role")
        item = await context.storage.get_one(self._path(name))
        call.require_new(stored=item.data is not None)
        before = json.loads(item.data) if item.data is not None else {}
        after = settings.merge(self.settings, call.data, before)
        self.check(after, name)
        settings.require_grantable(context.caller, call.path, before, after)
        await context.storage.change([(self._path(name), json.dumps(after).encode(), item.revision)])

    async def _read(self, context: Context, call: Call) -> Reply:
        role = await self.load(context, call.params["name"])
        if role is None:
            raise NotFound("there is no such role")
        return Reply(settings.show(self.settings, role))

    async def _delete(self, context: Context, call: Call) -> None:
        item = await context.storage.get_one(self._path(call.params["name"]))
        if item.data is not None:
            await context.storage.change((), [(self._path(call.params["name"]), item.revision)])

    async def list_all(self, context: Context, _call: Call) -> Reply:
        """The names of all, as an answer."""
        keys = await self.names(context)
        if not keys:
            raise NotFound("there are no roles")
        return Reply({"keys": keys})
