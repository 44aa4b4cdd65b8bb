"""What an agent may use, as the commands that start something for it see it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from keyhole.core.path import parse_name
from keyhole.core.service import Service

if TYPE_CHECKING:
    from keyhole.client import Result
    from keyhole.client.party import Party

DEFAULT_AGENT = "default"


@dataclass(frozen=True, slots=True)
class Variable:
    """An environment variable that an SDK reads, with the text that stands in it for a key.

    Attributes:
        name: of the variable.
        placeholder: its content; for a setting, what it is set to.
        service: that gives the key.
        secret: where the key is; empty for a setting.
    """

    name: str
    placeholder: str
    service: str
    secret: str


@dataclass(frozen=True, slots=True)
class Granted:
    """The services of an agent.

    Attributes:
        agent: its name.
        services: name to binding.
        variables: what ``run`` sets.
        files: variable to the text of the file that it names.
        hidden: variables of another service that were left out, because one variable holds one placeholder.
    """

    agent: str
    services: dict[str, dict[str, Any]]
    variables: tuple[Variable, ...]
    hidden: tuple[Variable, ...]
    files: Mapping[str, str]

    def for_session(self, own: Mapping[str, Mapping[str, str]]) -> Granted:
        """The same with the placeholders of one session: service to its placeholder, to the session's."""
        found = (
            replace(v, placeholder=own.get(v.service, {}).get(v.placeholder, v.placeholder)) for v in self.variables
        )
        return replace(self, variables=tuple(found))

    @property
    def placeholders(self) -> dict[str, str]:
        """Variable to placeholder."""
        return {variable.name: variable.placeholder for variable in self.variables}


class Reads(Protocol):
    """Who can ask the vault."""

    def read(self, path: str, /) -> Result:
        """Ask, and wait."""


class FromThread:
    """A vault that is asked from another thread than the command's own."""

    def __init__(self, party: Party) -> None:
        self._party = party

    def read(self, path: str, /) -> Result:
        """Ask, and wait."""
        return self._party.ask("read", path)


def bindings(client: Reads, agent: str) -> dict[str, dict[str, Any]]:
    """The services that an agent may use now, by name, as the vault describes them. Raises as ``granted`` does."""
    usable = client.read(f"sys/what-can/{agent}").data["services"]
    return {str(item["name"]): client.read(f"services/{item['name']}").data for item in usable}


def granted(client: Reads, agent: str) -> Granted:
    """Ask what an agent may use.

    Raises:
        InvalidRequest: this is no name of an agent.
        NotFound: there is no such agent, or no vault.
        KeyholeError: the caller may not ask.
    """
    client.read(f"agents/{parse_name(agent)}")
    services = bindings(client, agent)
    found: dict[str, Variable] = {}
    hidden = []
    files: dict[str, str] = {}
    for name, data in sorted(services.items()):
        service = Service.from_data(name, data)
        files = {**service.files, **files}
        for new in _variables(service):
            first = found.setdefault(new.name, new)
            if first.placeholder != new.placeholder:
                hidden.append(new)
    return Granted(agent, services, tuple(found.values()), tuple(hidden), files)


def _variables(service: Service) -> Iterator[Variable]:
    path = service.secret.partition("#")[0]
    for name, text in service.environment().items():
        field = service.fields.get(name)
        yield Variable(name, text, service.name, f"{path}#{field}" if field else service.secret)
    for name, text in service.settings.items():
        yield Variable(name, text, service.name, "")
