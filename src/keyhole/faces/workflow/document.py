"""What a workflow is: steps, one after the other or side by side. See ``loading`` for how it is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from keyhole.core.checks.documents import Test
from keyhole.core.checks.values import ValueTest

InputType = Literal["text", "number", "boolean"]
NO_DEFAULT: Any = object()
# RFC 9110, section 9.2.2: sent twice they mean what they mean sent once.
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
TRANSIENT = ("429", "5xx", "upstream_unreachable", "upstream_timeout", "rate_limited")


@dataclass(frozen=True, slots=True)
class Input:
    """What whoever starts a run says.

    Attributes:
        name: by which steps refer to it.
        type: of its value.
        default: where nothing is said; ``NO_DEFAULT`` where something has to be.
        must: what the value has to be besides.
        description: for people.
    """

    name: str
    type: InputType = "text"
    default: Any = NO_DEFAULT
    must: ValueTest | None = None
    description: str = ""


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a step is tried.

    Attributes:
        attempts: at most, the first one included.
        wait: seconds before the second; each further wait is twice as long.
        most: seconds of the longest wait.
        on: failures after which it is tried again: codes of errors, statuses (``429``) or classes of them (``5xx``).
    """

    attempts: int = 1
    wait: float = 1.0
    most: float = 60.0
    on: tuple[str, ...] = TRANSIENT

    def covers(self, code: str, status: int) -> bool:
        """Whether such a failure is one of these."""
        return code in self.on or (bool(status) and (str(status) in self.on or f"{status // 100}xx" in self.on))

    def pause(self, attempt: int) -> float:
        """Seconds to wait after so many attempts."""
        return float(min(self.wait * 2.0 ** (attempt - 1), self.most))


@dataclass(frozen=True, slots=True)
class Call:
    """A call over HTTP through a service, which attaches the credential.

    Attributes:
        method: of HTTP.
        url: absolute, with references in path and query only.
        service: which one; empty for the one that fits.
        headers: name to text.
        query: parameters, name to value.
        kind: of the body: ``json``, ``form``, ``text``, or empty for none.
        body: with references.
        expect: statuses that are right; empty for all below 400.
    """

    method: str
    url: str
    service: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, Any] = field(default_factory=dict)
    kind: Literal["json", "form", "text", ""] = ""
    body: Any = None
    expect: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Use:
    """A use of a tool of the gateway.

    Attributes:
        server: which has it.
        tool: its name there.
        arguments: with references.
    """

    server: str
    tool: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """One step.

    Attributes:
        id: its name within the workflow.
        act: what it does.
        when: it is done when all of these hold of what is known then.
        retry: how often it is tried.
        timeout: seconds for one attempt.
        idempotent: doing it twice is as doing it once.
        key: header or argument that gets the key by which the other side knows a repetition; empty for none.
        go_on: the run goes on when it has failed.
        keep: name to pointer: what of its body is kept; ``None`` for all.
        description: for people.
    """

    id: str
    act: Call | Use
    when: tuple[Test, ...] = ()
    retry: Retry = field(default_factory=Retry)
    timeout: float = 60.0
    idempotent: bool = False
    key: str = ""
    go_on: bool = False
    keep: Mapping[str, tuple[str, ...]] | None = None
    description: str = ""

    @property
    def repeatable(self) -> bool:
        """Whether it may be sent again when nobody knows whether it was done."""
        return self.idempotent or bool(self.key)


@dataclass(frozen=True, slots=True)
class Parallel:
    """Branches side by side; what follows begins when all have ended."""

    branches: Mapping[str, tuple[Step | Parallel, ...]]


Part = Step | Parallel


@dataclass(frozen=True, slots=True)
class Workflow:
    """A whole workflow.

    Attributes:
        name: goes into the audit records of its runs.
        parts: in order.
        inputs: by name.
        outputs: name to a value with references.
        description: for people.
    """

    name: str
    parts: tuple[Part, ...]
    inputs: Mapping[str, Input] = field(default_factory=dict)
    outputs: Mapping[str, Any] = field(default_factory=dict)
    description: str = ""

    def steps(self) -> Iterator[Step]:
        """All steps, in the order of the document."""
        yield from _steps(self.parts)

    @property
    def width(self) -> int:
        """How many steps may be under way at once."""
        return _width(self.parts)


def _width(parts: tuple[Part, ...]) -> int:
    return max((1 if isinstance(each, Step) else sum(map(_width, each.branches.values())) for each in parts), default=0)


def _steps(parts: tuple[Part, ...]) -> Iterator[Step]:
    for part in parts:
        if isinstance(part, Step):
            yield part
        else:
            for branch in part.branches.values():
                yield from _steps(branch)
