"""One tree of errors. Each says what happened, why, and the next step; none ever carries a value.

The class is the machine-readable code; faces turn it into a status (HTTP), an exit code (CLI) or a frame (MCP),
and need no table of their own.
"""

from __future__ import annotations

from typing import ClassVar


class KeyholeError(Exception):
    """Base of every error that a user can meet.

    Args:
        reason: what happened and why, in one sentence, without any secret value.
        hint: the next step for the person who reads it; empty when there is none.
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 2

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint
        self.request_id = ""  # the door names the record of the refusal
        self.retry_after = 0  # seconds, where waiting helps
        self.headers: dict[str, str] = {}  # of the answer in HTTP, besides
        self.alarming = False  # somebody has to be told, not only whoever asked

    def __str__(self) -> str:
        return f"{self.reason}: {self.hint}" if self.hint else self.reason


def own(error: KeyholeError) -> KeyholeError:
    """The same error once more, for another who met it: what is written into the one does not stand in the other."""
    copy = error.__class__.__new__(error.__class__)
    copy.args = error.args
    copy.__dict__.update(error.__dict__)
    copy.headers = dict(error.headers)
    return copy


class InternalError(KeyholeError):
    """A fault of ours. The reason names no detail; the log has the traceback."""


class Unauthenticated(KeyholeError):
    """No token, or one that is unknown, expired, used up or revoked."""

    code = "unauthenticated"
    status = 403
    exit_code = 4


class PolicyDenied(KeyholeError):
    """The caller is known and may not do this."""

    code = "policy_denied"
    status = 403
    exit_code = 4


class NoService(KeyholeError):
    """No service binds a secret to this destination for this caller."""

    code = "no_service"
    status = 403
    exit_code = 4


class AmbiguousService(KeyholeError):
    """Several services fit equally well; the caller has to name one."""

    code = "ambiguous_service"
    status = 409


class AddressDenied(KeyholeError):
    """The destination resolves to an address that the guard refuses."""

    code = "address_denied"
    status = 403
    exit_code = 4


class BadRequestFraming(KeyholeError):
    """The HTTP message cannot be read in exactly one way (RFC 9112)."""

    code = "bad_request_framing"
    status = 400


class InvalidRequest(KeyholeError):
    """A field, name or option is wrong."""

    code = "invalid_request"
    status = 400
    exit_code = 3


class BodyTooLarge(KeyholeError):
    """A message is larger than its limit."""

    code = "body_too_large"
    status = 413


class NotFound(KeyholeError):
    """Nothing by that name is visible to this caller."""

    code = "not_found"
    status = 404
    exit_code = 5


class Expired(KeyholeError):
    """The secret has passed its expiry date."""

    code = "expired"
    status = 403


class Conflict(KeyholeError):
    """Somebody else wrote first, or the name is taken."""

    code = "conflict"
    status = 409


class RateLimited(KeyholeError):
    """Too many requests for the limit that applies.

    Args:
        retry_after: seconds after which there is room again; 0 where that is not known.
    """

    code = "rate_limited"
    status = 429

    def __init__(self, reason: str, hint: str = "", *, retry_after: int = 0) -> None:
        super().__init__(reason, hint)
        self.retry_after = retry_after


class LeaseLimit(KeyholeError):
    """There are as many leases as may be."""

    code = "lease_limit"
    status = 429


class ApprovalRequired(KeyholeError):
    """A person has to approve this very request first.

    Args:
        approval: id of the request that waits for it; empty where none does.
    """

    code = "approval_required"
    status = 403
    exit_code = 4

    def __init__(self, reason: str, hint: str = "", *, approval: str = "") -> None:
        super().__init__(reason, hint)
        self.approval = approval


class UpstreamTls(KeyholeError):
    """The upstream's certificate or TLS parameters are not acceptable."""

    code = "upstream_tls"
    status = 502
    exit_code = 6


class UpstreamUnreachable(KeyholeError):
    """The upstream cannot be resolved, connected to, or understood."""

    code = "upstream_unreachable"
    status = 502
    exit_code = 6


class UpstreamTimeout(KeyholeError):
    """The upstream did not answer in time."""

    code = "upstream_timeout"
    status = 504
    exit_code = 6


class TargetFailed(KeyholeError):
    """A system in which credentials are made or taken back cannot be reached, or has refused."""

    code = "target_failed"
    status = 500  # as Vault's engines
    exit_code = 6


class TargetAway(TargetFailed):
    """Such a system cannot be reached, or lets us in no more: nothing at all can be done there now."""

    code = "target_away"


class ConsentRequired(KeyholeError):
    """A person has to connect an account anew: its provider gives no more tokens for the consent that it had."""

    code = "consent_required"
    status = 403
    exit_code = 4


class LoopDetected(KeyholeError):
    """The request has been through this proxy before."""

    code = "loop"
    status = 508


class ScrubFailedClosed(KeyholeError):
    """The answer cannot be inspected, so it is withheld."""

    code = "scrub_failed_closed"
    status = 502


class Sealed(KeyholeError):
    """The vault is sealed: its keys are not in memory."""

    code = "sealed"
    status = 503
    exit_code = 6


class AuditUnavailable(KeyholeError):
    """The audit record could not be made durable, so nothing is released."""

    code = "audit_unavailable"
    status = 503
    exit_code = 6


class StoreUnavailable(KeyholeError):
    """The store does not answer or cannot write."""

    code = "store_unavailable"
    status = 503
    exit_code = 6


class Unreachable(KeyholeError):
    """The Keyhole server does not answer."""

    code = "unreachable"
    status = 502
    exit_code = 6


class IntegrityError(KeyholeError):
    """Stored bytes are not what was written: wrong key, damage or tampering."""

    code = "internal"
    status = 500


def fault_place(error: BaseException) -> str:
    """Where a fault of ours happened, for the log: type and frames, without its text, which might quote a peer."""
    frames = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        frames.append(f"{code.co_name} ({code.co_filename}:{trace.tb_lineno})")
        trace = trace.tb_next
    return f"{type(error).__name__} at {' < '.join(reversed(frames))}"


def by_code(code: str) -> type[KeyholeError]:
    """The class for a machine-readable code, as a client needs it; ``KeyholeError`` when the code is unknown."""
    known: list[type[KeyholeError]] = [*KeyholeError.__subclasses__(), TargetAway]
    for cls in known:
        if cls.code == code and cls is not IntegrityError:
            return cls
    return KeyholeError
