"""JSON over HTTPS to whoever keeps a key. It blocks, waits at most some seconds, and follows no redirect."""

from __future__ import annotations

import base64
import binascii
import http.client
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from keyhole.config import is_loopback
from keyhole.core.errors import InvalidRequest, Sealed
from keyhole.crypto.aead import does_not_open
from keyhole.seals.kept import TIMEOUT

_MAX_ANSWER = 256 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """A status and the JSON object of the body, empty where there is none."""

    status: int
    data: dict[str, Any]


class Endpoint:
    """A server.

    Args:
        url: ``https://HOST[:PORT][/PREFIX]``; ``http://`` for this machine only.
        who: how errors call it.
        ca: PEM file of the CAs that it may use instead of the system's.

    Raises:
        InvalidRequest: it is no such URL, or the CAs cannot be read.
    """

    def __init__(self, url: str, who: str, *, ca: str = "") -> None:
        parts = urlsplit(url)
        plain = parts.scheme == "http" and is_loopback(parts.hostname or "")
        try:
            self._port = parts.port
        except ValueError:
            self._port = -1
        if not (parts.scheme == "https" or plain) or not parts.hostname or self._port == -1 or parts.username:
            raise InvalidRequest(f"the address of {who} is not https://HOST", "http:// is for this machine only")
        self._plain = plain
        self._host = parts.hostname
        self._prefix = parts.path.rstrip("/")
        self._who = who
        self._ca = ca
        try:
            self._tls = None if plain else ssl.create_default_context(cafile=ca or None)
        except OSError as error:
            raise InvalidRequest(f"the CAs of {who} cannot be read: {error.strerror}", "check ca=FILE") from None

    def post(self, path: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> Answer:
        """Send a JSON object and read one. Raises ``Sealed`` when there is no whole answer in time."""
        connection: http.client.HTTPConnection
        if self._tls is None:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT)
        else:
            connection = http.client.HTTPSConnection(self._host, self._port, timeout=TIMEOUT, context=self._tls)
        try:
            sent = {"Content-Type": "application/json", "Accept": "application/json", **headers}
            connection.request("POST", self._prefix + path, json.dumps(body), sent)
            answer = connection.getresponse()
            content = answer.read(_MAX_ANSWER + 1)
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "verify_message", "") or getattr(error, "strerror", "") or type(error).__name__
            raise Sealed(f"{self._who} cannot be reached: {reason}", "see that it runs and can be reached") from None
        finally:
            connection.close()
        try:
            data = json.loads(content) if content and len(content) <= _MAX_ANSWER else {}
        except (ValueError, RecursionError):
            data = {}
        return Answer(answer.status, data if isinstance(data, dict) else {})


def decoded(text: object, *, urlsafe: bool = False) -> bytes:
    """The bytes of a base64 text in an answer. Raises ``IntegrityError`` for anything else."""
    if not isinstance(text, str):
        raise does_not_open()
    try:
        if urlsafe:
            return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise does_not_open() from None
