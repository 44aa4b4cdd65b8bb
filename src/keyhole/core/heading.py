"""What follows from the head of a call alone, found once for all calls that have the same one.

An agent that polls sends the same head with every request. Whatever of it depends on the head and on nothing that may
change is the same each time; what may change, such as grants, limits, tokens and secrets, is asked for every call.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Heading:
    """The calls of one client with the same head to one place share it. Whoever asks first finds a part.

    Attributes:
        leaks: the head shows the caller's own token.
        summary: what a record says of it; ``None`` while nobody looked.
        wanted: what the call is matched by; ``None`` while nobody looked.
        clean: stands for the values that are surely in no part of it, as no placeholder is; ``None`` for unknown.
    """

    leaks: bool = False
    summary: dict[str, object] | None = field(default=None, repr=False)
    wanted: object = field(default=None, repr=False)
    clean: object = field(default=None, repr=False)
