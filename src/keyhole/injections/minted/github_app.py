"""An installation token of a GitHub App: a JWT of the App is exchanged for it.

GitHub Docs, "Generating an installation access token for a GitHub App".
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from keyhole.core.errors import UpstreamUnreachable
from keyhole.core.inject import Inject
from keyhole.core.message import Message
from keyhole.crypto.jws import sign_jwt
from keyhole.injections import Steps, Terms
from keyhole.injections.minted import Minting, answered, as_basic, errand, in_header, token_until, with_token
from keyhole.injections.minted.jwt import pem

_BACKDATED = 60  # as GitHub recommends
_JWT_LIFE = 540  # GitHub takes at most ten minutes
_USER = b"x-access-token"


def inject(message: Message, how: Inject, terms: Terms) -> Steps:
    """Attach a token as a bearer, or as the password that git sends."""
    bearer = how["as"] == "bearer"
    attach = in_header(message, "authorization", "Bearer {}") if bearer else as_basic(message, _USER)
    return with_token(message, terms, lambda: _mint(how, terms), attach)


def _mint(how: Inject, terms: Terms) -> Minting:
    [key] = terms.values.values()
    now = int(terms.now)
    claims = {"iss": how["app_id"], "iat": now - _BACKDATED, "exp": now + _JWT_LIFE}
    wanted: dict[str, Any] = {}
    if how["repositories"]:
        wanted["repositories"] = list(how["repositories"])
    if how["permissions"] != "{}":
        wanted["permissions"] = json.loads(how["permissions"])
    heard = yield errand(
        "POST",
        f"{how['api'].rstrip('/')}/app/installations/{how['installation_id']}/access_tokens",
        json.dumps(wanted).encode(),
        "application/json",
        authorization=f"Bearer {sign_jwt(pem(key), 'RS256', claims).decode()}",
        x_github_api_version="2022-11-28",
    )
    data = answered(heard, 201)
    token, expires = data.get("token"), data.get("expires_at")
    try:
        ends = datetime.fromisoformat(str(expires)).timestamp()
    except ValueError:
        ends = 0.0
    if not isinstance(token, str) or not token.isascii() or ends <= terms.now:
        raise UpstreamUnreachable("the answer of GitHub has no token with its end", "check the option api")
    return token_until(token.encode(), terms.now, ends - terms.now)
