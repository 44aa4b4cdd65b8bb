"""Fields of requests about identities: read, bounded, and in one form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from keyhole.core.codepoints import is_invisible
from keyhole.core.errors import InvalidRequest, PolicyDenied
from keyhole.core.path import parse_policy_name
from keyhole.core.policy import DEFAULT, ROOT
from keyhole.engines import Call, Context

LONGEST_NAME = 255
LONGEST_ALIAS = 1024
MOST_IDS = 10_000
_LONGEST_ID = 64
_MOST_POLICIES = 256
_MOST_PAIRS, _LONGEST_KEY, _LONGEST_VALUE = 64, 128, 512  # Vault's bounds on the metadata of an entity


def text(data: Mapping[str, Any], name: str, longest: int = LONGEST_NAME) -> str:
    """Text without characters that cannot be seen; empty when it is not there. Raises ``InvalidRequest``."""
    value = data.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > longest or any(map(is_invisible, value)):
        raise InvalidRequest(f"{name} is text of at most {longest} characters that can be seen")
    return value


def own_id(call: Call) -> str:
    """The id of what is written. A path that names it by name is what was allowed, and no id leads elsewhere from it.

    Raises:
        InvalidRequest: there is one besides the name in the path.
    """
    if "name" in call.params and call.data.get("id"):
        raise InvalidRequest("the path names it already, and the id could be of another", "leave the id out")
    return text({**call.data, **call.params}, "id")


def metadata(data: Mapping[str, Any], name: str = "metadata") -> dict[str, str] | None:
    """A map of texts, also from a list of ``key=value``; ``None`` when it is not there. Raises ``InvalidRequest``."""
    value = data.get(name)
    if value is None:
        return None
    if isinstance(value, list) and all(isinstance(pair, str) and "=" in pair for pair in value):
        value = dict(pair.split("=", 1) for pair in value)
    if not isinstance(value, dict):
        raise InvalidRequest(f"failed to parse {name}: it is a map of texts", f'write "{name}": {{"team": "red"}}')
    pairs = {key: _as_text(each, name) for key, each in value.items()}
    if len(pairs) > _MOST_PAIRS:
        raise InvalidRequest(f"{name} has at most {_MOST_PAIRS} pairs")
    if any(not key or len(key) > _LONGEST_KEY or len(each) > _LONGEST_VALUE for key, each in pairs.items()):
        raise InvalidRequest(f"a key of {name} has 1 to {_LONGEST_KEY} characters, a value at most {_LONGEST_VALUE}")
    return pairs


def policies(data: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Names of policies, sorted; ``None`` when they are not there. Raises ``InvalidRequest``, also for ``root``."""
    given = listed(data, "policies", most=_MOST_POLICIES)
    names = None if given is None else tuple(sorted({parse_policy_name(name) for name in given}))
    if names is not None and ROOT in names:
        raise InvalidRequest("policies cannot contain root", "write a policy that says what is allowed")
    return names


def listed(data: Mapping[str, Any], name: str, most: int = MOST_IDS) -> tuple[str, ...] | None:
    """A list of texts, also with commas in one text; ``None`` when it is not there. Raises ``InvalidRequest``."""
    value = data.get(name)
    if value is None:
        return None
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list) or len(parts) > most or not all(isinstance(part, str) for part in parts):
        raise InvalidRequest(f"{name} is a list of at most {most} texts", f'write "{name}": ["…"]')
    return tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))


def ids(data: Mapping[str, Any], name: str, most: int = MOST_IDS) -> tuple[str, ...] | None:
    """As ``listed``, of ids."""
    found = listed(data, name, most)
    if found is not None and any(len(each) > _LONGEST_ID for each in found):
        raise InvalidRequest(f"{name} has something that is no id")
    return found


def require_grantable(context: Context, call: Call, gained: Iterable[str]) -> None:
    """Whoever gives policies away through identities must have them, or ``sudo`` on the path that is written.

    Raises:
        PolicyDenied: there is one that the caller has not.
    """
    caller = context.caller
    missing = {*gained} - {DEFAULT, *caller.policies, *caller.identity_policies}
    if missing and not caller.allows("update", call.path, sudo=True):
        raise PolicyDenied(
            f"only policies that you have yourself can be given without sudo: {', '.join(sorted(missing))}",
            f"ask somebody with sudo on {call.path}",
        )


def _as_text(value: Any, name: str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    raise InvalidRequest(f"failed to parse {name}: its values are texts")
