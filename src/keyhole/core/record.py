r"""The audit record, and the chain that makes tampering evident. No field can hold a secret value.

A record is built from the caller's request *before* anything is injected, so it cannot contain a value of ours; of a
query string only the parameter names are kept. On disk a record is a clear header (writer, sequence, time, partition)
and a body sealed under the key of its org. The digest of a row is

    SHA-256( "keyhole journal 1\0" || previous digest || writer u32 || sequence u64 || time u64
             || len(partition) u16 || partition || len(body) u32 || body )

and starts from 32 zero bytes. The last row of each commit carries an Ed25519 signature over its digest.
"""

import hashlib
import json
import operator
import struct
from enum import StrEnum
from json.encoder import encode_basestring_ascii as _text
from typing import Any, NamedTuple, Self

GENESIS = bytes(32)
_MAGIC = b"keyhole journal 1\0"
_TEXT_LIMIT = 1024
_NUMBERS = struct.Struct(">IQQH")
_SIZE = struct.Struct(">I")
_sha256 = hashlib.sha256()


class Phase(StrEnum):
    """Where in a request the record stands.

    ``intent`` is durable before anything is released or changed; ``outcome`` follows and has the same id; ``refused``
    stands alone; ``event`` is something the vault did by itself.
    """

    INTENT = "intent"
    OUTCOME = "outcome"
    REFUSED = "refused"
    EVENT = "event"


class Record(NamedTuple):
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
        method: HTTP method of a call; of a session with a database its scheme.
        target: path of a call, without its query; of a session the database.
        parameters: names of the query parameters of a call.
        approval: id of the approval by which a call was made, or for which it waits.
        lease: id of the lease that was given out, or taken back.
        wrapped: accessor of the token for which the answer was wrapped; the answer itself is not recorded.
        status: HTTP status that the upstream gave.
        scrubbed: how many places were masked in the answer.
        received: bytes of the answer's body, or from the upstream of a stream.
        sent: bytes from the caller of a stream.
        statements: that the caller of a session with a database sent.
        milliseconds: from the intent to the end; with ``count`` the time over which was counted.
        count: refusals that this one record stands for.
        workflow, run, step, tool, on_behalf_of: the run context.
        claimed: which of those the caller said of itself, and its token did not; names with commas.
        trace: id of the W3C trace that the request belongs to, 32 hexadecimal digits.
        span: id of the span in it that asked, 16 hexadecimal digits.
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
    approval: str = ""
    lease: str = ""
    wrapped: str = ""
    status: int = 0
    scrubbed: int = 0
    received: int = 0
    sent: int = 0
    statements: int = 0
    milliseconds: int = 0
    count: int = 0  # type: ignore[assignment]  # a tuple's own method of that name is not missed
    workflow: str = ""
    run: str = ""
    step: str = ""
    tool: str = ""
    on_behalf_of: str = ""
    claimed: str = ""
    trace: str = ""
    span: str = ""

    def as_data(self) -> dict[str, Any]:
        """The fields that are set, JSON-ready."""
        return {name: value for name, value in zip(_FIELDS, self, strict=True) if value}

    def encode(self) -> bytes:
        """Compact JSON in ASCII; whatever a peer wrote into a name stays one string of one field."""
        return _encode(self.as_data()).encode()

    def encode_outcome(self, result: str, **more: int | str) -> bytes:
        """``Intent.encode_outcome`` of this intent."""
        return Intent.of(self).encode_outcome(result, **more)

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """The record of a body; unknown fields of later versions are passed over."""
        data = {name: value for name, value in json.loads(body).items() if name in _FIELDS}
        for name in ("secrets", "parameters"):
            data[name] = tuple(data.get(name, ()))
        data["phase"] = Phase(data["phase"])
        return cls(**data)


_FIELDS = Record._fields
_values = operator.attrgetter(*_FIELDS)
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True).encode
_INTENT = b'{"phase":"intent"'
_OUTCOME = b'{"phase":"outcome"'


class CallFacts(NamedTuple):
    """What a record says of a call; see ``Record``. All bounded by ``clip``."""

    host: str = ""
    method: str = ""
    target: str = ""
    parameters: tuple[str, ...] = ()
    approval: str = ""


NO_CALL = CallFacts()


class Intent:
    """The record of an intent, encoded. Its outcome says all that it says, and the result.

    Args:
        body: what ``Record.decode`` reads.
    """

    __slots__ = ("_body",)

    def __init__(self, body: bytes) -> None:
        self._body = body

    @classmethod
    def of(cls, record: Record) -> Self:
        """Encode a record, whose phase is ``intent``."""
        return cls(record.encode())

    def record(self) -> Record:
        """The record again."""
        return Record.decode(self._body)

    def encode(self) -> bytes:
        """The encoded intent."""
        return self._body

    def encode_outcome(self, result: str, **more: int | str) -> bytes:
        """The encoded record of how this ended; ``more`` are fields of ``Record`` that the intent has not."""
        ending = ""
        for name, it in more.items():
            if it:
                ending += f',"{name}":{_text(it) if isinstance(it, str) else it}'
        return b"%b%b%b" % (
            _OUTCOME,
            self._body[len(_INTENT) : -1],
            f',"result":{_text(result)}{ending}}}'.encode(),
        )


class IntentForm:
    """What many intents have in common, encoded once; what differs from one to the next is filled in.

    Args:
        record: says what they have in common; its id does not count.
    """

    __slots__ = ("_common",)

    def __init__(self, record: Record) -> None:
        data = record.as_data()
        del data["phase"], data["id"]
        self._common = _encode(data)[1:-1]

    def fill(self, request_id: str, remote: str = "", call: CallFacts = NO_CALL) -> Intent:
        """The intent of one request; the form has none of these fields."""
        host, method, target, parameters, approval = call
        varying = f',"remote":{_text(remote)}' if remote else ""
        if host:
            varying += f',"host":{_text(host)},"method":{_text(method)}'
        if target:
            varying += f',"target":{_text(target)}'
        if parameters:
            varying += f',"parameters":{_encode(parameters)}'
        if approval:
            varying += f',"approval":{_text(approval)}'
        body = f'{{"phase":"intent","id":{_text(request_id)},{self._common}{varying}}}'
        return Intent(body.encode())


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
    digest = _sha256.copy()  # quicker than a new one
    digest.update(b"%b%b%b%b%b%b" % (_MAGIC, previous, numbers, name, size, body))
    return digest.digest()
