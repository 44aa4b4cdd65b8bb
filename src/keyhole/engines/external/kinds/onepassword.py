"""1Password through a Connect server (API v1). A path is VAULT/ITEM, by their titles, which have to be unique there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from keyhole.core.errors import Conflict
from keyhole.core.path import DEFAULT_FIELD
from keyhole.engines.external.kinds import (
    joined,
    nothing_there,
    require,
    require_credentials,
    require_path,
)
from keyhole.engines.external.source import Answer, Source
from keyhole.engines.settings import text

SETTINGS = (text("address", about="https://HOST of the Connect server"),)
CREDENTIALS = ("token",)
_PATH = re.compile(r'[^/"\\]{1,200}/[^/"\\]{1,200}')  # a quote would end the text in the filter
_VALUES = ("PASSWORD",)  # purposes of the field that is meant when none is named
_IDS = ("credential", "password")


def check(options: Mapping[str, Any], credentials: Sequence[str]) -> None:
    """See ``Kind.check``."""
    require(options, "address")
    require_credentials(credentials, CREDENTIALS)


def hosts(options: Mapping[str, Any]) -> list[str]:
    """See ``Kind.hosts``."""
    return [options["address"]]


async def fetch(source: Source, path: str) -> dict[str, Any]:
    """See ``Kind.fetch``."""
    require_path(path, _PATH, "VAULT/ITEM, by their titles")
    vault_title, _, item_title = path.partition("/")
    vault = await _only(source, "name", vault_title, "vaults")
    item = await _only(source, "title", item_title, "vaults", vault, "items")
    answer = await _ask(source, "vaults", vault, "items", item)
    fields = answer.at("fields")
    return _named(fields if isinstance(fields, list) else [])


async def probe(source: Source) -> None:
    """List the vaults that the token sees."""
    await _ask(source, "vaults")


async def _only(source: Source, key: str, title: str, *segments: str) -> str:
    """The id of the one thing with this title."""
    answer = await _ask(source, *segments, filter=f'{key} eq "{title}"')
    listed = answer.data if isinstance(answer.data, list) else []
    found = [each.get("id") for each in listed if isinstance(each, dict) and each.get(key) == title]
    if len(found) > 1:
        raise Conflict(f"the source {source.name!r} has several of this title", "give each a title of its own there")
    if not found or not isinstance(found[0], str):
        raise nothing_there(source)
    return found[0]


async def _ask(source: Source, *segments: str, **query: str) -> Answer:
    url = joined(source.options["address"], "v1", *segments) + (f"?{urlencode(query)}" if query else "")
    answer = await source.ask("GET", url, headers=(("Authorization", f"Bearer {source.credentials['token'].strip()}"),))
    if answer.status == 404:
        raise nothing_there(source)
    if answer.status != 200:
        raise source.refusal(answer, "give the Connect token access to this vault")
    return answer


def _named(fields: list[Any]) -> dict[str, Any]:
    """The fields by their labels; ``value`` is the password or credential of the item, unless one has that label."""
    found: dict[str, Any] = {}
    for each in fields:
        if not isinstance(each, dict) or not isinstance(each.get("value"), str):
            continue
        label = each.get("label") or each.get("id")
        if isinstance(label, str) and label:
            found.setdefault(label, each["value"])
        if each.get("purpose") in _VALUES or each.get("id") in _IDS:
            found.setdefault(DEFAULT_FIELD, each["value"])
    return found
