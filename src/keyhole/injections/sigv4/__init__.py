"""AWS Signature Version 4: what an SDK signed with placeholder keys is signed again with the real ones.

Region, service and the headers to sign are taken from the client's own signature, which stands in ``Authorization`` or,
in a presigned URL, in the query. A request without one gets one. What is sent stays as it was judged; only signatures,
the date, and the token of a session change.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from keyhole.core.errors import InvalidRequest, PolicyDenied
from keyhole.core.host import Authority
from keyhole.core.inject import Inject
from keyhole.core.message import Message
from keyhole.crypto.sigv4 import ALGORITHM, Signer
from keyhole.injections import Steps, Terms, header_value
from keyhole.injections.sigv4 import chunked
from keyhole.injections.sigv4.canonical import S3, digest, encode
from keyhole.injections.sigv4.claim import FORMAT, Claim, parameter_name, parameters, read_claim, seconds
from keyhole.injections.sigv4.minting import FORMS, mints
from keyhole.injections.sigv4.place import place_of

_DATE = b"x-amz-date"
_TOKEN = b"x-amz-security-token"
_PAYLOAD = b"x-amz-content-sha256"
_UNSIGNED = "UNSIGNED-PAYLOAD"
_NEAR = 300  # seconds between a client's clock and ours in which its date stands
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_STREAMING = frozenset({chunked.SIGNED, chunked.SIGNED_TRAILER, chunked.UNSIGNED_TRAILER})
# Headers that are written, or may be changed, after a message is signed.
_NEVER_SIGNED = frozenset(
    {"authorization", "connection", "content-length", "expect", "te", "trailer", "transfer-encoding", "upgrade", "via"}
)


@dataclass(frozen=True, slots=True)
class _Keys:
    key_id: str
    secret: bytes = field(repr=False)
    token: bytes = field(repr=False)


def needs_content(message: Message, how: Inject) -> bool:
    """Where neither the client nor the service says what is signed of a body, it has to be hashed.

    Some calls are named in a form, and are not let through unseen.
    """
    claim = read_claim(message)
    _, service = _place(message, how, claim)
    if service in FORMS and how["credentials"] == "refuse":
        return True
    return not _said_payload(message) and not _unsigned_payload(message, claim, service)


def inject(message: Message, how: Inject, terms: Terms) -> Steps:
    """Sign the message; whatever the client signed it with is gone."""
    keys = _keys(terms.values)
    claim = read_claim(message)
    if how["client"] and claim.key_id != how["client"]:
        raise InvalidRequest(
            "the request is not signed with the access key id that clients of this service have",
            "give the client the placeholder that the service names: keyhole service show NAME",
        )
    if claim.way == "old presigned" and claim.expires < terms.now:
        raise InvalidRequest("the URL that the client presigned has expired", "presign it again")
    region, service = _place(message, how, claim)
    if how["credentials"] == "refuse" and (call := mints(message, service)):
        raise PolicyDenied(
            f"{call} answers with credentials of AWS, which the client would then have",
            'store keys that need no other role; or let the service say so: "credentials": "allow"',
        )
    payload = _payload(message, claim, service)
    _remove_credentials(message, claim)
    if claim.presigned:
        timestamp = claim.timestamp
    else:
        timestamp = _timestamp(claim, terms.now)
        message.set(_DATE, timestamp.encode())
        if keys.token:
            message.set(_TOKEN, keys.token)
    signer = Signer.derive(keys.secret, timestamp, region, service)
    message.forms += [signer.key, *([encode(keys.token)] if claim.presigned and keys.token else [])]
    credential = f"{keys.key_id}/{signer.scope}"
    names = _names(message, claim)
    if claim.presigned:
        expires = min(claim.expires, int(how["expires"]))
        message.target = _presign(message.target, credential, names, keys.token, expires)
    headers = [*message.headers, (b"host", Authority(message.host, message.port).header(message.scheme))]
    request, signed = digest(message.method, message.target, headers, names, payload, service=service)
    signature = signer.sign(request)
    if claim.presigned:
        message.target += b"&X-Amz-Signature=" + signature.encode()
    else:
        text = f"{ALGORITHM} Credential={credential}, SignedHeaders={signed}, Signature={signature}"
        message.set(b"authorization", text.encode())
    if payload in {chunked.SIGNED, chunked.SIGNED_TRAILER}:
        message.recode = chunked.Chunks(signer, signature, trailer=payload == chunked.SIGNED_TRAILER)
    yield message


def _keys(values: Mapping[str, bytes]) -> _Keys:
    if not {"access_key_id", "secret_access_key"} <= values.keys():
        raise InvalidRequest(
            "the secret has no fields access_key_id and secret_access_key",
            'store it so: keyhole set NAME --json-in < {"access_key_id": …, "secret_access_key": …}',
        )
    key_id = header_value(values["access_key_id"]).decode()
    secret = values["secret_access_key"]
    if any(char in key_id for char in "/, "):
        raise InvalidRequest("the access key id has a space, a '/' or a ','", "store it again: keyhole set NAME")
    if not secret or secret != secret.strip():
        raise InvalidRequest("the secret access key is empty or has white space around it", "store it again")
    token = values.get("session_token", b"")
    return _Keys(key_id, secret, header_value(token) if token else b"")


def _place(message: Message, how: Inject, claim: Claim) -> tuple[str, str]:
    """The region and the service to sign for."""
    found = []
    derived = place_of(message.host) or ("", "")
    for name, said, known in zip(("region", "service"), (claim.region, claim.service), derived, strict=True):
        pinned = str(how[name])
        if pinned and said and pinned != said:
            raise InvalidRequest(
                f"the request is signed for the {name} {said!r}, and it may be {pinned!r} only",
                f"set the client's {name}, or change the service: keyhole service show NAME",
            )
        value = pinned or said or known
        if not value:
            raise InvalidRequest(
                f"the request is not signed, and {message.host} does not say which AWS {name} it is",
                f"let the client sign it with any keys, or name the {name} in the service: --region, --aws-service",
            )
        found.append(value)
    return found[0], found[1]


def _said_payload(message: Message) -> str:
    """What the client says is signed of the body; empty when it does not say."""
    said = parameters(message.target).get("x-amz-content-sha256", "")
    return said or (message.get(_PAYLOAD) or b"").decode("latin-1").strip()


def _unsigned_payload(message: Message, claim: Claim, service: str) -> bool:
    """S3 takes requests whose body is not signed, over TLS and in presigned URLs."""
    return service in S3 and (claim.presigned or message.scheme == "https")


def _payload(message: Message, claim: Claim, service: str) -> str:
    said = _said_payload(message)
    if not said:
        if not _unsigned_payload(message, claim, service):
            said = hashlib.sha256(message.content or b"").hexdigest()
        else:
            said = _UNSIGNED
        if service in S3 and not claim.presigned:  # which requires the header
            message.set(_PAYLOAD, said.encode())
        return said
    if said == _UNSIGNED or said in _STREAMING or _SHA256.fullmatch(said):
        return said
    if "ECDSA" in said:
        raise InvalidRequest("the body is signed with SigV4A, which cannot be signed again", "use Signature Version 4")
    raise InvalidRequest("x-amz-content-sha256 is neither a digest nor a word that is known", "let an AWS SDK set it")


def _remove_credentials(message: Message, claim: Claim) -> None:
    message.remove(b"authorization")
    message.remove(_TOKEN)
    path, mark, query = message.target.partition(b"?")
    kept = [part for part in query.split(b"&") if not claim.covers(parameter_name(part))]
    message.target = path + mark + b"&".join(kept) if kept else path


def _timestamp(claim: Claim, now: float) -> str:
    """The client's date where it is near, so that what it derived from it stays right; else ours."""
    try:
        if claim.timestamp and abs(seconds(claim.timestamp) - now) <= _NEAR:
            return claim.timestamp
    except InvalidRequest:
        pass
    return datetime.fromtimestamp(now, UTC).strftime(FORMAT)


def _names(message: Message, claim: Claim) -> list[str]:
    """What the client signed and is still there; the host and all headers of AWS, which have to be signed."""
    there = {name.decode("latin-1") for name, _ in message.headers}
    wanted = {*claim.names, *(name for name in there if name.startswith("x-amz-"))}
    return sorted(((wanted & there) - _NEVER_SIGNED) | {"host"})


def _presign(target: bytes, credential: str, names: list[str], token: bytes, expires: int) -> bytes:
    """The URL with the parameters of the new signature in the places of the old ones."""
    path, _, query = target.partition(b"?")
    ours = {
        "x-amz-credential": credential.encode(),
        "x-amz-signedheaders": ";".join(names).encode(),
        "x-amz-expires": b"%d" % expires,
    }
    parts = []
    for part in query.split(b"&"):
        name = parameter_name(part)
        parts.append(part.partition(b"=")[0] + b"=" + encode(ours[name]) if name in ours else part)
    if token:
        parts.append(b"X-Amz-Security-Token=" + encode(token))
    return path + b"?" + b"&".join(parts)
