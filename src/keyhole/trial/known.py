"""What is known of the clients, and what a trial of one found."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Literal

ABSENT = 99  # what a request ends with where the library that makes it is not installed
_VERSION = re.compile(r"\d+(?:\.\d+)+")
_PATIENCE = 10.0  # seconds

Outcome = Literal["through", "no_proxy", "no_login", "refused", "no_trust", "no_credential", "not_started", "timeout"]
_WORDS: dict[str, str] = {
    "through": "uses the proxy, trusts the CA, and was let in with a key that it does not have",
    "no_proxy": "does not use the proxy",
    "no_login": "uses the proxy, and does not show it the token",
    "refused": "uses the proxy, which refused its request",
    "no_trust": "uses the proxy, and does not trust the CA",
    "no_credential": "uses the proxy, trusts the CA, and its request arrived without the key",
    "not_started": "cannot make a request here",
    "timeout": "did not come to an end in time",
}


@dataclass(frozen=True, slots=True)
class KnownClient:
    """One client. ``clients.toml`` says what the attributes mean.

    Attributes:
        name: of its table.
    """

    name: str
    program: str
    version: tuple[str, ...]
    request: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    file: Mapping[str, str] = field(default_factory=dict)
    steps: Mapping[str, str] = field(default_factory=dict)
    about: str = ""

    @property
    def path(self) -> str:
        """Where its program is; empty where it is not."""
        return shutil.which(self.program) or ""

    def ask_version(self) -> str:
        """The version, as its program says it; empty where it does not."""
        try:
            done = subprocess.run(  # noqa: S603  # the user's own program
                self.version, capture_output=True, text=True, timeout=_PATIENCE, check=False, stdin=subprocess.DEVNULL
            )
        except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
            return ""
        found = _VERSION.search(done.stdout or done.stderr) if done.returncode == 0 else None
        return found[0] if found else ""

    def next_step(self, outcome: Outcome) -> str:
        """What to do about it."""
        about = {"no_proxy": "proxy", "no_login": "login", "no_trust": "trust"}
        return self.steps.get(about.get(outcome, ""), "")


@dataclass(frozen=True, slots=True)
class Trial:
    """What one attempt found.

    Attributes:
        client: its name.
        version: empty where it does not say.
        outcome: how far its request came.
        said: the last line that it printed, where it did not get through.
        next: what to do about it; empty where nothing is known or needed.
        about: what to know even where it works.
    """

    client: str
    version: str
    outcome: Outcome
    said: str = ""
    next: str = ""
    about: str = ""

    @property
    def through(self) -> bool:
        """Whether its request arrived, with the key."""
        return self.outcome == "through"

    def describe(self) -> str:
        """One line for a person, with the next step."""
        words = [f"{self.client} {self.version}".strip(), f" ({self.about})" if self.about else ""]
        words.append(f": {_WORDS[self.outcome]}")
        words.append(f"; {self.next}" if self.next else "")
        words.append(f" [it said: {self.said}]" if self.said else "")
        return "".join(words)


def load_clients() -> dict[str, KnownClient]:
    """The clients by name, in the order of the file."""
    table = tomllib.loads(files(__name__.rpartition(".")[0]).joinpath("clients.toml").read_text(encoding="utf-8"))
    return {name: _client(name, data) for name, data in table.items()}


def _client(name: str, data: Mapping[str, object]) -> KnownClient:
    program = str(data.get("program", name))
    return KnownClient(
        name=name,
        program=program,
        version=_words(data.get("version")) or (program, "--version"),
        request=_words(data["request"]),
        env=_texts(data.get("env")),
        file=_texts(data.get("file")),
        steps={step: str(data[step]) for step in ("proxy", "login", "trust") if step in data},
        about=str(data.get("about", "")),
    )


def _words(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else ()


def _texts(value: object) -> dict[str, str]:
    return {str(name): str(text) for name, text in value.items()} if isinstance(value, dict) else {}
