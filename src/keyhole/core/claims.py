"""What the claims of a proved token say: whether it counts now, and whether it is the one that was meant. Pure.

Source: RFC 7519 section 4.1, and the roles of Vault's JWT login for what may be asked of claims.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keyhole.core.errors import InvalidRequest
from keyhole.core.parameters import glob_matches

LEEWAY = 150
SKEW = 60
_LATEST = 253_402_300_800  # the end of the year 9999: what is later is no date
_INDEX = re.compile(r"0|[1-9][0-9]{0,4}")
_MISSING = object()


@dataclass(frozen=True, slots=True)
class Leeway:
    """Seconds by which clocks may differ: at the end, at the beginning, and in all besides."""

    end: int = LEEWAY
    start: int = LEEWAY
    skew: int = SKEW


def require_current(claims: Mapping[str, Any], now: float, leeway: Leeway) -> None:
    """A token counts from ``nbf`` to ``exp``, which must be there, and not before it was issued.

    Raises:
        InvalidRequest: it does not count now, or does not say until when.
    """
    end = _date(claims, "exp")
    if end is None:
        raise InvalidRequest("the token has no end (exp)", "let the issuer put one into it")
    start = _date(claims, "nbf")
    issued = _date(claims, "iat")
    if now >= end + leeway.end + leeway.skew:
        raise InvalidRequest("error validating claims: the token is expired (exp)", "get a new one")
    if start is not None and now < start - leeway.start - leeway.skew:
        raise InvalidRequest("error validating claims: the token is not valid yet (nbf)", "compare the clocks")
    if issued is not None and now < issued - leeway.skew:
        raise InvalidRequest("error validating claims: the token was issued in the future (iat)", "compare the clocks")


def require_recent(claims: Mapping[str, Any], now: float, max_age: int, leeway: Leeway) -> None:
    """The person proved it at most ``max_age`` seconds ago (``auth_time`` of OpenID Connect).

    Raises:
        InvalidRequest: it was earlier, or the token does not say when.
    """
    proved = _date(claims, "auth_time")
    if proved is None or now > proved + max_age + leeway.skew:
        raise InvalidRequest("error validating claims: the login is too old (auth_time)", "log in again")


def require_audience(claims: Mapping[str, Any], bound: Sequence[str]) -> None:
    """One of the audiences must be one that is bound; a token that is meant for somebody needs one that is bound.

    Raises:
        InvalidRequest: it is meant for others.
    """
    audience = claims.get("aud")
    meant = [audience] if isinstance(audience, str) else audience if isinstance(audience, list) else []
    if bound and not any(isinstance(each, str) and each in bound for each in meant):
        raise InvalidRequest(
            "error validating claims: aud claim does not match any bound audience", "check bound_audiences"
        )
    if meant and not bound:
        raise InvalidRequest(
            "audience claim found in JWT but no audiences bound to the role", "set bound_audiences of the role"
        )


def require_claims(claims: Mapping[str, Any], bound: Mapping[str, Any], *, glob: bool = False) -> None:
    """Each bound claim must have one of its values; a claim that is a list needs one that fits.

    Raises:
        InvalidRequest: one has not.
    """
    for name, wanted in bound.items():
        found = claim(claims, name)
        if found is None:
            raise InvalidRequest(f"error validating claims: claim {name!r} is missing", "check bound_claims")
        values = found if isinstance(found, list) else [found]
        allowed = wanted if isinstance(wanted, list) else [wanted]
        if not any(_is_same(value, each, glob=glob) for value in values for each in allowed):
            raise InvalidRequest(
                f"error validating claims: claim {name!r} does not match any associated bound claim values",
                "check bound_claims",
            )


def claim(claims: Mapping[str, Any], name: str, *, pointer: bool = True) -> Any:
    """A claim by its name, or by a JSON pointer (RFC 6901) that begins with a slash; ``None`` where there is none."""
    if not (pointer and name.startswith("/")):
        return claims.get(name)
    found: Any = claims
    for part in name[1:].split("/"):
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, Mapping):
            found = found.get(key)
        elif isinstance(found, list) and _INDEX.fullmatch(key) and int(key) < len(found):
            found = found[int(key)]
        else:
            return None
    return found


def mapped(claims: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, str]:
    """Claims as metadata under other names; of texts, numbers and flags only, in the spelling of JSON."""
    found = {}
    for name, into in names.items():
        value = claim(claims, name)
        if isinstance(value, bool):
            found[into] = "true" if value else "false"
        elif isinstance(value, str | int | float):
            found[into] = str(value)
    return found


def _is_same(value: Any, wanted: Any, *, glob: bool) -> bool:
    if glob and isinstance(value, str) and isinstance(wanted, str):
        return glob_matches(wanted, value)
    return type(value) is type(wanted) and bool(value == wanted)


def _date(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name, _MISSING)
    if value is _MISSING or value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < _LATEST:
        raise InvalidRequest(f"error validating claims: {name} is not a date", "let the issuer write seconds")
    return float(value)
