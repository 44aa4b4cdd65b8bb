"""Where clients of MCP keep which servers they start, and how a server of ours is put there and taken away again.

A configuration belongs to its client and to the person who wrote comments into it: it is changed at one place, as text,
and everything else of it stays byte for byte.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keyhole.core.errors import InvalidRequest

NAME, GATEWAY = "keyhole", "keyhole-gateway"  # of our two servers
_MOST = 8 * 1024 * 1024  # bytes
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|//[^\n]*|/\*.*?\*/|[{}\[\],:]|[^\s"{}\[\],:/]+|\s+', re.DOTALL)


@dataclass(frozen=True, slots=True)
class McpClient:
    """One client.

    Attributes:
        name: as it is named on the command line.
        title: as people know it.
        places: of its configuration, the first that is there; else the first whose folder is.
        key: of the object with the servers.
        form: ``json`` or ``toml``.
        extra: what an entry has besides command and arguments.
    """

    name: str
    title: str
    places: tuple[str, ...]
    key: str = "mcpServers"
    form: str = "json"
    extra: tuple[tuple[str, str], ...] = ()

    def path(self, home: Path, here: Path, environ: Mapping[str, str], *, named: bool) -> Path | None:
        """Its configuration; ``None`` where the client does not seem to be here.

        Args:
            home: of the user.
            here: the folder of the project.
            environ: of this process.
            named: the user says that it is here, so that its folder is enough, even the home.
        """
        found = [place for text in self.places if (place := _expanded(text, home, here, environ)) is not None]
        there = next((place for place in found if place.is_file()), None)
        return there or next((p for p in found if p.parent.is_dir() and (named or p.parent != home)), None)


CLIENTS = (
    McpClient(
        "claude-desktop",
        "Claude Desktop",
        (
            "~/.config/Claude/claude_desktop_config.json",
            "~/Library/Application Support/Claude/claude_desktop_config.json",
            "$APPDATA/Claude/claude_desktop_config.json",
        ),
    ),
    McpClient("claude-code", "Claude Code", ("~/.claude.json",)),
    McpClient("cursor", "Cursor", ("~/.cursor/mcp.json",)),
    McpClient(
        "vscode",
        "VS Code",
        (
            "~/.config/Code/User/mcp.json",
            "~/Library/Application Support/Code/User/mcp.json",
            "$APPDATA/Code/User/mcp.json",
        ),
        key="servers",
        extra=(("type", "stdio"),),
    ),
    McpClient("windsurf", "Windsurf", ("~/.codeium/windsurf/mcp_config.json",)),
    McpClient("gemini", "Gemini CLI", ("~/.gemini/settings.json",)),
    McpClient("codex", "Codex", ("~/.codex/config.toml",), key="mcp_servers", form="toml"),
    McpClient("project", "the project here: Claude Code and others", ("./.mcp.json",)),
)


def _expanded(text: str, home: Path, here: Path, environ: Mapping[str, str]) -> Path | None:
    if text.startswith("$APPDATA/"):
        base = environ.get("APPDATA")
        return Path(base) / text.removeprefix("$APPDATA/") if base else None
    return home / text[2:] if text.startswith("~/") else here / text.removeprefix("./")


def read(path: Path) -> str:
    """The text of a configuration; empty where it is not there. Raises ``InvalidRequest``."""
    try:
        if path.stat().st_size > _MOST:
            raise InvalidRequest(f"{path} is too large for a configuration")
        return path.read_bytes().decode()  # line ends stay what they are
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{path} cannot be read: {getattr(error, 'strerror', 'it is not UTF-8')}") from None


def write(path: Path, text: str) -> None:
    """Put a configuration in the place of the one that is there, whole or not at all, with the same rights."""
    try:
        target = path.resolve()
        before = target.stat() if target.exists() else None
        fresh = target.with_name(f".{target.name}.keyhole-{os.getpid()}")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except (OSError, RuntimeError) as error:  # a circle of links is the latter in older versions of Python
        raise _unwritable(path, error) from None
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            if before is not None:
                with suppress(PermissionError):  # of another user, whose client is to read it still
                    os.fchown(descriptor, before.st_uid, before.st_gid)
                os.fchmod(descriptor, before.st_mode & 0o777)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        fresh.replace(target)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise _unwritable(path, error) from None


def _unwritable(path: Path, error: Exception) -> InvalidRequest:
    reason = getattr(error, "strerror", None) or "its links lead in a circle"
    return InvalidRequest(f"{path} cannot be written: {reason}", "write what keyhole mcp install --print shows")


def with_server(client: McpClient, text: str, entry: Mapping[str, Any], name: str = NAME) -> str:
    """A configuration with a server of ours in it, in the place of one of its name.

    Raises:
        InvalidRequest: it is not the configuration of this client.
    """
    text = without_server(client, text, name)
    if client.form == "toml":
        return _toml_with(client, text, entry, name)
    value = {**dict(client.extra), **entry}
    if not text.strip():
        return json.dumps({client.key: {name: value}}, indent=2) + "\n"
    servers = _find(text, (client.key,))
    member = f"{json.dumps(name)}: {json.dumps(value)}"
    if servers is None:
        whole = _find(text, ())
        if whole is None or any(member.path == (client.key,) for member in _members(text)[0]):
            raise _unreadable(client)
        return _inserted(text, whole, f"{json.dumps(client.key)}: {{{member}}}")
    return _inserted(text, servers, member)


def without_server(client: McpClient, text: str, name: str = NAME) -> str:
    """A configuration without a server of ours. Raises ``InvalidRequest`` when it cannot be read."""
    if client.form == "toml":
        _checked_toml(client, text)
        block = re.compile(rf"(?m)^\[{client.key}\.{name}(?:\.[^\]\n]*)?\][^\n]*\n(?:(?!\[)[^\n]*(?:\n|\Z))*")
        return block.sub("", text)
    if not text.strip():
        return text
    if _find(text, ()) is None:
        raise _unreadable(client)
    return _cut(text, (client.key, name))


def has_server(client: McpClient, text: str, name: str = NAME) -> bool:
    """Whether a server of ours is in a configuration. Raises ``InvalidRequest`` when it cannot be read."""
    return without_server(client, text, name) != text


def _toml_with(client: McpClient, text: str, entry: Mapping[str, Any], server: str) -> str:
    lines = [f"[{client.key}.{server}]"]
    lines += [f"{name} = {json.dumps(value)}" for name, value in entry.items() if not isinstance(value, dict)]
    for table, values in entry.items():
        if isinstance(values, dict):
            lines += [
                f"[{client.key}.{server}.{table}]",
                *(f"{name} = {json.dumps(each)}" for name, each in values.items()),
            ]
    gap = "" if not text or text.endswith("\n\n") else "\n" if text.endswith("\n") else "\n\n"
    made = text + gap + "\n".join(lines) + "\n"
    _checked_toml(client, made)
    return made


def _checked_toml(client: McpClient, text: str) -> None:
    try:
        tomllib.loads(text)
    except (ValueError, RecursionError):
        raise _unreadable(client) from None


def _unreadable(client: McpClient) -> InvalidRequest:
    return InvalidRequest(
        f"the configuration of {client.title} cannot be read",
        "mend it, or write what keyhole mcp install --print shows",
    )


@dataclass(frozen=True, slots=True)
class _Object:
    """An object in the text: behind its opening brace, before its closing one, and whether it has members."""

    start: int
    end: int
    empty: bool


@dataclass(frozen=True, slots=True)
class _Member:
    path: tuple[str, ...]
    start: int
    value: int
    end: int


def _tokens(text: str) -> Iterator[tuple[int, str]]:
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise InvalidRequest("not JSON")
        if not match[0].isspace() and not match[0].startswith(("//", "/*")):
            yield at, match[0]
        at = match.end()


def _members(text: str) -> tuple[list[_Member], dict[tuple[str, ...], _Object]]:
    """Members of all objects, and the objects by their path. Raises ``InvalidRequest`` and ``IndexError``."""
    tokens = [*_tokens(text), (len(text), "")]
    members: list[_Member] = []
    objects: dict[tuple[str, ...], _Object] = {}
    at = 0

    def value(path: tuple[str, ...] | None, depth: int) -> int:
        """Read a value; where it ends."""
        nonlocal at
        place, found = tokens[at]
        at += 1
        if depth > 64 or found in {"", "}", "]", ",", ":"}:
            raise InvalidRequest("not JSON")
        if found not in {"{", "["}:
            return place + len(found)
        closing, count = ("}" if found == "{" else "]"), 0
        while tokens[at][1] != closing:
            start = tokens[at][0]
            if found == "{":
                name = json.loads(tokens[at][1])
                if not isinstance(name, str) or tokens[at + 1][1] != ":":
                    raise InvalidRequest("not JSON")
                at += 2
                below = (*path, name) if path is not None else None
                begun = tokens[at][0]
                end = value(below, depth + 1)
                if below is not None:
                    members.append(_Member(below, start, begun, end))
            else:
                value(None, depth + 1)
            count += 1
            if tokens[at][1] == ",":
                at += 1
            elif tokens[at][1] != closing:
                raise InvalidRequest("not JSON")
        end = tokens[at][0]
        at += 1
        if found == "{" and path is not None:
            objects[path] = _Object(place + 1, end, not count)
        return end + 1

    value((), 0)
    if tokens[at][1]:
        raise InvalidRequest("not JSON")
    return members, objects


def _find(text: str, path: tuple[str, ...]) -> _Object | None:
    try:
        return _members(text)[1].get(path)
    except (InvalidRequest, ValueError, IndexError):
        return None


def _inserted(text: str, there: _Object, member: str) -> str:
    """With a member more, in front of the others, indented as they are."""
    rest = text[there.start : there.end]
    gap = re.match(r"\s*", rest)
    indent = gap[0] if gap is not None and "\n" in gap[0] and not there.empty else " "
    rest = f",{rest}" if not there.empty else rest if rest.strip() else " "
    return f"{text[: there.start]}{indent}{member}{rest}{text[there.end :]}"


def _cut(text: str, path: tuple[str, ...]) -> str:
    """Without a member, its comma, and the space in front of it."""
    member = next((each for each in _members(text)[0] if each.path == path), None)
    if member is None:
        return text
    before = text[: member.start].rstrip()
    after = text[member.end :]
    comma = re.match(r"\s*,", after)
    if comma is not None:
        return before + after[comma.end() :]
    return before.removesuffix(",") + after
