"""What takes several people, over the wire: rekey and a new root token. No envelope, and shares instead of a token."""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from keyhole.core.errors import InvalidRequest
from keyhole.core.request import Credential, Reply
from keyhole.crypto.shamir import SHARE_SIZE
from keyhole.faces.api.envelope import Answer, render
from keyhole.vault.node import Node
from keyhole.vault.rekey import Rekey

_READS = frozenset({"GET", "HEAD"})
_WRITES = frozenset({"PUT", "POST"})
_DELETE = frozenset({"DELETE"})
_MAX_NUMBER = 999  # more digits than any number of shares has
_NO_KEY = "'key' must be specified in request body as JSON"
_ENCRYPTED = ("pgp_keys", "backup")
_SIZES = range(16, SHARE_SIZE + 1)  # what hexadecimal digits may stand for; other texts of digits are base64
Body = Mapping[str, Any]
Handler = Callable[[Node, str, Body, Body, Credential], Awaitable[Answer]]


def share_bytes(key: object) -> bytes:
    """A share in hexadecimal digits or base64, as it was given out. Raises ``InvalidRequest``."""
    if isinstance(key, str):
        with contextlib.suppress(ValueError):
            decoded = binascii.unhexlify(key.strip())
            if len(decoded) in _SIZES:
                return decoded
        with contextlib.suppress(ValueError):
            return base64.b64decode(key.strip(), validate=True)
    raise InvalidRequest("'key' must be a valid hex or base64 string")


def number_of(body: Body, name: str) -> int:
    """A small whole number of a body; 0 where it is not there. Raises ``InvalidRequest``."""
    number = body.get(name, 0)
    if type(number) is not int or not 0 <= number <= _MAX_NUMBER:
        raise InvalidRequest(f"{name} is a whole number", "say for example 5")
    return number


def _entered(body: Body) -> tuple[bytes, str]:
    if not body.get("key"):
        raise InvalidRequest(_NO_KEY)
    return share_bytes(body["key"]), str(body.get("nonce") or "")


def _bare(data: dict[str, Any] | None) -> Answer:
    return render(Reply(data, bare=True))


def _kind(node: Node, *, recovery: bool) -> Rekey:
    return node.recovery_rekey if recovery else node.rekey


async def _init(node: Node, method: str, body: Body, _query: Body, _who: Credential, *, recovery: bool) -> Answer:
    act = _kind(node, recovery=recovery)
    if method in _DELETE:
        await act.cancel()
        return _bare(None)
    if method in _READS:
        return _bare(await act.status())
    for name in _ENCRYPTED:
        if body.get(name):
            raise InvalidRequest(f"{name} is not supported", "leave it out; encrypt each share once you have it")
    shares, threshold = number_of(body, "secret_shares"), number_of(body, "secret_threshold")
    return _bare(await act.start(shares, threshold, verify=body.get("require_verification") is True))


async def _update(node: Node, _method: str, body: Body, _query: Body, _who: Credential, *, recovery: bool) -> Answer:
    return _bare(await _kind(node, recovery=recovery).enter(*_entered(body)))


async def _verify(node: Node, method: str, body: Body, _query: Body, _who: Credential, *, recovery: bool) -> Answer:
    act = _kind(node, recovery=recovery)
    if method in _READS:
        return _bare(await act.verification())
    return _bare(await (act.restart_verification() if method in _DELETE else act.verify(*_entered(body))))


async def _backup(node: Node, method: str, _body: Body, _query: Body, _who: Credential) -> Answer:
    """Shares are backed up where they are encrypted for their holders, which is not done here."""
    node.open_vault()
    if method in _DELETE:
        return _bare(None)
    raise InvalidRequest("no backed-up keys found", "keep each share where its holder keeps it")


async def _attempt(node: Node, method: str, body: Body, _query: Body, _who: Credential) -> Answer:
    act = node.root_generation
    if method in _DELETE:
        await act.cancel()
        return _bare(None)
    if method in _READS:
        return _bare(await act.status())
    if body.get("pgp_key"):
        raise InvalidRequest("pgp_key is not supported", "leave it out; the token is hidden by the one-time pad, otp")
    pad = body.get("otp") or ""
    if not isinstance(pad, str):
        raise InvalidRequest("otp is a text", "or leave it out, and one is made")
    return _bare(await act.start(pad))


async def _generate(node: Node, _method: str, body: Body, _query: Body, _who: Credential) -> Answer:
    return _bare(await node.root_generation.enter(*_entered(body)))


def _rekey_routes(prefix: str, *, recovery: bool) -> dict[str, tuple[frozenset[str], Handler]]:
    return {
        f"{prefix}/init": (_READS | _WRITES | _DELETE, partial(_init, recovery=recovery)),
        f"{prefix}/update": (_WRITES, partial(_update, recovery=recovery)),
        f"{prefix}/verify": (_READS | _WRITES | _DELETE, partial(_verify, recovery=recovery)),
    }


ROUTES: dict[str, tuple[frozenset[str], Handler]] = {
    **_rekey_routes("sys/rekey", recovery=False),
    **_rekey_routes("sys/rekey-recovery-key", recovery=True),
    "sys/rekey/backup": (_READS | _DELETE, _backup),
    "sys/rekey/recovery-key-backup": (_READS | _DELETE, _backup),
    "sys/generate-root/attempt": (_READS | _WRITES | _DELETE, _attempt),
    "sys/generate-root/update": (_WRITES, _generate),
}
