"""Templates in the paths of policies, such as ``{{identity.entity.id}}``, filled in for the entity that asks. Pure.

Source of the names: "Templated policies" in ``developer.hashicorp.com/vault/docs/concepts/policies``.

What is filled in comes from people and from foreign directories, so it can be no more than text within one segment: a
value with ``/``, ``*``, ``+`` or a character that cannot be seen would make another rule of the one that was written,
and drops it. A value that is not there drops it too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from keyhole.core.codepoints import is_invisible
from keyhole.core.errors import InvalidRequest

if TYPE_CHECKING:
    from keyhole.core.identity import IdentityView

_TEMPLATE = re.compile(r"\{\{([^{}]*)\}\}")
_SELECTOR = re.compile(
    r"identity\.(?:entity\.(?:id|name|metadata\..+|aliases\.[^.]+\.(?:id|name|(?:custom_)?metadata\..+))"
    r"|groups\.(?:ids|names)\.[^.]+\.(?:id|name|metadata\..+))",
    re.DOTALL,
)
_MEANS_MORE = frozenset("/*+")


def without_templates(path: str) -> str:
    """The path with one letter in the place of each template, to be checked like any other.

    Raises:
        InvalidRequest: the braces do not pair, or what stands in them is no name that could be filled in.
    """
    for selector in _TEMPLATE.findall(path):
        if not _SELECTOR.fullmatch(selector.strip()):
            raise InvalidRequest(
                f'path "{path}": unknown template "{selector.strip()}"', "write for example {{identity.entity.id}}"
            )
    plain = _TEMPLATE.sub("x", path)
    if "{{" in plain or "}}" in plain or (plain != path and not {"{", "}"}.isdisjoint(plain)):
        raise InvalidRequest(f'path "{path}": unbalanced templating characters', "write {{ and }} around each name")
    return plain


def fill(path: str, view: IdentityView) -> str | None:
    """The path for one entity; ``None`` when something is not there, or is more than plain text of one segment."""
    parts, position = [], 0
    for match in _TEMPLATE.finditer(path):
        value = _value(match[1].strip(), view)
        if not value or not _MEANS_MORE.isdisjoint(value) or any(map(is_invisible, value)):
            return None
        parts += [path[position : match.start()], value]
        position = match.end()
    return "".join((*parts, path[position:]))


def _value(selector: str, view: IdentityView) -> str:
    if not view.id:
        return ""
    _, kind, rest = selector.split(".", 2)
    if kind == "entity":
        if not rest.startswith("aliases."):
            return _of(rest, {"id": view.id, "name": view.name}, view.metadata)
        _, accessor, rest = rest.split(".", 2)
        alias = view.aliases.get(accessor)
        if alias is None:
            return ""
        if rest.startswith("custom_metadata."):
            return alias.custom_metadata.get(rest.partition(".")[2], "")
        return _of(rest, {"id": alias.id, "name": alias.name}, alias.metadata)
    by, named, rest = rest.split(".", 2)
    for group in view.groups:
        if named == (group.id if by == "ids" else group.name):
            return _of(rest, {"id": group.id, "name": group.name}, group.metadata)
    return ""


def _of(selector: str, fields: Mapping[str, str], metadata: Mapping[str, str]) -> str:
    if selector.startswith("metadata."):
        return metadata.get(selector.partition(".")[2], "")
    return fields.get(selector, "")
