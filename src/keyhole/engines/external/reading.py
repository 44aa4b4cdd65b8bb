"""``read/NAME/PATH``: asks a source, at this moment, for what lies at a path."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from typing import Any, TypeVar

from keyhole.core.errors import InvalidRequest, NotFound, PolicyDenied, UpstreamTimeout
from keyhole.core.fields import parse_text
from keyhole.core.path import parse_field, parse_path
from keyhole.core.request import Reply
from keyhole.core.value import Secret
from keyhole.engines import Call, Context
from keyhole.engines.external.kinds import nothing_there
from keyhole.engines.external.logins import Logins
from keyhole.engines.external.source import Source
from keyhole.engines.external.sources import opened

READ = "read"
T = TypeVar("T")
_SECONDS = 30.0  # for everything that one reading takes: a login, and what it takes to find the secret
_MOST_FIELDS = 1000


class Reading:
    """Asks the sources of a mount.

    Args:
        logins: those that are still good.
    """

    def __init__(self, logins: Logins) -> None:
        self._logins = logins

    async def read(self, context: Context, call: Call) -> Reply:
        """The fields at a path of a source, as secrets."""
        found = await self._fetch(context, call.params["name"], call.params["path"])
        return Reply({name: Secret(json.dumps(value)) for name, value in found.items()})

    async def test(self, context: Context, call: Call) -> Reply:
        """Whether a source answers; with a path, whether something lies there, and the field that is asked for."""
        name, path = call.params["name"], parse_text(call.data.get("path"), "path")
        field = parse_text(call.data.get("field"), "field")
        if not path:
            kind, source = await opened(context, name, self._logins)
            probe = getattr(kind, "probe", None)
            if probe is None or field:
                raise InvalidRequest("there is nothing to ask this kind of source without a path", "name a path")
            await _in_time(name, probe(source))
            return Reply({"name": name, "answers": True})
        if not context.caller.allows("read", f"{context.mount}{READ}/{name}/{parse_path(path)}"):
            raise PolicyDenied("looking for something at a source needs read on it", "ask for a grant")
        found = await self._fetch(context, name, path)
        if field and parse_field(field) not in found:
            raise NotFound(f"there is no field {field!r} at this path", "leave the field out to see which there are")
        return Reply({"name": name, "answers": True, "fields": sorted(found)})

    async def _fetch(self, context: Context, name: str, path: str) -> dict[str, Any]:
        kind, source = await opened(context, name, self._logins)
        found = await _in_time(name, kind.fetch(source, path))
        return _bounded(source, {field: value for field, value in found.items() if value is not None})


async def _in_time(name: str, asked: Awaitable[T]) -> T:
    try:
        async with asyncio.timeout(_SECONDS):
            return await asked
    except TimeoutError:
        raise UpstreamTimeout(f"the source {name!r} did not answer in time", "try again later") from None


def _bounded(source: Source, found: dict[str, Any]) -> dict[str, Any]:
    if not found:
        raise nothing_there(source)
    if len(found) > _MOST_FIELDS:
        raise InvalidRequest(f"what lies there has more than {_MOST_FIELDS:,} fields", "divide it there")
    return found
