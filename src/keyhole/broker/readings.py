"""What can be read of the broker at any time: connections, what goes on after heads of answers, certificates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from keyhole.broker.answer_body import AnswerBody
from keyhole.broker.live import Flow
from keyhole.broker.sql.stream import SqlStream
from keyhole.broker.tunnel import TunnelStream
from keyhole.broker.upstream import Pool
from keyhole.broker.websocket import WebSocketStream
from keyhole.vault.exposition import Gauge

_KINDS = {AnswerBody: "body", WebSocketStream: "websocket", TunnelStream: "tunnel", SqlStream: "database"}
WAITING = "waiting"
"""For the head of its answer."""


def of_flows(flows: Iterable[Flow]) -> Iterator[Gauge]:
    """How many calls are under way, by org and by what goes on in them."""
    found = Counter((flow.caller.org, _KINDS.get(type(flow.flowing), WAITING)) for flow in flows)
    for (org, kind), number in found.items():
        yield Gauge("calls_open", {"kind": kind}, number, org)


def of_pool(pool: Pool) -> Iterator[Gauge]:
    """Connections to upstreams."""
    idle = pool.idle
    yield Gauge("upstream_connections", {"state": "idle"}, idle)
    yield Gauge("upstream_connections", {"state": "busy"}, max(0, pool.connections - idle))
