"""The three YAML documents of the agent-vault format: read strictly, and written so that all of its readers take them.

A writer keeps to the order of serde, and leaves instants unquoted: PyYAML then makes a time with its zone of them,
js-yaml a Date, serde a text. Keys that are not known here are kept out: the format's own tool drops them as well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import yaml

from keyhole.core.errors import IntegrityError, InvalidRequest
from keyhole.repo.names import parse_part, parse_secret
from keyhole.repo.unmerged import next_step

CONFIG = "version: 1\nencryption:\n  format: age\n"
MAX_DOCUMENT = 4 * 1024 * 1024  # bytes
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]*")
_NOT_TEXT = re.compile(
    r"[0-9._-]+|0[xob]?[0-9a-f_]*|[-+.0-9][0-9eE_.:+-]*|y|n|yes|no|on|off|true|false|null", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Manifest:
    """``manifest.yaml``: which agent is in which group, and which secret belongs to it.

    Attributes:
        owners: names.
        agents: name to groups.
        groups: name to secrets.
    """

    owners: tuple[str, ...] = ()
    agents: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def readers(self, secret: str) -> tuple[str, ...]:
        """The agents that are in a group to which the secret belongs."""
        holding = {name for name, secrets in self.groups.items() if secret in secrets}
        return tuple(name for name, groups in self.agents.items() if holding.intersection(groups))


@dataclass(frozen=True, slots=True)
class Meta:
    """``NAME.meta``: what is known of a secret without opening it.

    Attributes:
        name: ``group/name``.
        group: to which it belongs.
        created: when it was first stored.
        rotated: when its value was last changed.
        expires: when it is not to be used any more; ``None`` for never.
        agents: who can open it, for people; what counts is the manifest.
    """

    name: str
    group: str
    created: datetime
    rotated: datetime
    expires: datetime | None = None
    agents: tuple[str, ...] = ()


def write_manifest(manifest: Manifest) -> bytes:
    """The bytes of ``manifest.yaml``."""
    lines = ["version: 1"]
    lines += _section("owners", ([("name", name), ("public_key", "owner.pub")] for name in manifest.owners))
    lines += _section("agents", ([("name", name), ("groups", groups)] for name, groups in manifest.agents.items()))
    lines += _section("groups", ([("name", name), ("secrets", each)] for name, each in manifest.groups.items()))
    return ("\n".join(lines) + "\n").encode()


def read_manifest(data: bytes) -> Manifest:
    """The manifest of these bytes. Raises ``IntegrityError`` that says what is wrong with it."""
    document = _load(data, "manifest.yaml")
    try:
        agents = {parse_part(str(each["name"])): _texts(each.get("groups")) for each in document.get("agents") or ()}
        groups = {parse_part(str(each["name"])): _texts(each.get("secrets")) for each in document.get("groups") or ()}
        owners = tuple(parse_part(str(each["name"])) for each in document.get("owners") or ())
        named = {name: tuple(dict.fromkeys(map(parse_secret, secrets))) for name, secrets in groups.items()}
        return Manifest(owners, {name: tuple(map(parse_part, groups)) for name, groups in agents.items()}, named)
    except (TypeError, KeyError, AttributeError, InvalidRequest):
        raise _broken("manifest.yaml") from None


def write_meta(meta: Meta) -> bytes:
    """The bytes of ``NAME.meta``."""
    lines = [f"name: {_text(meta.name)}", f"group: {_text(meta.group)}"]
    lines += [f"created: {instant(meta.created)}", f"rotated: {instant(meta.rotated)}"]
    if meta.expires is not None:
        lines.append(f"expires: {instant(meta.expires)}")
    lines += _list("authorized_agents", meta.agents, "")
    return ("\n".join(lines) + "\n").encode()


def read_meta(data: bytes, where: str) -> Meta:
    """What a ``.meta`` says. Raises ``IntegrityError`` that names the file."""
    document = _load(data, where)
    try:
        expires = document.get("expires")
        return Meta(
            parse_secret(str(document["name"])),
            parse_part(str(document["group"]), "group"),
            _instant(document["created"]),
            _instant(document["rotated"]),
            None if expires is None else _instant(expires),
            _texts(document.get("authorized_agents")),
        )
    except (TypeError, KeyError, ValueError, OverflowError, InvalidRequest):
        raise _broken(where) from None


def check_config(data: bytes) -> None:
    """Raises ``IntegrityError`` for a ``config.yaml`` of a format that is not this one."""
    document = _load(data, "config.yaml")
    encryption = document.get("encryption")
    if document.get("version") != 1 or not isinstance(encryption, Mapping) or encryption.get("format") != "age":
        raise IntegrityError("config.yaml is not of version 1 with the encryption age", "use the tool that made it")


def instant(when: datetime) -> str:
    """RFC 3339 in UTC with microseconds, as every reader of the format takes it."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class _Strict(yaml.SafeLoader):
    """Plain data only: no key twice, no alias that makes a small file a large one."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("alias")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:  # noqa: FBT001, FBT002 - yaml's own signature
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if not all(isinstance(key, str) for key in keys) or len(set(keys)) != len(keys):
            raise yaml.YAMLError("keys")
        return super().construct_mapping(node, deep)


def _load(data: bytes, where: str) -> Mapping[str, Any]:
    if len(data) > MAX_DOCUMENT:
        raise IntegrityError(f"{where} is longer than {MAX_DOCUMENT} bytes", "restore it from its history")
    try:
        document = yaml.load(data.decode(), _Strict)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError, OverflowError, AttributeError, RecursionError):  # tags on what they are not of
        raise _broken(where, data) from None
    if not isinstance(document, Mapping):
        raise _broken(where)
    return document


def _broken(where: str, data: bytes = b"") -> IntegrityError:
    return IntegrityError(f"{where} is not what a vault of this format has there", next_step(data))


def _texts(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(each, str | int | float) for each in value):
        raise TypeError
    return tuple(map(str, value))


def _instant(value: Any) -> datetime:
    when = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return when.astimezone(UTC) if when.tzinfo is not None else when.replace(tzinfo=UTC)


def _text(text: str) -> str:
    """A scalar that every YAML reader takes for this text."""
    return text if _PLAIN.fullmatch(text) and not _NOT_TEXT.fullmatch(text) else json.dumps(text)


def _section(name: str, items: Iterable[list[tuple[str, Any]]]) -> list[str]:
    lines = []
    for item in items:
        for number, (key, value) in enumerate(item):
            start = "- " if number == 0 else "  "
            if isinstance(value, str):
                lines.append(f"{start}{key}: {_text(value)}")
            else:
                lines += _list(f"{start}{key}", value, "  ")
    return [f"{name}:", *lines] if lines else [f"{name}: []"]


def _list(key: str, values: Iterable[str], indent: str) -> list[str]:
    lines = [f"{indent}- {_text(value)}" for value in values]
    return [f"{key}:", *lines] if lines else [f"{key}: []"]
