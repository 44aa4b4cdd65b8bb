"""A program of the server's machine does each step. Values go to its stdin and come from its stdout, nowhere else.

It gets a JSON object on stdin: ``step`` (``prepare``, ``create``, ``verify``, ``revoke``, ``abandon``), ``attempt``,
``note`` and, where the step has them, ``old``, ``new``, ``value`` and ``by``, each ``{"fields": {…}, "handle": {…}}``.
For ``create`` it prints ``{"fields": {…}, "handle": {…}}``, for ``prepare`` an object that is its note, else nothing.
It ends with 0 when the step is done, and with 75 (``EX_TEMPFAIL`` of ``sysexits.h``) when ``verify`` is to be tried
again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keyhole.core.errors import InvalidRequest
from keyhole.core.fields import parse_texts
from keyhole.core.numbers import parse_count
from keyhole.core.path import parse_field
from keyhole.core.value import Secret
from keyhole.net.programs import ask_program
from keyhole.rotators import Needs, NotYet, Settings, Value, World, failed

_LATER = 75
_MOST = 64 * 1024
_SECONDS = 20
_LONGEST = 25


def read(data: Mapping[str, Any]) -> dict[str, Any]:
    """``argv``: the absolute path of a program and its arguments; ``timeout``: seconds for one step."""
    argv = parse_texts(data.get("argv"), "argv", most=64)
    if not argv or not Path(argv[0]).is_absolute() or any("\0" in each for each in argv):
        raise InvalidRequest("argv begins with the absolute path of a program", '{"argv": ["/usr/local/bin/rotate"]}')
    return {"argv": argv, "timeout": parse_count(data.get("timeout") or _SECONDS, "timeout", least=1, most=_LONGEST)}


def needs(_settings: Settings) -> Needs:
    """Whoever says what runs on the server is its administrator."""
    return Needs(sudo="running a command", server=True)


async def prepare(world: World, old: Value) -> dict[str, Any]:
    """What the program wants to be told at ``abandon``."""
    return await _run(world, "prepare", old=old)


async def create(world: World, old: Value) -> Value:
    """What the program prints."""
    said = await _run(world, "create", old=old)
    fields, handle = said.get("fields"), said.get("handle") or {}
    texts = isinstance(fields, dict) and isinstance(handle, dict)
    if not texts or not fields or not all(isinstance(each, str) for each in (*fields.values(), *handle.values())):
        raise failed("the command printed no object with fields and handle")
    return Value({parse_field(name): Secret(text) for name, text in fields.items()}, handle)


async def verify(world: World, new: Value) -> None:
    """The program tries it."""
    await _run(world, "verify", new=new)


async def revoke(world: World, value: Value, by: Value) -> None:
    """The program takes it back."""
    await _run(world, "revoke", value=value, by=by)


async def abandon(world: World, old: Value) -> bool:
    """The program takes back what is left of an attempt, and prints ``{"left": true}`` when it cannot."""
    return not (await _run(world, "abandon", old=old)).get("left")


def _opened(value: Value) -> dict[str, Any]:
    fields = {name: secret.reveal().decode("utf-8", "replace") for name, secret in value.fields.items()}
    return {"fields": fields, "handle": dict(value.handle)}


async def _run(world: World, step: str, **values: Value) -> dict[str, Any]:
    """One step."""
    asked = {name: _opened(value) for name, value in values.items()}
    given = json.dumps({"step": step, "attempt": world.attempt, "note": dict(world.note), **asked}).encode()
    seconds = world.settings["timeout"]
    try:
        code, output = await ask_program(world.settings["argv"], seconds=seconds, most=_MOST, given=given)
    except TimeoutError:
        raise failed(f"the command took longer than {seconds} s for the step {step}") from None
    except OSError as error:
        raise failed(f"the command cannot be started: {error.strerror}") from None
    if code == _LATER:
        raise NotYet(f"the command wants to try the step {step} again")
    if code or output is None:
        raise failed(f"the command failed at the step {step} ({code})")
    return _object(output, step)


def _object(output: bytes, step: str) -> dict[str, Any]:
    if not output.strip():
        return {}
    try:
        said = json.loads(output)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise failed(f"the command printed something else than a JSON object at the step {step}")
    return said
