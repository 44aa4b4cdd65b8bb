"""What an answer's head says about its connection, as opposed to the message (RFC 9110 section 7.6)."""

from __future__ import annotations

from keyhole.core.errors import UpstreamUnreachable
from keyhole.core.message import Headers, Message
from keyhole.net.http1.grammar import AnswerHead, list_tokens
from keyhole.net.http1.serialise import HOP_BY_HOP
from keyhole.net.websocket.handshake import check_answer as check_websocket

_THEIRS = "report the fault to who runs the API"


def require_agreed(head: AnswerHead, message: Message) -> None:
    """Raise unless a 101 changes to the protocol that was asked for (RFC 9110 section 15.2.2), in its own terms too."""
    chosen = [value.lower() for name, value in head.headers if name == b"upgrade"]
    named = b"upgrade" in list_tokens(head.headers, b"connection")
    if not (head.minor and named and chosen == [message.upgrade.encode()]):
        raise UpstreamUnreachable("the upstream switched to another protocol than it was asked for", _THEIRS)
    check_websocket(message.headers, head.headers)


def end_to_end(head: AnswerHead) -> tuple[Headers, bool]:
    """The headers that are about the message, and whether the connection stays open after it (RFC 9112 section 9.3)."""
    fields = head.fields
    persistent = head.minor == 1
    if HOP_BY_HOP.isdisjoint(fields):
        return head.headers, persistent
    dropped = HOP_BY_HOP
    if fields.get(b"connection", b"keep-alive") != b"keep-alive":
        members = list_tokens(head.headers, b"connection")
        persistent = persistent and b"close" not in members
        # Fields that frame or describe the message stay, whoever calls them hop-by-hop.
        dropped = HOP_BY_HOP.union(members) - {b"content-length", b"content-encoding", b"content-type"}
    return [pair for pair in head.headers if pair[0] not in dropped], persistent
