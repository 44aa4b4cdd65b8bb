"""A server of tools as it is bound: how it is reached, which secrets it gets, and which of its tools are offered.

A tool is ``SERVER/TOOL`` in policies (below ``tools/``) and in records, and ``SERVER__TOOL`` to a client of the Model
Context Protocol. The name of a server has no underscore, so that no two tools are shown under one name.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

from keyhole.core.checks.rules import Checks
from keyhole.core.errors import InvalidRequest
from keyhole.core.fields import parse_map, parse_text, parse_texts
from keyhole.core.lease import parse_duration
from keyhole.core.path import parse_name, parse_secret_ref
from keyhole.core.request import Limits
from keyhole.core.url import HostPattern, parse_url

RESOURCES = "@resources"
"""The capability to read what a server shows as resources, as if it were a tool. No tool can have this name."""
PROMPTS = "@prompts"
"""The same for its prompts."""
SIDES = frozenset({RESOURCES, PROMPTS})

SEPARATOR = "__"
_ALIKE = str.maketrans("1i0", "llo")
_SERVER = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?\Z")
_TOOL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,95}\Z")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z")
_HEADER = re.compile(r"[A-Za-z0-9-]{1,64}\Z")
_RESERVED = frozenset({"servers", "own"})
_TAKEN = frozenset({"host", "content-length", "content-type", "transfer-encoding", "connection", "accept"})
_TIMEOUT = 60
_MOST_TEXT = 64 * 1024  # bytes of all rules together
_OF_A_RULE = frozenset({"schema", "arguments", "conditions", "hours", "until", "limits", "approval"})
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
TRANSPORTS = ("stdio", "http")
ASKS = ("sampling", "elicitation")
SANDBOXES = ("auto", "require", "off")
_MEMORY = 2 * 1024**3
_LEAST_MEMORY, _MOST_MEMORY = 16 * 1024**2, 1024**4
_UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}
_SIZE = re.compile(r"([0-9]{1,13})\s*([KMG]?)(?:iB|B)?\Z")
FIELDS = {
    "transport": "stdio or http; what the other fields say unless it is said",
    "command": "the program, for stdio; it takes sudo to name one",
    "args": "list of its arguments",
    "url": "of the endpoint, for http",
    "env": "object: variable of the program to path#field of a secret",
    "settings": "object: variable of the program to text that is no secret",
    "headers": "object: header to path#field of a secret; with {} in it a text around it, such as Bearer {stripe/key}",
    "oauth": "path of a connection whose access token is the server's bearer token, such as /oauth/notes; for http",
    "allow": "list of globs of tools that are offered; all unless said",
    "deny": "list of globs of tools that are not; they win",
    "rules": 'object: glob of tools to {"schema": JSON Schema, "arguments": {name: glob}, "conditions": [tests], '
    '"hours": [windows], "until": time, "limits": {…}, "approval": {…}}; all that are for a tool hold',
    "allow_addresses": "list of networks that may be dialled although they are private; they take sudo",
    "asks": "list of what it may ask the agent's client while it is called: sampling, elicitation; none unless said",
    "agent": "as whom the program reaches services, through the broker, with a token of its own; for stdio",
    "sandbox": "auto, require or off, as of keyhole run; for stdio",
    "memory": "bytes that the program and all that it starts may take, or text such as 512MiB; 2 GiB unless said",
    "timeout": "duration that a call may take; 60 s unless said",
}


@dataclass(frozen=True, slots=True)
class Rule:
    """What holds for calls of some tools.

    Attributes:
        tools: glob of their names.
        schema: JSON Schema that the arguments must meet besides the tool's own; empty for none.
        arguments: top-level argument to a glob that its text must match; one that is not there does not.
        checks: conditions on arguments and time, limits for each agent and tool, and approval; ``None`` for none.
    """

    tools: str
    schema: Mapping[str, Any] = field(default_factory=dict)
    arguments: Mapping[str, str] = field(default_factory=dict)
    checks: Checks | None = None

    @classmethod
    def from_data(cls, tools: str, data: Any) -> Rule:
        """Read a rule. Raises ``InvalidRequest``."""
        if not isinstance(data, Mapping) or data.keys() - _OF_A_RULE:
            raise InvalidRequest(
                f"a rule has {', '.join(sorted(_OF_A_RULE))}", '{"create_*": {"arguments": {"repo": "acme/*"}}}'
            )
        schema = data.get("schema") or {}
        if not isinstance(schema, dict):
            raise InvalidRequest("a schema is an object", "see json-schema.org")
        condition = {"body": data.get("conditions"), "hours": data.get("hours"), "until": data.get("until")}
        condition = {name: value for name, value in condition.items() if value}
        limits, approval = data.get("limits"), data.get("approval")
        if isinstance(limits, Mapping) and limits.get("concurrent"):
            raise InvalidRequest("calls of tools at once are not counted", "limit their rate or their count")
        if isinstance(approval, Mapping) and approval.get("for"):
            raise InvalidRequest("a rule says for which tools it is by its glob", "leave for out of its approval")
        checks = Checks.from_data(
            {"conditions": [condition] if condition else [], "limits": limits, "approval": approval}
        )
        return cls(tools, schema, parse_map(data.get("arguments") or {}, "arguments"), checks)

    def as_data(self) -> dict[str, Any]:
        """JSON-ready."""
        checks = self.checks.as_data() if self.checks is not None else {}
        condition = (checks.pop("conditions", None) or [{}])[0]
        if "body" in condition:
            condition["conditions"] = condition.pop("body")
        return {"schema": dict(self.schema), "arguments": dict(self.arguments), **condition, **checks}

    def describe(self) -> list[str]:
        """In words, one line each."""
        lines = [f"argument {name}: like {glob}" for name, glob in self.arguments.items()]
        lines += ["arguments: by a JSON Schema"] if self.schema else []
        if self.checks is not None:
            for each in self.checks.conditions:
                lines += [f"argument {test}" for test in each.body]
                lines += replace(each, body=()).describe()
            lines += self.checks.limits.describe() if self.checks.limits else []
            lines += [each.describe() for each in self.checks.approvals]
        return lines


@dataclass(frozen=True, slots=True)
class ToolServer:
    """The binding of one server; see ``FIELDS``."""

    name: str
    transport: str
    command: str = ""
    args: tuple[str, ...] = ()
    url: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    oauth: str = ""
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()
    allow_addresses: tuple[str, ...] = ()
    asks: tuple[str, ...] = ()
    agent: str = ""
    sandbox: str = "auto"
    memory: int = _MEMORY
    timeout: int = _TIMEOUT

    @classmethod
    def from_data(cls, name: str, data: Mapping[str, Any]) -> ToolServer:
        """Read what was sent or stored. Raises ``InvalidRequest``."""
        for unknown in data.keys() - FIELDS.keys() - {"name"}:
            raise InvalidRequest(f"unknown field {unknown[:40]!r}", f"known: {', '.join(FIELDS)}")
        made = cls(
            parse_server_name(name),
            str(data.get("transport") or ("http" if data.get("url") else "stdio")),
            command=parse_text(data.get("command") or "", "command"),
            args=tuple(_texts(data.get("args"), "args")),
            url=parse_text(data.get("url") or "", "url"),
            env=_named(data.get("env"), "env", _VARIABLE),
            settings=_named(data.get("settings"), "settings", _VARIABLE),
            headers=_named(data.get("headers"), "headers", _HEADER),
            oauth=parse_text(data.get("oauth") or "", "oauth"),
            allow=tuple(parse_texts(data.get("allow") or [], "allow")),
            deny=tuple(parse_texts(data.get("deny") or [], "deny")),
            rules=_rules(data.get("rules") or {}),
            allow_addresses=tuple(parse_texts(data.get("allow_addresses") or [], "allow_addresses")),
            asks=tuple(parse_texts(data.get("asks") or [], "asks")),
            agent=parse_name(str(data["agent"])) if data.get("agent") else "",
            sandbox=str(data.get("sandbox") or "auto"),
            memory=parse_memory(data.get("memory") or _MEMORY),
            timeout=parse_duration(data.get("timeout") or _TIMEOUT, name="timeout"),
        )
        made._require_whole()
        return made

    def _require_whole(self) -> None:
        if self.transport not in TRANSPORTS:
            raise InvalidRequest("transport is stdio or http", "name a command, or a url")
        stdio = self.transport == "stdio"
        if stdio != bool(self.command) or stdio == bool(self.url):
            raise InvalidRequest("a server has a command, or with transport http a url", "name one of them")
        if stdio and (self.headers or self.allow_addresses):
            raise InvalidRequest("headers and addresses are for servers with a url", "use env for a command")
        if not stdio and (self.env or self.settings or self.args or self.agent):
            raise InvalidRequest(
                "env, settings, args and agent are for servers with a command", "use headers for a url"
            )
        if self.sandbox not in SANDBOXES:
            raise InvalidRequest("sandbox is none of its words", f"one of {', '.join(SANDBOXES)}")
        if not stdio and parse_url(self.url)[0] not in {"http", "https"}:
            raise InvalidRequest("the url is not one of https or http", "write https://HOST/mcp")
        if self.oauth and (stdio or not self.oauth.startswith("/") or "#" in self.oauth):
            raise InvalidRequest("oauth is the path of a connection, for a server with a url", "such as /oauth/notes")
        if self.oauth and any(name.lower() == "authorization" for name in self.headers):
            raise InvalidRequest("a server with oauth has no header Authorization besides", "keep one of them")
        if set(self.asks) - set(ASKS):
            raise InvalidRequest("a server may ask for sampling and elicitation", "name these, or none")
        for both in self.env.keys() & self.settings.keys():
            raise InvalidRequest(f"{both} is a secret and a setting", "keep one of them")
        for name in self.headers:
            if name.lower() in _TAKEN:
                raise InvalidRequest(f"the header {name} is set by the transport", "leave it out")
        self.secret_refs()

    def as_data(self) -> dict[str, Any]:
        """JSON-ready; no value is in it."""
        return {
            "transport": self.transport,
            "command": self.command,
            "args": list(self.args),
            "url": self.url,
            "env": dict(self.env),
            "settings": dict(self.settings),
            "headers": dict(self.headers),
            "oauth": self.oauth,
            "allow": list(self.allow),
            "deny": list(self.deny),
            "rules": {rule.tools: rule.as_data() for rule in self.rules},
            "allow_addresses": list(self.allow_addresses),
            "asks": list(self.asks),
            "agent": self.agent,
            "sandbox": self.sandbox,
            "memory": self.memory,
            "timeout": self.timeout,
        }

    def secret_refs(self) -> list[tuple[str, str]]:
        """``(path, field)`` of every secret that it gets. Raises ``InvalidRequest`` for one that is none."""
        refs = [*self.env.values(), *(split_template(text)[1] for text in self.headers.values())]
        found = [parse_secret_ref(ref) for ref in refs]
        for path, _ in found:
            if path.startswith("/"):
                raise InvalidRequest("a server is given secrets of secret/", "name it like github/token#value")
        if self.oauth:
            found.append(parse_secret_ref(self.oauth))
        return list(dict.fromkeys(found))

    def beyond(self, limits: Limits) -> str:
        """The server's host, where one of these lists of hosts does not have it; else empty."""
        there = parse_url(self.url)[1] if self.url else None
        for limit in limits:
            if there is None or not any(HostPattern.parse(text, 443).matches(there) for text in limit):
                return str(there or "a program")
        return ""

    def same_program(self, other: ToolServer) -> bool:
        """Whether what was approved of one is approved of the other: it is the same program or endpoint."""
        mine, theirs = ((each.transport, each.command, each.args, each.url) for each in (self, other))
        return mine == theirs

    def offers(self, tool: str) -> bool:
        """Whether a tool is allowed and not denied."""
        return any_glob(self.allow or ("*",), tool) and not any_glob(self.deny, tool)

    def rules_of(self, tool: str) -> list[Rule]:
        """The rules for the arguments of a tool."""
        return [rule for rule in self.rules if fnmatchcase(tool, rule.tools)]


