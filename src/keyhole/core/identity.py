"""Who asks. An agent is a machine identity, a user a person; both are entities of exactly one org."""

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, Literal, NamedTuple, Self

from keyhole.core import EMPTY
from keyhole.core.errors import InvalidRequest
from keyhole.core.policy import Acl, Decision
from keyhole.core.record import IntentForm

Scope = Literal["full", "proxy"]
TokenType = Literal["service", "batch"]
ROOT_ORG = "root"
_CONTEXT_LIMIT = 200
PROVED = "jwt/"
"""What the names of people begin with whose own token was shown (token exchange)."""


def union(*lists: Iterable[str]) -> tuple[str, ...]:
    """All of them once, sorted."""
    return tuple(sorted({each for one in lists for each in one}))


class RunContext(NamedTuple):
    """Which piece of work a token was made for; it is written into every audit record of that token.

    Attributes:
        workflow: name of the workflow.
        run: id of this run of it.
        step: id of the step within the run.
        tool: the consumer that acts.
        on_behalf_of: the person for whom it acts.
        claimed: which of these a request said of itself; names with commas. Empty in a token.
        trace: id of the W3C trace that it belongs to, see ``core.stated``.
        span: id of the span in it that asks.
    """

    workflow: str = ""
    run: str = ""
    step: str = ""
    tool: str = ""
    on_behalf_of: str = ""
    claimed: str = ""
    trace: str = ""
    span: str = ""

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        """Pick the five fields out of request data. Raises ``InvalidRequest`` for long or unprintable text."""
        picked = {}
        for name in ("workflow", "run", "step", "tool", "on_behalf_of"):
            text = data.get(name) or ""
            if not isinstance(text, str) or len(text) > _CONTEXT_LIMIT or not text.isprintable():
                raise InvalidRequest(f"{name} must be printable text of at most {_CONTEXT_LIMIT} characters")
            picked[name] = text
        return cls(**picked)

    def unsaid(self) -> Self:
        """The same without what a request said of itself."""
        return self._replace(claimed="", **dict.fromkeys(filter(None, self.claimed.split(",")), ""))

    def extended(self, data: Mapping[str, Any]) -> Self:
        """The context of a token that is made by one with this context: what is set stays, the rest is picked.

        What the request that makes it says of itself is not set: it is said again in the data, or by who uses the
        token. The trace is that of ``traceparent`` in the data.

        Raises:
            InvalidRequest: as ``from_data``, for a person whom only a login method can name, and for a ``traceparent``
                that is none.
        """
        person = data.get("on_behalf_of")
        if not self.on_behalf_of and isinstance(person, str) and person.strip().lower().startswith(PROVED):
            raise InvalidRequest(
                f"on_behalf_of begins with {PROVED}, and nothing here proves who that is",
                "show the person's own token: auth/token/exchange",
            )
        claimed = self.claimed.split(",")
        own = {name: text for name, text in self.as_data().items() if name not in claimed}
        made, parent = self.from_data({**data, **own}), data.get("traceparent")
        if not parent:
            return made
        from keyhole.core.trace import parse_traceparent  # noqa: PLC0415  # few tokens are made within a trace

        trace = parse_traceparent(str(parent))
        if trace is None:
            raise InvalidRequest("traceparent is none by W3C Trace Context", "such as 00-(32 digits)-(16 digits)-01")
        return made._replace(trace=trace.trace, span=trace.span)

    def as_data(self) -> dict[str, str]:
        """The fields that are set."""
        fields = {
            "workflow": self.workflow,
            "run": self.run,
            "step": self.step,
            "tool": self.tool,
            "on_behalf_of": self.on_behalf_of,
            "claimed": self.claimed,
            "trace": self.trace,
            "span": self.span,
        }
        return {name: text for name, text in fields.items() if text}


NO_RUN = RunContext()


class AliasView(NamedTuple):
    """A name of an entity at one login mount, as templates see it."""

    id: str
    name: str
    metadata: Mapping[str, str] = EMPTY
    custom_metadata: Mapping[str, str] = EMPTY


class GroupView(NamedTuple):
    """A group that an entity is in, as templates see it."""

    id: str
    name: str
    metadata: Mapping[str, str] = EMPTY


