"""What login methods share that ask somebody else: which servers they may ask, and how they call whom they heard of."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from keyhole.auth.settings import texts
from keyhole.core.errors import InvalidRequest
from keyhole.crypto.foreign_jwt import key_of_pem
from keyhole.net.ask import parse_https

_MOST_PEMS = 16

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@:+-]{0,127}")
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9_.@:+-]")


def asked_host(url: str, name: str, *, trusted: bool) -> str:
    """The host of a URL that a mount is told of.

    Args:
        url: as it was sent.
        name: of the setting, for errors.
        trusted: whoever sent it may name servers at private addresses.

    Raises:
        InvalidRequest: it is none that can be asked.
    """
    try:
        return parse_https(url, plain=[_host(url)] if trusted else ()).host
    except InvalidRequest as error:
        raise InvalidRequest(f"{name}: {error.reason}", error.hint) from None


def entity_name(method: str, text: str) -> str:
    """What an identity of others is called here: as they call it where that can be read, and never like another one."""
    if _PLAIN.fullmatch(text):
        return f"{method}/{text}"
    readable = _NOT_PLAIN.sub("_", text)[:96].lstrip("_.-@:+")
    return f"{method}/{readable}~{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


def _host(url: str) -> str:
    match = re.match(r"http://(\[[0-9a-fA-F:.]+\]|[^/:@?#]+)", url)
    return match[1].strip("[]").lower() if match else ""


def pems(value: Any, name: str) -> list[str]:
    """Public keys or certificates in PEM, as a setting: a list, or one text. Raises ``InvalidRequest``."""
    found = [value] if isinstance(value, str) and "-----BEGIN" in value else texts(value, name)
    if len(found) > _MOST_PEMS:
        raise InvalidRequest(f"{name} has at most {_MOST_PEMS} keys")
    for each in found:
        key_of_pem(each)
    return found