def parse_memory(value: object) -> int:
    """Bytes from a number or a text such as ``512MiB``. Raises ``InvalidRequest``."""
    match = _SIZE.match(str(value)) if not isinstance(value, bool) else None
    found = int(match[1]) * _UNITS[match[2]] if match else 0
    if not _LEAST_MEMORY <= found <= _MOST_MEMORY:
        raise InvalidRequest("memory is from 16MiB to 1024GiB", "write it like 512MiB")
    return found


def parse_server_name(text: str) -> str:
    """1 to 32 of ``a-z0-9-``, a letter or digit at both ends. Raises ``InvalidRequest``."""
    if not _SERVER.match(text) or text in _RESERVED:
        raise InvalidRequest(
            "the name of a server is 1 to 32 lower-case letters, digits and '-', and neither 'servers' nor 'own'",
            "choose another, such as github",
        )
    return text


def is_tool_name(text: str) -> bool:
    """Whether a tool may have this name: ASCII letters, digits, ``_``, ``.`` and ``-``, all of which can be seen."""
    return bool(_TOOL.match(text)) and ".." not in text


def tool_path(server: str, tool: str) -> str:
    """The path on which ``use`` of a tool is granted."""
    return f"tools/{server}/{tool}"


def shown_name(server: str, tool: str) -> str:
    """The name of a tool to clients."""
    return f"{server}{SEPARATOR}{tool}"


