"""A webhook of our own: JSON by POST, signed with HMAC-SHA256, through the guard.

The header ``X-Keyhole-Signature: t=SECONDS,v1=HEX`` signs ``SECONDS.BODY`` with the key of the channel, so that the
receiver can tell what is ours and is not an old message sent again.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Mapping
from typing import Any

from keyhole.core.errors import InvalidRequest, TargetFailed
from keyhole.core.fields import parse_text, parse_texts
from keyhole.crypto.mac import MacKey
from keyhole.net.ask import Asks, parse_https
from keyhole.notifiers import Message, Settings

_SHORTEST = 16  # characters of a key
_LONGEST = 1024


async def read(data: Mapping[str, Any]) -> dict[str, Any]:
    """``url``, and optionally ``key``, ``ca_pem`` and ``allow_addresses``."""
    url = parse_text(data.get("url"), "url", most=2048)
    allow = parse_texts(data.get("allow_addresses"), "allow_addresses", most=64)
    parse_https(url, plain=allow)
    key = parse_text(data.get("key"), "key", most=_LONGEST)
    if key and len(key) < _SHORTEST:
        raise InvalidRequest(f"the key has fewer than {_SHORTEST} characters", "leave it out, and one is made")
    ca_pem = parse_text(data.get("ca_pem"), "ca_pem")
    return {"url": url, "key": key or secrets.token_urlsafe(32), "ca_pem": ca_pem, "allow_addresses": allow}


def shown(settings: Settings) -> dict[str, Any]:
    """The host alone: webhooks are known to carry credentials in their paths."""
    allow = settings["allow_addresses"]
    return {"host": parse_https(settings["url"], plain=allow).host, "allow_addresses": allow}


async def send(settings: Settings, message: Message, net: Asks) -> None:
    """POST it. An answer other than 2xx is a failure."""
    body = json.dumps(message.as_data(), separators=(",", ":")).encode()
    heard = await net.ask(
        "POST",
        settings["url"],
        headers=[
            ("Content-Type", "application/json"),
            ("User-Agent", "keyhole"),
            ("X-Keyhole-Signature", signature(settings["key"], body, int(time.time()))),
        ],
        body=body,
        ca_pem=settings["ca_pem"],
        allow=settings["allow_addresses"],
    )
    if not 200 <= heard.status < 300:
        raise TargetFailed(f"the webhook answered with {heard.status}", "look at its log")


def signature(key: str, body: bytes, now: int) -> str:
    """The value of the header."""
    secret = key.encode()
    mac = MacKey(secret if len(secret) <= 64 else hashlib.sha256(secret).digest())
    return f"t={now},v1={mac.hexdigest(b'%d.%s' % (now, body))}"
