"""Doppler: one secret of a config (API v3), as it is computed there. A path is the name of a secret."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from keyhole.engines.external.kinds import (
    fields_of,
    joined,
    nothing_there,
    require,
    require_credentials,
    require_path,
)
from keyhole.engines.external.source import Answer, Source
from keyhole.engines.settings import text

SETTINGS = (
    text("address", "https://api.doppler.com", "of the API"),
    text("project", about="name of the project"),
    text("config", about="name of the config, such as prd"),
)
CREDENTIALS = ("token",)
_NAME = re.compile(r"[A-Z_][A-Z0-9_]{0,199}")


def check(options: Mapping[str, Any], credentials: Sequence[str]) -> None:
    """See ``Kind.check``."""
    require(options, "address", "project", "config")
    require_credentials(credentials, CREDENTIALS)


def hosts(options: Mapping[str, Any]) -> list[str]:
    """See ``Kind.hosts``."""
    return [options["address"]]


async def fetch(source: Source, path: str) -> dict[str, Any]:
    """See ``Kind.fetch``."""
    require_path(path, _NAME, "capital letters, digits and _")
    answer = await _ask(source, "secret", name=path)
    if answer.status == 404:
        raise nothing_there(source)
    if answer.status != 200:
        raise source.refusal(answer, "give the token read access to this config")
    if answer.text("name") != path or not isinstance(answer.at("value", "computed"), str):
        raise nothing_there(source)
    return fields_of(answer.text("value", "computed"))


async def _ask(source: Source, what: str, **query: str) -> Answer:
    asked = {"project": source.options["project"], "config": source.options["config"], **query}
    url = joined(source.options["address"], "v3", "configs", "config", what) + f"?{urlencode(asked)}"
    return await source.ask("GET", url, headers=(("Authorization", f"Bearer {source.credentials['token'].strip()}"),))
