"""A harmless call that shows whether an API accepts a key, and what its answer means. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from keyhole.core.errors import InvalidRequest

_LONGEST = 4096  # characters of a path or a body
_HEADERS = 16
_METHODS = ("GET", "HEAD", "POST")
_KNOWN = ("method", "path", "headers", "body", "statuses", "refused", "limited", "contains", "limited_by")


class Verdict(StrEnum):
    """What an answer says of the key."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    LIMITED = "limited"
    UNCLEAR = "unclear"


@dataclass(frozen=True, slots=True)
class Probe:
    """A call that changes nothing.

    Attributes:
        method: of HTTP; upper case.
        path: with its query; on the first host of the service.
        headers: besides the credential.
        body: ``None`` for none.
        statuses: that an accepted key gets.
        refused: that a wrong key gets.
        limited: that a right key gets which may not make this call.
        contains: what the answer to an accepted key must have besides, once its white space is taken out.
        limited_by: what the refusal of a right key has that may not make this call, where its status does not tell.
    """

    method: str = "GET"
    path: str = "/"
    headers: Mapping[str, str] = field(default_factory=dict, hash=False)
    body: str | None = None
    statuses: tuple[int, ...] = (200,)
    refused: tuple[int, ...] = (401,)
    limited: tuple[int, ...] = (403,)
    contains: str = ""
    limited_by: str = ""

    @classmethod
    def from_data(cls, data: Any) -> Probe:
        """Read the ``test`` object of a service or of a catalog entry. Raises ``InvalidRequest``."""
        if not isinstance(data, Mapping):
            raise InvalidRequest("test is an object", 'for example {"method": "GET", "path": "/v1/me"}')
        for name in data:
            if name not in _KNOWN:
                raise InvalidRequest(f"test: {str(name)[:40]} is not known", f"there are {', '.join(_KNOWN)}")
        method = data.get("method", "GET")
        if method not in _METHODS:
            raise InvalidRequest(f"test: method must be one of {', '.join(_METHODS)}")
        path = data.get("path", "/")
        if not _is_text(path) or not path.startswith("/"):
            raise InvalidRequest("test: path must begin with a slash")
        headers = data.get("headers", {})
        if not isinstance(headers, Mapping) or len(headers) > _HEADERS or not all(map(_is_text, headers.values())):
            raise InvalidRequest("test: headers must be a table of texts")
        body = data.get("body")
        if body is not None and not (isinstance(body, str) and len(body) <= _LONGEST):
            raise InvalidRequest("test: body must be a text")
        for name in ("contains", "limited_by"):
            if not _is_text(data.get(name, "")):
                raise InvalidRequest(f"test: {name} must be a text")
        return cls(
            method=method,
            path=path,
            headers={str(name): value for name, value in headers.items()},
            body=body,
            statuses=_statuses(data, "statuses", (200,), least=1),
            refused=_statuses(data, "refused", (401,)),
            limited=_statuses(data, "limited", (403,)),
            contains=data.get("contains", ""),
            limited_by=data.get("limited_by", ""),
        )

    def as_data(self) -> dict[str, Any]:
        """JSON-ready, without what is so anyway."""
        plain = Probe()
        data: dict[str, Any] = {"method": self.method, "path": self.path}
        if self.headers:
            data["headers"] = dict(self.headers)
        if self.body is not None:
            data["body"] = self.body
        for name in ("statuses", "refused", "limited"):
            if getattr(self, name) != getattr(plain, name):
                data[name] = list(getattr(self, name))
        return data | {name: getattr(self, name) for name in ("contains", "limited_by") if getattr(self, name)}

    def verdict(self, status: int, body: str) -> Verdict:
        """What an answer with this status and body means."""
        said = "".join(body.split())
        if status in self.statuses:
            return Verdict.ACCEPTED if self.contains in said else Verdict.REFUSED
        if status in self.limited or (self.limited_by and self.limited_by in said):
            return Verdict.LIMITED
        return Verdict.REFUSED if status in self.refused else Verdict.UNCLEAR


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST and value.isprintable()


def _statuses(data: Mapping[str, Any], name: str, default: tuple[int, ...], *, least: int = 0) -> tuple[int, ...]:
    value = data.get(name, list(default))
    if not isinstance(value, list | tuple) or not least <= len(value) <= 16:
        raise InvalidRequest(f"test: {name} must be a list of numbers")
    if not all(type(status) is int and 100 <= status <= 599 for status in value):
        raise InvalidRequest(f"test: {name} must be a list of numbers from 100 to 599")
    return tuple(value)
