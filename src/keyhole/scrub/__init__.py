"""Redaction of known secret values from the answers of an upstream: a net behind the binding of secrets to hosts.

A `Scrubber` is compiled from the secrets of one loan and finds them in every form that software commonly makes of
them: raw, base64, hex, percent, JSON and HTML escapes, UTF-16, compressed. It masks them with ``*`` of the same
length. It is pure: bytes in, bytes out, no I/O and no clock.

    scrubber = Scrubber.compile([value], [basic_credentials])
    headers = [(name, scrubber.text(field)) for name, field in answer.headers]
    plain = body(scrubber, content_encoding, content_type)
    for piece in answer:
        send(plain.feed(piece))      # what may begin a secret is held back, everything else leaves at once
    send(plain.finish())

Promises: no byte leaves unscanned; what cannot be inspected raises `keyhole.core.errors.ScrubFailedClosed`; bodies
without a content coding keep their exact length; data without secrets is unchanged; memory is bounded. What is not
found is listed in ``docs/scrubbing.md``: this is no guarantee against a host that wants to leak.
"""

from .body import BodyScrubber, Limits, body
from .codings import accept_encoding
from .forms import MIN_SECRET, too_short
from .grpc import GrpcScrubber, messages, require_plain
from .scrubber import Scrubber, Stream

__all__ = [
    "MIN_SECRET",
    "BodyScrubber",
    "GrpcScrubber",
    "Limits",
    "Scrubber",
    "Stream",
    "accept_encoding",
    "body",
    "messages",
    "require_plain",
    "too_short",
]
