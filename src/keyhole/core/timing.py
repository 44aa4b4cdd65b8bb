"""Where the time of a call goes. Pure: whoever reads a clock adds to it."""

from __future__ import annotations

from collections.abc import Callable

STAGES = ("queue", "vault", "connect", "upstream", "scrub")
"""
queue: waiting for a turn among the org's calls, and for what the service's checks ask: a count, an approval, a body
vault: who asks, what is decided, the secrets read and opened, and the intent made durable
connect: a new connection to the upstream: name, TCP and TLS; it is made while the vault works
upstream: from the first byte of the request to the head of the answer
scrub: what is done to the head and body of the answer
"""


class Timing:
    """The seconds that one call spends in each stage; 0 for one that it did not come through.

    Attributes:
        begun: monotonic time of its beginning.
        org: name of the caller's org, once that is known.
        service: name of the one that the call goes through or was refused at.
        counted: it has ended and was counted.
        then: told once, at the end, how the call ended.
    """

    __slots__ = ("begun", "connect", "counted", "org", "queue", "scrub", "service", "then", "upstream", "vault")

    def __init__(self) -> None:
        self.begun = self.queue = self.vault = self.connect = self.upstream = self.scrub = 0.0
        self.org = self.service = ""
        self.counted = False
        self.then: Callable[[str], None] | None = None
