"""Consent in a browser: the authorization code flow with PKCE (RFC 6749 section 4.1, RFC 7636, RFC 9700).

1. A ``state`` is random, counts once, for ten minutes, and for whoever began; what belongs to it lies in the store.
2. The address that the browser came back to is, to the letter, the one that was sent along.
3. Who answers is the issuer that was asked (RFC 9207), where it says who it is or promised to.
4. The code is worth nothing without the verifier, which never leaves the vault but to the token endpoint.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from keyhole.config import is_loopback
from keyhole.core import base64url
from keyhole.core.errors import Conflict, InvalidRequest, NotFound, RateLimited, TargetFailed
from keyhole.core.fields import parse_map, parse_text
from keyhole.core.request import Reply
from keyhole.engines import Call, Context
from keyhole.engines.oauth import connection as connections
from keyhole.engines.oauth import tokens as stored
from keyhole.engines.oauth.asking import Away, Declined, Granted, ask_tokens
from keyhole.engines.oauth.connection import Connection
from keyhole.engines.oauth.refreshing import granted, state
from keyhole.engines.oauth.tokens import Tokens, path_of

LASTS = 600  # seconds from the beginning to the end
_MOST = 1000  # that have begun, in a mount
_LONGEST = 8192
_RETRIES = 20
_ANSWERED = ("state", "code", "iss", "error")
_OWN = frozenset(
    {"response_type", "client_id", "redirect_uri", "scope", "state", "code_challenge", "code_challenge_method"}
)


def who(context: Context) -> str:
    """Whom a flow belongs to: a person or agent, else the token that began it."""
    caller = context.caller
    return caller.entity.id or caller.accessor or caller.name


async def begin(context: Context, call: Call) -> Reply:
    """Where the browser is to go."""
    connection = await known(context, call.params["name"])
    if not connection["authorize_url"] or not connection.by_person:
        raise InvalidRequest("this connection is not made in a browser", connection.next_step())
    redirect = parse_text(call.data.get("redirect_uri"), "redirect_uri", most=2048)
    if not _is_allowed(redirect, connection["redirect_uris"]):
        raise InvalidRequest(
            "redirect_uri is neither http://127.0.0.1:PORT/… nor one of redirect_uris", "add it to the connection"
        )
    if len(await context.storage.list("s")) >= _MOST:
        raise RateLimited("too many consents have begun and not ended", "try again in ten minutes", retry_after=LASTS)
    key, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(64)
    until = context.now + LASTS
    begun = {
        "name": connection.name,
        "id": connection["id"],
        "who": who(context),
        "redirect_uri": redirect,
        "verifier": verifier,
        "issuer": connection["issuer"],
        "until": until,
    }
    await context.storage.change([(_path(key), json.dumps(begun).encode(), 0, until)])
    data = {"authorization_url": _url(connection, call.data, redirect, key, verifier), "state": key}
    return Reply({**data, "redirect_uri": redirect, "expires_in": LASTS})


def _url(connection: Connection, sent: Mapping[str, Any], redirect: str, key: str, verifier: str) -> str:
    more = {**connection["authorize_params"], **parse_map(sent.get("params"), "params", most=20)}
    challenge = base64url.encode(hashlib.sha256(verifier.encode()).digest())
    scopes = connection["scopes"]
    query = {
        **{name: value for name, value in more.items() if name not in _OWN},
        "response_type": "code",
        "client_id": connection["client_id"],
        "redirect_uri": redirect,
        **({"resource": connection["resource"]} if connection["resource"] else {}),
        **({"scope": connection.provider.scope_separator.join(scopes)} if scopes else {}),
        "state": key,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    url = connection["authorize_url"]
    return f"{url}{'&' if '?' in url else '?'}{urlencode(query)}"


async def finish(context: Context, call: Call) -> Reply:
    """Takes what the browser brought back, and changes the code for tokens."""
    answer = _answer(call.data)
    begun = await _spend(context, answer)
    if answer["redirect_uri"] != begun["redirect_uri"]:
        raise InvalidRequest("the browser came back to another address than it was sent to", "begin again")
    connection = await connections.load(context, begun["name"])
    if connection is None or (connection["id"], connection["issuer"]) != (begun["id"], begun["issuer"]):
        raise InvalidRequest("the connection was changed or removed meanwhile", "begin again")
    _require_issuer(connection, answer)
    if answer["error"]:
        raise InvalidRequest("the provider refused the consent", "begin again, and agree there")
    if not answer["code"]:
        raise InvalidRequest("the answer has no code", "begin again")
    form = {
        "grant_type": "authorization_code",
        "code": answer["code"],
        "redirect_uri": begun["redirect_uri"],
        "code_verifier": begun["verifier"],
    }
    return await take(context, connection, await ask_tokens(context, connection, form, context.now))


async def take(
    context: Context, connection: Connection, answer: Granted | Declined | Away, *deletes: tuple[str, int]
) -> Reply:
    """Store what a consent brought, in one change with what it makes unneeded.

    Raises:
        KeyholeError: it brought nothing.
        Conflict: one of ``deletes`` was changed.
    """
    if isinstance(answer, Away):
        raise answer.error()
    if isinstance(answer, Declined):
        raise TargetFailed(f"the provider gave no tokens: {answer.code}", "begin again: a code counts once")
    if not answer.access:
        raise TargetFailed(answer.why, f"check the connection: keyhole oauth show {connection.name}")
    for _ in range(_RETRIES):
        held, revision = await stored.load(context, connection.name)
        # A request that is under way with the tokens of before finds another family, and leaves this one alone.
        new = Tokens(family=secrets.token_hex(8), number=held.number)
        new = granted(connection, new, answer, context.now)
        due = new.due(renewable=bool(new.refresh))
        write = (path_of(connection.name), new.encode(), revision, due)
        try:
            await context.storage.change([write], deletes, [(f"c/{connection.name}", connection.revision)])
        except Conflict:
            if deletes:
                raise
            continue
        return Reply(
            {"name": connection.name, **state(connection, new, context.now)}, warnings=_warnings(connection, new)
        )
    raise InvalidRequest("the connection is being changed by somebody else", "begin again")


def _warnings(connection: Connection, new: Tokens) -> list[str]:
    missing = connection.missing_scopes(new.scopes)
    found = [f"not all scopes were granted; missing: {' '.join(missing)}"] if missing else []
    if new.until and not new.refresh:
        found.append("the provider gave no refresh token: when the token ends, somebody has to consent again")
    return found


async def known(context: Context, name: str) -> Connection:
    """The connection of this name. Raises ``NotFound``."""
    found = await connections.load(context, name)
    if found is None:
        raise NotFound("there is no such connection", "keyhole oauth list")
    return found


def _answer(data: Mapping[str, Any]) -> dict[str, str]:
    """The parameters of an answer, each at most once: as fields, or as the URL that the browser came to."""
    url = parse_text(data.get("url"), "url", most=_LONGEST)
    if not url:
        return _visible(
            {name: parse_text(data.get(name), name, most=_LONGEST) for name in (*_ANSWERED, "redirect_uri")}
        )
    base, _, query = url.partition("?")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True, max_num_fields=32, errors="strict")
    except ValueError:
        raise InvalidRequest("this is not the address that the browser came back to", "copy all of it") from None
    found = dict(pairs)
    if len(found) != len(pairs) or "#" in query:
        raise InvalidRequest("the answer says something twice", "begin again")
    return _visible({**{name: found.get(name, "") for name in _ANSWERED}, "redirect_uri": base})


def _visible(answer: dict[str, str]) -> dict[str, str]:
    """RFC 6749, appendix A: state, code and error are visible ASCII characters. Raises ``InvalidRequest``."""
    if not all(text.isascii() and text.isprintable() for text in answer.values()):
        raise InvalidRequest("the answer has characters that no answer has", "begin again")
    return answer


async def _spend(context: Context, answer: Mapping[str, str]) -> dict[str, Any]:
    """What has begun under a state, which is spent by that. Raises ``InvalidRequest`` for all that cannot be it."""
    no = InvalidRequest("this state is unknown, used or too old, or somebody else began it", "begin again")
    if not answer["state"] or len(answer["state"]) > 128:
        raise no
    path = _path(answer["state"])
    item = await context.storage.get_one(path)
    begun: dict[str, Any] = json.loads(item.data) if item.data is not None else {}
    if not begun or not hmac.compare_digest(begun["who"].encode(), who(context).encode()):
        raise no
    await context.storage.change((), [(path, item.revision)])
    if begun["until"] <= context.now:
        raise no
    return begun


def _require_issuer(connection: Connection, answer: Mapping[str, str]) -> None:
    """RFC 9207, section 2.4."""
    if connection["issuer"] and answer["iss"] == connection["issuer"]:
        return
    if answer["iss"]:
        raise InvalidRequest(
            "another issuer has answered than the one that was asked",
            "say issuer as the provider calls itself: keyhole oauth add NAME --issuer URL; then begin again",
        )
    if connection["iss_required"]:
        raise InvalidRequest("the answer does not say which issuer it is of", "begin again")


async def due(context: Context, path: str) -> str:
    """Forget one that nobody ended."""
    item = await context.storage.get_one(path)
    if item.data is not None:
        await context.storage.change((), [(path, item.revision)])
    return ""


def _path(key: str) -> str:
    return f"s/{hashlib.sha256(key.encode()).hexdigest()}"


def _is_allowed(redirect: str, allowed: list[str]) -> bool:
    """To the letter one that the connection names, or an address of this machine by number (RFC 8252, section 7.3)."""
    if redirect in allowed:
        return True
    try:
        parts = urlsplit(redirect)
        port = parts.port
    except ValueError:
        return False
    plain = parts.scheme == "http" and parts.username is None and not parts.query and not parts.fragment
    host = parts.hostname or ""
    return plain and host[:1].isdigit() | (":" in host) and is_loopback(host) and bool(port) and "?" not in redirect
