"""Questions and answers between a parent and a worker, over a socket pair.

A message is a length (4 bytes, network order) and JSON; bytes stand in it as ``{"$": base64}``. Both sides ask, and a
question has a number that its answer names. Questions are begun in the order in which they came.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from keyhole.core.errors import InternalError, KeyholeError, StoreUnavailable, fault_place
from keyhole.net.tasks import Tasks

MOST = 64 * 1024 * 1024
"""Bytes of one message."""

Data = dict[str, Any]
Serve = Callable[[str, Data], Awaitable[Data]]


class Channel:
    """One end.

    Args:
        sock: connected.
        serve: answers a question by its kind; what it raises is raised where it was asked.
        log: told of faults of ``serve``.
    """

    def __init__(self, sock: socket.socket, serve: Serve, log: Callable[[str], None]) -> None:
        self._sock = sock
        self._serve = serve
        self._log = log
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._waiting: dict[int, asyncio.Future[Data]] = {}
        self._serving = Tasks()
        self._number = 0
        self._ended = False

    async def open(self) -> None:
        """Begin; then there can be questions."""
        self._reader, self._writer = await asyncio.open_unix_connection(sock=self._sock, limit=MOST)

    async def run(self) -> None:
        """Serve until the other end is gone, or says what is no message."""
        reader = self._reader
        if reader is None:
            return
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, ValueError):
                while True:
                    size = int.from_bytes(await reader.readexactly(4), "big")
                    if size > MOST:
                        break
                    self._take(_read(await reader.readexactly(size)))
        finally:
            self._end()

    async def ask(self, kind: str, /, **data: Any) -> Data:
        """Ask the other end, and wait.

        Raises:
            StoreUnavailable: it is gone.
            KeyholeError: what it raised.
        """
        if self._ended or self._writer is None:
            raise _gone()
        number = self._number = self._number + 1
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            self._send({"ask": number, "kind": kind, "data": data})
            answered: Data = await answer
            return answered
        finally:
            self._waiting.pop(number, None)

    def tell(self, kind: str, /, **data: Any) -> None:
        """Say something that needs no answer; to nobody, if the other end is gone."""
        if not self._ended and self._writer is not None:
            self._send({"ask": 0, "kind": kind, "data": data})

    def _take(self, message: Data) -> None:
        if "to" not in message:
            self._serving.begin(self._answer(message))
            return
        waiting = self._waiting.get(message["to"])
        if waiting is None or waiting.done():
            return
        if "error" in message:
            waiting.set_exception(_error(message["error"]))
        else:
            waiting.set_result(message["data"])

    async def _answer(self, message: Data) -> None:
        answer: Data = {"to": message["ask"]}
        try:
            answer["data"] = await self._serve(message["kind"], message["data"])
        except KeyholeError as error:
            answer["error"] = _described(error)
        except Exception as error:  # noqa: BLE001 - whoever asked is not left waiting
            self._log(f"internal error: {fault_place(error)}")
            answer["error"] = _described(InternalError("internal error", "see the server's log"))
        if message["ask"] and not self._ended:
            self._send(answer)

    def _send(self, message: Data) -> None:
        writer = self._writer
        if writer is None or writer.is_closing():
            return
        content = json.dumps(message, default=_packed, separators=(",", ":")).encode()
        writer.write(len(content).to_bytes(4, "big") + content)

    def _end(self) -> None:
        self._ended = True
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(_gone())
        self._serving.cancel()
        if self._writer is not None:
            self._writer.close()


def _read(content: bytes) -> Data:
    message: Data = json.loads(content, object_hook=_unpacked)
    return message


def _packed(value: object) -> Data:
    if isinstance(value, bytes):
        return {"$": base64.b64encode(value).decode()}
    raise TypeError(type(value).__name__)


def _unpacked(value: Data) -> Any:
    return base64.b64decode(value["$"]) if value.keys() == {"$"} else value


def _described(error: KeyholeError) -> Data:
    return {
        "class": type(error).__name__,
        "reason": error.reason,
        "hint": error.hint,
        "request_id": error.request_id,
        "retry_after": error.retry_after,
        "headers": error.headers,
    }


def _error(said: Data) -> KeyholeError:
    kind = next((each for each in _kinds(KeyholeError) if each.__name__ == said["class"]), KeyholeError)
    error = kind.__new__(kind)
    KeyholeError.__init__(error, said["reason"], said["hint"])
    error.request_id, error.retry_after, error.headers = said["request_id"], said["retry_after"], said["headers"]
    return error


def _kinds(kind: type[KeyholeError]) -> Iterator[type[KeyholeError]]:
    yield kind
    for each in kind.__subclasses__():
        yield from _kinds(each)


def _gone() -> StoreUnavailable:
    return StoreUnavailable("the process of this server that was asked has ended", "ask again")
