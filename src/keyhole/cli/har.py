"""HAR 1.2 (http://www.softwareishard.com/blog/har-12-spec/) of what is known of calls: never a body, never a value.

A file is a whole HAR after every write, so that it can be looked at while it grows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from keyhole import __version__
from keyhole.core.errors import InvalidRequest

_END = b"\n]}}\n"


class HarFile:
    """A file that calls are written to. It is made, readable to its user alone, before anything else happens.

    Args:
        path: of the file; what was in it is lost.

    Raises:
        InvalidRequest: it cannot be written.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.count = 0
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        except OSError as error:
            raise InvalidRequest(
                f"{Path(path).name} cannot be written: {error.strerror}", "name another file"
            ) from None
        # Kept open: whoever puts something else in this place meanwhile does not have it written to.
        self._file = os.fdopen(handle, "w+b")
        creator = json.dumps({"name": "keyhole", "version": __version__})
        self._file.write(b'{"log": {"version": "1.2", "creator": %b, "entries": [' % creator.encode() + _END)
        self._file.flush()

    def add(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Write further entries."""
        parts = [json.dumps(entry, ensure_ascii=True).encode() for entry in entries]
        if not parts:
            return
        self._file.seek(-len(_END), os.SEEK_END)
        self._file.write((b",\n" if self.count else b"\n") + b",\n".join(parts) + _END)
        self._file.flush()
        self.count += len(parts)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def entry_of_call(call: Mapping[str, Any]) -> dict[str, Any]:
    """An entry from what ``sys/capture`` noted."""
    request, response, timings = call["request"], call["response"], call["timings"]
    about = {name: call[name] for name in ("result", "reason", "service", "injection", "agent", "operation", "id")}
    about |= {"masked": call["masked"], "approval": call["approval"]}
    sizes = (request["size"], response["size"])
    heads = (request["headers"], response["headers"])
    return _entry(call, call["started"], heads, response["status"], sizes, timings, about)


def entry_of_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """An entry from a record of the journal, which knows nothing of headers and of the parts of the time."""
    about = {name: record.get(name, "") for name in ("result", "service", "operation", "id", "approval")}
    about |= {"agent": record.get("caller", ""), "masked": bool(record.get("scrubbed")), "reason": "", "injection": ""}
    timings = {"decide": -1, "connect": -1, "send": 0, "wait": record.get("milliseconds", 0), "receive": 0}
    sizes = (record.get("sent", -1), record.get("received", 0))
    facts = {"scheme": "https", "target": "", "method": "", **record}
    return _entry(facts, record["time"], ([], []), record.get("status", 0), sizes, timings, about)


def _entry(
    facts: Mapping[str, Any],
    started: str,
    heads: tuple[list[list[str]], list[list[str]]],
    status: int,
    sizes: tuple[int, int],
    timings: Mapping[str, float],
    about: Mapping[str, Any],
) -> dict[str, Any]:
    names = list(facts.get("parameters", ()))
    kept = {name: value for name, value in heads[1] if value}
    return {
        "startedDateTime": started,
        "time": round(sum(max(0, each) for each in timings.values()), 3),
        "request": {
            "method": facts["method"],
            "url": _url(facts, names),
            "httpVersion": "HTTP/1.1",
            "cookies": [],
            "headers": _headers(heads[0]),
            "queryString": [{"name": name, "value": ""} for name in names],
            "headersSize": -1,
            "bodySize": sizes[0],
        },
        "response": {
            "status": status,
            "statusText": _phrase(status),
            "httpVersion": "HTTP/1.1",
            "cookies": [],
            "headers": _headers(heads[1]),
            "content": {"size": sizes[1], "mimeType": kept.get("content-type", "")},
            "redirectURL": "",
            "headersSize": -1,
            "bodySize": sizes[1],
        },
        "cache": {},
        "timings": {
            "blocked": timings["decide"],
            "dns": -1,
            "connect": timings["connect"],
            "ssl": -1,
            "send": timings["send"],
            "wait": timings["wait"],
            "receive": timings["receive"],
        },
        "_keyhole": {name: value for name, value in about.items() if value not in ("", False)},
    }


def _url(facts: Mapping[str, Any], names: list[str]) -> str:
    scheme = facts["scheme"]
    host = facts["host"].removesuffix(":443" if scheme == "https" else ":80")
    if facts["method"] == "CONNECT":
        return f"{scheme}://{host}"
    query = "&".join(f"{name}=" for name in names)
    return f"{scheme}://{host}{facts['target']}" + (f"?{query}" if query else "")


def _headers(pairs: list[list[str]]) -> list[dict[str, str]]:
    return [
        {"name": name, "value": value} if value else {"name": name, "value": "", "comment": "value not kept"}
        for name, value in pairs
    ]


def _phrase(status: int) -> str:
    """The usual phrase; what an upstream writes there is its own affair."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
