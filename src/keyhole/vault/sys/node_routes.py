"""What a face answers by itself below ``sys/``, also while the vault is sealed: for the description of the API."""

from __future__ import annotations

from collections.abc import Iterable

from keyhole.core.errors import NotFound
from keyhole.core.request import Operation, Reply
from keyhole.engines import Call, Context, Field, Route


async def _elsewhere(_context: Context, _call: Call) -> Reply:
    raise NotFound("unsupported path")


_READ = {Operation.READ: _elsewhere}
_WRITE = {Operation.CREATE: _elsewhere}
_DELETE = {Operation.DELETE: _elsewhere}
_SHARE = (Field("key", "one share", "string"), Field("nonce", "of the attempt", "string"))
_SHARES = (
    Field("secret_shares", "into how many shares the key is dealt", "integer"),
    Field("secret_threshold", "how many of them open the vault", "integer"),
)


def _route(pattern: str, operations: Iterable[Operation], text: str, fields: tuple[Field, ...] = ()) -> Route:
    handlers = dict.fromkeys(operations, _elsewhere)
    return Route(pattern, handlers, open=True, bare=True, fields=fields, help=text)


def _rekey(prefix: str, what: str) -> tuple[Route, ...]:
    return (
        _route(f"{prefix}/init", _READ | _WRITE | _DELETE, f"Begin, show or give up new shares of {what}.", _SHARES),
        _route(f"{prefix}/update", _WRITE, f"Enter a share of {what}.", _SHARE),
        _route(f"{prefix}/verify", _READ | _WRITE | _DELETE, "Enter a new share, to prove that they arrived.", _SHARE),
    )


NODE_ROUTES = (
    _route("init", _READ | _WRITE, "Whether there is a vault; makes one where there is none.", _SHARES),
    _route("seal-status", _READ, "How far the vault is sealed or unsealed."),
    _route(
        "unseal",
        _WRITE,
        "Enters a share of the key, or the passphrase.",
        (Field("key", "one share", "string"), Field("reset", "forget what was entered", "boolean")),
    ),
    _route("health", _READ, "The health of the server, as a status."),
    _route("leader", _READ, "Who leads; every server answers for itself."),
    *_rekey("rekey", "the key"),
    *_rekey("rekey-recovery-key", "the recovery key"),
    _route("rekey/backup", _READ | _DELETE, "Shares that were kept for their holders: there never are any."),
    _route("rekey/recovery-key-backup", _READ | _DELETE, "The same of the recovery key."),
    _route(
        "generate-root/attempt",
        _READ | _WRITE | _DELETE,
        "Begin, show or give up making a root token.",
        (Field("otp", "what the token is hidden by", "string"),),
    ),
    _route("generate-root/update", _WRITE, "Enter a share for a root token.", _SHARE),
)
