"""Azure Storage: requests signed with the key of an account ("Authorize with Shared Key", version 2015-02-21 or later).

Blobs, queues and files are signed in one form, tables in a shorter one.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from urllib.parse import unquote_to_bytes

from keyhole.core.errors import InvalidRequest
from keyhole.core.inject import Inject
from keyhole.core.message import Message
from keyhole.injections import Steps, Terms

_DATE = b"x-ms-date"
_NEAR = 300  # seconds between a client's clock and ours in which its date stands
_ACCOUNT = re.compile(rb"[a-z0-9]{3,24}")
_LINES = (
    "content-encoding content-language content-length content-md5 content-type date if-modified-since if-match "
    "if-none-match if-unmodified-since range"
)


def inject(message: Message, how: Inject, terms: Terms) -> Steps:
    """Sign the request in ``Authorization``; whatever the client signed it with is gone."""
    account, key = _values(terms.values)
    names = {_decoded(part.partition(b"=")[0]).lower() for part in message.target.partition(b"?")[2].split(b"&")}
    if {b"sig", b"sv"} <= names:
        raise InvalidRequest(
            "the URL has a shared access signature, which cannot be made again", "let the client use the account key"
        )
    message.set(_DATE, _date(message, terms.now))
    table = how["storage"] == "table" or (not how["storage"] and ".table." in message.host)
    text = table_text(message, account) if table else text_to_sign(message, account)
    signature = base64.b64encode(hmac.digest(key, text, "sha256"))
    message.set(b"authorization", b"SharedKey %b:%b" % (account, signature))
    message.forms.append(key)
    yield message


def text_to_sign(message: Message, account: bytes) -> bytes:
    """What is signed for blobs, queues and files."""
    size = len(message.content) if message.content is not None else message.length
    lines = [message.method.encode()]
    for name in _LINES.split():
        value = message.get(name.encode()) or b""
        if name == "content-length":
            value = b"%d" % size if size else b""
        elif name == "date":
            value = b""  # x-ms-date stands for it
        lines.append(value)
    ours = {name for name, _ in message.headers if name.startswith(b"x-ms-")}
    lines += [name + b":" + b",".join(_values_of(message, name)) for name in sorted(ours)]
    return b"\n".join([*lines, _resource(message, account)])


def table_text(message: Message, account: bytes) -> bytes:
    """What is signed for tables."""
    path, _, query = message.target.partition(b"?")
    component = [value for name, value in _parameters(query) if name == b"comp"]
    resource = b"/" + account + path + (b"?comp=" + component[0] if component else b"")
    known = (message.get(name) or b"" for name in (b"content-md5", b"content-type", _DATE))
    return b"\n".join([message.method.encode(), *known, resource])


def _resource(message: Message, account: bytes) -> bytes:
    path, _, query = message.target.partition(b"?")
    values: dict[bytes, list[bytes]] = {}
    for name, value in _parameters(query):
        values.setdefault(name, []).append(value)
    lines = [name + b":" + b",".join(sorted(found)) for name, found in sorted(values.items())]
    return b"\n".join([b"/" + account + path, *lines])


def _parameters(query: bytes) -> list[tuple[bytes, bytes]]:
    parts = (part.partition(b"=") for part in query.split(b"&") if part)
    return [(_decoded(name).lower(), _decoded(value)) for name, _, value in parts]


def _decoded(text: bytes) -> bytes:
    return unquote_to_bytes(text.replace(b"+", b"%20"))


def _values_of(message: Message, name: bytes) -> list[bytes]:
    return [b" ".join(value.split()) for key, value in message.headers if key == name]


def _date(message: Message, now: float) -> bytes:
    """The client's date where it is near, else ours."""
    said = message.get(_DATE)
    try:
        if said and abs(parsedate_to_datetime(said.decode("ascii")).timestamp() - now) <= _NEAR:
            return said
    except ValueError:
        pass
    return format_datetime(datetime.fromtimestamp(int(now), UTC), usegmt=True).encode()


def _values(values: Mapping[str, bytes]) -> tuple[bytes, bytes]:
    account, key = values.get("account_name", b""), values.get("account_key", b"")
    if not _ACCOUNT.fullmatch(account):
        raise InvalidRequest(
            "the secret has no field account_name that is the name of a storage account",
            'store it so: keyhole set NAME --json-in < {"account_name": …, "account_key": …}',
        )
    try:
        decoded = base64.b64decode(key, validate=True)
    except binascii.Error:
        decoded = b""
    if not decoded:
        raise InvalidRequest("the account key is not base64, as Azure shows it", "store it again: keyhole set NAME")
    return account, decoded
