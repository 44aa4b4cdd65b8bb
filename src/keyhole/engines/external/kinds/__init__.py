"""Shelf: managers that can be asked, one a file, loaded when a source of that kind is written or read.

    SETTINGS = (settings.text("address", about="https://HOST of it"),)
    CREDENTIALS = ("token",)

    def check(options, credentials): ...                # raises InvalidRequest for what cannot work
    def hosts(options): ...                             # the hosts that are asked
    async def fetch(source, path): ...                  # the fields that lie at a path

Promises of a member:

1. A path means one secret, and a secret has one path: names that the manager reads in several ways (letter case, ids
   beside titles, ARNs, versions behind a colon) are refused, because policies are about paths.
2. It asks through ``Source.ask`` only, which is guarded and bounded, and says nothing of what was answered in an error.
3. A credential goes to the hosts of the settings with which it was written, and nowhere else.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast
from urllib.parse import quote

from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.core.path import DEFAULT_FIELD
from keyhole.engines.external.source import Source
from keyhole.engines.settings import Setting
from keyhole.net.ask import parse_https

KINDS = {  # kind -> its module here
    "aws-parameter-store": "aws_parameters",
    "aws-secrets-manager": "aws_secrets",
    "azure-key-vault": "azure",
    "bitwarden-serve": "bitwarden",
    "command": "command",
    "doppler": "doppler",
    "google-secret-manager": "google",
    "infisical": "infisical",
    "onepassword-connect": "onepassword",
    "vault": "vault",
}


class Kind(Protocol):
    """A member."""

    SETTINGS: Sequence[Setting]
    CREDENTIALS: Sequence[str]

    def check(self, options: Mapping[str, Any], credentials: Sequence[str]) -> None:
        """Refuse settings that cannot work, or a set of credentials that is not enough. Raises ``InvalidRequest``."""

    def hosts(self, options: Mapping[str, Any]) -> list[str]:
        """The URLs of the servers that are asked."""

    async def fetch(self, source: Source, path: str) -> dict[str, Any]:
        """The fields that lie at a path. Raises ``NotFound``, ``InvalidRequest`` for a path that cannot be one."""


def load(kind: str) -> Kind:
    """The member of this name. Raises ``InvalidRequest``."""
    if kind not in KINDS:
        raise InvalidRequest("there is no such kind of source", f"known: {', '.join(sorted(KINDS))}")
    return cast("Kind", importlib.import_module(f"{__name__}.{KINDS[kind]}"))


def needs_sudo(kind: Kind, options: Mapping[str, Any]) -> str:
    """Why a source takes ``sudo`` in the org root to write, in words; empty when it does not."""
    why = getattr(kind, "needs_sudo", None)
    return str(why(options)) if why is not None else ""


def require(options: Mapping[str, Any], *names: str) -> None:
    """Raise ``InvalidRequest`` for a setting that is needed and was not said."""
    for name in names:
        if not options[name]:
            raise InvalidRequest(f"this kind of source needs {name}", "see docs/external.md for its settings")


def require_credentials(given: Sequence[str], *sets: tuple[str, ...]) -> None:
    """Raise ``InvalidRequest`` unless one of these sets of credentials is there in full."""
    if not any(set(each) <= set(given) for each in sets):
        wanted = " or ".join(" with ".join(each) for each in sets)
        raise InvalidRequest(f"this kind of source needs the credential {wanted}", 'send {"credentials": {…}}')


def require_path(path: str, pattern: re.Pattern[str], what: str) -> None:
    """Raise ``InvalidRequest`` for a path that this manager cannot have, or reads in more than one way."""
    if not pattern.fullmatch(path):
        raise InvalidRequest(f"this is not a path of this source: {what}", "write the name as it is there")


def require_word(value: str, name: str, pattern: re.Pattern[str]) -> None:
    """Raise ``InvalidRequest`` for a setting that would be read as something else in a URL."""
    if not pattern.fullmatch(value):
        raise InvalidRequest(f"{name} has characters that it cannot have", "write it as it is shown there")


def joined(address: str, *segments: str) -> str:
    """A URL below an address, each segment escaped."""
    return "/".join([address.rstrip("/"), *(quote(each, safe="") for each in segments)])


def host_of(url: str) -> str:
    """The canonical host of an address, that may be of this machine over ``http``. Raises ``InvalidRequest``."""
    return parse_https(url, plain=_Anywhere()).host


def check_address(url: str, allow: Sequence[str]) -> None:
    """Raise ``InvalidRequest`` for the address of a server that could not be asked."""
    try:
        parse_https(url, plain=allow)
    except InvalidRequest:
        raise InvalidRequest(
            "the address of a source is https://HOST[:PORT]", "http:// is for this machine only, and takes sudo"
        ) from None


class _Anywhere(list[str]):
    """Every host, for reading a URL of which something else decides later whether it may be asked."""

    def __contains__(self, _host: object) -> bool:
        return True


def fields_of(text: str) -> dict[str, Any]:
    """The fields of a secret that is one text: it as ``value``, and those of the JSON object that it may be."""
    fields: dict[str, Any] = {DEFAULT_FIELD: text}
    if text.lstrip()[:1] == "{":
        try:
            read = json.loads(text)
        except (ValueError, RecursionError):
            return fields
        fields |= {name: value for name, value in read.items() if name and value is not None}
    return fields


def nothing_there(source: Source) -> NotFound:
    """What ``fetch`` raises where the source has nothing."""
    return NotFound(
        f"the source {source.name!r} has nothing at this path", "check the path, and what it may read there"
    )
