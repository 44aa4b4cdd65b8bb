"""Bitwarden through ``bw serve``, the local API of its command line. A path is the id of an item.

That API asks for no credential: whoever reaches its port has the whole vault. Run it on loopback, where nobody else is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from keyhole.core.errors import InvalidRequest
from keyhole.core.path import DEFAULT_FIELD
from keyhole.engines.external.kinds import joined, nothing_there, require, require_path
from keyhole.engines.external.source import Answer, Source
from keyhole.engines.settings import text

SETTINGS = (text("address", "http://127.0.0.1:8087", "where bw serve listens"),)
CREDENTIALS = ()
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def check(options: Mapping[str, Any], credentials: Sequence[str]) -> None:
    """See ``Kind.check``."""
    require(options, "address")
    if credentials:
        raise InvalidRequest("bw serve takes no credentials", "leave them out")


def hosts(options: Mapping[str, Any]) -> list[str]:
    """See ``Kind.hosts``."""
    return [options["address"]]


async def fetch(source: Source, path: str) -> dict[str, Any]:
    """See ``Kind.fetch``."""
    require_path(path, _ID, "the id of an item, in lower case")
    answer = await _ask(source, "object", "item", path)
    item = answer.at("data")
    if not isinstance(item, dict) or item.get("id") != path:
        raise nothing_there(source)
    found = {name: answer.at("data", "login", name) for name in ("username", "password")}
    for each in item.get("fields") or []:
        if isinstance(each, dict) and isinstance(each.get("name"), str) and isinstance(each.get("value"), str):
            found.setdefault(each["name"], each["value"])
    found["notes"] = found.get("notes") or item.get("notes")
    return {DEFAULT_FIELD: found["password"] or found["notes"], **found}


async def probe(source: Source) -> None:
    """Ask whether it is unlocked."""
    answer = await _ask(source, "status")
    if answer.at("data", "template", "status") != "unlocked":
        raise InvalidRequest(f"the source {source.name!r} is locked", "bw unlock, and start bw serve with that session")


async def _ask(source: Source, *segments: str) -> Answer:
    answer = await source.ask("GET", joined(source.options["address"], *segments))
    if answer.status in {400, 404}:
        raise nothing_there(source)
    if answer.status != 200:
        raise source.refusal(answer, "see that bw serve is unlocked")
    return answer
