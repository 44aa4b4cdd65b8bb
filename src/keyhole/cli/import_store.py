"""What ``import`` does with what it found: stored, bound to services, granted; never over something else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from keyhole.catalog import CatalogEntry
from keyhole.cli.base import Session
from keyhole.cli.bindings import bind, bound_secret, grant, other_bindings, placeholder_for
from keyhole.core.errors import InvalidRequest, KeyholeError, NotFound, PolicyDenied
from keyhole.core.inject import KINDS
from keyhole.core.path import DEFAULT_FIELD, parse_path
from keyhole.core.value import Secret
from keyhole.importers.recognise import Proposal

STORED, REPLACED, THERE, CONFLICT, WOULD = "stored", "replaced", "already there", "conflict", "would be stored"
IN_VAULT = (STORED, REPLACED, THERE)
_LONGEST = 63
_FLAGS = {"bearer": "--bearer", "basic": "--basic"}


@dataclass(slots=True)
class Outcome:
    """What became of one credential.

    Attributes:
        proposal: the credential.
        source: where it comes from, for a person.
        state: ``stored``, ``replaced``, ``already there``, ``conflict`` or ``would be stored``.
        version: of the secret, where it was written.
        services: that lend it.
        why: the reason for a conflict, or for having no service.
        next: the command that comes next.
    """

    proposal: Proposal
    source: str
    state: str
    version: int | None = None
    services: list[str] = field(default_factory=list)
    why: str = ""
    next: str = ""

    @property
    def name(self) -> str:
        """Of the secret."""
        return self.proposal.name

    @property
    def variables(self) -> list[str]:
        """That hold its placeholder in the environment of ``run``."""
        return list(self.proposal.entry.variables) if self.proposal.entry is not None else []

    @property
    def searched(self) -> bool:
        """Does a service look for the placeholder in requests, rather than put the value into a place of its own?"""
        services = self.proposal.entry.services if self.proposal.entry is not None else ()
        kinds = [KINDS.get(str(service.inject.get("kind"))) for service in services]
        return any(option.name == "text" for kind in kinds if kind is not None for option in kind.options)

    def placeholder(self, name: str) -> str:
        """What stands for a field of the secret outside the vault: the same text as in the environment of ``run``."""
        entry = self.proposal.entry
        if entry is not None and name in entry.keys:
            return placeholder_for(self.name, entry, name)
        return placeholder_for(self.name if name == DEFAULT_FIELD else f"{self.name}#{name}", None)

    def as_data(self) -> dict[str, Any]:
        """For ``--json``."""
        found = self.proposal.found
        return {
            "name": self.name,
            "fields": sorted(self.proposal.fields),
            "from": self.source,
            "where": found.where,
            "variable": found.variable,
            "known_as": self.proposal.entry.name if self.proposal.entry else "",
            "state": self.state,
            "version": self.version,
            "services": self.services,
            "why": self.why,
            "next": self.next,
        }


class Mover:
    """Stores credentials one after the other.

    Args:
        session: the vault.
        agent: who may use what gets a service; made where there is none.
        services: make services at all.
        over: put a new version over a secret that has another value.
        dry: only look.
    """

    def __init__(self, session: Session, *, agent: str, services: bool, over: bool, dry: bool) -> None:
        self._session = session
        self._agent = agent
        self._services = services
        self._over = over
        self._dry = dry
        self._taken: dict[str, Outcome] = {}

    def move(self, source: str, proposal: Proposal) -> Outcome:
        """Store one credential, bind it, grant it.

        Raises:
            KeyholeError: the vault cannot be asked, or may not be written.
        """
        first = self._taken.get(proposal.name)
        if first is not None:
            if _same(first.proposal.fields, proposal.fields):
                return Outcome(proposal, source, THERE if first.state in IN_VAULT else first.state, why="found twice")
            other = replace(proposal, name=proposal.found.name, entry=None)
            if proposal.entry is None or other.name in self._taken:
                why = f"{first.source} has another value for {proposal.name}"
                return Outcome(proposal, source, CONFLICT, why=why, next="keyhole import FILE --under NAME")
            return self.move(source, other)
        outcome = self._stored(source, proposal)
        self._taken[proposal.name] = outcome
        if outcome.state in IN_VAULT and self._services:
            self._bound(outcome)
        elif outcome.state == WOULD and self._services:
            outcome.services = self._planned(proposal)
        if not outcome.services and outcome.state != CONFLICT:
            outcome.next = _next_step(proposal)
        return outcome

    def _stored(self, source: str, proposal: Proposal) -> Outcome:
        name = parse_path(proposal.name)
        version, data, readable = self._existing(name)
        if data is not None and _same({key: _secret(value) for key, value in data.items()}, proposal.fields):
            return Outcome(proposal, source, THERE, version)
        if not readable and not self._over:
            why = "there is a secret of that name, which you may not read to compare"
            return Outcome(proposal, source, CONFLICT, version, why=why, next=f"keyhole who-can {name}")
        if data is not None and not self._over:
            why = "the vault has another value under that name"
            return Outcome(proposal, source, CONFLICT, version, why=why, next="the same with --replace")
        if self._dry:
            return Outcome(proposal, source, WOULD)
        found = proposal.found
        options: dict[str, Any] = {"type": found.kind, "cas": version}
        if found.expires_in:
            options["expires_in"] = found.expires_in
        fields = {key: value.reveal().decode() for key, value in proposal.fields.items()}
        answer = self._session.client.write(f"secret/data/{name}", {"data": fields, "options": options}).data
        return Outcome(proposal, source, REPLACED if data is not None else STORED, int(answer["version"]))

    def _existing(self, name: str) -> tuple[int, dict[str, Any] | None, bool]:
        """The current version, 0 for a secret that never was; its data; and whether that could be read."""
        try:
            answer = self._session.client.read(f"secret/data/{name}")
        except NotFound:
            return 0, None, True
        except PolicyDenied:
            version = self._version(name)
            return version, None, not version
        except KeyholeError:
            if self._dry:
                return 0, None, True  # a vault that is locked is no reason not to look at files
            raise
        return int(answer.data["metadata"]["version"]), answer.data["data"] if answer.found else None, True

    def _version(self, name: str) -> int:
        try:
            return int(self._session.client.read(f"secret/metadata/{name}").data["current_version"])
        except NotFound:
            return 0

    def _planned(self, proposal: Proposal) -> list[str]:
        if proposal.entry is not None:
            return [] if proposal.missing else [service.name for service in proposal.entry.services]
        return [_service_name(proposal.name)] if proposal.binding and proposal.binding.scheme == "https" else []

    def _bound(self, outcome: Outcome) -> None:
        """Make the services that are missing; those that are there are their owner's matter."""
        try:
            if outcome.proposal.entry is not None:
                outcome.services = self._bound_by_catalog(outcome, outcome.proposal.entry)
            elif outcome.proposal.binding is not None:
                outcome.services = self._bound_by_source(outcome)
            if outcome.services:
                grant(self._session, self._agent, outcome.services)
        except (InvalidRequest, PolicyDenied) as error:
            outcome.services, outcome.why = [], error.reason

    def _bound_by_catalog(self, outcome: Outcome, entry: CatalogEntry) -> list[str]:
        if outcome.proposal.missing:
            outcome.why = f"{entry.title} differs from account to account: {', '.join(outcome.proposal.missing)}"
            return []
        others = other_bindings(self._session, entry, outcome.name)
        for service, secret in others.items():
            outcome.why = f"the service {service} lends {secret}"
        mine = tuple(service.name for service in entry.services if service.name not in others)
        missing = tuple(service for service in mine if bound_secret(self._session, service) is None)
        if missing:
            absent = tuple(name for name in entry.keys if name not in outcome.proposal.fields)
            bind(self._session, entry, outcome.name, only=missing, without=absent)
        return list(mine)

    def _bound_by_source(self, outcome: Outcome) -> list[str]:
        binding, service = outcome.proposal.binding, _service_name(outcome.name)
        if binding is None:
            return []
        if binding.scheme != "https":
            outcome.why = f"goes to {binding.host} without encryption"
            return []
        bound = bound_secret(self._session, service)
        if bound is None:
            found = outcome.proposal.found
            shown = outcome.proposal.spots[0].field if outcome.proposal.spots else DEFAULT_FIELD
            data = {
                "hosts": [binding.host],
                "secret": f"{outcome.name}#{DEFAULT_FIELD}",
                "inject": dict(binding.inject),
                "placeholder": outcome.placeholder(shown),
                "variables": [found.variable] if found.variable else [],
            }
            self._session.client.write(f"services/{service}", data)
        elif bound != f"{outcome.name}#{DEFAULT_FIELD}":
            outcome.why = f"the service {service} lends {bound}"
            return []
        return [service]


