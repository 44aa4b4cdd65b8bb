"""Entities, aliases and groups as they are stored. Ids are random UUIDs, and none is ever given twice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any
from urllib.parse import quote

_KINDS = {"entity": "e", "group": "g"}
INTERNAL, EXTERNAL = "internal", "external"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """The name of an entity, or of a group, at one login mount.

    Attributes:
        id: its own.
        name: at the mount; case counts, since at the issuer of a login ``Ann`` and ``ann`` may be two people.
        accessor: of the mount.
        mount_path: of the mount when the alias was made; shown when the mount is gone.
        mount_type: of the mount, likewise.
        metadata: as of the latest login.
        custom_metadata: what people wrote.
        merged_from: entities that had it before they were merged into this one.
        created: seconds since the epoch.
        updated: seconds since the epoch.
    """

    id: str
    name: str
    accessor: str
    mount_path: str
    mount_type: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    custom_metadata: Mapping[str, str] = field(default_factory=dict)
    merged_from: tuple[str, ...] = ()
    created: float
    updated: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity:
    """Somebody or something that logs in.

    Attributes:
        id: its own.
        name: unique in the org; case does not count.
        metadata: free text fields.
        policies: names; they add to those of each of its tokens.
        disabled: its tokens and logins are refused.
        aliases: at most one for each mount.
        merged: ids of entities that were merged into it; their tokens are its own now.
        external: names of external groups that its latest login at a mount gave, by accessor.
        created: seconds since the epoch.
        updated: seconds since the epoch.
    """

    id: str
    name: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    policies: tuple[str, ...] = ()
    disabled: bool = False
    aliases: tuple[Alias, ...] = ()
    merged: tuple[str, ...] = ()
    external: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    created: float
    updated: float

    @property
    def path(self) -> str:
        """Where it is stored."""
        return f"e/{self.id}"

    def at(self, accessor: str) -> Alias | None:
        """Its alias at a mount."""
        return next((alias for alias in self.aliases if alias.accessor == accessor), None)

    def claims(self) -> list[tuple[str, str]]:
        """The external groups that it is in: accessor and name."""
        return [(accessor, name) for accessor, names in self.external.items() for name in names]

    def index(self) -> dict[str, str]:
        """Every other path by which it is found, with its id."""
        paths = [name_path("entity", self.name), *(f"m/{merged}" for merged in self.merged)]
        paths += [path for alias in self.aliases for path in alias_paths("entity", alias)]
        paths += [f"{claim_path(accessor, name)}/{self.id}" for accessor, name in self.claims()]
        return dict.fromkeys(paths, self.id)

    def encode(self) -> bytes:
        """As it is stored."""
        return json.dumps(_plain(self)).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A set of entities and groups whose policies its members have.

    Attributes:
        id: its own.
        name: unique among groups; case does not count.
        type: ``internal``: people say who is in it; ``external``: logins do, by its alias.
        metadata: free text fields.
        policies: names.
        members: ids of entities, of an internal group.
        groups: ids of groups, of an internal group.
        alias: of an external group.
        changes: how often it was written.
        created: seconds since the epoch.
        updated: seconds since the epoch.
    """

    id: str
    name: str
    type: str = INTERNAL
    metadata: Mapping[str, str] = field(default_factory=dict)
    policies: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    alias: Alias | None = None
    changes: int = 0
    created: float
    updated: float

    @property
    def path(self) -> str:
        """Where it is stored."""
        return f"g/{self.id}"

    def index(self) -> dict[str, str]:
        """Every other path by which it is found, with its id."""
        paths = [name_path("group", self.name)]
        paths += alias_paths("group", self.alias) if self.alias else []
        return dict.fromkeys(paths, self.id)

    def encode(self) -> bytes:
        """As it is stored."""
        return json.dumps(_plain(self)).encode()


def decode_entity(data: bytes) -> Entity:
    """An entity from what ``encode`` wrote."""
    fields = json.loads(data)
    for name in ("policies", "merged"):
        fields[name] = tuple(fields[name])
    fields["aliases"] = tuple(map(_alias, fields["aliases"]))
    fields["external"] = {accessor: tuple(ids) for accessor, ids in fields["external"].items()}
    return Entity(**fields)


def decode_group(data: bytes) -> Group:
    """A group from what ``encode`` wrote."""
    fields = json.loads(data)
    for name in ("policies", "members", "groups"):
        fields[name] = tuple(fields[name])
    fields["alias"] = _alias(fields["alias"]) if fields["alias"] else None
    return Group(**fields)


def name_path(kind: str, name: str) -> str:
    """Where the id of the entity or group of this name stands. Case does not count; the name can be long, so a hash."""
    return f"{_KINDS[kind]}n/{sha256(name.lower().encode()).hexdigest()}"


def factors_path(kind: str, accessor: str, name: str) -> str:
    """Where the id stands of who has an alias of this name at a mount."""
    digest = sha256(name.encode()).hexdigest()
    return f"{_KINDS[kind]}f/{quote(accessor, safe='')}/{digest}"


def alias_path(kind: str, alias_id: str) -> str:
    """Where the id stands of who has the alias of this id."""
    return f"{_KINDS[kind]}a/{quote(alias_id, safe='')}"


def claim_path(accessor: str, name: str) -> str:
    """Where the ids stand of entities whose login at a mount gave this group."""
    return f"x/{quote(accessor, safe='')}/{sha256(name.encode()).hexdigest()}"


def alias_paths(kind: str, alias: Alias) -> list[str]:
    """The paths by which an alias leads to who has it."""
    return [factors_path(kind, alias.accessor, alias.name), alias_path(kind, alias.id)]


def _alias(fields: dict[str, Any]) -> Alias:
    return Alias(**{**fields, "merged_from": tuple(fields["merged_from"])})


def _plain(record: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for name in record.__dataclass_fields__:
        value = getattr(record, name)
        if isinstance(value, Alias):
            value = _plain(value)
        elif name == "aliases":
            value = [_plain(each) for each in value]
        plain[name] = value
    return plain
