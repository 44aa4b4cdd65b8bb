"""Services that log in to hosts by SSH: for whom and where an agent's key signs. Pure.

The key stays with the broker. What a client asks its ``SSH_AUTH_SOCK`` to sign is signed when it is a login of an
allowed user at a host that has proved one of the service's host keys, in this very connection.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Any

from keyhole.core.errors import InvalidRequest
from keyhole.core.host import Authority, HostPattern
from keyhole.core.kind import Kind, Option

SSH = "ssh"
PORT = 22
AGENT = Authority("ssh-agent.keyhole.internal", PORT)
"""Where a tunnel leads to the agent's end, and to no host (``internal`` is reserved for private use)."""
SPOKEN = "ssh-agent"
"""What is spoken in such a tunnel."""
CERT_AUTHORITY = "@cert-authority"
_USER = re.compile(r"[A-Za-z0-9._@+-]{1,128}")
_MOST = 64
_KEY = re.compile(r"(?:(@cert-authority) )?([a-z0-9@.-]{1,64}) ([A-Za-z0-9+/=]{16,4096})(?: .*)?")


def _texts(value: Any, split: str) -> list[str]:
    items = value.split(split) if isinstance(value, str) else value or ()
    if not isinstance(items, list | tuple) or not all(isinstance(item, str) for item in items):
        raise InvalidRequest("it is a list of texts", "or one text with commas between users, and lines of host keys")
    return [item.strip() for item in items if item.strip()]


def _users(value: Any) -> tuple[str, ...]:
    found = _texts(value, ",")
    if not 1 <= len(found) <= _MOST or not all(_USER.fullmatch(name) for name in found):
        raise InvalidRequest("user names the users at the host, with commas", "for example git")
    return tuple(dict.fromkeys(found))


def _host_keys(value: Any) -> tuple[str, ...]:
    found = []
    for line in _texts(value, "\n"):
        match = _KEY.fullmatch(line)
        try:
            blob = base64.b64decode(match[3], validate=True) if match else b""
        except binascii.Error:
            blob = b""
        if match is None or blob[4 : 4 + len(match[2])] != match[2].encode():
            raise InvalidRequest(
                "a host key is TYPE BASE64, or @cert-authority TYPE BASE64",
                "as ssh-keyscan prints it after the name of the host; compare it with what the host's owner publishes",
            )
        found.append(" ".join(filter(None, match.groups())))
    if not 1 <= len(found) <= _MOST:
        raise InvalidRequest("host_keys has the keys that the host proves itself by", "ssh-keyscan -t ed25519 HOST")
    return tuple(dict.fromkeys(found))


KIND: dict[str, Kind] = {
    SSH: Kind(
        "as the key of a login by SSH, which only the agent's socket uses",
        lambda how: f"signature of a login as {', '.join(how['user'])}",
        (
            Option("user", _users, help="users at the host, with commas"),
            Option("host_keys", _host_keys, help="lines TYPE BASE64, or @cert-authority TYPE BASE64"),
        ),
        fields=(("private_key", "signed_key"), ("private_key",)),
    )
}


def known_hosts(host: HostPattern, keys: Sequence[str]) -> list[str]:
    """Lines of a file of known hosts (sshd(8)) for a service's host and its ``host_keys``."""
    name = host.host if host.port == PORT else f"[{host.host}]:{host.port}"
    lines = []
    for text in keys:
        mark, _, rest = text.partition(" ") if text.startswith(CERT_AUTHORITY) else ("", "", text)
        lines.append(" ".join(filter(None, (mark, name, rest))))
    return lines