def _same(one: Mapping[str, Secret], other: Mapping[str, Secret]) -> bool:
    return one.keys() == other.keys() and all(one[key] == other[key] for key in one)


def _secret(value: Any) -> Secret:
    return Secret(value if isinstance(value, str) else repr(value))


def _service_name(secret: str) -> str:
    return secret.replace("/", "-")[:_LONGEST].rstrip(".-_")


def _next_step(proposal: Proposal) -> str:
    """The command that gives a secret a service; for what no service can attach, the one that gives the value out."""
    binding, found = proposal.binding, proposal.found
    if found.stays:
        variable = f"{found.variable}=" if found.variable else "VARIABLE="
        return f"keyhole run --env {variable}{proposal.name} -- COMMAND (which then has the value itself)"
    entry = proposal.entry
    if entry is not None and proposal.missing:
        blanks = [blank for blank in entry.blanks if not blank.default and not blank.optional]
        answers = ["--host HOST" if entry.hosts_with(blank) else f"--set {blank.name}=…" for blank in blanks]
        given = f"keyhole get {proposal.name} | " if DEFAULT_FIELD in entry.keys else ""
        return f"{given}keyhole add {entry.name} {' '.join(answers)}"
    words = ["keyhole service add", _service_name(proposal.name), "--host", binding.host if binding else "HOST"]
    if binding is not None and binding.scheme != "https":
        words += ["--scheme", binding.scheme]
    words += ["--secret", proposal.name]
    kind = str(binding.inject.get("kind")) if binding else "basic" if "password" in proposal.fields else "bearer"
    if binding is not None and kind in {"header", "query"}:
        words += [f"--{kind}", str(binding.inject["name"])]
    else:
        words += [_FLAGS.get(kind, "--bearer")]
    return " ".join([*words, *(["--variable", found.variable] if found.variable else [])])
