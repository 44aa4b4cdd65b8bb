"""AWS Systems Manager Parameter Store: ``GetParameter``, decrypted. A path is the name without its leading slash."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from keyhole.engines.external.kinds import aws, fields_of, nothing_there, require_path
from keyhole.engines.external.source import Source
from keyhole.engines.settings import text

SETTINGS = (*aws.SETTINGS, text("prefix", "/", "before each path; empty for parameters without a leading slash"))
CREDENTIALS = aws.CREDENTIALS
check = aws.check
needs_sudo = aws.needs_sudo
_SERVICE = "ssm"
_NAME = re.compile(r"[A-Za-z0-9_./-]{1,1011}")  # a colon would choose a version


def hosts(options: Mapping[str, Any]) -> list[str]:
    """See ``Kind.hosts``."""
    return [aws.endpoint(options, _SERVICE)]


async def fetch(source: Source, path: str) -> dict[str, Any]:
    """See ``Kind.fetch``."""
    name = source.options["prefix"] + path
    require_path(name, _NAME, "the name of a parameter, without a version")
    answer = await aws.call(source, _SERVICE, "AmazonSSM.GetParameter", {"Name": name, "WithDecryption": True})
    found = answer.get("Parameter")
    value = found.get("Value") if isinstance(found, dict) and found.get("Name") == name else None
    if not isinstance(value, str):
        raise nothing_there(source)
    return fields_of(value)
