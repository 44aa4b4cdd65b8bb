"""Shelf: where credentials lie before they lie in a vault. An importer reads bytes and says what it found.

    importer = load("dotenv")
    report = importer.parse(content, Origin("shop/.env", group="shop"))
    for found in report.found:              # each a credential with its fields, as Secret
        print(found.name, found.where, found.variable, found.doubt)
    for skipped in report.skipped:          # never a value, always a reason
        print(skipped.name, skipped.where, skipped.why)
    content = replaced(content, report.found[0].spots, {"value": "keyhole_placeholder_1"})

Promises of every member:

1. Pure: no file is opened, no program is started, nothing is expanded. The same bytes give the same report. What
   another program has sealed is opened with ``Origin.opens``, by ``crypto.importers``.
2. Values are in ``Secret`` only: not in names, places, reasons, notes or errors.
3. What cannot be read for certain is skipped with a reason, never guessed. Bytes that are not of the format at all
   are ``InvalidRequest``, with a line where there is one.
4. ``spots`` are all the bytes that give a value away and no others: once they are replaced, the rest of the file is
   what it was, byte for byte, and reading it again finds placeholders instead of values.
5. Work and memory grow with the size of the input and are bounded by ``Limits``.

A member that also writes its format has ``write(items, …)``: ``Item`` to bytes, in clear only where the format is.

What the catalog knows of a credential is not asked here but in ``recognise``, once for all sources.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Protocol

from keyhole.core.errors import InternalError, InvalidRequest
from keyhole.importers.found import LIMITS, Asked, Binding, Found, Origin, Report, Skipped, Spot

__all__ = [
    "LIMITS",
    "MANAGERS",
    "MEMBERS",
    "Asked",
    "Binding",
    "Found",
    "Importer",
    "Origin",
    "Report",
    "Skipped",
    "Spot",
    "importer_for",
    "load",
    "replaced",
]

MEMBERS = (
    "dotenv",
    "environ",
    "command",
    "npmrc",
    "pip",
    "netrc",
    "aws",
    "docker",
    "git",
    "mcp",
    "sops",
    "agenticmail",
    "onepassword",
    "bitwarden",
    "doppler",
)
MANAGERS = MEMBERS[-5:]
"""Members that read what another manager of secrets keeps or exports: everything in it is a secret."""
# A file's kind by its name, or by the end of its path. The content decides nothing: it is somebody else's.
_BY_NAME = {
    ".npmrc": "npmrc",
    "npmrc": "npmrc",
    "pip.conf": "pip",
    "pip.ini": "pip",
    ".pypirc": "pip",
    ".netrc": "netrc",
    "_netrc": "netrc",
    "netrc": "netrc",
    ".git-credentials": "git",
    ".aws/credentials": "aws",
    ".aws/config": "aws",
    "git/credentials": "git",
    ".docker/config.json": "docker",
    ".dockerconfigjson": "docker",
    "mcp.json": "mcp",
    ".mcp.json": "mcp",
    ".claude.json": "mcp",
    "claude_desktop_config.json": "mcp",
    "mcp_config.json": "mcp",
}


class Importer(Protocol):
    """The contract, which a module fulfils.

    Attributes:
        TITLE: what the source is called.
        PLACES: where it usually lies: ``~/…`` in the home, ``./…`` in the current folder, ``$VARIABLE…`` by a variable
            of the environment. A ``*`` stands for a part of a file's name. Empty for what is no file.
    """

    @property
    def TITLE(self) -> str:  # noqa: N802  # a constant of a module
        """See above."""

    @property
    def PLACES(self) -> tuple[str, ...]:  # noqa: N802  # a constant of a module
        """See above."""

    @property
    def parse(self) -> Callable[[bytes, Origin], Report]:
        """``parse(content, origin)``: what is in the bytes. Raises ``InvalidRequest``."""


def load(name: str) -> Importer:
    """The importer of that name. Raises ``InvalidRequest``."""
    if name not in MEMBERS:
        raise InvalidRequest(f"there is no source named {name!r}", f"use one of: {', '.join(MEMBERS)}")
    member: Importer = importlib.import_module(f"keyhole.importers.{name}")
    return member


def importer_for(path: str) -> str:
    """The importer for a file, by its name; empty where the name says nothing."""
    parts = path.replace("\\", "/").split("/")
    name = parts[-1]
    known = _BY_NAME.get("/".join(parts[-2:])) or _BY_NAME.get(name)
    if known:
        return known
    return "dotenv" if name == ".env" or name.startswith(".env.") or name.endswith(".env") else ""


def replaced(content: bytes, spots: tuple[Spot, ...], placeholders: Mapping[str, str]) -> bytes:
    """The content with a placeholder at each spot, and else the same bytes.

    Args:
        content: of the file.
        spots: that do not overlap.
        placeholders: field to text.
    """
    return rewritten(content, [(spot, placeholders[spot.field]) for spot in spots])


def rewritten(content: bytes, changes: list[tuple[Spot, str]]) -> bytes:
    """The content with a text at each spot, and else the same bytes."""
    parts, position = [], 0
    for spot, text in sorted(changes, key=lambda change: change[0].start):
        if not position <= spot.start <= spot.end <= len(content):
            raise InternalError("two places of a file to be replaced overlap")
        parts += [content[position : spot.start], spot.written(text)]
        position = spot.end
    return b"".join([*parts, content[position:]])
