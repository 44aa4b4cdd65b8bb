"""Refusals in the words of databases: SQLSTATE codes, which clients know what to do with."""

from __future__ import annotations

from keyhole.core.errors import (
    AddressDenied,
    AmbiguousService,
    BadRequestFraming,
    InvalidRequest,
    KeyholeError,
    NoService,
    PolicyDenied,
    RateLimited,
    Sealed,
    StoreUnavailable,
    TargetFailed,
    Unauthenticated,
    UpstreamTimeout,
    UpstreamTls,
    UpstreamUnreachable,
)
from keyhole.net.refused import LoginRefused

# PostgreSQL documentation, appendix "PostgreSQL Error Codes"; the first that fits counts.
_STATES: tuple[tuple[tuple[type[KeyholeError], ...], str], ...] = (
    ((Unauthenticated,), "28P01"),
    ((NoService, PolicyDenied, AddressDenied, AmbiguousService), "28000"),
    ((UpstreamUnreachable, UpstreamTimeout, UpstreamTls, TargetFailed), "08001"),
    ((RateLimited,), "53300"),
    ((Sealed, StoreUnavailable), "57P03"),
    ((BadRequestFraming, InvalidRequest), "08P01"),
)
_THEIRS = frozenset({"3D000", "42000", "42501", "53300", "57P03", "22023", "08004"})


def state_of(error: KeyholeError) -> str:
    """The SQLSTATE of a refusal. What a database said of a database name or of its load is passed on as it is."""
    if isinstance(error, LoginRefused) and error.state in _THEIRS:
        return error.state
    for kinds, state in _STATES:
        if isinstance(error, kinds):
            return state
    return "XX000"


def reason_of(error: KeyholeError) -> str:
    """What happened, with the code by which it is known everywhere else."""
    return f"{error.code}: {error.reason}"
