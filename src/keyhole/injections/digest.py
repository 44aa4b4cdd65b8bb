"""HTTP Digest (RFC 7616): a challenge is answered by sending the request again, and kept for the calls after it.

Nothing that the client sent in ``Authorization`` is passed on. MD5 is answered where a server knows nothing better; a
server that offers SHA-256 gets it.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_from_bytes

from keyhole.core.errors import InvalidRequest
from keyhole.core.inject import Inject
from keyhole.core.message import Heard, Message
from keyhole.injections import Steps, Terms
from keyhole.injections.challenges import parse_challenges, parse_parameters
from keyhole.injections.credentials import user_and_password

_HASHES: dict[bytes, Callable[[bytes], str]] = {
    b"sha-256": lambda data: hashlib.sha256(data).hexdigest(),
    b"md5": lambda data: hashlib.md5(data, usedforsecurity=False).hexdigest(),
}
_SESSION = b"-sess"
_KNOWN = 64  # servers of one service
_ROUNDS = 2  # challenges answered for one call: the first, and one for a nonce that went stale
_ABOVE_COUNT = 0xFFFFFFFF


@dataclass(slots=True)
class _Challenge:
    """A server's challenge, and how often its nonce was used."""

    hash: Callable[[bytes], str]
    algorithm: bytes  # as it is sent back; empty where the server named none
    session: bool
    qop: bytes
    realm: bytes
    nonce: bytes
    opaque: bytes | None
    utf8: bool
    userhash: bool
    count: int = 0


def needs_content(_message: Message, _how: Inject) -> bool:
    """The body may have to be sent twice."""
    return True


def inject(message: Message, how: Inject, terms: Terms) -> Steps:
    """Answer challenges; a kept one is answered before it is asked again."""
    user, password = user_and_password(how, terms.values)
    if not user or not password or any(byte < 0x20 or byte == 0x7F for byte in user):
        raise InvalidRequest(
            "the user name or password is empty, or the user name has a control character", "keyhole show NAME"
        )
    message.forms += [user + b":" + password, password]
    challenges: dict[tuple[str, str, int], _Challenge] = terms.kept.setdefault("digest", {})
    place = (message.scheme, message.host, message.port)
    message.remove(b"authorization")
    challenge = challenges.get(place)
    for _ in range(_ROUNDS + 1):
        if challenge is not None:
            _answer(message, challenge, user, password)
        heard = yield message
        following = _following(heard, challenge)
        if following is not challenge:
            _keep(challenges, place, following)
        if heard.status != 401 or following is None or following is challenge:
            return
        challenge = following


def _keep(challenges: dict[Any, _Challenge], place: tuple[str, str, int], challenge: _Challenge | None) -> None:
    if challenge is None:
        challenges.pop(place, None)
    else:
        if len(challenges) >= _KNOWN:
            challenges.clear()
        challenges[place] = challenge


def _following(heard: Heard, answered: _Challenge | None) -> _Challenge | None:
    """The challenge for the next message: a new one, the same, or ``None`` when there is none to answer."""
    if heard.status != 401:
        _renew(heard, answered)
        return answered
    found = _best(heard)
    if found is None or answered is None:
        return found[0] if found else None
    challenge, stale = found
    # A server that asks again and does not call the nonce stale has refused the password.
    return challenge if stale or (challenge.nonce != answered.nonce and answered.count > 1) else None


def _renew(heard: Heard, challenge: _Challenge | None) -> None:
    """Take the nonce that the server wants next (RFC 7616, section 3.5)."""
    info = heard.get(b"authentication-info")
    if challenge is None or info is None:
        return
    parameters, _ = parse_parameters(info)
    if parameters and parameters.get(b"nextnonce"):
        challenge.nonce = parameters[b"nextnonce"]
        challenge.count = 0


