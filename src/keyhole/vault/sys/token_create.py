"""What a new token may be: never more than who makes it, unless a role or ``sudo`` gives more. Pure but for the role.

Source of the rules: Vault's API documentation of its token method (``/api-docs/auth/token``, "Create token").
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from keyhole.core.cidr import covers, parse_cidrs
from keyhole.core.errors import InvalidRequest, PolicyDenied
from keyhole.core.fields import parse_map
from keyhole.core.identity import Caller, TokenType
from keyhole.core.lease import parse_duration
from keyhole.core.numbers import parse_count, parse_flag
from keyhole.core.parameters import glob_matches
from keyhole.core.path import parse_name
from keyhole.core.policy import DEFAULT, ROOT
from keyhole.engines import Field
from keyhole.vault.sys.token_roles import parse_policies
from keyhole.vault.tokens import Grant

Role = Mapping[str, Any] | None
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9-]")
_CHOSEN = re.compile(r"[A-Za-z0-9_-]{1,128}")
_LONGEST_NAME = 128
_META_FIELDS, _META_LENGTH = 64, 512
_INTERNAL = frozenset({"response-wrapping", "control-group"})
CREATE_FIELDS = (
    Field("policies", "list of names, of those that the caller has"),
    Field("ttl", "duration"),
    Field("explicit_max_ttl", "a cap that renewals cannot pass"),
    Field("period", "each renewal gives this much; needs sudo"),
    Field("num_uses", "requests it is good for; 0 for unlimited"),
    Field("display_name", "for people"),
    Field("no_parent", "an orphan; needs sudo"),
    Field("no_default_policy", "leave the default policy out"),
    Field("renewable", "true unless said"),
    Field("meta", "map of texts"),
    Field("id", "the token itself, chosen; needs sudo"),
    Field("type", "service, or batch: not stored, not renewable, without children"),
    Field("entity_alias", "whose it is, where the role allows it"),
    Field("scope", "full, or proxy: nothing but calls"),
    Field("services", "list of the only services that it may use"),
)


class Unprivileged(PolicyDenied):
    """Refused for want of ``sudo``; Vault answers it as a bad request."""

    status = 400


def grant_of(caller: Caller, data: Mapping[str, Any], role: Role, *, elevated: bool) -> Grant:
    """What the child is to be.

    Args:
        caller: who makes it.
        data: the request.
        role: settings of the token role, if it is made through one.
        elevated: the caller has ``sudo`` on the path.

    Raises:
        InvalidRequest: a field is wrong, or asks for more than there is.
        PolicyDenied: what is asked for needs ``sudo``.
    """
    policies = _policies(caller, data, role, elevated=elevated)
    kind = _type(data, role)
    times = _times(data, role if kind == "service" else None)
    if times["period"] and not (elevated or (role and role["token_period"])):
        raise Unprivileged("root or sudo privileges required to create periodic token", "leave the period out")
    if kind == "batch":
        _require_plain(policies, data, times)
    # As Vault: whatever is not a letter or digit is a dash, so that the name is one segment.
    name = _NOT_PLAIN.sub("-", str(data.get("display_name") or "")[:_LONGEST_NAME])
    return Grant(
        name=f"token/{name}" if name else caller.name,
        display=f"token-{name}" if name else "token",
        policies=tuple(policies),
        scope=_scope(caller, data),
        ttl=times["ttl"],
        explicit_max=times["explicit_max_ttl"],
        period=times["period"],
        uses=times["num_uses"],
        renewable=parse_flag(data.get("renewable", True), "renewable") and (role is None or role["renewable"]),
        endless=ROOT in policies and not (times["ttl"] or times["period"] or times["explicit_max_ttl"]),
        meta=_meta(data),
        run=caller.run.extended(data),
        cidrs=bound_to(caller.cidrs, role["token_bound_cidrs"] if role else ()),
        type=kind,
        services=services_of(caller, data),
    )


def chosen_id(caller: Caller, data: Mapping[str, Any], *, elevated: bool, in_root: bool) -> str:
    """The token itself where the request chooses it, else empty. Raises as ``grant_of``."""
    text = data.get("id") or ""
    if not text:
        return ""
    if not elevated:
        raise Unprivileged("root or sudo privileges required to specify token id", "leave the id out")
    if not in_root:
        raise InvalidRequest("a token's id can only be chosen in the org root", f"{caller.org} is marked in its tokens")
    if not isinstance(text, str) or not _CHOSEN.fullmatch(text):
        raise InvalidRequest("a token's id is at most 128 letters, digits, '_' and '-'", "leave it out for a safe one")
    return text


def services_of(caller: Caller, data: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The only services that the child may use: what is asked for, out of those of its maker."""
    given = data.get("services")
    if given is None:
        return None if caller.services is None else tuple(sorted(caller.services))
    parts = given.split(",") if isinstance(given, str) else given
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise InvalidRequest("services is a list of names", 'write "services": ["NAME"]')
    names = {parse_name(part.strip()) for part in parts}
    if caller.services is not None and not names <= caller.services:
        raise InvalidRequest("services must be among those of the token that makes this one")
    return tuple(sorted(names))


def bound_to(outer: tuple[str, ...], inner: Iterable[str]) -> tuple[str, ...]:
    """Addresses of a child: those that are asked for where they lie within its maker's, else its maker's."""
    wanted = tuple(inner)
    return wanted if wanted and (not outer or covers(outer, wanted)) else outer


