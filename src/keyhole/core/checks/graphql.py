"""A small strict reader of GraphQL documents: which operations they have, and which fields each of them asks for. Pure.

Source: the GraphQL specification, October 2021, section 2. Only executable documents are read; what is refused here an
upstream would refuse too, or could read in another way. Arguments, variables and directives are passed over by their
brackets: a field counts as asked for even where ``@skip`` would leave it out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from keyhole.core.errors import InvalidRequest

LONGEST = 256 * 1024  # characters
_TOKENS = 20_000
_NAME = 256  # characters; patterns are matched against names
_DEEPEST = 48
FIELDS = 5_000  # after fragments were put in
OPERATIONS = ("query", "mutation", "subscription")
_TOKEN = re.compile(
    r"""
      (?P<ignored> [\ufeff\t\n\r\x20,]++ | \#[^\n\r]*+ )
    | (?P<name>    [_A-Za-z][_0-9A-Za-z]*+ )
    | (?P<mark>    \.\.\. | [!$&()\x3a=@\[\]{|}] )
    | (?P<number>  -?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?(?![_0-9A-Za-z.]) )
    | (?P<block>   \"{3}(?: [^"\\] | \\\"{3} | \\(?!\"{3}) | \"(?!\"{2}) )*+\"{3} )
    | (?P<string>  \"(?!\"{2})(?: [^"\\\n\r] | \\(?:u[0-9A-Fa-f]{4} | u\{[0-9A-Fa-f]{1,8}\} | ["\\/bfnrt]) )*+\" )
    """,
    re.VERBOSE,
)
_CLOSING = {"(": ")", "[": "]", "{": "}"}


@dataclass(slots=True)
class Selection:
    """A field, a fragment spread or an inline fragment.

    Attributes:
        name: of a field, behind its alias; of the fragment that is spread; empty for an inline fragment.
        spread: whether it is a fragment spread.
        selections: what is asked for below it.
    """

    name: str
    spread: bool = False
    selections: list[Selection] = field(default_factory=list)


@dataclass(slots=True)
class Operation:
    """One operation: its type, its name (or ``""``) and its selections."""

    type: str
    name: str
    selections: list[Selection]


@dataclass(slots=True)
class Document:
    """A document: its operations in order, and its fragments by name."""

    operations: list[Operation]
    fragments: dict[str, list[Selection]]

    def selected(self, name: str) -> Operation:
        """The operation that is executed. Raises ``InvalidRequest`` where ``name`` does not say which."""
        if not name and len(self.operations) == 1:
            return self.operations[0]
        if not name:
            raise InvalidRequest("the document has several operations", "say which in operationName")
        for operation in self.operations:
            if operation.name == name:
                return operation
        raise InvalidRequest("operationName names no operation of the document", "name one that is there")

    def fields(self, operation: Operation, most: int = FIELDS) -> Iterator[tuple[tuple[str, ...], bool]]:
        """Paths of all fields of an operation with its fragments put in; with each whether nothing is asked below it.

        A field comes before those below it. ``most`` bounds how many there are.

        Raises:
            InvalidRequest: a fragment is missing or leads back to itself, or there are too many fields.
        """
        stack: list[tuple[list[Selection], tuple[str, ...], tuple[str, ...]]] = [(operation.selections, (), ())]
        budget = most
        while stack:
            selections, path, inside = stack.pop()
            for each in selections:
                budget -= 1
                if budget < 0:
                    raise InvalidRequest("the GraphQL document asks for too many fields", "ask for less at once")
                if each.spread:
                    if each.name in inside or each.name not in self.fragments:
                        raise InvalidRequest("a GraphQL fragment is missing or leads back to itself", "check fragments")
                    stack.append((self.fragments[each.name], path, (*inside, each.name)))
                elif not each.name:
                    stack.append((each.selections, path, inside))
                else:
                    below = (*path, each.name)
                    if len(below) > _DEEPEST:
                        raise InvalidRequest("the GraphQL document is nested too deeply", "ask for less at once")
                    yield below, not each.selections
                    stack.append((each.selections, below, inside))


def parse_document(text: str) -> Document:
    """Read an executable document. Raises ``InvalidRequest``, which does not repeat it."""
    return _Parser(_tokens(text)).document()


def _tokens(text: str) -> list[str]:
    """The tokens; a string or number is one ``"``, since none of them matters."""
    if len(text) > LONGEST:
        raise InvalidRequest(f"the GraphQL document is longer than {LONGEST} characters", "send less at once")
    found, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise _syntax()
        at = match.end()
        if match.lastgroup == "name" and len(match[0]) > _NAME:
            raise _syntax()
        if match.lastgroup != "ignored":
            found.append(match[0] if match.lastgroup in {"name", "mark"} else '"')
            if len(found) > _TOKENS:
                raise InvalidRequest("the GraphQL document has too many tokens", "send less at once")
    return found


def _syntax() -> InvalidRequest:
    return InvalidRequest("the GraphQL document cannot be read", "send an executable document: query { … }")


class _Parser:
    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._at = 0

    def document(self) -> Document:
        document = Document([], {})
        while self._at < len(self._tokens):
            self._definition(document)
        names = [operation.name for operation in document.operations]
        if not names or len(set(names)) < len(names) or ("" in names and len(names) > 1):
            raise InvalidRequest("the GraphQL document has no operation, or two of one name", "send each once")
        return document

    def _definition(self, document: Document) -> None:
        if self._peek() == "{":
            document.operations.append(Operation("query", "", self._selections(0)))
            return
        kind = self._name()
        if kind in OPERATIONS:
            name = self._name() if _is_name(self._peek()) else ""
            self._group("(")
            self._directives()
            document.operations.append(Operation(kind, name, self._selections(0)))
            return
        name = self._name()
        if kind != "fragment" or name == "on" or name in document.fragments or self._name() != "on":
            raise _syntax()
        self._name()
        self._directives()
        document.fragments[name] = self._selections(0)

    def _selections(self, depth: int) -> list[Selection]:
        if depth >= _DEEPEST:
            raise InvalidRequest("the GraphQL document is nested too deeply", "ask for less at once")
        self._take("{")
        found = []
        while self._peek() != "}":
            found.append(self._selection(depth))
        self._take("}")
        if not found:
            raise _syntax()
        return found

    def _selection(self, depth: int) -> Selection:
        if self._peek() == "...":
            self._take("...")
            if _is_name(self._peek()):
                name = self._name()
                if name != "on":
                    self._directives()
                    return Selection(name, spread=True)
                self._name()
            self._directives()
            return Selection("", selections=self._selections(depth + 1))
        name = self._name()
        if self._peek() == ":":
            self._take(":")
            name = self._name()
        self._group("(")
        self._directives()
        return Selection(name, selections=self._selections(depth + 1) if self._peek() == "{" else [])

    def _directives(self) -> None:
        while self._peek() == "@":
            self._take("@")
            self._name()
            self._group("(")

    def _group(self, opening: str) -> None:
        """Pass over what stands in brackets, if anything does."""
        if self._peek() != opening:
            return
        expected = []
        while True:
            token = self._next()
            if token in _CLOSING:
                expected.append(_CLOSING[token])
            elif token in {")", "]", "}"} and token != expected.pop():
                raise _syntax()
            if not expected:
                return

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _next(self) -> str:
        token = self._peek()
        if not token:
            raise _syntax()
        self._at += 1
        return token

    def _take(self, mark: str) -> None:
        if self._next() != mark:
            raise _syntax()

    def _name(self) -> str:
        token = self._next()
        if not _is_name(token):
            raise _syntax()
        return token


def _is_name(token: str) -> bool:
    return token[:1] == "_" or token[:1].isalpha()
