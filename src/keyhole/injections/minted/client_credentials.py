"""An OAuth 2.0 access token by client credentials (RFC 6749, section 4.4), and Microsoft's form of it."""

from __future__ import annotations

import base64
from urllib.parse import quote_plus, urlencode

from keyhole.core.errors import InvalidRequest
from keyhole.core.inject import Inject
from keyhole.core.message import Message
from keyhole.injections import Steps, Terms
from keyhole.injections.minted import Minting, answered, bearer_of, errand, in_header, with_token

_FORM = "application/x-www-form-urlencoded"


def inject(message: Message, how: Inject, terms: Terms) -> Steps:
    """Attach a token of the application."""
    if how.kind == "azure":
        url = f"{how['login']}{how['tenant']}/oauth2/v2.0/token"
        scope = how["scope"] or f"https://{message.host}/.default"
        attach = in_header(message, "authorization", "Bearer {}")
        return with_token(message, terms, lambda: _mint(how, terms, url, {"scope": scope}, basic=False), attach, scope)
    wanted = {name: how[name] for name in ("scope", "audience") if how[name]}
    attach = in_header(message, how["name"], how["template"])
    basic = how["auth"] == "basic"
    return with_token(message, terms, lambda: _mint(how, terms, how["token_url"], wanted, basic=basic), attach)


def _mint(how: Inject, terms: Terms, url: str, wanted: dict[str, str], *, basic: bool) -> Minting:
    client, secret = _client(how, terms)
    form = {"grant_type": "client_credentials", **wanted}
    headers = {}
    if basic:  # both are form-encoded first: RFC 6749 section 2.3.1
        pair = f"{quote_plus(client)}:{quote_plus(secret)}".encode()
        headers["authorization"] = f"Basic {base64.b64encode(pair).decode()}"
    else:
        form |= {"client_id": client, "client_secret": secret}
    heard = yield errand("POST", url, urlencode(form).encode(), _FORM, **headers)
    return bearer_of(answered(heard), terms.now)


def _client(how: Inject, terms: Terms) -> tuple[str, str]:
    values = terms.values
    try:
        if "client_secret" in values:
            return values["client_id"].decode(), values["client_secret"].decode()
        [secret] = values.values()
        client, text = how["client_id"], secret.decode()
    except UnicodeDecodeError:
        raise InvalidRequest("the client's secret is not text", "store it again: keyhole set NAME") from None
    if not client or not text:
        raise InvalidRequest("the client's id or secret is missing", "say it as the option client_id of the injection")
    return client, text
