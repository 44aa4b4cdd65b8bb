"""OAuth 1.0 (RFC 5849): a request signed with the secrets of a client and of its token.

Whatever the client signed it with is gone, but for what only the client knows: ``oauth_callback``, ``oauth_verifier``
and the realm.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Iterable, Mapping
from urllib.parse import quote_from_bytes, unquote_to_bytes

from keyhole.core.errors import InvalidRequest
from keyhole.core.host import Authority
from keyhole.core.inject import Inject
from keyhole.core.message import Message
from keyhole.core.signing import OAUTH1_METHODS
from keyhole.injections import Steps, Terms, header_value, nonce_of
from keyhole.injections.parameters import decoded, is_form, require_few

Pairs = list[tuple[bytes, bytes]]

_SCHEME = b"oauth "
_KEPT = frozenset({b"oauth_callback", b"oauth_verifier"})
_FIELD = re.compile(rb'([A-Za-z0-9_.~%-]{1,128})\s*=\s*"([^"]*)"')


def needs_content(message: Message, _how: Inject) -> bool:
    """A form is part of what is signed (section 3.4.1.3.1)."""
    return is_form(message)


def inject(message: Message, how: Inject, terms: Terms) -> Steps:
    """Sign the request in ``Authorization``."""
    values = _values(terms.values)
    sent = _sent(message)
    path, mark, query = message.target.partition(b"?")
    kept = [part for part in query.split(b"&") if not decoded(part.partition(b"=")[0]).startswith(b"oauth_")]
    query_sent = [pair for pair in _pairs(query) if pair[0].startswith(b"oauth_")]
    message.target = path + mark + b"&".join(kept) if any(kept) else path
    said = dict(query_sent) | dict(sent)
    method = str(how["method"]) or said.get(b"oauth_signature_method", b"").decode("latin-1")
    if method not in OAUTH1_METHODS:
        method = next(iter(OAUTH1_METHODS))
    protocol = {
        b"oauth_consumer_key": values["consumer_key"],
        b"oauth_nonce": nonce_of(terms).hex().encode(),
        b"oauth_signature_method": method.encode(),
        b"oauth_timestamp": b"%d" % int(terms.now),
        b"oauth_version": b"1.0",
        **({b"oauth_token": values["token"]} if values.get("token") else {}),
        **{name: value for name, value in said.items() if name in _KEPT},
    }
    parameters = [*protocol.items(), *_pairs(b"&".join(kept))]
    if is_form(message):
        require_few(message.content or b"")
        parameters += _pairs(message.content or b"")
    text = base_string(message, parameters)
    secrets = values["consumer_secret"], values.get("token_secret", b"")
    protocol[b"oauth_signature"] = signature(text, *secrets, OAUTH1_METHODS[method])
    fields = [(b"realm", said[b"realm"])] if b"realm" in said else []
    fields += [(name, _encoded(value)) for name, value in protocol.items()]
    message.set(b"authorization", b"OAuth " + b", ".join(b'%b="%b"' % field for field in fields))
    message.forms.append(b"&".join(map(_encoded, secrets)))
    yield message


def base_string(message: Message, parameters: Iterable[tuple[bytes, bytes]]) -> bytes:
    """What is signed (section 3.4.1)."""
    host = Authority(message.host, message.port).header(message.scheme)
    uri = message.scheme.encode() + b"://" + host + message.target.partition(b"?")[0]
    pairs = sorted((_encoded(name), _encoded(value)) for name, value in parameters)
    normal = b"&".join(b"%b=%b" % pair for pair in pairs)
    return b"&".join([message.method.encode(), _encoded(uri), _encoded(normal)])


def signature(text: bytes, consumer_secret: bytes, token_secret: bytes, algorithm: str) -> bytes:
    """The signature of a base string (section 3.4.2)."""
    key = _encoded(consumer_secret) + b"&" + _encoded(token_secret)
    return base64.b64encode(hmac.digest(key, text, algorithm))


def _values(values: Mapping[str, bytes]) -> Mapping[str, bytes]:
    if not {"consumer_key", "consumer_secret"} <= values.keys():
        raise InvalidRequest(
            "the secret has no fields consumer_key and consumer_secret",
            'store it so: keyhole set NAME --json-in < {"consumer_key": …, "consumer_secret": …, "token": …, …}',
        )
    for value in values.values():
        header_value(value)
    return values


def _sent(message: Message) -> Pairs:
    """The parameters of the client's own ``Authorization: OAuth``."""
    value = message.get(b"authorization") or b""
    if value[: len(_SCHEME)].lower() != _SCHEME:
        return []
    found = _FIELD.findall(value[len(_SCHEME) :])
    return [(name, text if name.lower() == b"realm" else unquote_to_bytes(text)) for name, text in found]


def _pairs(text: bytes) -> Pairs:
    parts = (part.partition(b"=") for part in text.split(b"&") if part)
    return [(decoded(name), decoded(value)) for name, _, value in parts]


def _encoded(text: bytes) -> bytes:
    """Section 3.6."""
    return quote_from_bytes(text, safe="~").encode()
