/** Errors that a user can meet. Each says what happened, why, and the next step; none ever carries a value. */

/** Base of all of them; `code` is the machine-readable reason, the same as in Python and in HTTP. */
export class KeyholeError extends Error {
  static readonly code: string = "internal";
  /** What happened and why, in one sentence. */
  readonly reason: string;
  /** The next step; empty when there is none. */
  readonly hint: string;
  /** The id under which the journal has the refusal; empty where nobody was asked. */
  requestId = "";
  /** Seconds, where waiting helps; else 0. */
  retryAfter = 0;

  constructor(reason: string, hint = "") {
    super(hint === "" ? reason : `${reason}: ${hint}`);
    this.name = new.target.name;
    this.reason = reason;
    this.hint = hint;
  }

  get code(): string {
    return (this.constructor as typeof KeyholeError).code;
  }
}

/** No token, or one that is unknown, expired, used up or revoked. */
export class Unauthenticated extends KeyholeError {
  static override readonly code = "unauthenticated";
}

/** The caller is known and may not do this. */
export class PolicyDenied extends KeyholeError {
  static override readonly code = "policy_denied";
}

/** No service binds a secret to this destination for this caller. */
export class NoService extends KeyholeError {
  static override readonly code = "no_service";
}

/** Several services fit equally well; the caller has to name one. */
export class AmbiguousService extends KeyholeError {
  static override readonly code = "ambiguous_service";
}

/** The destination resolves to an address that the guard refuses. */
export class AddressDenied extends KeyholeError {
  static override readonly code = "address_denied";
}

/** The HTTP message cannot be read in exactly one way. */
export class BadRequestFraming extends KeyholeError {
  static override readonly code = "bad_request_framing";
}

/** A field, name or option is wrong. */
export class InvalidRequest extends KeyholeError {
  static override readonly code = "invalid_request";
}

/** A message is larger than its limit. */
export class BodyTooLarge extends KeyholeError {
  static override readonly code = "body_too_large";
}

/** Nothing by that name is visible to this caller. */
export class NotFound extends KeyholeError {
  static override readonly code = "not_found";
}

/** The secret or the credential has passed its end. */
export class Expired extends KeyholeError {
  static override readonly code = "expired";
}

/** Somebody else wrote first, or the name is taken. */
export class Conflict extends KeyholeError {
  static override readonly code = "conflict";
}

/** Too many requests for the limit that applies. */
export class RateLimited extends KeyholeError {
  static override readonly code = "rate_limited";
}

/** There are as many leases as may be. */
export class LeaseLimit extends KeyholeError {
  static override readonly code = "lease_limit";
}

/** A person has to approve this very request first. */
export class ApprovalRequired extends KeyholeError {
  static override readonly code = "approval_required";
}

/** The upstream's certificate or TLS parameters are not acceptable. */
export class UpstreamTls extends KeyholeError {
  static override readonly code = "upstream_tls";
}

/** The upstream cannot be resolved, connected to, or understood. */
export class UpstreamUnreachable extends KeyholeError {
  static override readonly code = "upstream_unreachable";
}

/** The upstream did not answer in time. */
export class UpstreamTimeout extends KeyholeError {
  static override readonly code = "upstream_timeout";
}

/** A system in which credentials are made or taken back cannot be reached, or has refused. */
export class TargetFailed extends KeyholeError {
  static override readonly code: string = "target_failed";
}

/** Such a system cannot be reached, or lets us in no more. */
export class TargetAway extends TargetFailed {
  static override readonly code = "target_away";
}

/** A person has to connect an account anew. */
export class ConsentRequired extends KeyholeError {
  static override readonly code = "consent_required";
}

/** The request has been through this proxy before. */
export class LoopDetected extends KeyholeError {
  static override readonly code = "loop";
}

/** The answer cannot be inspected, so it is withheld. */
export class ScrubFailedClosed extends KeyholeError {
  static override readonly code = "scrub_failed_closed";
}

/** The vault is sealed: its keys are not in memory. */
export class Sealed extends KeyholeError {
  static override readonly code = "sealed";
}

/** The audit record could not be made durable, so nothing is released. */
export class AuditUnavailable extends KeyholeError {
  static override readonly code = "audit_unavailable";
}

/** The store does not answer or cannot write. */
export class StoreUnavailable extends KeyholeError {
  static override readonly code = "store_unavailable";
}

/** The Keyhole server does not answer. */
export class Unreachable extends KeyholeError {
  static override readonly code: string = "unreachable";
}

/** Stored bytes are not what was written: damage or tampering. */
export class IntegrityError extends KeyholeError {}

const ALL: readonly (typeof KeyholeError)[] = [
  Unauthenticated, PolicyDenied, NoService, AmbiguousService, AddressDenied, BadRequestFraming, InvalidRequest,
  BodyTooLarge, NotFound, Expired, Conflict, RateLimited, LeaseLimit, ApprovalRequired, UpstreamTls,
  UpstreamUnreachable, UpstreamTimeout, TargetFailed, TargetAway, ConsentRequired, LoopDetected, ScrubFailedClosed,
  Sealed, AuditUnavailable, StoreUnavailable, Unreachable,
];
const BY_CODE = new Map(ALL.map((each) => [each.code, each]));

/** The class for a machine-readable code; `KeyholeError` when the code is unknown. */
export function byCode(code: string): typeof KeyholeError {
  return BY_CODE.get(code) ?? KeyholeError;
}
