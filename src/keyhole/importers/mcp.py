"""Configurations of MCP servers: Claude Desktop and Code, Cursor, Windsurf (``mcpServers``) and VS Code (``servers``).

Taken are variables, headers and arguments that look like keys. ``${…}`` is filled in by the client and skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from keyhole.core.errors import InvalidRequest
from keyhole.core.path import DEFAULT_FIELD
from keyhole.core.value import Secret
from keyhole.importers.collect import Collector, segment
from keyhole.importers.found import URL, Binding, Found, Origin, Report, Spot
from keyhole.importers.judge import judge
from keyhole.importers.text import scan
from keyhole.importers.tree import Node, Text, read

TITLE = "MCP configuration"
PLACES = (
    "./.mcp.json",
    "./.cursor/mcp.json",
    "./.vscode/mcp.json",
    "~/.claude.json",
    "~/.cursor/mcp.json",
    "~/.codeium/windsurf/mcp_config.json",
    "~/.config/Claude/claude_desktop_config.json",
    "~/Library/Application Support/Claude/claude_desktop_config.json",
    "$APPDATA/Claude/claude_desktop_config.json",
    "~/.config/Code/User/mcp.json",
    "~/Library/Application Support/Code/User/mcp.json",
    "$APPDATA/Code/User/mcp.json",
)

_SCHEME = re.compile(r"(?i)(bearer|token|basic)[ ]+(\S.*)", re.DOTALL)
_ADDRESS = re.compile(r"(?i)(https?)://(?:[^/?#\s]*@)?([^/?#\s]+)")
_QUERY = re.compile(r"[?&]([^=&#\s]+)=([^&#\s]+)")
_FLAG_VALUE = re.compile(r"(--?[A-Za-z][A-Za-z0-9_-]*|[A-Z][A-Z0-9_]*)=(.+)", re.DOTALL)
_FLAG = re.compile(r"--?[A-Za-z][A-Za-z0-9_-]*")
_HEADER_ARGUMENT = re.compile(r"([A-Za-z][A-Za-z0-9-]*):[ ]*(.+)", re.DOTALL)


def parse(content: bytes, origin: Origin) -> Report:
    """See the contract of the shelf."""
    found = Collector(origin)
    tree = read(scan(content))
    if not isinstance(tree, dict):
        raise InvalidRequest("it is no configuration of MCP servers: not an object", "name another file")
    for path, server in _servers(tree):
        _Server(path, server, found).take()
    inputs = tree.get("inputs")
    for each in inputs if isinstance(inputs, list) else ():
        name = each.get("id") if isinstance(each, dict) else None
        if isinstance(name, Text) and name.value:
            found.skip(name.value, "inputs", "is asked for by VS Code, and kept by it")
    return found.report()


def _servers(tree: dict[str, Node]) -> Iterator[tuple[str, dict[str, Node]]]:
    """Every server with its place: of the user, and of each project that Claude Code knows."""
    projects = tree.get("projects")
    groups: list[tuple[str, Node]] = [(key, tree.get(key)) for key in ("mcpServers", "servers")]
    groups += [
        (f"{path}: mcpServers", project.get("mcpServers"))
        for path, project in (projects.items() if isinstance(projects, dict) else ())
        if isinstance(project, dict)
    ]
    for where, group in groups:
        for name, server in group.items() if isinstance(group, dict) else ():
            if isinstance(server, dict):
                yield f"{where}.{name}", server


class _Server:
    """One server: what it is given."""

    def __init__(self, path: str, data: dict[str, Node], found: Collector) -> None:
        self.path = "".join(char if char.isprintable() else "?" for char in path)
        self.group = segment(path.rpartition(".")[2])
        self.data = data
        self.found = found
        url = data.get("url")
        address = _ADDRESS.match(url.value) if isinstance(url, Text) and url.value else None
        self.scheme, self.host = (address[1].lower(), address[2].lower()) if address else ("https", "")

    def take(self) -> None:
        """Look at all of it."""
        for name, text in self._texts("env"):
            self._value(name, text, 0, f"{self.path}.env", name)
        for name, text in self._texts("headers"):
            self._header(name, text, 0, f"{self.path}.headers")
        arguments = self.data.get("args")
        if isinstance(arguments, list):
            self._arguments(arguments)
        url = self.data.get("url")
        if isinstance(url, Text) and url.value:
            self._query(url, url.value)

    def _texts(self, key: str) -> Iterator[tuple[str, Text]]:
        node = self.data.get(key)
        for name, text in node.items() if isinstance(node, dict) else ():
            if isinstance(text, Text):
                yield name, text

    def _value(
        self, name: str, text: Text, begin: int, where: str, variable: str = "", binding: Binding | None = None
    ) -> None:
        """The part of a string from ``begin`` on, called ``name``."""
        value = text.value[begin:] if text.value is not None else None
        if self.found.refused(name, value, where) or value is None:
            return
        seems = judge(name, value)
        self.found.add(
            Found(
                name=f"{self.group}/{segment(name)}",
                fields={DEFAULT_FIELD: Secret(value)},
                where=f"{where}.{name}" if variable else where,
                kind=seems.kind,
                variable=variable,
                binding=binding,
                spots=(Spot(*text.span(begin, begin + len(value))),),
                doubt=seems.doubt,
                stays=seems.stays,
            )
        )

    def _header(self, name: str, text: Text, begin: int, where: str) -> None:
        value = (text.value or "")[begin:]
        scheme = _SCHEME.fullmatch(value)
        where = f"{where}.{name}"
        if scheme and scheme[1].lower() == "basic":
            self.found.skip(
                name, where, "is a name and a password in base64; store them with keyhole set NAME --json-in"
            )
            return
        binding = None
        if self.host:
            prefix = scheme[1] + " " if scheme else ""
            bearer = name.lower() == "authorization" and prefix.lower() == "bearer "
            inject = {"kind": "bearer"} if bearer else {"kind": "header", "name": name, "template": prefix + "{}"}
            binding = Binding(self.host, inject, self.scheme)
        shift = scheme.start(2) if scheme else 0
        called = "authorization" if scheme else name
        self._value(called, text, begin + shift, where, binding=binding)

    def _arguments(self, arguments: list[Node]) -> None:
        before = ""
        for index, argument in enumerate(arguments):
            if not isinstance(argument, Text) or argument.value is None:
                before = ""
                continue
            where = f"{self.path}.args[{index}]"
            pair = _FLAG_VALUE.fullmatch(argument.value)
            header = _HEADER_ARGUMENT.fullmatch(argument.value)
            if pair and not judge(pair[1], pair[2]).doubt:
                self._value(pair[1].lstrip("-"), argument, pair.start(2), where)
            elif header and before in {"--header", "-H"}:
                self._header(header[1], argument, header.start(2), where)
            elif before and not _FLAG.fullmatch(argument.value) and not judge(before, argument.value).doubt:
                self._value(before.lstrip("-"), argument, 0, where)
            before = argument.value if _FLAG.fullmatch(argument.value) else ""

    def _query(self, text: Text, value: str) -> None:
        for part in _QUERY.finditer(value):
            if judge(part[1], part[2]).doubt or self.found.refused(part[1], part[2], f"{self.path}.url"):
                continue
            if "%" in part[2] or "+" in part[2]:
                self.found.skip(part[1], f"{self.path}.url", "is encoded in an address; store it with keyhole set")
                continue
            self.found.add(
                Found(
                    name=f"{self.group}/{segment(part[1])}",
                    fields={DEFAULT_FIELD: Secret(part[2])},
                    where=f"{self.path}.url",
                    binding=Binding(self.host, {"kind": "query", "name": part[1]}, self.scheme) if self.host else None,
                    spots=(Spot(*text.span(*part.span(2)), form=URL),),
                )
            )
