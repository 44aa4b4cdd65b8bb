"""A text that the client was given in place of the secret, replaced where the service says so.

In headers it is replaced wherever it stands, also inside the base64 of ``Authorization: Basic``, which is where git
and many SDKs put it. In a path, a query and a body it is found as a client writes it there, and the secret is written
so that it changes nothing of the structure. A message without the text is sent as it is: tools that first ask without
a credential work. A body that is held is small; all others stream, with constant memory.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import re

from keyhole.core.errors import InvalidRequest, KeyholeError
from keyhole.core.inject import Inject
from keyhole.core.message import Message
from keyhole.core.target import canonical_target, readings
from keyhole.injections import Steps, Terms, content, cookies, header_value, parameters
from keyhole.injections.spelled import JSON, PERCENT, PLAIN, Replacer, Syntax, bounded, pattern, replaced, syntax_of

_BASIC = b"basic "
_CREDENTIAL_HEADERS = frozenset({b"authorization", b"x-authorization"})
_HELD = 1024 * 1024  # bytes of a body whose length stays known when it is changed
# What stands as it is within a segment (RFC 3986, section 3.3), but for what begins parameters on some servers.
_IN_SEGMENT = re.compile(rb"%(21|24|26|27|28|29|2A|2B|2C|3A|3D|40)")


def needs_content(message: Message, how: Inject) -> bool:
    """A body that is to be changed and that said beforehand that it is small."""
    small = message.length is not None and message.length <= _HELD
    return small and "body" in how.get("in", ()) and _syntax(message) is not None


def inject(message: Message, how: Inject, terms: Terms) -> Steps:
    """Replace the text in every place that the service names."""
    [value] = terms.values.values()
    text = how["text"].encode()
    places = how.get("in", ("path",))
    if "header" in places:
        _in_headers(message, text, value)
    if "path" in places:
        _in_path(message, text, value)
    if "query" in places:
        _in_query(message, text, value)
    if "body" in places:
        _in_body(message, text, value)
    yield message


def _in_headers(message: Message, text: bytes, value: bytes) -> None:
    headers = []
    for name, shown in message.headers:
        if text in shown:
            written = cookies.cookie_value(value) if name == cookies.COOKIE else header_value(value)
            bounded(shown.count(text), written)
            headers.append((name, shown.replace(text, written)))
        elif name in _CREDENTIAL_HEADERS and shown[: len(_BASIC)].lower() == _BASIC:
            headers.append((name, _inside_basic(message, shown, text, value)))
        else:
            headers.append((name, shown))
    message.headers = headers


def _in_path(message: Message, text: bytes, value: bytes) -> None:
    path, mark, query = message.target.partition(b"?")
    times = sum(1 for _ in pattern(text, PERCENT).finditer(path))
    if not times:
        return
    written = _IN_SEGMENT.sub(lambda match: bytes.fromhex(match[1].decode()), parameters.encode(_path_value(value)))
    bounded(times, written)
    changed = pattern(text, PERCENT).sub(lambda _: written, path)
    try:
        meant, shown = value.decode(), text.decode()
        sound = len(changed) <= 2 * parameters.LONGEST and canonical_target(changed) == changed
        sound = sound and {path.replace(shown, meant) for path in readings(path)} == {*readings(changed)}
    except (KeyholeError, UnicodeDecodeError):
        sound = False
    if not sound:
        raise _unfit_for_a_path()
    message.target = changed + mark + query
    message.wrote(value, written)


def _path_value(value: bytes) -> bytes:
    if b"/" in value:
        raise _unfit_for_a_path()
    return parameters.target_value(value)


def _unfit_for_a_path() -> InvalidRequest:
    return InvalidRequest(
        "the secret would change the structure of the path: it has a slash, a backslash or an escape, "
        "or makes a segment of dots",
        "look at it: keyhole show NAME",
    )


def _in_query(message: Message, text: bytes, value: bytes) -> None:
    path, mark, query = message.target.partition(b"?")
    if pattern(text, PERCENT).search(query) is not None:
        parameters.target_value(value)
        message.target = path + mark + replaced(query, text, PERCENT, value)
        message.wrote(value, PERCENT.write(value))


def _in_body(message: Message, text: bytes, value: bytes) -> None:
    syntax = _syntax(message)
    if syntax is None:
        return
    with contextlib.suppress(InvalidRequest):  # then a body in which the text stands is refused
        message.wrote(value, syntax.write(value))
    if message.content is None:
        message.recode = Replacer(text, syntax, value)
        return
    changed = replaced(message.content, text, syntax, value)
    if changed is not message.content:
        content.change(message, changed)


def in_frames(message: bytes, how: Inject, value: bytes) -> bytes:
    """A text message of a WebSocket with the text replaced: as JSON asks for where the message is JSON, else as it is.

    Raises:
        InvalidRequest: the secret cannot stand there.
    """
    try:
        value.decode()
    except UnicodeDecodeError:
        raise InvalidRequest("the secret is not UTF-8, and cannot stand in a text frame") from None
    return replaced(message, how["text"].encode(), JSON if _is_json(message) else PLAIN, value)


def _is_json(message: bytes) -> bool:
    if message.lstrip()[:1] not in {b"{", b"[", b'"'}:
        return False
    try:
        json.loads(message)
    except (ValueError, RecursionError):
        return False
    return True


def _syntax(message: Message) -> Syntax | None:
    """How text is written in the body; ``None`` when it is one in which nothing is replaced."""
    if content.is_encoded(message):
        return None
    try:
        kind, _ = content.media_type(message)
    except InvalidRequest:
        return None
    return syntax_of(kind)


def _inside_basic(message: Message, shown: bytes, text: bytes, value: bytes) -> bytes:
    """The credentials with the text replaced; as they were when it is not in them or they are not base64."""
    decoded = decode_basic(shown)
    if decoded is None or text not in decoded:
        return shown
    written = decoded.replace(text, header_value(value))
    encoded = base64.b64encode(written)
    message.forms += [encoded, written]
    return shown[: len(_BASIC)] + encoded


def take_out(message: Message, text: bytes) -> None:
    """Take out what the client's SDK sent with a placeholder: headers, cookies and query parameters that show it."""
    if any(shows(value, text) for _, value in message.headers):
        kept = (
            (name, cookies.without(value, text) if name == cookies.COOKIE else value) for name, value in message.headers
        )
        message.headers = [pair for pair in kept if not shows(pair[1], text) and (pair[1] or pair[0] != cookies.COOKIE)]
    path, mark, query = message.target.partition(b"?")
    if query and (text in query or b"%" in query):
        query = parameters.without(query, text)
        message.target = path + (mark if query else b"") + query


def shows(content: bytes, text: bytes) -> bool:
    """Does a header's value carry this text, as it is or inside Basic credentials?"""
    return text in content or text in (decode_basic(content) or b"")


def shows_in_target(target: bytes, text: bytes) -> bool:
    """Does a request target carry this text, in whatever spelling?"""
    return pattern(text, PERCENT).search(target) is not None


def decode_basic(content: bytes) -> bytes | None:
    """What an ``Authorization: Basic`` value carries; ``None`` for anything else."""
    if content[: len(_BASIC)].lower() != _BASIC:
        return None
    try:
        return base64.b64decode(content[len(_BASIC) :].strip(), validate=True)
    except binascii.Error:
        return None
