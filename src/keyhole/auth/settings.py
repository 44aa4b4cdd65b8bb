"""Settings of roles and users as tables; those of the tokens that logins give (``token_*``) are common to all methods.

Source of the fields: Vault's API documentation of its login methods ("Tokens", ``token_ttl`` to ``token_type``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from keyhole.core.cidr import parse_cidrs
from keyhole.core.errors import InvalidRequest, PolicyDenied
from keyhole.core.identity import Caller, Login
from keyhole.core.lease import parse_duration
from keyhole.core.numbers import parse_count, parse_flag
from keyhole.core.path import parse_policy_name
from keyhole.core.policy import ROOT
from keyhole.engines import Field

_OLDER = "said_by_older_name"
DEFAULT = "default"  # the policy that every token has unless it is left out
WRAPPING = "response-wrapping"  # the policy of wrapping tokens; whoever else had it could make them look genuine
_NAME = re.compile(r"[a-z0-9_](?:[a-z0-9_.@+-]{0,126}[a-z0-9_])?")
_MOST_POLICIES = 256
_LONGEST_TEXT = 32 * 1024
_TYPES = ("default", "service", "batch", "default-service", "default-batch")


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting.

    Attributes:
        name: in requests, in answers and as it is stored.
        parse: ``(value, name)`` to what is stored. Raises ``InvalidRequest``.
        default: where nothing was said.
        help: for documentation.
        older: another name that requests may use, and see in answers once they did.
    """

    name: str
    parse: Callable[[Any, str], Any]
    default: Any
    help: str
    older: str = ""


def duration(value: Any, name: str) -> int:
    """Seconds."""
    return parse_duration(value, name=name)


def text(value: Any, name: str) -> str:
    """A text of bounded length."""
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT:
        raise InvalidRequest(f"{name} is a text of at most {_LONGEST_TEXT:,} characters")
    return value


def texts(value: Any, name: str) -> list[str]:
    """A list of texts, or a text with commas."""
    parts = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    if not isinstance(parts, list) or len(parts) > 256 or any(not isinstance(part, str) for part in parts):
        raise InvalidRequest(f"{name} is a list of texts")
    return [part for part in parts if part]


def policies(value: Any, name: str) -> list[str]:
    """Names of policies, sorted; ``root`` is nothing that a login can give."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list) or len(parts) > _MOST_POLICIES:
        raise InvalidRequest(f"{name} is a list of at most {_MOST_POLICIES} names", f'write "{name}": ["NAME"]')
    names = sorted({parse_policy_name(str(part).strip()) for part in parts if str(part).strip()})
    if ROOT in names:
        raise InvalidRequest("the policy root cannot be given by a login", "write a policy that says what is allowed")
    if WRAPPING in names:
        raise InvalidRequest(f'cannot assign policy "{WRAPPING}"', "it is that of wrapped answers alone")
    return names


def _token_type(value: Any, name: str) -> str:
    if value in ("", "default"):
        return "default"
    if value not in _TYPES:
        raise InvalidRequest(f"{name} is one of {', '.join(_TYPES)}")
    return str(value)


TOKEN = (
    Setting("token_policies", policies, [], "policies of the token", "policies"),
    Setting("token_ttl", duration, 0, "how long it lives", "ttl"),
    Setting("token_max_ttl", duration, 0, "how long renewals can keep it", "max_ttl"),
    Setting("token_explicit_max_ttl", duration, 0, "a cap that also holds for periodic tokens"),
    Setting("token_period", duration, 0, "each renewal gives this much, without end", "period"),
    Setting("token_num_uses", parse_count, 0, "requests it is good for; 0 for unlimited"),
    Setting("token_bound_cidrs", parse_cidrs, [], "addresses from which it counts"),
    Setting("token_no_default_policy", parse_flag, default=False, help="leave the default policy out"),
    Setting("token_type", _token_type, "default", "service, batch, or default for what the mount says"),
)


def fields(settings: Iterable[Setting]) -> tuple[Field, ...]:
    """The settings as request fields."""
    return tuple(Field(setting.name, setting.help) for setting in settings)


def merge(settings: Iterable[Setting], data: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """What is stored, with what the request says in its place, and defaults for the rest."""
    merged = dict(stored)
    for setting in settings:
        given = next((name for name in (setting.name, setting.older) if name and data.get(name) is not None), "")
        if given:
            merged[setting.name] = setting.parse(data[given], given)
            older = {*merged.get(_OLDER, ())} - {setting.older}
            merged[_OLDER] = sorted(older | ({given} - {setting.name}))
        merged.setdefault(setting.name, setting.default)
    if merged["token_type"].endswith("batch"):
        for name, what in (("token_num_uses", "tokens with limited use count"), ("token_period", "periodic tokens")):
            if merged[name]:
                raise InvalidRequest(
                    f"'token_type' cannot be 'batch' or 'default_batch' when set to generate {what}",
                    f"leave {name} out, or have service tokens",
                )
    if 0 < merged["token_max_ttl"] < merged["token_ttl"]:
        raise InvalidRequest("token_ttl cannot be greater than token_max_ttl")
    return merged


def show(settings: Iterable[Setting], stored: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as an answer has them; what was said by its older name is there under both, as in Vault."""
    older = stored.get(_OLDER, ())
    shown = {setting.name: stored[setting.name] for setting in settings}
    return shown | {setting.older: stored[setting.name] for setting in settings if setting.older in older}


def require_grantable(caller: Caller, path: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Whoever adds policies to a login must have them, or ``sudo`` on the path of the role or user.

    Raises:
        PolicyDenied: there is one that the caller has not.
    """
    added = set(after["token_policies"]) - set(before.get("token_policies", ())) - set(caller.policies) - {DEFAULT}
    if added and not caller.allows("update", path, sudo=True):
        raise PolicyDenied(
            f"only policies that you have yourself can be given without sudo: {', '.join(sorted(added))}",
            f"ask somebody with sudo on {path}",
        )


def read_name(text: str, noun: str) -> str:
    """The name of a role or user, in lower case. Raises ``InvalidRequest``."""
    name = text.lower()
    if not _NAME.fullmatch(name):
        raise InvalidRequest(f"this cannot be the name of a {noun}", "use letters, digits, _ and . @ + - between them")
    return name


def login_of(
    name: str,
    stored: Mapping[str, Any],
    meta: Mapping[str, str],
    cidrs: Iterable[str] = (),
    *,
    alias: str,
    alias_meta: Mapping[str, str] | None = None,
) -> Login:
    """What a role or user gives to who has proved it.

    Args:
        name: of the identity.
        stored: the settings.
        meta: goes to the token.
        cidrs: instead of those of the settings.
        alias: by which the entity is found.
        alias_meta: goes to the alias; the same with every login, since a change of it is written.
    """
    extra = () if stored["token_no_default_policy"] else (DEFAULT,)
    return Login(
        name=name,
        policies=tuple(sorted({*stored["token_policies"], *extra})),
        ttl=stored["token_ttl"],
        max_ttl=stored["token_max_ttl"],
        explicit_max=stored["token_explicit_max_ttl"],
        period=stored["token_period"],
        uses=stored["token_num_uses"],
        cidrs=tuple(cidrs or stored["token_bound_cidrs"]),
        meta=meta,
        type=stored["token_type"],
        alias=alias,
        alias_meta=alias_meta or {},
    )


def with_groups(login: Login, groups: tuple[str, ...]) -> Login:
    """The same login, of somebody whom the issuer names as a member of groups."""
    return login._replace(groups=groups)
