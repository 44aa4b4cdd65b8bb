"""Roles of the JWT login: what a token has to say for whom, and what the login gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keyhole.auth import settings
from keyhole.auth.roles import Roles
from keyhole.auth.settings import Setting, text, texts
from keyhole.core.claims import LEEWAY, SKEW, Leeway
from keyhole.core.errors import InvalidRequest
from keyhole.core.numbers import parse_flag

_CLAIMS = 64


def _one_of(*allowed: str) -> Any:
    def parse(value: Any, name: str) -> str:
        if value not in allowed:
            raise InvalidRequest(f"invalid '{name}': use {' or '.join(allowed)}")
        return str(value)

    return parse


def _bound(value: Any, name: str) -> dict[str, Any]:
    """Claims to the value, or values, that they may have."""
    if not isinstance(value, dict) or len(value) > _CLAIMS:
        raise InvalidRequest(f"{name} is an object of at most {_CLAIMS} claims", '{"groups": ["admins"]}')
    for values in value.values():
        for each in values if isinstance(values, list) else [values]:
            if not isinstance(each, str | int | float | bool):
                raise InvalidRequest(f"{name}: a claim has a text, number or flag, or a list of them")
    return value


def _names(value: Any, name: str) -> dict[str, str]:
    if not isinstance(value, dict) or len(value) > _CLAIMS or not all(isinstance(each, str) for each in value.values()):
        raise InvalidRequest(f"{name} is an object of claims and the names of metadata")
    if len({*value.values()}) < len(value) or "role" in value.values():
        raise InvalidRequest(f"{name} maps two claims to one name, or one to role")
    return value


ROLE = (
    Setting("role_type", _one_of("jwt", "oidc"), "oidc", "jwt for tokens, oidc for people in a browser"),
    Setting("bound_audiences", texts, [], "one of them must be in aud"),
    Setting("bound_subject", text, "", "what sub must be"),
    Setting("bound_claims", _bound, {}, "claims that must have one of these values"),
    Setting("bound_claims_type", _one_of("string", "glob"), "string", "how they are compared"),
    Setting("claim_mappings", _names, {}, "claims that become metadata"),
    Setting("user_claim", text, "", "the claim that names whoever logs in"),
    Setting("user_claim_json_pointer", parse_flag, default=False, help="user_claim is a JSON pointer"),
    Setting("groups_claim", text, "", "the claim that lists groups"),
    Setting("expiration_leeway", settings.duration, 0, f"seconds after exp; 0 for {LEEWAY}"),
    Setting("not_before_leeway", settings.duration, 0, f"seconds before nbf; 0 for {LEEWAY}"),
    Setting("clock_skew_leeway", settings.duration, 0, f"seconds by which clocks may differ; 0 for {SKEW}"),
    Setting("max_age", settings.duration, 0, "seconds since the person proved it to the issuer"),
    Setting("allowed_redirect_uris", texts, [], "where the browser may be sent back"),
    Setting("oidc_scopes", texts, [], "what is asked for besides openid"),
    Setting("verbose_oidc_logging", parse_flag, default=False, help="taken for Vault's clients; no effect"),
    *settings.TOKEN,
)


def _check(role: dict[str, Any], _name: str) -> None:
    if not role["user_claim"]:
        raise InvalidRequest("a user claim must be defined on the role", '"user_claim": "sub"')
    bound = ("bound_audiences", "bound_subject", "bound_claims", "token_bound_cidrs")
    if role["role_type"] == "jwt" and not any(role[each] for each in bound):
        raise InvalidRequest(
            "must have at least one bound constraint when creating/updating a role", '"bound_audiences": ["vault"]'
        )
    if role["role_type"] == "oidc" and not role["allowed_redirect_uris"]:
        raise InvalidRequest("'allowed_redirect_uris' must be set if 'role_type' is 'oidc' or unspecified.")


ROLES = Roles(ROLE, _check)


def leeway_of(role: Mapping[str, Any]) -> Leeway:
    """By how much clocks may differ for a role."""
    end, start = role["expiration_leeway"] or LEEWAY, role["not_before_leeway"] or LEEWAY
    return Leeway(end, start, role["clock_skew_leeway"] or SKEW)
