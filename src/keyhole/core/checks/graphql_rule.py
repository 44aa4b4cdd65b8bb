"""What a service allows of GraphQL: types of operations, and fields. Pure.

A pattern names a field by its path from the top: ``viewer``, ``repository.issues``; ``*`` stands for one name or a part
of it, ``**`` for any number of names. Before it may stand the type of operation that it is for: ``mutation:addStar``.
An allowed field is allowed with all below it. A denied one wins, wherever aliases and fragments hide it.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keyhole.core.checks.documents import JSON, content_type
from keyhole.core.checks.graphql import FIELDS, LONGEST, OPERATIONS, parse_document
from keyhole.core.checks.urlencoded import Parameter, fold, read_parameters
from keyhole.core.errors import InvalidRequest, PolicyDenied
from keyhole.core.message import Headers
from keyhole.core.strict_json import JsonBounds, parse_json

_BOUNDS = JsonBounds()
_KNOWN = frozenset({"operations", "fields", "deny_fields", "persisted"})
_PARAMETERS = ("query", "operationName", "variables", "extensions")
_WHOLE = "send it whole"
_BATCH = 32  # requests in one array
_PATTERN = re.compile(r"(?:(query|mutation|subscription):)?((?:\*\*|[_A-Za-z0-9*]+)(?:\.(?:\*\*|[_A-Za-z0-9*]+))*)")
_LIMIT = 64
_LONGEST = 256


@dataclass(frozen=True, slots=True)
class Pattern:
    """One pattern: as written, the operation that it is for (or ``""``), and its names; ``None`` for ``**``."""

    text: str
    operation: str
    names: tuple[re.Pattern[str] | None, ...]

    @classmethod
    def parse(cls, text: Any) -> Pattern:
        """Read a pattern. Raises ``InvalidRequest``."""
        match = _PATTERN.fullmatch(text) if isinstance(text, str) and len(text) <= _LONGEST else None
        if match is None or any("**" in name and name != "**" for name in match[2].split(".")):
            raise InvalidRequest("a GraphQL field is not written as a path", "for example viewer or mutation:addStar")
        names = [None if name == "**" else re.compile(re.sub(r"\*", ".*", name)) for name in match[2].split(".")]
        return cls(text, match[1] or "", tuple(names))

    def start(self, operation: str) -> frozenset[int]:
        """How many of its names are used up above the first field; none at all where it is for other operations."""
        return self._closed({0}) if self.operation in {"", operation} else frozenset()

    def step(self, reached: frozenset[int], name: str) -> frozenset[int]:
        """How many names are used up below a field of this name."""
        after = set()
        for at in reached:
            if at < len(self.names):
                pattern = self.names[at]
                if pattern is None:
                    after.add(at)
                elif pattern.fullmatch(name):
                    after.add(at + 1)
        return self._closed(after)

    def ends(self, reached: frozenset[int]) -> bool:
        """Whether all of them are: the field is one that it names."""
        return len(self.names) in reached

    def _closed(self, reached: set[int]) -> frozenset[int]:
        for at, pattern in enumerate(self.names):
            if pattern is None and at in reached:
                reached.add(at + 1)
        return frozenset(reached)


@dataclass(frozen=True, slots=True)
class GraphqlRule:
    """The rule of a service.

    Attributes:
        operations: types that may be asked for.
        fields: patterns of which one must name each field or one above it; empty for any.
        deny_fields: patterns of which none may name a field.
        persisted: documents that the upstream knows by a name may be asked for, although nobody sees what they say.
    """

    operations: tuple[str, ...]
    fields: tuple[Pattern, ...] = ()
    deny_fields: tuple[Pattern, ...] = ()
    persisted: bool = False

    @classmethod
    def from_data(cls, data: Any) -> GraphqlRule:
        """Read ``graphql`` of a service. Raises ``InvalidRequest``."""
        if not isinstance(data, Mapping) or data.keys() - _KNOWN:
            raise InvalidRequest(f"graphql has {', '.join(sorted(_KNOWN))}", '"graphql": {"operations": ["query"]}')
        operations = data.get("operations") or ("query",)
        if not isinstance(operations, list | tuple) or any(each not in OPERATIONS for each in operations):
            raise InvalidRequest(f"operations of graphql are {', '.join(OPERATIONS)}")
        persisted = data.get("persisted", False)
        if not isinstance(persisted, bool):
            raise InvalidRequest("persisted is true or false")
        lists = [data.get(name) or () for name in ("fields", "deny_fields")]
        if any(not isinstance(each, list | tuple) or len(each) > _LIMIT for each in lists):
            raise InvalidRequest(f"fields and deny_fields are lists of at most {_LIMIT} texts")
        allowed, denied = (tuple(map(Pattern.parse, each)) for each in lists)
        return cls(tuple(dict.fromkeys(operations)), allowed, denied, persisted)

    def as_data(self) -> dict[str, Any]:
        """JSON-ready, in the form that ``from_data`` reads."""
        data: dict[str, Any] = {"operations": list(self.operations)}
        for name in ("fields", "deny_fields"):
            if patterns := getattr(self, name):
                data[name] = [pattern.text for pattern in patterns]
        return data | ({"persisted": True} if self.persisted else {})

    def judge(self, method: str, query: str, headers: Headers, content: bytes | None) -> None:
        """Judge a request with its whole body. Raises ``PolicyDenied`` or ``InvalidRequest``."""
        if method == "GET" and not content:
            self._judge_parameters(query)
        elif method == "POST":
            self._judge_post(query, headers, content or b"")
        else:
            raise PolicyDenied("the service lets GraphQL through, and this is none", "send it with POST")

    def _judge_parameters(self, query: str) -> None:
        for reading in read_parameters(query):
            found = {name: reading.only(name) for name in _PARAMETERS}
            if not self.persisted and any(each.name not in _PARAMETERS for each in reading.parameters):
                raise _unknown()
            document, name, more = (found[each] or Parameter(each, "") for each in _PARAMETERS if each != "variables")
            for extensions in _parsed(more.values):
                self._judge_extensions(extensions, document.values)
            self._judge_readings(document.values, name.values[0])

    def _judge_readings(self, documents: Sequence[str], name: str) -> None:
        """Judge a document that has a reading with spaces and one with plus signs; a server can follow what parses."""
        failed: InvalidRequest | None = None
        judged = False
        for document in documents:
            try:
                self._judge_document(document, name)
                judged = True
            except InvalidRequest as error:
                failed = error
        if failed is not None and not judged:
            raise failed

    def _judge_post(self, query: str, headers: Headers, content: bytes) -> None:
        looks = {fold(name) for name in _PARAMETERS}
        if any(fold(each.name) in looks for reading in read_parameters(query) for each in reading.parameters):
            raise InvalidRequest("the query and the body both speak GraphQL", "send it in the body alone")
        kind = content_type(headers)
        if kind == "application/graphql":
            try:
                self._judge_document(content.decode(), "")
            except UnicodeDecodeError:
                raise InvalidRequest("the GraphQL document is not UTF-8", "send it as UTF-8") from None
            return
        if kind not in {JSON, "application/graphql+json"}:
            raise PolicyDenied("the service lets GraphQL through, and this is none", f"send it as {JSON}")
        asked = parse_json(content, _BOUNDS)
        batch = asked if isinstance(asked, list) else [asked]
        if not 0 < len(batch) <= _BATCH:
            raise InvalidRequest(f"a batch has 1 to {_BATCH} requests", "send fewer")
        left = LONGEST
        for each in batch:
            left -= self._judge_one(each, FIELDS // len(batch))
            if left < 0:
                raise InvalidRequest(f"the batch has more than {LONGEST} characters of GraphQL", "send less at once")

    def _judge_one(self, asked: Any, most: int) -> int:
        """Judge one request, with at most so many fields; the length of its document."""
        if not isinstance(asked, dict):
            raise InvalidRequest("a GraphQL request is an object", 'for example {"query": "{ viewer { login } }"}')
        looks = {fold(name): name for name in _PARAMETERS}
        for key in asked:
            known = looks.get(fold(key))
            if key != known and (known or not self.persisted):
                raise _unknown()
        document, name = asked.get("query") or "", asked.get("operationName") or ""
        if not isinstance(document, str) or not isinstance(name, str):
            raise InvalidRequest("query and operationName are texts", "check the request")
        self._judge_extensions(asked.get("extensions"), (document,))
        self._judge_document(document, name, most)
        return len(document)

    def _judge_extensions(self, extensions: Any, documents: Sequence[str]) -> None:
        """A name for a document may stand beside the document itself, so that a server learns it, and must be its own.

        Source: the protocol of Apollo's automatic persisted queries, where the name is the SHA-256 of the document. A
        server that looks the name up first would run another document than the one that was judged.
        """
        if self.persisted or extensions is None:
            return
        if not isinstance(extensions, dict):
            raise _unknown()
        for key, named in extensions.items():
            if fold(key) != fold("persistedQuery"):
                continue
            own = [
                {"version": 1, "sha256Hash": hashlib.sha256(text.encode()).hexdigest()} for text in documents if text
            ]
            if key != "persistedQuery" or named not in own:
                raise PolicyDenied("the request names a GraphQL document that is not the one it carries", _WHOLE)

    def _judge_document(self, text: str, name: str, most: int = FIELDS) -> None:
        if not text:
            if not self.persisted:
                raise PolicyDenied("the request has no GraphQL document, so nobody can say what it asks", _WHOLE)
            return
        document = parse_document(text)
        operation = document.selected(name)
        if operation.type not in self.operations:
            allowed = " and ".join(self.operations)
            raise PolicyDenied(f"the service does not let a {operation.type} through", f"it allows {allowed}")
        if self.fields or self.deny_fields:
            self._judge_fields(operation.type, document.fields(operation, most))

    def _judge_fields(self, kind: str, fields: Iterator[tuple[tuple[str, ...], bool]]) -> None:
        patterns = (*self.deny_fields, *self.fields)
        denies = len(self.deny_fields)
        reached: dict[tuple[str, ...], list[frozenset[int]]] = {(): [pattern.start(kind) for pattern in patterns]}
        allowed: dict[tuple[str, ...], bool] = {(): not self.fields}
        for path, leaf in fields:
            if path not in reached:
                above = reached[path[:-1]]
                here = [each.step(at, path[-1]) if at else at for each, at in zip(patterns, above, strict=True)]
                ends = [each.ends(at) for each, at in zip(patterns, here, strict=True)]
                if any(ends[:denies]):
                    raise _denied(path)
                reached[path] = here
                allowed[path] = allowed[path[:-1]] or any(ends[denies:])
            if leaf and not allowed[path] and path[-1] != "__typename":
                raise _denied(path)


def _parsed(texts: Sequence[str]) -> list[Any]:
    """JSON in both readings of plus signs; a server can follow those that parse."""
    found = []
    for text in texts:
        with contextlib.suppress(InvalidRequest):
            found.append(parse_json(text.encode(), _BOUNDS))
    if not found and texts[0]:
        raise InvalidRequest("extensions of GraphQL in the query is no JSON", "check the request")
    return found


def _denied(path: Sequence[str]) -> PolicyDenied:
    shown = ".".join(path)
    return PolicyDenied(f"the service does not allow the GraphQL field {shown[:120]!r}", "keyhole service show NAME")


def _unknown() -> InvalidRequest:
    known = ", ".join(_PARAMETERS)
    return InvalidRequest(
        "the GraphQL request has a member that is not known, or in another spelling", f"known: {known}"
    )
