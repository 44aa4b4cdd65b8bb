"""The port for AgentSecrets that ``keyhole run`` opened for this process, as its client."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from keyhole.core.errors import KeyholeError, Unreachable

VARIABLE = "AGENTSECRETS_PORT"
_SECONDS = 3.0
_LIMIT = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of the port.

    Attributes:
        status: HTTP status.
        headers: name to its values, in wire order.
        body: all of it.
        refused: the port's own word for why it made no call; empty for an upstream's answer.
    """

    status: int
    headers: dict[str, list[str]]
    body: bytes
    refused: str


class Port:
    """The port.

    Args:
        number: where it listens.
    """

    def __init__(self, number: int) -> None:
        self.number = number

    def get(self, path: str) -> Any:
        """What it says at a path. Raises ``Unreachable``."""
        answer = self.send("GET", path, [], None, _SECONDS)
        try:
            found = json.loads(answer.body)
        except (ValueError, RecursionError):
            found = None
        if answer.status != 200 or not isinstance(found, dict):
            raise Unreachable(f"the port {self.number} is not ours", "run it in: keyhole run -- COMMAND")
        return found

    def send(
        self, method: str, path: str, headers: Iterable[tuple[str, str]], body: bytes | None, seconds: float
    ) -> Answer:
        """Send a request, and give the whole answer. Raises ``Unreachable``."""
        import http.client  # noqa: PLC0415  # --help, which the SDK asks for, needs none

        connection = http.client.HTTPConnection("127.0.0.1", self.number, timeout=seconds)
        try:
            connection.putrequest(method, path, skip_accept_encoding=True)
            for name, value in headers:
                connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            response = connection.getresponse()
            content = response.read(_LIMIT + 1)
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"the port {self.number} does not answer: {type(error).__name__}") from None
        except ValueError:
            raise KeyholeError("a name has characters that no header has") from None
        finally:
            connection.close()
        if len(content) > _LIMIT:
            raise Unreachable(f"the answer is larger than {_LIMIT} bytes")
        found: dict[str, list[str]] = {}
        for name, value in response.getheaders():
            found.setdefault(name, []).append(value)
        return Answer(response.status, found, content, response.getheader("X-Keyhole-Error") or "")


def own_port() -> Port | None:
    """The port of the command that this process belongs to, if it does."""
    text = os.environ.get(VARIABLE, "")
    if not text.isdecimal() or not 0 < int(text) < 65536:
        return None
    port = Port(int(text))
    try:
        port.get("/health")
    except KeyholeError:
        return None
    return port
