"""The challenges of ``WWW-Authenticate`` headers (RFC 9110, section 11.6.1), and parameters of headers like it."""

from __future__ import annotations

import re
from dataclasses import dataclass

_TOKEN = rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_PARAMETER = re.compile(rb"(" + _TOKEN + rb")[ \t]*=[ \t]*(?:(" + _TOKEN + rb")|\"((?:[^\"\\]|\\.)*)\")", re.DOTALL)
_SCHEME = re.compile(rb"(" + _TOKEN + rb")(?:[ \t]+|(?=,)|\Z)")
_TOKEN68 = re.compile(rb"[A-Za-z0-9._~+/-]+=*[ \t]*(?=,|\Z)")
_COMMAS = re.compile(rb"[ \t]*(?:,[ \t]*)*")
_LONGEST = 16 * 1024
_MOST = 64


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge.

    Attributes:
        scheme: in lower case.
        parameters: names in lower case to values without quotes.
    """

    scheme: bytes
    parameters: dict[bytes, bytes]


def parse_challenges(values: list[bytes]) -> list[Challenge]:
    """The challenges up to the first that cannot be read, in order; a parameter that stands twice spoils its own."""
    found: list[Challenge] = []
    for value in values:
        if len(value) > _LONGEST:
            continue
        at = _skip(value, 0)
        while at < len(value) and len(found) < _MOST:
            match = _SCHEME.match(value, at)
            if match is None:
                break
            parameters, at = parse_parameters(value, match.end())
            if parameters is not None:
                found.append(Challenge(match[1].lower(), parameters))
    return found


def parse_parameters(value: bytes, at: int = 0) -> tuple[dict[bytes, bytes] | None, int]:
    """The parameters from an offset on, ``None`` when one stands twice; and where they end."""
    token68 = _TOKEN68.match(value, at)
    if token68 is not None:
        return {}, _skip(value, token68.end())
    parameters: dict[bytes, bytes] = {}
    sound = True
    while (match := _PARAMETER.match(value, at)) is not None:
        name = match[1].lower()
        sound = sound and name not in parameters
        parameters[name] = match[2] if match[2] is not None else re.sub(rb"\\(.)", rb"\1", match[3], flags=re.DOTALL)
        at = _skip(value, match.end())
    return (parameters if sound else None), at


def _skip(value: bytes, at: int) -> int:
    match = _COMMAS.match(value, at)
    return match.end() if match else at
