"""What a request says of the work that it belongs to: a W3C trace context, and claims of its caller. Pure.

Nothing of it decides anything. What the caller's token says stands above what its request says, the request cannot
name a person for whom the token does not act, and what it did say is marked in the record as said by the caller.
Baggage (W3C Baggage) is not read: whoever is on the way can write it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, unquote_to_bytes

from keyhole.core import EMPTY
from keyhole.core.errors import InvalidRequest, PolicyDenied
from keyhole.core.identity import PROVED, RunContext
from keyhole.core.trace import Trace, parse_traceparent

HEADER = "X-Keyhole-Context"
"""Claims of a request, such as ``run=4711;step=charge``: values are percent-encoded UTF-8. It goes to no upstream."""
CLAIMS = ("workflow", "run", "step", "tool", "on_behalf_of")
TRACEPARENT = "traceparent"
_LIMIT = 4096  # bytes of the header


class Stated(NamedTuple):
    """What one request says.

    Attributes:
        claims: of ``CLAIMS`` those that are set.
        trace: where it comes from; ``None`` for nowhere known.
    """

    claims: Mapping[str, str] = EMPTY
    trace: Trace | None = None

    @classmethod
    def of(cls, claims: Mapping[str, Any], traceparent: object = None) -> Stated | None:
        """Claims by name, and a ``traceparent``, which does not count where it is none; ``None`` for nothing said.

        Raises:
            InvalidRequest: a claim is unknown, or no printable text of at most 200 characters.
        """
        unknown = claims.keys() - set(CLAIMS)
        if unknown:
            raise InvalidRequest(f"{min(unknown)[:40]!r} is nothing of a run", f"there are {', '.join(CLAIMS)}")
        said = RunContext.from_data(claims).as_data()
        trace = parse_traceparent(traceparent) if isinstance(traceparent, str) else None
        return cls(said, trace) if said or trace is not None else None

    @classmethod
    def of_headers(cls, headers: Iterable[tuple[bytes, bytes]]) -> Stated | None:
        """What the headers of a message say, whose names are in lower case or not; ``None`` for nothing.

        A header that stands twice says nothing of a trace (W3C Trace Context, section 3.2.1), and is refused as claims.

        Raises:
            InvalidRequest: the claims cannot be read.
        """
        parents, claims = [], []
        for raw, value in headers:
            name = raw.lower()
            if name == b"traceparent":
                parents.append(value.decode("latin-1").strip(" \t"))
            elif name == b"x-keyhole-context":
                claims.append(value.decode("latin-1"))
        if len(claims) > 1:
            raise InvalidRequest(f"the header {HEADER} stands twice", "send it once")
        said = read_claims(claims[0]) if claims else {}
        within = said.pop(TRACEPARENT, None)
        parent = parents[0] if len(parents) == 1 else None
        if parent is None or parse_traceparent(parent) is None:
            parent = within
        return cls.of(said, parent)

    def __bool__(self) -> bool:
        return bool(self.claims or self.trace)

    def header(self) -> str:
        """The text of ``HEADER``."""
        parts = [f"{name}={quote(text, safe='')}" for name, text in self.claims.items()]
        return ";".join([*parts, f"{TRACEPARENT}={self.trace}"] if self.trace is not None else parts)

    def over(self, other: Stated | None) -> Stated:
        """Both, where this one counts first."""
        if other is None:
            return self
        return Stated({**other.claims, **self.claims}, self.trace or other.trace)

    def joined(self, run: RunContext, *, vouched: bool = False) -> RunContext:
        """The run context of a token with what one of its requests says: what the token says stays.

        Args:
            run: of the token.
            vouched: the caller may name any person, because it is the owner of the vault.

        Raises:
            PolicyDenied: the request names a person for whom the token does not act.
        """
        known = run.as_data()
        person = self.claims.get("on_behalf_of", "")
        if person and person != run.on_behalf_of:
            proved = person.strip().lower().startswith(PROVED)
            if run.on_behalf_of or proved or not vouched:
                raise PolicyDenied(
                    "the token does not say that it acts on behalf of the person that the request names",
                    "make a token that does: keyhole agent token NAME --on-behalf-of PERSON",
                )
        claimed = {name: text for name, text in self.claims.items() if name not in known}
        joined = run._replace(**claimed, claimed=",".join(claimed))
        return joined if self.trace is None else joined._replace(trace=self.trace.trace, span=self.trace.span)


def read_claims(text: str) -> dict[str, str]:
    """The claims in the text of ``HEADER``, with ``traceparent`` among them where it is. Raises ``InvalidRequest``."""
    found: dict[str, str] = {}
    if len(text) > _LIMIT:
        raise InvalidRequest(f"the header {HEADER} is longer than {_LIMIT} bytes", "shorten the names in it")
    for part in text.split(";"):
        name, mark, value = part.strip(" \t").partition("=")
        if not name and not mark:
            continue
        try:
            decoded = unquote_to_bytes(value).decode()
        except UnicodeDecodeError:
            mark = ""
        if not mark or name in found:
            raise InvalidRequest(f"the header {HEADER} cannot be read", "write NAME=VALUE;NAME=VALUE, percent-encoded")
        found[name] = decoded
    return found
