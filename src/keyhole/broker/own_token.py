"""The caller's own token opens the proxy. An upstream that saw it could call through the proxy in the caller's name."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from keyhole.core.message import Call
from keyhole.injections.placeholder import decode_basic

# Tokens that are made here are longer. A shorter one was chosen for a development server, and may be an everyday word.
_SHORTEST = 16
_LAYERS = 2  # of percent-encoding


def shows_token(call: Call) -> bool:
    """Does the target, a header or what is said of the work carry the token that was presented with the call?

    Plain, percent-encoded or in Basic credentials, as a client would put it there by mistake. Bodies are not searched,
    and a caller that means to give its token away will find a disguise.
    """
    token = call.token
    if len(token) < _SHORTEST:
        return False
    if _holds(call.target, token):
        return True
    if call.stated is not None and any(token in text.encode() for text in call.stated.claims.values()):
        return True  # that goes to no upstream, but on record
    names = b"\n".join([name for name, _ in call.headers])
    if _holds(b"\n".join([value for _, value in call.headers]), token) or token.lower() in names:
        return True
    if b"authorization" not in names:
        return False
    return any(
        name.endswith(b"authorization") and token in (decode_basic(value) or b"") for name, value in call.headers
    )


def _holds(text: bytes, token: bytes) -> bool:
    for _ in range(_LAYERS):
        if token in text:
            return True
        if b"%" not in text:
            return False
        text = unquote_to_bytes(text)
    return token in text
