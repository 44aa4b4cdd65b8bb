"""Entities, groups and aliases as answers have them, in Vault's field names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from keyhole.core.times import format_time
from keyhole.vault.identity.known import Groups
from keyhole.vault.identity.places import Place
from keyhole.vault.identity.records import Alias, Entity, Group

Places = Mapping[str, Place]


def entity(found: Entity, groups: Groups, places: Places, namespace: str) -> dict[str, Any]:
    """An entity with its aliases and the groups that it is in."""
    direct = groups.direct(found)
    everywhere = groups.above(direct)
    return {
        "aliases": [entity_alias(alias, found.id, places) for alias in found.aliases],
        "creation_time": format_time(found.created),
        "direct_group_ids": list(direct),
        "disabled": found.disabled,
        "group_ids": sorted(everywhere),
        "id": found.id,
        "inherited_group_ids": sorted(everywhere - set(direct)),
        "last_update_time": format_time(found.updated),
        "merged_entity_ids": list(found.merged) or None,
        "metadata": dict(found.metadata) or None,
        "name": found.name,
        "namespace_id": namespace,
        "policies": list(found.policies),
    }


def entity_line(found: Entity, places: Places) -> dict[str, Any]:
    """What a listing says of an entity."""
    line: dict[str, Any] = {"name": found.name}
    if found.aliases:
        line["aliases"] = [{"id": alias.id, "name": alias.name, **_mount(alias, places)} for alias in found.aliases]
    return line


def entity_alias(alias: Alias, canonical_id: str, places: Places) -> dict[str, Any]:
    """An alias of an entity."""
    return {
        "canonical_id": canonical_id,
        "creation_time": format_time(alias.created),
        "custom_metadata": dict(alias.custom_metadata),
        "id": alias.id,
        "last_update_time": format_time(alias.updated),
        "local": False,
        "merged_from_canonical_ids": list(alias.merged_from) or None,
        "metadata": dict(alias.metadata) or None,
        "name": alias.name,
        **_mount(alias, places),
    }


def alias_line(alias: Alias, canonical_id: str, places: Places) -> dict[str, Any]:
    """What a listing says of an alias."""
    return {
        "canonical_id": canonical_id,
        "custom_metadata": dict(alias.custom_metadata),
        "local": False,
        "metadata": dict(alias.metadata) or None,
        "name": alias.name,
        **_mount(alias, places),
    }


def group(found: Group, groups: Groups, members: Sequence[str], places: Places, namespace: str) -> dict[str, Any]:
    """A group with who is in it."""
    return {
        "alias": group_alias(found.alias, found.id, places) if found.alias else {},
        "creation_time": format_time(found.created),
        "id": found.id,
        "last_update_time": format_time(found.updated),
        "member_entity_ids": list(members) or None,
        "member_group_ids": list(found.groups) or None,
        "metadata": dict(found.metadata) or None,
        "modify_index": found.changes,
        "name": found.name,
        "namespace_id": namespace,
        "parent_group_ids": sorted(groups.parents.get(found.id, ())) or None,
        "policies": list(found.policies),
        "type": found.type,
    }


def group_line(found: Group, groups: Groups, members: int, places: Places) -> dict[str, Any]:
    """What a listing says of a group."""
    line: dict[str, Any] = {
        "name": found.name,
        "num_member_entities": members,
        "num_parent_groups": len(groups.parents.get(found.id, ())),
    }
    if found.alias:
        line["alias"] = {"id": found.alias.id, "name": found.alias.name, **_mount(found.alias, places)}
    return line


def group_alias(alias: Alias, canonical_id: str, places: Places) -> dict[str, Any]:
    """The alias of a group."""
    shown = entity_alias(alias, canonical_id, places)
    return {name: value for name, value in shown.items() if name not in ("custom_metadata", "local")}


def _mount(alias: Alias, places: Places) -> dict[str, str]:
    """Where the mount of an alias is now; where it was, once it is gone."""
    place = places.get(alias.accessor) or Place(alias.accessor, alias.mount_path, alias.mount_type)
    return {"mount_accessor": alias.accessor, "mount_path": place.path, "mount_type": place.type}
