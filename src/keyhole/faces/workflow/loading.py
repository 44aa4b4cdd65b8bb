"""From a document to a workflow. What is wrong with it is said all at once, each with its place."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from keyhole.core.checks.documents import Test
from keyhole.core.checks.logic import parse_tests
from keyhole.core.errors import InvalidRequest
from keyhole.core.path import parse_name
from keyhole.core.tool_server import is_tool_name, parse_server_name
from keyhole.faces.workflow.document import (
    IDEMPOTENT,
    NO_DEFAULT,
    TRANSIENT,
    Call,
    Input,
    Parallel,
    Part,
    Retry,
    Step,
    Use,
    Workflow,
)
from keyhole.faces.workflow.fields import Fields
from keyhole.faces.workflow.problem import Problem, Unreadable
from keyhole.faces.workflow.reading import LIMITS, Node, ReadingLimits, read
from keyhole.faces.workflow.reference import INPUT, RESERVED, RUN, RUN_FACTS, Reference, marks

WORKFLOW = frozenset({"$schema", "version", "workflow", "description", "inputs", "steps", "outputs", "harmless"})
INPUTS = frozenset({"type", "default", "must", "description"})
_COMMON = frozenset({"id", "description", "when", "retry", "timeout", "idempotent", "idempotency_key"})
STEP = _COMMON | {"on_failure", "keep", "tool", "arguments", "call"}
PARALLEL = frozenset({"parallel", "description"})
CALL = frozenset({"method", "url", "service", "headers", "query", "json", "form", "text", "expect"})
RETRY = frozenset({"attempts", "wait", "most", "on"})
RESULT = ("result", "error", "status", "headers", "body")
METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")
# What the broker, the connection or a credential says; none of it is a workflow's to say.
OWN_HEADERS = frozenset(
    {"host", "connection", "content-length", "transfer-encoding", "te", "trailer", "upgrade", "keep-alive", "expect"}
) | {"authorization", "proxy-authorization", "proxy-connection", "cookie", "cookie2", "accept-encoding"}
MOST_STEPS, MOST_BRANCHES, DEEPEST, MOST_NAMES = 200, 16, 4, 64
LONGEST_TIMEOUT, LONGEST_WAIT, MOST_ATTEMPTS = 86_400.0, 3600.0, 20
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
_URL = re.compile(r"https?://[^/?#${}\s\\@]{1,255}(?:[/?][^\s\\#]{0,4000})?")
_FAILURE = re.compile(r"[1-5](?:[0-9]{2}|xx)|[a-z][a-z_]{2,40}")
_POINTER = re.compile(r"(?:/[^/{}$]{0,200}){1,16}")
_KNOWN_CODES = frozenset({*TRANSIENT, "approval_required", "lease_limit", "upstream_tls", "failed"})


@dataclass(frozen=True, slots=True)
class Loaded:
    """A document that was read.

    Attributes:
        workflow: ``None`` where there is a problem.
        problems: in the order of the document.
        root: its tree; ``None`` where it is not even JSON or YAML.
        text: of it.
    """

    workflow: Workflow | None
    problems: tuple[Problem, ...]
    root: Node | None
    text: str = ""


def load(content: bytes, limits: ReadingLimits = LIMITS) -> Loaded:
    """Read a document. Raises nothing: what is wrong is in what it gives."""
    try:
        root, text = read(content, limits)
    except Unreadable as error:
        return Loaded(None, (error.problem,), None)
    loader = _Loader()
    workflow = loader.workflow(root)
    problems = tuple(sorted(set(loader.fields.problems)))
    return Loaded(None if problems else workflow, problems, root, text)


class _Loader:
    def __init__(self) -> None:
        self.fields = Fields()
        self._inputs: set[str] = set()
        self._ids: set[str] = set()

    def workflow(self, root: Node) -> Workflow:
        f = self.fields
        it = f.object(root, "", WORKFLOW, "workflow", "steps")
        f.count(it.get("version"), "/version", 1, 1, 1)
        name = f.name(it.get("workflow"), "/workflow")
        inputs = {
            name: self._input(name, node) for name, node in f.named(it.get("inputs"), "/inputs", "inputs", MOST_NAMES)
        }
        self._inputs = set(inputs)
        steps = it.get("steps")
        visible: set[str] = set()
        parts = tuple(self._parts(steps, "/steps", visible, 0)) if steps is not None else ()
        outputs = {}
        for output, node in f.named(it.get("outputs"), "/outputs", "outputs", MOST_NAMES):
            self._references(node, f"/outputs/{output}", visible)
            outputs[output] = node.plain()
        if "harmless" in it:
            for number, each in enumerate(f.list(it["harmless"], "/harmless", 1, 100)):
                if not isinstance(each.value, str) or not re.fullmatch("[0-9a-f]{16}", each.value):
                    hint = "take it from keyhole workflow lint"
                    f.wrong(each, f"/harmless/{number}", "this is no fingerprint", hint)
        return Workflow(name, parts, inputs, outputs, f.text(it.get("description"), "/description", 2000))

    def _slug(self, node: Node | None, where: str) -> str:
        text = self.fields.text(node, where)
        try:
            return parse_name(text) if text else ""
        except InvalidRequest as error:
            if node is not None:
                self.fields.wrong(node, where, "this is no name of a service", error.hint)
            return ""

    def _input(self, name: str, node: Node) -> Input:
        f, where = self.fields, f"/inputs/{name}"
        it = f.object(node, where, INPUTS)
        kind: Any = f.choice(it.get("type"), f"{where}/type", ("text", "number", "boolean"), "text")
        default = NO_DEFAULT
        if "default" in it:
            default = it["default"].value
            if not is_of(default, kind):
                f.wrong(it["default"], f"{where}/default", f"the default is no {kind}", f"write a {kind}")
        must = f.test(it["must"], f"{where}/must") if "must" in it else None
        return Input(name, kind, default, must, f.text(it.get("description"), f"{where}/description", 2000))

    def _parts(self, node: Node, where: str, visible: set[str], depth: int) -> Iterator[Part]:
        """Steps in order; each makes itself visible to what follows it."""
        for number, each in enumerate(self.fields.list(node, where, 1, MOST_STEPS)):
            at = f"{where}/{number}"
            if isinstance(each.value, dict) and "parallel" in each.value:
                yield self._parallel(each, at, visible, depth)
            else:
                step = self._step(each, at, visible)
                visible.add(step.id)
                yield step

    def _parallel(self, node: Node, where: str, visible: set[str], depth: int) -> Parallel:
        f = self.fields
        it = f.object(node, where, PARALLEL, "parallel")
        f.text(it.get("description"), f"{where}/description", 2000)
        if depth >= DEEPEST:
            f.wrong(node, where, f"branches are nested more than {DEEPEST} deep", "write some of them as a workflow")
            return Parallel({})
        branches, gained = {}, set[str]()
        found = list(f.named(it.get("parallel"), f"{where}/parallel", "branches", MOST_BRANCHES))
        if not found:
            f.wrong(node, where, "it has no branches", "parallel: {one: [STEPS], other: [STEPS]}")
        for name, each in found:
            own = set(visible)  # a branch does not see what its neighbours give: they may not have come to it
            branches[name] = tuple(self._parts(each, f"{where}/parallel/{name}", own, depth + 1))
            gained |= own
        visible |= gained
        return Parallel(branches)

    def _step(self, node: Node, where: str, visible: set[str]) -> Step:
        f = self.fields
        it = f.object(node, where, STEP, "id")
        name = f.name(it.get("id"), f"{where}/id")
        if name in RESERVED or name in self._ids:
            what = "means something else" if name in RESERVED else "stands twice"
            f.wrong(it["id"], f"{where}/id", f"the id {name!r} {what}", "choose another")
        self._ids.add(name)
        if len(self._ids) == MOST_STEPS + 1:
            f.wrong(node, where, f"it has more than {MOST_STEPS} steps", "write some of them as a workflow")
        if ("tool" in it) == ("call" in it):
            f.wrong(node, where, "a step has either a tool or a call", "tool: SERVER/TOOL, or call: {method, url}")
        if "arguments" in it and "tool" not in it:
            f.wrong(it["arguments"], f"{where}/arguments", "arguments are for a tool", "a call has json, form or query")
        act: Call | Use = (
            self._call(it["call"], f"{where}/call", visible) if "call" in it else self._use(it, where, visible)
        )
        safe = isinstance(act, Call) and act.method in IDEMPOTENT
        step = Step(
            name,
            act,
            self._when(it.get("when"), f"{where}/when", visible),
            self._retry(it.get("retry"), f"{where}/retry"),
            self._timeout(it.get("timeout"), f"{where}/timeout"),
            f.flag(it.get("idempotent"), f"{where}/idempotent", safe),
            self._key(it.get("idempotency_key"), f"{where}/idempotency_key", act),
            f.choice(it.get("on_failure"), f"{where}/on_failure", ("stop", "continue"), "stop") == "continue",
            self._keep(it.get("keep"), f"{where}/keep"),
            f.text(it.get("description"), f"{where}/description", 2000),
        )
        if step.retry.attempts > 1 and not step.repeatable:
            hint = "say idempotent: true if doing it twice is as doing it once, or name idempotency_key"
            f.wrong(it["retry"], f"{where}/retry", "a step that is retried must be one that can be repeated", hint)
        return step

    def _timeout(self, node: Node | None, where: str) -> float:
        found = self.fields.seconds(node, where, LONGEST_TIMEOUT, 60.0)
        if node is not None and found == 0:
            self.fields.wrong(node, where, "in no time nothing is done", "30s, 5m, or a number of seconds")
        return found

    def _call(self, node: Node, where: str, visible: set[str]) -> Call:
        f = self.fields
        it = f.object(node, where, CALL, "url")
        bodies = [kind for kind in ("json", "form", "text") if kind in it]
        if len(bodies) > 1:
            f.wrong(it[bodies[1]], f"{where}/{bodies[1]}", "a call has one body", "json, form or text")
        kind: Any = bodies[0] if bodies else ""
        method = f.choice(it.get("method"), f"{where}/method", METHODS, "POST" if kind else "GET")
        if kind == "form" and not _is_flat(it["form"]):
            f.wrong(it["form"], f"{where}/form", "a form is an object of texts, numbers and booleans", "or send json")
        if kind == "text" and not isinstance(it["text"].value, str):
            f.wrong(it["text"], f"{where}/text", "it must be a text", "or send json")
        if "query" in it and not _is_flat(it["query"]):
            f.wrong(it["query"], f"{where}/query", "a query is an object of texts, numbers and booleans", "{page: 2}")
        for name in ("url", "headers", "query", *bodies):
            if name in it:
                self._references(it[name], f"{where}/{name}", visible)
        query = it["query"].plain() if "query" in it and isinstance(it["query"].value, dict) else {}
        expect = f.list(it["expect"], f"{where}/expect", 1, 32) if "expect" in it else []
        statuses = tuple(f.count(each, f"{where}/expect/{n}", 100, 599, 200) for n, each in enumerate(expect))
        service, headers = (
            self._slug(it.get("service"), f"{where}/service"),
            self._headers(it.get("headers"), f"{where}/headers"),
        )
        url, body = self._url(it.get("url"), f"{where}/url"), it[kind].plain() if kind else None
        return Call(method, url, service, headers, query, kind, body, statuses)

    def _url(self, node: Node | None, where: str) -> str:
        text = self.fields.text(node, where, 4096)
        if node is None or not text:
            return ""
        if not _URL.fullmatch(text) or not _has_host(text):
            hint = "https://HOST/PATH, with references in the path and the query only"
            self.fields.wrong(node, where, "the URL is not absolute, or its host is not written out", hint)
        return text

    def _headers(self, node: Node | None, where: str) -> dict[str, str]:
        f = self.fields
        if node is None:
            return {}
        if not isinstance(node.value, dict) or len(node.value) > MOST_NAMES:
            f.wrong(node, where, f"headers are an object of at most {MOST_NAMES} texts", "{Accept: application/json}")
            return {}
        found: dict[str, str] = {}
        for name, each in node.value.items():
            lower = name.lower()
            at = Node(*node.keys[name], value=name)
            if not _HEADER.fullmatch(name) or lower in {known.lower() for known in found}:
                f.wrong(at, where, "this is no name of a header, or stands twice", "letters, digits and -")
            elif lower in OWN_HEADERS or lower.startswith("x-keyhole-"):
                hint = "leave it out: the service attaches the credential, and the connection the rest"
                f.wrong(at, where, f"the header {lower} is not the workflow's to say", hint)
            elif not isinstance(each.value, str) or not each.value.isprintable():
                f.wrong(each, f"{where}/{name}", "a header has a text of one line", "put it in quotes")
            else:
                found[name] = each.value
        return found

    def _use(self, it: Mapping[str, Node], where: str, visible: set[str]) -> Use:
        f = self.fields
        node = it.get("tool")
        server, _, tool = f.text(node, f"{where}/tool").partition("/")
        try:
            if node is not None and not (parse_server_name(server) and is_tool_name(tool)):
                raise InvalidRequest("")  # noqa: TRY301  # one place says what is wrong
        except InvalidRequest:
            if node is not None:
                f.wrong(node, f"{where}/tool", "this is no tool", "SERVER/TOOL, as in keyhole mcp server tools SERVER")
        arguments = it.get("arguments")
        if arguments is None:
            return Use(server, tool)
        if not isinstance(arguments.value, dict):
            f.wrong(arguments, f"{where}/arguments", "arguments are an object", "{NAME: VALUE}")
            return Use(server, tool)
        self._references(arguments, f"{where}/arguments", visible)
        return Use(server, tool, arguments.plain())

    def _key(self, node: Node | None, where: str, act: Call | Use) -> str:
        name = self.fields.text(node, where, 64)
        if node is None or not name:
            return ""
        there = {n.lower() for n in act.headers} | OWN_HEADERS if isinstance(act, Call) else set(act.arguments)
        if not _HEADER.fullmatch(name) or name.lower() in there or name in there:
            hint = "Idempotency-Key, or what the other side calls it"
            self.fields.wrong(node, where, "it names no header or argument that is free", hint)
        return name

    def _when(self, node: Node | None, where: str, visible: set[str]) -> tuple[Test, ...]:
        """Conditions in the one language that Keyhole has for documents; the document here is what is known."""
        f = self.fields
        if node is None:
            return ()
        before = len(f.problems)
        f.list(node, where, 1, 32)
        for at, each in node.walk(where):
            if isinstance(each.value, dict) and isinstance((pointer := each.value.get("at", node).value), str):
                self._reference(pointer.removeprefix("/"), each.value["at"], f"{at}/at", visible)
        if len(f.problems) > before:
            return ()
        try:
            return parse_tests(node.plain(), "when")
        except InvalidRequest as error:
            f.wrong(node, where, error.reason, '[{"at": "/customer/status", "in": [200]}], and any, all, not')
            return ()

    def _retry(self, node: Node | None, where: str) -> Retry:
        if node is None:
            return Retry()
        f = self.fields
        it = f.object(node, where, RETRY)
        codes = []
        for number, each in enumerate(f.list(it["on"], f"{where}/on", 1, 32) if "on" in it else ()):
            code = str(each.value) if isinstance(each.value, int | str) else ""
            if not _FAILURE.fullmatch(code) or (code[0].isalpha() and code not in _KNOWN_CODES):
                hint = f"a status such as 503, a class such as 5xx, or one of {', '.join(sorted(_KNOWN_CODES))}"
                f.wrong(each, f"{where}/on/{number}", "this is no failure", hint)
            codes.append(code)
        return Retry(
            f.count(it.get("attempts"), f"{where}/attempts", 1, MOST_ATTEMPTS, 3),
            f.seconds(it.get("wait"), f"{where}/wait", LONGEST_WAIT, 1.0),
            f.seconds(it.get("most"), f"{where}/most", LONGEST_WAIT, 60.0),
            tuple(codes) or TRANSIENT,
        )

    def _keep(self, node: Node | None, where: str) -> dict[str, tuple[str, ...]] | None:
        if node is None:
            return None
        if node.value == {}:
            return {}
        found = {}
        for name, each in self.fields.named(node, where, "members", MOST_NAMES):
            if isinstance(each.value, str) and _POINTER.fullmatch(each.value):
                parts = each.value[1:].split("/")
                found[name] = tuple(part.replace("~1", "/").replace("~0", "~") for part in parts)
            else:
                self.fields.wrong(each, f"{where}/{name}", "this is no JSON pointer", "/data/id")
        return found

    def _references(self, node: Node, where: str, visible: set[str]) -> None:
        """Note what stands in ``${…}`` and leads nowhere."""
        for at, each in node.walk(where):
            for mark in marks(each.value) if isinstance(each.value, str) else ():
                self._reference(mark, each, at, visible)

    def _reference(self, text: str, node: Node, where: str, visible: set[str]) -> None:
        found = Reference.parse(text)
        rule = "reference"
        if found is None:
            hint = "${STEP/POINTER}, ${input/NAME} or ${run/id}; nothing of the environment"
            self.fields.wrong(node, where, "this refers to nothing of the workflow", hint, rule)
        elif found.head == INPUT:
            if found.path[0] not in self._inputs or len(found.path) > 1:
                self.fields.wrong(node, where, "there is no such input", "add it to inputs", rule)
        elif found.head == RUN:
            if found.path[0] not in RUN_FACTS or len(found.path) > 1:
                self.fields.wrong(node, where, "nothing such is known of a run", "run/id or run/workflow", rule)
        elif found.head not in visible:
            hint = "a step sees those before it, and of its own branch"
            self.fields.wrong(node, where, f"no step {found.head!r} ends before this one", hint, rule)
        elif found.path[0] not in RESULT:
            self.fields.wrong(node, where, "a step gives nothing of that name", f"STEP/{' STEP/'.join(RESULT)}", rule)


def _has_host(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none, or brackets
        return False


def _is_flat(node: Node) -> bool:
    return isinstance(node.value, dict) and all(
        each.value is not None and not isinstance(each.value, dict | list) for each in node.value.values()
    )


def is_of(value: Any, kind: str) -> bool:
    """Whether a value is of a type of inputs."""
    if kind == "boolean":
        return isinstance(value, bool)
    if kind == "number":
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, str)