def asked_cidrs(caller: Caller, data: Mapping[str, Any]) -> tuple[str, ...]:
    """Addresses that a request binds a token to. Raises ``InvalidRequest`` for those outside of its maker's."""
    wanted = tuple(parse_cidrs(data.get("bound_cidrs"), "bound_cidrs"))
    if wanted and caller.cidrs and not covers(caller.cidrs, wanted):
        raise InvalidRequest("bound_cidrs must lie within the addresses of the token that makes this one")
    return wanted or caller.cidrs


def _policies(caller: Caller, data: Mapping[str, Any], role: Role, *, elevated: bool) -> set[str]:
    asked = set(parse_policies(data.get("policies"), "policies"))
    bare = parse_flag(data.get("no_default_policy") or False, "no_default_policy")
    lists = ("allowed_policies", "allowed_policies_glob", "disallowed_policies", "disallowed_policies_glob")
    if role is not None and any(role[name] for name in lists):
        policies = _policies_of_role(caller, asked, role, bare=bare or role["token_no_default_policy"])
    elif not asked:
        policies = set(caller.policies)
    else:
        extra = asked - set(caller.policies) - {DEFAULT}
        if extra and not elevated and extra != {ROOT}:
            raise InvalidRequest(f"child policies must be subset of parent: {', '.join(sorted(extra))}")
        policies = asked
    if ROOT in policies and ROOT not in caller.policies:
        raise InvalidRequest("root tokens may not be created without parent token being root")
    if ROOT in policies and len(policies) > 1:
        raise InvalidRequest("the policy root stands alone", "ask for root, or for the others")
    for name in sorted(policies & _INTERNAL):
        raise InvalidRequest(f'cannot assign policy "{name}"')
    if ROOT not in policies and not bare and (role is None or not any(role[name] for name in lists)):
        policies = {*policies, DEFAULT}
    return policies


def _policies_of_role(caller: Caller, asked: set[str], role: Mapping[str, Any], *, bare: bool) -> set[str]:
    no, no_globs = role["disallowed_policies"], role["disallowed_policies_glob"]
    unwanted = bare or DEFAULT in no or any(glob_matches(glob, DEFAULT) for glob in no_globs)
    more = set() if unwanted else {DEFAULT}
    allowed, globs = set(role["allowed_policies"]), role["allowed_policies_glob"]
    policies = more | (asked or (allowed if allowed or globs else set(caller.policies)))
    if asked and (allowed or globs):
        allowed |= more
        if any(name not in allowed and not any(glob_matches(glob, name) for glob in globs) for name in policies):
            text = f"token policies ({_quoted(policies)}) must be subset of the role's allowed policies"
            text += f" ({_quoted(allowed)})" + (f" or glob policies ({_quoted(globs)})" if globs else "")
            raise InvalidRequest(text)
    for name in sorted(policies):
        if name in no or any(glob_matches(glob, name) for glob in no_globs):
            raise InvalidRequest(f'token policy "{name}" is disallowed by this role')
    return policies


def _quoted(names: Iterable[str]) -> str:
    return "[" + " ".join(f'"{name}"' for name in sorted(names)) + "]"


def _type(data: Mapping[str, Any], role: Role) -> TokenType:
    asked = data.get("type") or ""
    if asked not in ("", "service", "batch"):
        raise InvalidRequest(f"invalid 'type' value {str(asked)[:40]!r}", "service or batch")
    of_role = str(role["token_type"]) if role else "default-service"
    wanted = asked if asked and of_role.startswith("default-") else of_role.removeprefix("default-")
    return "batch" if wanted == "batch" else "service"


def _times(data: Mapping[str, Any], role: Role) -> dict[str, int]:
    """Times and uses; of what the request says and what the role says, the smaller."""
    times = {
        "ttl": parse_duration(data.get("ttl") or data.get("lease") or 0),
        "explicit_max_ttl": parse_duration(data.get("explicit_max_ttl") or 0, name="explicit_max_ttl"),
        "period": parse_duration(data.get("period") or 0, name="period"),
        "num_uses": parse_count(data.get("num_uses") or 0, "num_uses"),
    }
    if role is not None:
        for name in ("explicit_max_ttl", "period", "num_uses"):
            times[name] = min(filter(None, (times[name], role[f"token_{name}"])), default=0)
    return times


def _require_plain(policies: set[str], data: Mapping[str, Any], times: Mapping[str, int]) -> None:
    """Raises ``InvalidRequest`` for what a token that is not stored cannot have."""
    if ROOT in policies:
        raise InvalidRequest("batch tokens cannot be root tokens", "say which policies it has")
    for name, what in (
        ("explicit_max_ttl", "an explicit max TTL"),
        ("period", "a period"),
        ("num_uses", "limited uses"),
    ):
        if times[name]:
            raise InvalidRequest(f"batch tokens cannot have {what}", f"leave {name} out, or make a service token")
    if data.get("id"):
        raise InvalidRequest("batch tokens cannot have a chosen id", "leave the id out")


def _scope(caller: Caller, data: Mapping[str, Any]) -> Any:
    scope = data.get("scope") or caller.scope
    if scope not in ("full", "proxy") or (caller.scope == "proxy" and scope != "proxy"):
        raise InvalidRequest("scope is full or proxy, and a child of a proxy token is one too")
    return scope


def _meta(data: Mapping[str, Any]) -> dict[str, str]:
    meta = parse_map(data.get("meta"), "meta")
    if len(meta) > _META_FIELDS or any(
        len(key) > _META_LENGTH or len(text) > _META_LENGTH for key, text in meta.items()
    ):
        raise InvalidRequest(f"meta is at most {_META_FIELDS} texts of {_META_LENGTH} characters")
    return meta
