"""The client's certificate of a service: part of the connection, not of the message."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import Callable, Mapping
from typing import Any

from keyhole.core.errors import InvalidRequest
from keyhole.net.tls import load_chain

_KEPT = "context"
_MARK = b"-----BEGIN "


class ClientIdentity:
    """A TLS context with a client's certificate, and a name that tells it from others."""

    __slots__ = ("context", "digest")

    def __init__(self, context: ssl.SSLContext, digest: bytes) -> None:
        self.context = context
        self.digest = digest


async def client_identity(
    values: Mapping[str, bytes], kept: dict[str, Any], make: Callable[[], ssl.SSLContext]
) -> ClientIdentity:
    """The identity of lent values; made once, off the event loop, and kept with them.

    Args:
        values: one PEM text with certificate chain and key, or the fields ``certificate`` and ``private_key``.
        kept: the room of these values.
        make: a fresh context that verifies upstreams.

    Raises:
        InvalidRequest: they are no PEM, or do not belong together.
    """
    known = kept.get(_KEPT)
    if not isinstance(known, ClientIdentity):
        known = kept[_KEPT] = await asyncio.to_thread(_make, dict(values), make)
    return known


def _make(values: Mapping[str, bytes], make: Callable[[], ssl.SSLContext]) -> ClientIdentity:
    whole = b"\n".join(values.values())
    if _MARK not in whole:
        raise InvalidRequest(
            "the secret is no certificate with its key in PEM",
            "store both in one file, the certificate first: keyhole set NAME --from-file client.pem",
        )
    context = make()
    certificate, key = ([*values.values(), b""])[:2]
    load_chain(context, certificate, key)
    return ClientIdentity(context, hashlib.sha256(whole).digest())
