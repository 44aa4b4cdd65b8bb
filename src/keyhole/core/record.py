r"""The audit record, and the chain that makes tampering evident. No field can hold a secret value.

A record is built from the caller's request *before* anything is injected, so it cannot contain a value of ours; of a
query string only the parameter names are kept. On disk a record is a clear header (writer, sequence, time, partition)
and a body sealed under the key of its org. The digest of a row is

    SHA-256( "keyhole journal 1\0" || previous digest || writer u32 || sequence u64 || time u64
             || len(partition) u16 || partition || len(body) u32 || body )

and starts from 32 zero bytes. The last row of each commit carries an Ed25519 signature over its digest.
"""

from __future__ import annotations

import functools
import hashlib
import json
import operator
import struct
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

GENESIS = bytes(32)
_MAGIC = b"keyhole journal 1\0"
_TEXT_LIMIT = 1024
_NUMBERS = struct.Struct(">IQQH")
_SIZE = struct.Struct(">I")


class Phase(StrEnum):
    """Where in a request the record stands.

    ``intent`` is durable before anything is released or changed; ``outcome`` follows and has the same id; ``refused``
    stands alone; ``event`` is something the vault did by itself.
    """

    INTENT = "intent"
    OUTCOME = "outcome"
    REFUSED = "refused"
    EVENT = "event"


class _Encoded:
    """Room for the bytes of a record, which are made once and stand in its outcome too."""

    __slots__ = ("_body",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record(_Encoded):
    """One typed entry. Empty fields are not stored.

    Attributes:
        phase: see ``Phase``.
        id: request id; also in the answer to the caller.
        caller: ``agent/NAME``, ``user/NAME``, ``token/NAME``, or empty when unknown.
        accessor: names the token without being it.
        operation: capability that was asked for.
        path: API path in canonical form.
        result: ``ok``, an error code, or empty for an intent.
        rule: path of the policy rule that decided.
        remote: address of the caller.
        service: name of the service that was used.
        secrets: names of the secrets that were read or lent, never their values.
        host: destination host and port of a call.
        method: HTTP method of a call.
        target: path of a call, without its query.
        parameters: names of the query parameters of a call.
        status: HTTP status that the upstream gave.
        scrubbed: how many places were masked in the answer.
        received: bytes of the answer's body, or from the upstream of a stream.
        sent: bytes from the caller of a stream.
        milliseconds: from the intent to the end; with ``count`` the time over which was counted.
        count: refusals that this one record stands for.
        workflow, run, step, tool, on_behalf_of: the run context of the token.
    """

    phase: Phase
    id: str
    caller: str = ""
    accessor: str = ""
    operation: str = ""
    path: str = ""
    result: str = ""
    rule: str = ""
    remote: str = ""
    service: str = ""
    secrets: tuple[str, ...] = ()
    host: str = ""
    method: str = ""
    target: str = ""
    parameters: tuple[str, ...] = ()
    status: int = 0
    scrubbed: int = 0
    received: int = 0
    sent: int = 0
    milliseconds: int = 0
    count: int = 0
    workflow: str = ""
    run: str = ""
    step: str = ""
    tool: str = ""
    on_behalf_of: str = ""

    def as_data(self) -> dict[str, Any]:
        """The fields that are set, JSON-ready."""
        return {name: value for name, value in zip(_FIELDS, _values(self), strict=True) if value}

    def encode(self) -> bytes:
        """Compact JSON in ASCII; whatever a peer wrote into a name stays one string of one field."""
        body: bytes | None = getattr(self, "_body", None)
        if body is None:
            values = _values(self)
            encode = _encode_rest if self.parameters else _encode_rest_again
            body = b'{"phase":%b,"id":%b%b' % (
                _encode(values[0]).encode(),
                _encode(values[1]).encode(),
                encode(values[2:]),
            )
            object.__setattr__(self, "_body", body)
        return body

    def encode_outcome(
        self,
        result: str,
        *,
        status: int = 0,
        scrubbed: int = 0,
        received: int = 0,
        sent: int = 0,
        milliseconds: int = 0,
    ) -> bytes:
        """The encoded record of how this intent ended: all that it says, and the result."""
        numbers = (
            ("status", status),
            ("scrubbed", scrubbed),
            ("received", received),
            ("sent", sent),
            ("milliseconds", milliseconds),
        )
        ending = "".join([f',"{name}":{number}' for name, number in numbers if number])
        return b'%b%b,"result":%b%b}' % (
            _OUTCOME,
            self.encode()[len(_INTENT) : -1],
            _encode(result).encode(),
            ending.encode(),
        )

    @classmethod
    def decode(cls, body: bytes) -> Record:
        """The record of a body; unknown fields of later versions are passed over."""
        data = {name: value for name, value in json.loads(body).items() if name in _FIELDS}
        for name in ("secrets", "parameters"):
            data[name] = tuple(data.get(name, ()))
        data["phase"] = Phase(data["phase"])
        return cls(**data)


_FIELDS = tuple(field.name for field in fields(Record))
_values = operator.attrgetter(*_FIELDS)
_INTENT = b'{"phase":"intent"'
_OUTCOME = b'{"phase":"outcome"'
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True).encode


def _encode_rest(values: tuple[Any, ...]) -> bytes:
    """All fields that are set but the first two, which no two requests have in common."""
    data = {name: value for name, value in zip(_FIELDS[2:], values, strict=True) if value}
    return b",%b" % _encode(data).encode()[1:] if data else b"}"


# Many requests in a row say the same but for their id. Names of parameters, of which there can be many, are not kept.
_encode_rest_again = functools.lru_cache(maxsize=512)(_encode_rest)


def clip(text: str) -> str:
    """Bound what a peer can put into a record."""
    return text if len(text) <= _TEXT_LIMIT else text[: _TEXT_LIMIT - 1] + "…"


def parameter_names(query: str) -> tuple[str, ...]:
    """The names in a query string, bounded. A part without ``=`` may be a value as well as a name: neither is kept."""
    if not query:
        return ()
    return tuple(clip(part.partition("=")[0]) for part in query.split("&", 33)[:32] if "=" in part)


def link(previous: bytes, writer: int, sequence: int, time: int, partition: str, body: bytes) -> bytes:
    """The digest of a row, from the digest of the row before it."""
    name = partition.encode()
    try:
        numbers, size = _NUMBERS.pack(writer, sequence, time, len(name)), _SIZE.pack(len(body))
    except struct.error as error:
        raise OverflowError(f"the row does not fit its header: {error}") from None
    return hashlib.sha256(b"".join((_MAGIC, previous, numbers, name, size, body))).digest()
