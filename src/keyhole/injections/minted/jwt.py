"""A JWT that the secret signs, without anybody else (RFC 7519; as Apple, Zoom, Google and many others take it)."""

from __future__ import annotations

import json
import re

from keyhole.core.inject import Inject
from keyhole.core.message import Message
from keyhole.crypto.jws import sign_jwt
from keyhole.injections import Steps, Terms
from keyhole.injections.minted import Minting, in_header, token_until, with_token

BACKDATED = 30  # seconds by which the upstream's clock may be behind


def inject(message: Message, how: Inject, terms: Terms) -> Steps:
    """Attach a token of the kind that the binding describes."""
    attach = in_header(message, how["name"], how["template"])
    return with_token(message, terms, lambda: _mint(how, terms), attach)


def _mint(how: Inject, terms: Terms) -> Minting:
    [key] = terms.values.values()
    now = int(terms.now)
    named = {"iss": how["issuer"], "sub": how["subject"], "aud": how["audience"]}
    claims = {
        **json.loads(how["claims"]),
        **{name: value for name, value in named.items() if value},
        "iat": now - BACKDATED,
        "exp": now + how["lifetime"],
    }
    yield from ()
    signed = sign_jwt(pem(key), how["algorithm"], claims, key_id=how["key_id"])
    return token_until(signed, terms.now, how["lifetime"])


def pem(key: bytes) -> bytes:
    r"""A key as it is, or one whose line ends were written as ``\n`` to fit into a variable."""
    return re.sub(rb"\\n", b"\n", key) if key.startswith(b"-----BEGIN") and b"\n" not in key.strip() else key
