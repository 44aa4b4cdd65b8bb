"""Bodies as conditions read them: JSON and forms, the members that a pointer names, and their look-alikes. Pure.

A pointer is RFC 6901's (``/items/0/price``), and ``*`` in it stands for every element of an array. In a form ``/a/b``
is the field ``a[b]``. Beside a member that a pointer names no other may stand that a careless reader would take for it:
Go's decoder, for one, does not look at case and takes the last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from keyhole.core.checks.urlencoded import Reading, fold, read_parameters
from keyhole.core.checks.values import ValueTest
from keyhole.core.errors import InvalidRequest, KeyholeError, PolicyDenied
from keyhole.core.message import Headers
from keyhole.core.strict_json import JsonBounds, parse_json

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
_BOUNDS = JsonBounds()
_LONGEST = 256
_DEEPEST = 16


@dataclass(frozen=True, slots=True)
class Pointer:
    """Where a member of a body is.

    Attributes:
        text: as it was written.
        steps: its decoded segments.
    """

    text: str
    steps: tuple[str, ...]

    @classmethod
    def parse(cls, text: Any) -> Pointer:
        """Read a pointer. Raises ``InvalidRequest``."""
        if not isinstance(text, str) or not text.startswith("/") or len(text) > _LONGEST or text.count("/") > _DEEPEST:
            raise InvalidRequest('a condition on the body needs "at" with a JSON pointer', '{"at": "/amount", …}')
        return cls(text, tuple(step.replace("~1", "/").replace("~0", "~") for step in text[1:].split("/")))

    @property
    def field(self) -> str:
        """Its name in a form."""
        return self.steps[0] + "".join(f"[{step}]" for step in self.steps[1:])

    def find(self, document: Any, looks: Looks) -> list[Any]:
        """The members that it names, with ``MISSING`` for each way that leads nowhere.

        Raises:
            InvalidRequest: beside one of them is another that looks like it.
        """
        found = [document]
        for step in self.steps:
            found = [inner for value in found for inner in _step(value, step, looks)]
        return found


MISSING = object()


class Looks:
    """What the members of a document's objects may be taken for; each object is gone through once."""

    def __init__(self) -> None:
        self._known: dict[int, Counter[str]] = {}

    def count(self, value: dict[str, Any], name: str) -> int:
        """How many members of an object of the document may be taken for ``name``."""
        known = self._known.get(id(value))
        if known is None:
            known = self._known[id(value)] = Counter(fold(key, nested=True) for key in value)
        return known[fold(name, nested=True)]


def _step(value: Any, step: str, looks: Looks) -> list[Any]:
    if isinstance(value, dict):
        if looks.count(value, step) > int(step in value):
            raise InvalidRequest(f"the body has a member that may be taken for {step!r}", f"send {step!r} once")
        return [value.get(step, MISSING)]
    if isinstance(value, list):
        if step == "*":
            return value or [MISSING]
        if step.isdecimal() and step.isascii() and (step == "0" or step[0] != "0") and len(step) < 10:
            return value[int(step) : int(step) + 1] or [MISSING]
    return [MISSING]


class View(Protocol):
    """A document in one reading."""

    def verdicts(self, pointer: Pointer, test: ValueTest) -> list[bool]:
        """Whether the test holds, for each value that the pointer names and each way in which that can be read.

        Raises:
            InvalidRequest: a reader may take another member for the one that is named.
        """


class Test(Protocol):
    """What a condition asks of a document."""

    def holds(self, view: View) -> bool:
        """Whether it is so, however the document is read."""

    def fails(self, view: View) -> bool:
        """Whether it is not so, however the document is read."""

    def as_data(self) -> dict[str, Any]:
        """JSON-ready, in the form in which it is read."""


@dataclass(frozen=True, slots=True)
class BodyTest:
    """A condition on one member of a document."""

    pointer: Pointer
    test: ValueTest

    def holds(self, view: View) -> bool:
        """See ``Test``."""
        return all(view.verdicts(self.pointer, self.test))

    def fails(self, view: View) -> bool:
        """See ``Test``."""
        return not any(view.verdicts(self.pointer, self.test))

    def as_data(self) -> dict[str, Any]:
        """See ``Test``."""
        return {"at": self.pointer.text, **self.test.as_data()}

    def __str__(self) -> str:
        """In words."""
        return f"{self.pointer.text}: {self.test}"


class JsonView:
    """A JSON value."""

    def __init__(self, document: Any) -> None:
        self._document = document
        self._looks = Looks()

    def verdicts(self, pointer: Pointer, test: ValueTest) -> list[bool]:
        """See ``View``."""
        missing = test.absent or test.optional
        found = pointer.find(self._document, self._looks)
        return [missing if value is MISSING else test.holds_json(value) for value in found]


class FormView:
    """A form."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def verdicts(self, pointer: Pointer, test: ValueTest) -> list[bool]:
        """See ``View``."""
        found = self._reading.only(pointer.field)
        return [test.absent or test.optional] if found is None else [test.holds_text(each) for each in found.values]


def judge_json(tests: Iterable[Test], document: Any, refused: Callable[[Test], KeyholeError]) -> None:
    """Judge a JSON value, read with fractions as ``Decimal``. Raises what ``refused`` makes, or ``InvalidRequest``."""
    view = JsonView(document)
    for test in tests:
        if not test.holds(view):
            raise refused(test)


def judge_body(tests: tuple[Test, ...], headers: Headers, content: bytes) -> None:
    """Judge a whole body. Raises ``PolicyDenied`` or ``InvalidRequest``; a body of another kind is refused."""
    kind = content_type(headers)
    if kind == FORM:
        try:
            readings = read_parameters(content.decode("ascii"))
        except UnicodeDecodeError:
            raise InvalidRequest("the form has bytes that are not ASCII", "percent-encode them") from None
        views = [FormView(reading) for reading in readings]
        for test in tests:
            if not all(test.holds(view) for view in views):
                raise _refusal(test)
        return
    if kind != JSON and not (kind.startswith("application/") and kind.endswith("+json")):
        raise PolicyDenied(
            "the service has conditions on the body, and this is neither JSON nor a form", f"send {JSON}"
        )
    judge_json(tests, parse_json(content, _BOUNDS, exact=True), _refusal)


def _refusal(test: Test) -> PolicyDenied:
    if isinstance(test, BodyTest):
        return PolicyDenied(f"the body's {test.pointer.text} is not as the service wants it", f"it must be {test.test}")
    return PolicyDenied("the body is not as the service wants it", f"it must be {test}")


def content_type(headers: Headers) -> str:
    """The media type of a body that may be looked into, in lower case; empty where none is named.

    Raises:
        InvalidRequest: the header stands twice, the body is encoded, or its characters are not UTF-8.
    """
    kinds = [value for name, value in headers if name == b"content-type"]
    codings = [value.strip().lower() for name, value in headers if name == b"content-encoding"]
    if any(coding not in {b"", b"identity"} for coding in codings):
        raise InvalidRequest(
            "the service looks into the body, and it is compressed", "send it without Content-Encoding"
        )
    if len(kinds) > 1:
        raise InvalidRequest("the header content-type stands twice", "send it once")
    if not kinds:
        return ""
    kind, _, rest = kinds[0].decode("latin-1").lower().partition(";")
    for parameter in rest.split(";"):
        name, _, value = parameter.strip().partition("=")
        if name.strip() == "charset" and value.strip().strip('"') not in {"utf-8", "utf8", "us-ascii"}:
            raise InvalidRequest("the service judges the body, and it is not UTF-8", "send it as UTF-8")
    return kind.strip()
