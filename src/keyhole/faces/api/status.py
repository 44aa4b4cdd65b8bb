"""The few routes of ``sys/`` that answer while the vault is sealed. They have no envelope, and need no token.

There is one exception: a vault that was sealed on request, and whose seal needs nobody, opens for who may seal it.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from keyhole.core.errors import Conflict, IntegrityError, InvalidRequest, NotFound
from keyhole.core.request import Credential, Reply
from keyhole.core.value import Secret
from keyhole.faces.api.envelope import Answer, render
from keyhole.vault.mounts import UnsupportedOperation
from keyhole.vault.node import REPORTED_VERSION, SHAMIR, Node

_READS = frozenset({"GET", "HEAD"})
_WRITES = frozenset({"PUT", "POST"})
_UNSUPPORTED = ("pgp_keys", "root_token_pgp_key", "recovery_pgp_keys", "recovery_shares", "recovery_threshold")
_SEALS = frozenset({"passphrase", "shares"})
_MAX_NUMBER = 999  # more digits than any number of shares has
_NO_KEY = "'key' must be specified in request body as JSON, or 'reset' set to true"
_CODES = {"active": 200, "sealed": 503, "uninit": 501}


async def _init(
    node: Node, method: str, body: Mapping[str, Any], _query: Mapping[str, Any], _who: Credential
) -> Answer:
    if method in _READS:
        return render(Reply({"initialized": (await node.header()) is not None}, bare=True))
    if await node.header() is not None:
        raise InvalidRequest("Vault is already initialized", "open it instead of making a new one")
    passphrase = body.get("passphrase")
    spec = _spec(body)
    if spec == "passphrase" and not isinstance(passphrase, str):
        raise InvalidRequest("the seal passphrase needs a passphrase", "keyhole operator init asks for it")
    secret = Secret(passphrase) if isinstance(passphrase, str) else None
    shares: list[Secret] = []
    try:
        token = await node.init(spec, secret, hand_out=shares.extend)
    except Conflict as error:  # as Vault answers it
        raise InvalidRequest(error.reason, error.hint) from None
    texts = [share.reveal().decode() for share in shares]
    keys = [base64.b64decode(text).hex() for text in texts]
    return render(Reply({"keys": keys, "keys_base64": texts, "root_token": token}, bare=True))


def _spec(body: Mapping[str, Any]) -> str:
    """The seal that a body asks for, by its name or in the fields of Vault."""
    for name in _UNSUPPORTED:
        if body.get(name):
            raise InvalidRequest(f"{name} is not supported", "leave it out; encrypt each share once you have it")
    if "secret_shares" not in body and "secret_threshold" not in body:
        spec = str(body.get("seal") or "passphrase")
        if spec.partition(":")[0] not in _SEALS:  # a stranger names no file of this machine
            raise InvalidRequest("a vault made over the API has the seal passphrase or shares", "or use keyhole init")
        return spec
    if body.get("seal"):
        raise InvalidRequest("a seal and secret_shares exclude each other", "leave one of them out")
    numbers = [body.get(name) for name in ("secret_shares", "secret_threshold")]
    if not all(type(number) is int and 0 <= number <= _MAX_NUMBER for number in numbers):
        raise InvalidRequest("secret_shares and secret_threshold are whole numbers", "say for example 5 and 3")
    return f"shares:{numbers[0]}:{numbers[1]}"


async def _seal_status(
    node: Node, _method: str, _body: Mapping[str, Any], _query: Mapping[str, Any], _who: Credential
) -> Answer:
    return render(Reply(await node.status(), bare=True))


async def _unseal(
    node: Node, _method: str, body: Mapping[str, Any], _query: Mapping[str, Any], who: Credential
) -> Answer:
    key = body.get("key") or body.get("passphrase")
    kind = (await node.status())["type"]
    if body.get("reset"):
        await node.forget_shares()
    elif kind == SHAMIR:
        await _enter_share(node, key)
    else:
        if key is not None and not isinstance(key, str):
            raise InvalidRequest("'key' must be a text")
        if not key and kind == "passphrase":
            raise InvalidRequest(_NO_KEY)
        try:
            await node.unseal(Secret(key) if key else None, credential=who)
        except IntegrityError as error:
            raise InvalidRequest("the key does not open this vault", error.hint) from None
        except NotFound as error:
            raise InvalidRequest(error.reason, error.hint) from None
    return render(Reply(await node.status(), bare=True))


async def _enter_share(node: Node, key: object) -> None:
    if not key:
        raise InvalidRequest(_NO_KEY)
    try:
        await node.enter_share(_share_bytes(key))
    except IntegrityError as error:
        raise InvalidRequest(error.reason, error.hint) from None


def _share_bytes(key: object) -> bytes:
    """A share in hexadecimal digits or base64, as ``sys/init`` gave it."""
    if isinstance(key, str):
        for decode in (binascii.unhexlify, partial(base64.b64decode, validate=True)):
            with contextlib.suppress(ValueError):
                return decode(key.strip())
    raise InvalidRequest("'key' must be a valid hex or base64 string")


async def _health(
    node: Node, _method: str, _body: Mapping[str, Any], query: Mapping[str, Any], _who: Credential
) -> Answer:
    status = await node.status()
    state = "uninit" if not status["initialized"] else "sealed" if status["sealed"] else "active"
    code = str(query.get(f"{state}code") or _CODES[state])
    data = {
        "initialized": status["initialized"],
        "sealed": status["sealed"],
        "standby": False,
        "performance_standby": False,
        "replication_performance_mode": "disabled",
        "replication_dr_mode": "disabled",
        "server_time_utc": int(time.time()),
        "version": REPORTED_VERSION,
    }
    _, headers, body = render(Reply(data, bare=True))
    return int(code) if code.isdecimal() and 200 <= int(code) <= 599 else _CODES[state], headers, body


async def _leader(
    _node: Node, _method: str, _body: Mapping[str, Any], _query: Mapping[str, Any], _who: Credential
) -> Answer:
    data = {"ha_enabled": False, "is_self": True, "leader_address": "", "leader_cluster_address": ""}
    return render(Reply(data, bare=True))


_Handler = Callable[[Node, str, Mapping[str, Any], Mapping[str, Any], Credential], Awaitable[Answer]]
ROUTES: dict[str, tuple[frozenset[str], _Handler]] = {
    "sys/init": (_READS | _WRITES, _init),
    "sys/seal-status": (_READS, _seal_status),
    "sys/unseal": (_WRITES, _unseal),
    "sys/health": (_READS, _health),
    "sys/leader": (_READS, _leader),
}


async def serve(
    node: Node, method: str, path: str, body: Mapping[str, Any], query: Mapping[str, Any], who: Credential
) -> Answer:
    """Answer one of ``ROUTES``; ``who`` counts only where a seal would open for anybody."""
    methods, handler = ROUTES[path]
    if method not in methods:
        raise UnsupportedOperation("")
    return await handler(node, method, body, query, who)
