"""What the client signed with its placeholder keys: how, for which region and service, and which headers it meant."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime

from keyhole.core.errors import InvalidRequest
from keyhole.core.message import Message
from keyhole.core.signing import LONGEST_PRESIGNED, SCOPE_PART
from keyhole.crypto.sigv4 import ALGORITHM
from keyhole.injections.sigv4.canonical import decoded

FORMAT = "%Y%m%dT%H%M%SZ"
_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,128}")
_DATE = re.compile(r"[0-9]{8}")
_TIMESTAMP = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_NAMES = 100  # headers that can be signed
_PRESIGNED = frozenset({"x-amz-algorithm", "x-amz-credential", "x-amz-signature"})
_OLD = frozenset({"awsaccesskeyid", "signature", "expires"})
_REPLACED = {
    "presigned": frozenset({"x-amz-signature", "x-amz-security-token"}),
    "old presigned": _OLD | {"x-amz-security-token"},
}
_HINT = "sign with Signature Version 4, as AWS SDKs and tools do"


@dataclass(frozen=True, slots=True)
class Claim:
    """What the client's signature says.

    Attributes:
        way: ``header`` or, in the query, ``presigned``; the same with ``old`` before it for Signature Version 2 of S3,
            for which a header of version 4 is made; empty when the request is not signed.
        key_id: the access key id that it was made with; empty when the request is not signed.
        region: of its scope.
        service: of its scope.
        names: the headers that it covers.
        timestamp: when it was made, as written; empty when it does not say.
        expires: seconds for which a presigned URL is good; for an old one, when it ends.
    """

    way: str = ""
    key_id: str = ""
    region: str = ""
    service: str = ""
    names: tuple[str, ...] = ()
    timestamp: str = ""
    expires: int = 0

    @property
    def presigned(self) -> bool:
        """Whether the new signature stands in the query too."""
        return self.way == "presigned"

    def covers(self, parameter: str) -> bool:
        """Whether a parameter of the query is part of the client's signature and goes with it."""
        return parameter in _REPLACED.get(self.way, ())


def read_claim(message: Message) -> Claim:
    """Read a client's signature; it is not verified, since whoever was granted the service may have it signed.

    Raises:
        InvalidRequest: it is one that cannot be made again, or cannot be read in one way.
    """
    query = parameters(message.target)
    if any(name in _PRESIGNED for name in query):
        return _presigned(query)
    values = [value for name, value in message.headers if name == b"authorization"]
    if len(values) > 1:
        raise InvalidRequest("the request has more than one Authorization header", "send one")
    scheme, _, rest = (values[0].decode("latin-1") if values else "").strip().partition(" ")
    if scheme == ALGORITHM:
        return _header(message, rest)
    if scheme.startswith("AWS4-"):
        raise _algorithm(scheme)
    if scheme == "AWS":
        return Claim("old header", rest.partition(":")[0].strip(), service="s3")
    if query.keys() >= _OLD:
        if not re.fullmatch(r"[0-9]{1,12}", query["expires"]):
            raise _unreadable()
        return Claim("old presigned", query["awsaccesskeyid"], service="s3", expires=int(query["expires"]))
    return Claim()


def parameters(target: bytes) -> dict[str, str]:
    """The parameters of a query that can be about signatures, by their names in lower case.

    Raises:
        InvalidRequest: one of them stands there twice.
    """
    found: dict[str, str] = {}
    for part in target.partition(b"?")[2].split(b"&"):
        name = parameter_name(part)
        if name.startswith("x-amz-") and name in found:
            raise InvalidRequest(f"the query has {name[:40]} twice", "send it once")
        if name.startswith("x-amz-") or name in _OLD:
            found[name] = decoded(part.partition(b"=")[2]).decode("latin-1")
    return found


def parameter_name(part: bytes) -> str:
    """The name in ``name=value`` of a query, as a server that passes over case reads it."""
    return decoded(part.partition(b"=")[0]).decode("latin-1").lower()


def seconds(timestamp: str) -> float:
    """A timestamp in seconds since the epoch. Raises ``InvalidRequest``."""
    if _TIMESTAMP.fullmatch(timestamp):
        with contextlib.suppress(ValueError):
            return datetime.strptime(timestamp, FORMAT).replace(tzinfo=UTC).timestamp()
    raise InvalidRequest("the date of the AWS signature is not YYYYMMDDTHHMMSSZ", _HINT)


def _header(message: Message, text: str) -> Claim:
    fields: dict[str, str] = {}
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        if name in fields:
            raise _unreadable()
        fields[name] = value.strip()
    if fields.keys() != {"Credential", "SignedHeaders", "Signature"}:
        raise _unreadable()
    key_id, region, service = _scope(fields["Credential"])
    date = message.get(b"x-amz-date") or b""
    names = _names(fields["SignedHeaders"])
    return Claim("header", key_id, region, service, names, date.decode("latin-1").strip())


def _presigned(query: dict[str, str]) -> Claim:
    algorithm = query.get("x-amz-algorithm", "")
    if algorithm != ALGORITHM:
        raise _algorithm(algorithm) if algorithm.startswith("AWS4-") else _unreadable()
    key_id, region, service = _scope(query.get("x-amz-credential", ""))
    expires = query.get("x-amz-expires", "")
    if not re.fullmatch(r"[0-9]{1,6}", expires) or not 1 <= int(expires) <= LONGEST_PRESIGNED:
        raise InvalidRequest("X-Amz-Expires is not 1 to 604800 seconds", "presign the URL for a shorter time")
    timestamp = query.get("x-amz-date", "")
    seconds(timestamp)
    names = _names(query.get("x-amz-signedheaders", ""))
    return Claim("presigned", key_id, region, service, names, timestamp, int(expires))


def _scope(credential: str) -> tuple[str, str, str]:
    parts = credential.rsplit("/", 4)
    if len(parts) != 5 or not parts[0] or not _DATE.fullmatch(parts[1]) or parts[4] != "aws4_request":
        raise _unreadable()
    if not (SCOPE_PART.fullmatch(parts[2]) and SCOPE_PART.fullmatch(parts[3])):
        raise _unreadable()
    return parts[0], parts[2], parts[3]


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.lower() for name in text.split(";"))
    if len(names) > _NAMES or not all(_NAME.fullmatch(name) for name in names):
        raise _unreadable()
    return names


def _unreadable() -> InvalidRequest:
    return InvalidRequest("the AWS signature that the client sent cannot be read", _HINT)


def _algorithm(name: str) -> InvalidRequest:
    if "ECDSA" in name:
        return InvalidRequest(
            "the request is signed with SigV4A, which cannot be signed again",
            "use the endpoint of one region instead of a global or multi-region one",
        )
    return InvalidRequest("the request is signed with an algorithm that is not AWS4-HMAC-SHA256", _HINT)
