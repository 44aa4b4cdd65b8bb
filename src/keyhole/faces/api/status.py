"""The few routes of ``sys/`` that answer while the vault is sealed. They have no envelope, and need no token.

There is one exception: a vault that was sealed on request, and whose seal needs nobody, opens for who may seal it.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from keyhole.core.errors import Conflict, IntegrityError, InvalidRequest, NotFound
from keyhole.core.request import Credential, Reply
from keyhole.core.value import Secret
from keyhole.faces.api import rekey
from keyhole.faces.api.envelope import Answer, render
from keyhole.faces.api.rekey import number_of, share_bytes
from keyhole.vault.mounts import UnsupportedOperation
from keyhole.vault.node import Node
from keyhole.vault.reported import REPORTED_VERSION
from keyhole.vault.sealing import NO_RECOVERY, SHAMIR, default_recovery, has_no_shares, in_both_forms

_READS = frozenset({"GET", "HEAD"})
_WRITES = frozenset({"PUT", "POST"})
_UNSUPPORTED = ("pgp_keys", "root_token_pgp_key", "recovery_pgp_keys")
_SEALS = frozenset({"passphrase", "shares"})
_NO_KEY = "'key' must be specified in request body as JSON, or 'reset' set to true"
_LEAST, _MOST = 200, 599  # statuses that an answer can have
_CODES = {"active": 200, "sealed": 503, "uninit": 501}


async def _init(
    node: Node, method: str, body: Mapping[str, Any], _query: Mapping[str, Any], _who: Credential
) -> Answer:
    if method in _READS:
        return render(Reply({"initialized": (await node.header()) is not None}, bare=True))
    if await node.header() is not None:
        raise InvalidRequest("Vault is already initialized", "open it instead of making a new one")
    passphrase = body.get("passphrase")
    spec = _spec(node, body)
    if spec == "passphrase" and not isinstance(passphrase, str):
        raise InvalidRequest("the seal passphrase needs a passphrase", "keyhole operator init asks for it")
    secret = Secret(passphrase) if isinstance(passphrase, str) else None
    shares: list[Secret] = []
    recovery = _recovery(spec, body)
    try:
        token = await node.init(spec, secret, hand_out=shares.extend, recovery=recovery)
    except Conflict as error:  # as Vault answers it
        raise InvalidRequest(error.reason, error.hint) from None
    if "seal" not in body:  # a client of Vault, which mounts at ``secret/`` what it wants there
        await node.open_vault().unmount_all()
    keys, texts = in_both_forms(shares)
    data: dict[str, Any] = {"keys": keys, "keys_base64": texts, "root_token": token}
    if recovery != NO_RECOVERY:
        data |= {"keys": [], "keys_base64": [], "recovery_keys": keys, "recovery_keys_base64": texts}
    return render(Reply(data, bare=True))


def _spec(node: Node, body: Mapping[str, Any]) -> str:
    """The seal that a body asks for, by its name or in the fields of Vault; else the one that the server has."""
    for name in _UNSUPPORTED:
        if body.get(name):
            raise InvalidRequest(f"{name} is not supported", "leave it out; encrypt each share once you have it")
    kind = node.configured.partition(":")[0]
    if "secret_shares" not in body and "secret_threshold" not in body:
        if kind not in _SEALS and kind and not body.get("seal"):
            return node.configured
        spec = str(body.get("seal") or "passphrase")
        if spec.partition(":")[0] not in _SEALS:  # a stranger names no file of this machine
            raise InvalidRequest("a vault made over the API has the seal passphrase or shares", "or use keyhole init")
        return spec
    if body.get("seal"):
        raise InvalidRequest("a seal and secret_shares exclude each other", "leave one of them out")
    if has_no_shares(kind):
        raise InvalidRequest(
            f"parameters secret_shares,secret_threshold not applicable to seal type {kind}",
            "say recovery_shares and recovery_threshold",
        )
    for name in ("secret_shares", "secret_threshold"):
        if name not in body:
            raise InvalidRequest("secret_shares and secret_threshold go together", "say for example 5 and 3")
    return f"shares:{number_of(body, 'secret_shares')}:{number_of(body, 'secret_threshold')}"


def _recovery(spec: str, body: Mapping[str, Any]) -> tuple[int, int]:
    """How many recovery shares, and how many of them are needed."""
    numbers = (number_of(body, "recovery_shares"), number_of(body, "recovery_threshold"))
    if spec.partition(":")[0] == "shares":
        return NO_RECOVERY  # as with Vault, its clients may send numbers that mean nothing here
    asked = "recovery_shares" in body or "recovery_threshold" in body
    return default_recovery(spec) if not asked else numbers


async def _seal_status(
    node: Node, _method: str, _body: Mapping[str, Any], _query: Mapping[str, Any], _who: Credential
) -> Answer:
    return render(Reply(await node.status(), bare=True))


async def _unseal(
    node: Node, _method: str, body: Mapping[str, Any], _query: Mapping[str, Any], who: Credential
) -> Answer:
    key = body.get("key") or body.get("passphrase")
    status = await node.status()
    kind = status["type"]
    if body.get("reset"):
        await node.forget_shares()
    elif body.get("migrate") or status["migration"]:
        await _migrate(node, key, status, migrate=body.get("migrate") is True)
    elif kind == SHAMIR:
        await _enter_share(node, key)
    else:
        if key is not None and not isinstance(key, str):
            raise InvalidRequest("'key' must be a text")
        if not key and status["asks_for"]:
            raise InvalidRequest(_NO_KEY)
        try:
            await node.unseal(Secret(key) if key else None, credential=who)
        except IntegrityError as error:
            raise InvalidRequest("the key does not open this vault", error.hint) from None
        except NotFound as error:
            raise InvalidRequest(error.reason, error.hint) from None
    return render(Reply(await node.status(), bare=True))


async def _migrate(node: Node, key: object, status: Mapping[str, Any], *, migrate: bool) -> None:
    """Take a key of the old seal, or a share towards it."""
    if not migrate:
        raise InvalidRequest(
            "this server is set to another seal than its vault has: 'migrate' must be true",
            "keyhole operator unseal --migrate; or start the server without --seal",
        )
    if not key:
        raise InvalidRequest(_NO_KEY)
    by_shares = status["type"] == SHAMIR or status["recovery_seal"]
    try:
        await node.migrate(share_bytes(key) if by_shares else str(key).encode(errors="surrogateescape"))
    except IntegrityError as error:
        raise InvalidRequest(error.reason, error.hint) from None


async def _enter_share(node: Node, key: object) -> None:
    if not key:
        raise InvalidRequest(_NO_KEY)
    try:
        await node.enter_share(share_bytes(key))
    except IntegrityError as error:
        raise InvalidRequest(error.reason, error.hint) from None


async def _health(
    node: Node, _method: str, _body: Mapping[str, Any], query: Mapping[str, Any], _who: Credential
) -> Answer:
    status = await node.status()
    state = "uninit" if not status["initialized"] else "sealed" if status["sealed"] else "active"
    code = str(query.get(f"{state}code") or _CODES[state])
    if not (code.isascii() and code.isdecimal() and _LEAST <= int(code[:4]) <= _MOST):
        raise InvalidRequest(f"{state}code is no status of HTTP", f"send a number from {_LEAST} to {_MOST}")
    replication = "unknown" if state == "sealed" else "disabled"
    data: dict[str, Any] = {
        "initialized": status["initialized"],
        "sealed": status["sealed"],
        "standby": state != "active",
        "performance_standby": False,
        "replication_performance_mode": replication,
        "replication_dr_mode": replication,
        "server_time_utc": int(time.time()),
        "version": REPORTED_VERSION,
        **{name: status[name] for name in ("cluster_name", "cluster_id") if name in status},
    }
    _, headers, body = render(Reply(data, bare=True))
    return int(code), headers, body


async def _leader(
    _node: Node, _method: str, _body: Mapping[str, Any], _query: Mapping[str, Any], _who: Credential
) -> Answer:
    data = {
        "ha_enabled": False,
        "is_self": False,
        "active_time": "0001-01-01T00:00:00Z",
        "leader_address": "",
        "leader_cluster_address": "",
        "performance_standby": False,
        "performance_standby_last_remote_wal": 0,
    }
    return render(Reply(data, bare=True))


_Handler = Callable[[Node, str, Mapping[str, Any], Mapping[str, Any], Credential], Awaitable[Answer]]
ROUTES: dict[str, tuple[frozenset[str], _Handler]] = {
    "sys/init": (_READS | _WRITES, _init),
    "sys/seal-status": (_READS, _seal_status),
    "sys/unseal": (_WRITES, _unseal),
    "sys/health": (_READS, _health),
    "sys/leader": (_READS, _leader),
    **rekey.ROUTES,
}


async def serve(
    node: Node, method: str, path: str, body: Mapping[str, Any], query: Mapping[str, Any], who: Credential
) -> Answer:
    """Answer one of ``ROUTES``; ``who`` counts only where a seal would open for anybody."""
    methods, handler = ROUTES[path]
    if method not in methods:
        raise UnsupportedOperation("")
    return await handler(node, method, body, query, who)
