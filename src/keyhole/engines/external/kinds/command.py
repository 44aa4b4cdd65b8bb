"""A command of the server's machine that prints a secret: one text, or a JSON object of fields.

``{path}`` in its arguments is the path, as a part of one argument; no shell reads it. The credentials are variables of
its environment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keyhole.core.errors import InvalidRequest, PolicyDenied, TargetFailed, UpstreamTimeout
from keyhole.core.path import DEFAULT_FIELD
from keyhole.engines.external.kinds import fields_of, nothing_there, require, require_path
from keyhole.engines.external.source import Source
from keyhole.engines.settings import count, switch, texts
from keyhole.net.programs import ask_program

SETTINGS = (
    texts("argv", "the program by its absolute path, and its arguments; {path} stands for the path"),
    count("timeout", 10, "seconds after which it is ended", most=25),
    switch("json", "its output is a JSON object of fields", default=True),
)
CREDENTIALS = ()  # any: they are variables
_PATH = re.compile(r"[^-\0][^\0]*")  # what begins with a dash would be an option
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")
_PLACE = "{path}"
_MOST = 1024 * 1024
_LOADERS = ("LD_", "DYLD_")


def check(options: Mapping[str, Any], credentials: Sequence[str]) -> None:
    """See ``Kind.check``."""
    require(options, "argv", "timeout")
    if not Path(options["argv"][0]).is_absolute() or _PLACE in options["argv"][0]:
        raise InvalidRequest("argv begins with the absolute path of a program", 'for example ["/usr/bin/op", …]')
    for name in credentials:
        if not _VARIABLE.fullmatch(name) or name.startswith(_LOADERS):
            raise InvalidRequest(
                "the credentials of a command are variables of its environment", "write NAME_LIKE_THIS"
            )


def needs_sudo(_options: Mapping[str, Any]) -> str:
    """Whoever says what runs on the server is its administrator."""
    return "running a command"


def hosts(_options: Mapping[str, Any]) -> list[str]:
    """See ``Kind.hosts``."""
    return []


async def fetch(source: Source, path: str) -> dict[str, Any]:
    """See ``Kind.fetch``."""
    if not source.context.net.programs:
        raise PolicyDenied("commands are forbidden on this server", "its administrator can allow them")
    require_path(path, _PATH, "it may not begin with a dash")
    program, *arguments = source.options["argv"]
    output = await _run(source, [program, *(each.replace(_PLACE, path) for each in arguments)])
    text = output.decode("utf-8", "replace").removesuffix("\n").removesuffix("\r")
    if not text:
        raise nothing_there(source)
    return fields_of(text) if source.options["json"] else {DEFAULT_FIELD: text}


async def _run(source: Source, argv: list[str]) -> bytes:
    """What the command prints."""
    seconds, variables = source.options["timeout"], source.credentials
    try:
        code, output = await ask_program(argv, seconds=seconds, most=_MOST, variables=variables)
    except TimeoutError:
        raise UpstreamTimeout(
            f"the command of the source {source.name!r} took too long", "raise its timeout, or see why it waits"
        ) from None
    except OSError as error:
        raise TargetFailed(
            f"the command of the source {source.name!r} cannot be started: {error.strerror}", "see that it is there"
        ) from None
    if output is None:
        raise TargetFailed(f"the command of the source {source.name!r} prints more than {_MOST:,} bytes", "print less")
    if code:
        raise TargetFailed(f"the command of the source {source.name!r} failed ({code})", "run it by hand to see why")
    return output