def _best(heard: Heard) -> tuple[_Challenge, bool] | None:
    """The challenge with the strongest hash that can be answered, and whether it calls the last nonce stale."""
    found: list[tuple[_Challenge, bool]] = []
    for offered in parse_challenges([value for name, value in heard.headers if name == b"www-authenticate"]):
        given = offered.parameters
        if offered.scheme != b"digest" or not given.get(b"nonce") or b"realm" not in given:
            continue
        algorithm = given.get(b"algorithm", b"")
        name = algorithm.lower() or b"md5"
        qops = [qop.strip().lower() for qop in given.get(b"qop", b"").split(b",")]
        qop = next((qop for qop in (b"auth", b"auth-int") if qop in qops), b"")
        hashing = _HASHES.get(name.removesuffix(_SESSION))
        if hashing is None or (not qop and qops != [b""]):
            continue
        challenge = _Challenge(
            hash=hashing,
            algorithm=algorithm,
            session=name.endswith(_SESSION),
            qop=qop,
            realm=given[b"realm"],
            nonce=given[b"nonce"],
            opaque=given.get(b"opaque"),
            utf8=given.get(b"charset", b"").lower() == b"utf-8",
            userhash=given.get(b"userhash", b"").lower() == b"true",
        )
        found.append((challenge, given.get(b"stale", b"").lower() == b"true"))
    strongest = list(_HASHES.values())
    return min(found, key=lambda each: strongest.index(each[0].hash), default=None)


def _answer(message: Message, challenge: _Challenge, user: bytes, password: bytes) -> None:
    """Set ``Authorization`` (RFC 7616, section 3.4)."""
    hashing, qop = challenge.hash, challenge.qop
    challenge.count = challenge.count % _ABOVE_COUNT + 1
    count = b"%08x" % challenge.count
    cnonce = secrets.token_hex(16).encode()
    secret = hashing(user + b":" + challenge.realm + b":" + password)
    if challenge.session:
        secret = hashing(b"%b:%b:%b" % (secret.encode(), challenge.nonce, cnonce))
    what = message.method.encode() + b":" + message.target
    if qop == b"auth-int":
        what += b":" + hashing(message.content or b"").encode()
    between = b":".join([challenge.nonce, *([count, cnonce, qop] if qop else [])])
    response = hashing(b"%b:%b:%b" % (secret.encode(), between, hashing(what).encode())).encode()
    parts = [
        *_user(challenge, user),
        b"realm=" + _quoted(challenge.realm),
        b"nonce=" + _quoted(challenge.nonce),
        b"uri=" + _quoted(message.target),
        b'response="%b"' % response,
    ]
    if challenge.algorithm:
        parts.append(b"algorithm=" + challenge.algorithm)
    if challenge.opaque is not None:
        parts.append(b"opaque=" + _quoted(challenge.opaque))
    if qop or challenge.session:
        parts.append(b'cnonce="%b"' % cnonce)
    if qop:
        parts.append(b"qop=%b, nc=%b" % (qop, count))
    message.set(b"authorization", b"Digest " + b", ".join(parts))
    message.forms.append(response)  # from which a weak password could be guessed


def _user(challenge: _Challenge, user: bytes) -> list[bytes]:
    if challenge.userhash:
        hashed = challenge.hash(user + b":" + challenge.realm).encode()
        return [b'username="%b"' % hashed, b"userhash=true"]
    if user.isascii():
        return [b"username=" + _quoted(user)]
    if not challenge.utf8:
        raise InvalidRequest("the user name has a character beyond ASCII, which this server does not take in Digest")
    return [b"username*=UTF-8''" + quote_from_bytes(user, safe="").encode()]


def _quoted(text: bytes) -> bytes:
    """A quoted string. Raises ``InvalidRequest`` for what no header can carry, which is the server's fault."""
    if any(byte < 0x20 or byte == 0x7F for byte in text):
        raise InvalidRequest("the server's Digest challenge has a control character", "report it to who runs the API")
    return b'"' + text.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
