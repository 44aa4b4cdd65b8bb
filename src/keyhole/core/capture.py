"""Calls of a service that answer with a new credential, and what becomes of it. Pure.

A rule names the call, where in the answer the credential stands, and where in the vault it goes; what the agent gets
in its place is a placeholder, which counts in later calls through the same service.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from keyhole.core.errors import InvalidRequest
from keyhole.core.fields import parse_switch
from keyhole.core.inject import KINDS, Inject
from keyhole.core.lease import format_duration, parse_duration
from keyhole.core.path import DEFAULT_FIELD, parse_field, parse_name, parse_path
from keyhole.core.target import PathGlob

if TYPE_CHECKING:
    from keyhole.core.service import Service

FIELDS = ("method", "path", "status", "fields", "into", "ttl", "placeholder", "through", "required")
DEFAULT_TTL = 90 * 86_400
PLACES = ("header", "query", "path", "body")
_MOST = 16
_LONGEST_POINTER = 512
_METHOD = re.compile(r"[A-Z][A-Z-]{0,31}")
_VARIABLE = re.compile(r"\{(\w*)\}")
_VARIABLES = ("agent", "id", "service")
_SHAPE = re.compile(r"[!-~]*keyhole[!-~]*?[a-z0-9]{24,}")
_EXAMPLE = '[{"method": "POST", "path": "/v1/keys", "fields": {"/key": "value"}, "into": "made/{service}/{id}"}]'


@dataclass(frozen=True, slots=True)
class CaptureRule:
    """One kind of call that answers with a credential.

    Attributes:
        method: of the call.
        path: glob of its path.
        status: of the answers that have one; empty for all from 200 to 299.
        fields: JSON pointer (RFC 6901), name in a form, or path of an XML element, each with the field of the secret.
        into: template of the path in ``secret/``; empty for what lives with the token alone.
        ttl: seconds after which secret and placeholder are no longer good.
        placeholder: in which shape the agent gets it; like the credential where it is empty.
        through: services through which it may be used; the service of the rule where it is empty.
        required: an answer without it is withheld; else it passes where nothing of it is there.
    """

    method: str
    path: PathGlob
    status: tuple[int, ...]
    fields: tuple[tuple[str, str], ...]
    into: str
    ttl: int
    placeholder: str
    through: tuple[str, ...]
    required: bool

    @classmethod
    def from_data(cls, data: Any) -> CaptureRule:
        """Read one rule. Raises ``InvalidRequest`` that names the field."""
        if not isinstance(data, Mapping):
            raise InvalidRequest("capture is a list of objects", _EXAMPLE)
        if unknown := data.keys() - set(FIELDS):
            raise InvalidRequest(f"capture has no field {min(map(str, unknown))[:40]!r}", f"it has {', '.join(FIELDS)}")
        method = str(data.get("method") or "POST")
        if not _METHOD.fullmatch(method):
            raise InvalidRequest(f"{method[:40]!r} is not a method", "write it in upper case, as in POST")
        ttl = parse_duration(data.get("ttl") or DEFAULT_TTL, name="ttl")
        required = data.get("required")
        return cls(
            method,
            PathGlob(str(data.get("path") or "")),
            _statuses(data.get("status")),
            _pointers(data.get("fields")),
            _template(data.get("into")),
            ttl,
            _shape(data.get("placeholder")),
            tuple(parse_name(name) for name in _list(data.get("through"), "through") if isinstance(name, str)),
            required=True if required is None else parse_switch(required, "required"),
        )

    def as_data(self) -> dict[str, Any]:
        """JSON-ready, in the form that ``from_data`` reads."""
        data: dict[str, Any] = {"method": self.method, "path": self.path.pattern, "fields": dict(self.fields)}
        data |= {"into": self.into, "ttl": format_duration(self.ttl), "required": self.required}
        if self.status:
            data["status"] = list(self.status)
        if self.placeholder:
            data["placeholder"] = self.placeholder
        if self.through:
            data["through"] = list(self.through)
        return data

    def means(self, method: str, paths: Sequence[str]) -> bool:
        """Is this such a call, in whatever reading of its path? What an upstream may take for it is one too."""
        return method == self.method and any(self.path.denies(path) for path in paths)

    def answers(self, status: int) -> bool:
        """Is this the status of an answer with a credential?"""
        return status in self.status if self.status else 200 <= status <= 299

    def place(self, agent: str, service: str, mark: str) -> str:
        """The path in ``secret/``; empty where there is none.

        Args:
            agent: name of who asks.
            service: of the rule.
            mark: that nobody else has.
        """
        filled = {"agent": agent.rpartition("/")[2], "service": service, "id": mark}
        return parse_path(_VARIABLE.sub(lambda match: filled[match[1]], self.into)) if self.into else ""


def rules_from(value: Any) -> tuple[CaptureRule, ...]:
    """The rules of a service. Raises ``InvalidRequest``."""
    return tuple(CaptureRule.from_data(item) for item in _list(value, "capture"))


def rule_for(service: Service, method: str, paths: Sequence[str]) -> CaptureRule | None:
    """The first rule that means a call; one that means it to the letter goes before others."""
    found = [rule for rule in service.capture if rule.means(method, paths)]
    exact = (rule for rule in found if any(rule.path.matches(path) for path in paths))
    return next(exact, found[0] if found else None)


@dataclass(frozen=True, slots=True)
class Captured:
    """What a placeholder stands for that was given out in place of a new credential.

    Attributes:
        name: of the secret, as records show it.
        path: in ``secret/``; empty for what lives with the token alone.
        field: of the secret.
        through: services through which it may be used.
        texts: field to placeholder, of all that came with one answer.
    """

    name: str
    path: str
    field: str
    through: tuple[str, ...]
    texts: Mapping[str, str]

    def as_service(self, service: Service) -> Service:
        """A service as it is for a call that shows the placeholder: it lends this secret, in place of the text.

        A service that signs goes on signing, with the new keys.
        """
        path = self.path or "captured"
        if KINDS[service.inject.kind].signs:
            return replace(service, secret=f"{path}#{DEFAULT_FIELD}", placeholder="", placeholders=dict(self.texts))
        how = Inject.from_data({"kind": "placeholder", "text": self.texts[self.field], "in": list(PLACES)})
        return replace(
            service, secret=f"{path}#{self.field}", inject=how, placeholder="", placeholders={}, fields={}, variables=()
        )


def _list(value: Any, name: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list | tuple) or len(value) > _MOST:
        raise InvalidRequest(f"{name} is a list of at most {_MOST}", _EXAMPLE)
    return list(value)


def _statuses(value: Any) -> tuple[int, ...]:
    found = _list([value] if isinstance(value, int) else value, "status")
    if not all(isinstance(each, int) and not isinstance(each, bool) and 200 <= each <= 599 for each in found):
        raise InvalidRequest("status is a list of numbers from 200 to 599", '"status": [200, 201]')
    return tuple(found)


def _pointers(value: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, Mapping) or not 1 <= len(value) <= _MOST:
        raise InvalidRequest("fields says where the credential stands in the answer", '"fields": {"/key": "value"}')
    for pointer in value:
        if not isinstance(pointer, str) or not pointer.startswith("/") or not 1 < len(pointer) <= _LONGEST_POINTER:
            raise InvalidRequest("where a credential stands is a JSON pointer", '"fields": {"/data/0/key": "value"}')
    fields = [parse_field(str(field)) for field in value.values()]
    if len(set(fields)) < len(fields):
        raise InvalidRequest("two credentials go into one field", "give each a field of its own")
    return tuple(zip(value, fields, strict=True))


def _template(value: Any) -> str:
    text = str(value or "")
    names = _VARIABLE.findall(text)
    if any(name not in _VARIABLES for name in names):
        raise InvalidRequest("into has {agent}, {service} and {id} as variables", '"into": "made/{service}/{id}"')
    if names and "id" not in names:  # what is made for one must not replace what was made for another
        raise InvalidRequest("into with variables has {id} among them", '"into": "made/{agent}/{id}"')
    if text:
        parse_path(_VARIABLE.sub("x", text))
    return text


def _shape(value: Any) -> str:
    text = str(value or "")
    if text and (not _SHAPE.fullmatch(text) or len(text) > 256):
        raise InvalidRequest(
            "a placeholder has keyhole in it, and ends in 24 or more small letters and digits",
            '"placeholder": "sk_live_keyhole_000000000000000000000000"',
        )
    return text
