"""An access token or ID token of a Google service account, from its JSON key.

RFC 7523, and Google's "Using OAuth 2.0 for Server to Server Applications".
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

from keyhole.core.errors import InvalidRequest
from keyhole.core.inject import Inject
from keyhole.core.message import Message
from keyhole.crypto.jws import sign_jwt
from keyhole.injections import Steps, Terms
from keyhole.injections.minted import Minting, answered, bearer_of, errand, in_header, token_until, with_token
from keyhole.injections.minted.jwt import BACKDATED

_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_LIFE = 3600 - BACKDATED  # Google takes at most an hour
_ID_TOKEN_LIFE = 3600.0


def inject(message: Message, how: Inject, terms: Terms) -> Steps:
    """Attach a token of the service account."""
    attach = in_header(message, "authorization", "Bearer {}")
    return with_token(message, terms, lambda: _mint(how, terms), attach)


def _mint(how: Inject, terms: Terms) -> Minting:
    [value] = terms.values.values()
    account = read_account(value)
    now = int(terms.now)
    claims: dict[str, Any] = {
        "iss": account["client_email"],
        "aud": how["token_url"],
        "iat": now - BACKDATED,
        "exp": now + _LIFE,
    }
    if how["id_token"]:
        claims["target_audience"] = how["id_token"]
    else:
        claims["scope"] = " ".join(how["scopes"])
    if how["subject"]:
        claims["sub"] = how["subject"]
    signed = sign_jwt(account["private_key"].encode(), "RS256", claims, key_id=account.get("private_key_id", ""))
    content = urlencode({"grant_type": _GRANT, "assertion": signed.decode()}).encode()
    data = answered((yield errand("POST", how["token_url"], content, "application/x-www-form-urlencoded")))
    if how["id_token"]:
        token = data.get("id_token")
        return token_until(token.encode() if isinstance(token, str) else b"", terms.now, _ID_TOKEN_LIFE)
    return bearer_of(data, terms.now)


def read_account(value: bytes) -> dict[str, str]:
    """The JSON key of a service account. Raises ``InvalidRequest`` for anything else."""
    try:
        data = json.loads(value)
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict) or not all(isinstance(data.get(n), str) for n in ("client_email", "private_key")):
        raise InvalidRequest(
            "the secret is not the JSON key of a Google service account",
            "store the file as it was downloaded: keyhole set NAME --from-file key.json",
        )
    return {name: text for name, text in data.items() if isinstance(text, str)}