class IdentityView(NamedTuple):
    """What templates in policies may name of an entity.

    Attributes:
        id: of the entity; empty for who has none.
        name: of the entity.
        metadata: free text fields.
        aliases: by accessor of the login mount.
        groups: direct and inherited.
        version: another one whenever anything of the above has changed; what is compiled for an entity is kept by it.
    """

    id: str = ""
    name: str = ""
    metadata: Mapping[str, str] = EMPTY
    aliases: Mapping[str, AliasView] = EMPTY
    groups: tuple[GroupView, ...] = ()
    version: str = ""


NOBODY = IdentityView()


class Login(NamedTuple):
    """Who somebody has proved to be, and what the token is to be that the door makes of it. Seconds; 0 for "not set".

    Attributes:
        name: ``approle/ROLE`` or ``user/NAME``.
        policies: names, sorted.
        ttl: how long the token lives.
        max_ttl: how long renewals can keep it.
        explicit_max: a cap that also holds for a periodic one.
        period: what each renewal gives.
        uses: requests that it is good for.
        cidrs: addresses from which it counts.
        meta: free text fields.
        alias: what names it at the login mount; whoever has the same one is the same entity. Empty for no entity.
        alias_meta: free text fields of the alias, as of this login.
        groups: names of groups, as whoever vouches for the login names them.
        type: of the token, as Vault's ``token_type``; with ``default`` in it, where the mount may decide.
    """

    name: str
    policies: tuple[str, ...]
    ttl: int = 0
    max_ttl: int = 0
    explicit_max: int = 0
    period: int = 0
    uses: int = 0
    cidrs: tuple[str, ...] = ()
    meta: Mapping[str, str] = EMPTY
    alias: str = ""
    alias_meta: Mapping[str, str] = EMPTY
    groups: tuple[str, ...] = ()
    type: str = "default"


class _CallerFields(NamedTuple):
    """What a caller is made of; see there."""

    org: str
    org_id: str
    name: str
    accessor: str
    scope: Scope
    policies: tuple[str, ...]
    acl: Acl
    token_id: str = ""
    type: TokenType = "service"
    holder: str = ""
    until: float = 0.0
    services: frozenset[str] | None = None
    run: RunContext = NO_RUN
    bound: bool = False
    cidrs: tuple[str, ...] = ()
    entity: IdentityView = NOBODY
    identity_policies: tuple[str, ...] = ()
    alone: bool = False
    identities: int = 0
    display: str = ""
    meta: Mapping[str, str] = EMPTY


class Caller(_CallerFields):
    """An authenticated identity with what it may do. Made by the door only.

    Attributes:
        org: name of its org.
        org_id: opaque id of its org; part of every ciphertext's associated data.
        name: ``agent/NAME``, ``user/NAME`` or ``token/NAME``.
        accessor: names the token without being it; empty for the owner of a local vault.
        scope: to a ``proxy`` token the door refuses everything but ``use``.
        policies: names, sorted.
        acl: the compiled policies.
        bound: its placeholders are its own, see ``core.placeholder``.
        token_id: keyed hash of the token; empty for the owner of a local vault.
        type: of the token; a ``batch`` one is not stored, has no drawer and makes no others.
        holder: id of the stored token with which ends what is made for the caller: its own, or of a batch token the
            one that made it; empty for none.
        until: what is made for a batch token lives no longer than this, in seconds since the epoch; 0 for no bound.
        services: the only ones that its token may use; ``None`` for no such limit.
        run: the run context of the token.
        cidrs: addresses from which its token counts; none for all.
        entity: whose token it is; ``NOBODY`` for nobody's.
        identity_policies: names of those that the entity and its groups add; ``acl`` has them too.
        alone: they add nothing, because its token was made for some policies only.
        identities: revision of the org's identities that this was compiled from.
        display: what people and other systems see of it, without slashes.
        meta: what its token says of itself, such as the role of a login. It decides nothing.
    """

    # Two tokens of one agent are two callers, whatever else they have in common.
    __eq__ = object.__eq__
    __ne__ = object.__ne__
    __hash__ = object.__hash__

    @cached_property
    def forms(self) -> dict[tuple[object, ...], IntentForm]:
        """What the door has worked out of its records; lives and dies with this object."""
        return {}

    def allows(self, operation: str, path: str, *, sudo: bool = False) -> Decision:
        """Pure: what the policies say of an operation on a path."""
        return self.acl.decide(operation, path, sudo=sudo)
