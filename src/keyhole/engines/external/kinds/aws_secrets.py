"""AWS Secrets Manager: ``GetSecretValue`` of the current version. A path is the friendly name of a secret."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from keyhole.core.path import DEFAULT_FIELD
from keyhole.engines.external.kinds import aws, fields_of, nothing_there, require_path
from keyhole.engines.external.source import Source

SETTINGS = aws.SETTINGS
CREDENTIALS = aws.CREDENTIALS
check = aws.check
needs_sudo = aws.needs_sudo
_SERVICE = "secretsmanager"
_NAME = re.compile(r"[A-Za-z0-9/_+=.@-]{1,512}")  # an ARN, which would be a second name, has colons


def hosts(options: Mapping[str, Any]) -> list[str]:
    """See ``Kind.hosts``."""
    return [aws.endpoint(options, _SERVICE)]


async def fetch(source: Source, path: str) -> dict[str, Any]:
    """See ``Kind.fetch``."""
    require_path(path, _NAME, "the name of a secret, and no ARN")
    answer = await aws.call(source, _SERVICE, "secretsmanager.GetSecretValue", {"SecretId": path})
    if answer.get("Name") != path:
        raise nothing_there(source)
    text = answer.get("SecretString")
    if isinstance(text, str):
        return fields_of(text)
    return {DEFAULT_FIELD: answer.get("SecretBinary")}
