"""The caller's own token opens the proxy. An upstream that saw it could call through the proxy in the caller's name."""

from __future__ import annotations

from base64 import b64encode
from binascii import hexlify
from urllib.parse import unquote_to_bytes

from keyhole.core.message import Call

# Tokens that are made here are longer. A shorter one was chosen for a development server, and may be an everyday word.
_SHORTEST = 16
_SAFE = bytes.maketrans(b"+/", b"-_")
_LAYERS = 2  # of percent-encoding


def shows_token(call: Call) -> bool:
    """Does the target, a header or what is said of the work carry the token that was presented with the call?

    Plain, percent-encoded, in base64 at any offset (so in Basic credentials under any name) or in hexadecimal, as a
    client would put it there by mistake. Bodies are not searched, and a caller that means to give its token away will
    find a disguise.
    """
    token = call.token
    if len(token) < _SHORTEST:
        return False
    encoded = (len(token) - 2) // 3 * 4  # bytes of the shortest form of base64 that is looked for
    if _holds(call.target, _forms(token) if len(call.target) >= encoded else (token,)):
        return True
    if call.stated is not None and any(token in text.encode() for text in call.stated.claims.values()):
        return True  # that goes to no upstream, but on record
    headers = call.headers
    if token.lower() in b"\n".join([name for name, _ in headers]):
        return True
    values = [value for _, value in headers]
    long = max(map(len, values), default=0) >= encoded
    return _holds(b"\n".join(values), _forms(token) if long else (token,))


def _forms(token: bytes) -> tuple[bytes, ...]:
    """The token and its encodings; of base64 what does not depend on the bytes beside it, from each offset."""
    size = len(token) - 2
    size -= size % 3
    forms = [token, *[b64encode(token[at : at + size]) for at in range(3)], hexlify(token)]
    forms += [form.translate(_SAFE) for form in forms[1:4] if b"+" in form or b"/" in form]
    return (*forms, forms[4].upper())


def _holds(text: bytes, forms: tuple[bytes, ...]) -> bool:
    layers = _LAYERS
    while True:
        for form in forms:
            if form in text:
                return True
        if not layers or b"%" not in text:
            return False
        layers -= 1
        text = unquote_to_bytes(text)