def split_shown(name: str) -> tuple[str, str]:
    """Server and tool of a name as clients say it; both empty for a name that no tool can have."""
    server, mark, tool = name.partition(SEPARATOR)
    return (server, tool) if mark and _SERVER.match(server) and is_tool_name(tool) else ("", "")


def digest_of(tool: Mapping[str, Any]) -> str:
    """What a tool is known by: SHA-256 of its name, title, description, schemas and annotations, as 64 hex digits."""
    names = ("name", "title", "description", "inputSchema", "outputSchema", "annotations")
    shown = {name: tool[name] for name in names if tool.get(name) is not None}
    text = json.dumps(shown, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def is_digest(text: object) -> bool:
    """Whether it is one of ``digest_of``."""
    return isinstance(text, str) and bool(_DIGEST.match(text))


def look_alikes(names: Iterable[str]) -> frozenset[str]:
    """Those of several tool names that differ by case, dots, dashes and such signs as ``1`` and ``l`` only."""
    seen: dict[str, list[str]] = {}
    for name in names:
        seen.setdefault(re.sub(r"[_.-]+", "", name.casefold()).translate(_ALIKE), []).append(name)
    return frozenset(name for same in seen.values() if len(same) > 1 for name in same)


def any_glob(globs: Iterable[str], name: str) -> bool:
    """Whether one of them fits; ``*`` stands for anything."""
    return any(fnmatchcase(name, glob) for glob in globs)


def split_template(text: str) -> tuple[str, str, str]:
    """What stands before a reference, the reference, and what stands after it: ``Bearer {github/token}``."""
    before, brace, rest = text.partition("{")
    if not brace:
        return "", text, ""
    ref, closing, after = rest.partition("}")
    if not closing or "{" in after or not f"{before}{after}".isprintable():
        raise InvalidRequest("a header has one reference in braces", "write: Bearer {github/token}")
    return before, ref, after


def _texts(value: Any, name: str) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(each, str) and "\0" not in each for each in value):
        raise InvalidRequest(f"{name} is a list of texts", "send a JSON array")
    return value


def _named(value: Any, name: str, form: re.Pattern[str]) -> dict[str, str]:
    found = parse_map(value or {}, name)
    for each in found:
        if not form.match(each):
            raise InvalidRequest(f"a name in {name} has a character that it cannot have", "use letters and digits")
    return found


def _rules(value: Any) -> tuple[Rule, ...]:
    if not isinstance(value, dict) or len(json.dumps(value)) > _MOST_TEXT:
        raise InvalidRequest("rules are an object of tools, of at most 64 KiB", "leave them out, or shorten them")
    return tuple(Rule.from_data(str(tools), rule) for tools, rule in value.items())
