"""A call as a question to the rules, and the answer that it was given: what a replay of policies needs. Pure.

It has names and no values: of a query the names of parameters, of headers their names, of a body its length. Whoever
makes one has masked what may be a credential in the texts that a client chose.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

TUNNEL = "tunnel"
"""In the place of an upgrade: it was asked for a tunnel, which was refused."""
_LISTS = ("policies", "parameters", "headers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One call.

    Attributes:
        at: seconds since the epoch.
        agent: name of the caller.
        policies: that its token gave it, with those of its entity.
        services: the only ones that its token was for; ``None`` for no such limit.
        entity: id of its entity, for templates.
        run: what the work was that it belonged to.
        service: that the call named.
        shown: the service whose placeholder told it from others that fit as well.
        method: as received.
        scheme: ``http`` or ``https``.
        host: canonical.
        port: of the host.
        path: canonical, without the query; empty where it could not be kept.
        parameters: names of the query's.
        headers: names of the headers.
        size: bytes of the body as declared; -1 for one that is not, 0 for none.
        upgrade: as ``Call.upgrade``, or ``TUNNEL``.
        allowed: the answer that it was given.
        through: the service that it went through, or that the refusal was about.
        code: of the refusal.
        stage: what refused it: ``rules`` alone can be asked again, ``checks`` and ``tripwire`` saw values.
    """

    at: float
    agent: str
    policies: tuple[str, ...]
    services: tuple[str, ...] | None = None
    entity: str = ""
    run: Mapping[str, str] = field(default_factory=dict)
    service: str = ""
    shown: str = ""
    method: str
    scheme: str
    host: str
    port: int
    path: str
    parameters: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    size: int = 0
    upgrade: str = ""
    allowed: bool = True
    through: str = ""
    code: str = ""
    stage: str = ""

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Question:
        """As ``as_data`` has written it."""
        known = {name: tuple(data[name]) for name in _LISTS if name in data}
        if data.get("services") is not None:
            known["services"] = tuple(data["services"])
        return cls(**{**data, **known})

    def as_data(self) -> dict[str, Any]:
        """JSON-ready; what is as usual is left out."""
        found = {each.name: getattr(self, each.name) for each in fields(self)}
        usual = {"services": None, "allowed": True, "size": 0}
        return {
            name: value
            for name, value in found.items()
            if name in {"at", "agent", "policies", "port"} or (value != usual[name] if name in usual else bool(value))
        } | {name: found[name] for name in ("method", "scheme", "host", "path")}

    def cleaned(self, clean: Callable[[str], str]) -> Question:
        """The same, with all texts that the client chose as ``clean`` leaves them."""
        return replace(
            self,
            service=clean(self.service),
            method=clean(self.method),
            host=clean(self.host),
            path=clean(self.path),
            parameters=tuple(map(clean, self.parameters)),
            headers=tuple(map(clean, self.headers)),
            run={name: clean(text) for name, text in self.run.items()},
        )
