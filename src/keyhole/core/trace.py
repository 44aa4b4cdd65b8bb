"""W3C trace context: where in a trace a request belongs (https://www.w3.org/TR/trace-context/). Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

_PARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-[!-~]*)?")
_LONGEST = 512  # characters of a traceparent of a later version


class Trace(NamedTuple):
    """A place in a trace: ids in lower-case hexadecimal digits."""

    trace: str
    span: str
    flags: str = "00"

    def __str__(self) -> str:
        return f"00-{self.trace}-{self.span}-{self.flags}"


def parse_traceparent(text: str) -> Trace | None:
    """Read a ``traceparent``; ``None`` for one that is none, which means that there is no trace.

    Source: W3C Trace Context, sections 3.2.2 and 4.3: lower case only, no id of zeros, version ``ff`` is none, one of
    version ``00`` has nothing behind its flags, and of later ones what this version knows is taken.
    """
    found = _PARENT.fullmatch(text) if len(text) <= _LONGEST else None
    if found is None or (found[5] is not None and found[1] == "00"):
        return None
    return Trace(found[2], found[3], found[4])
