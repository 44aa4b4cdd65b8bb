"""Keys that a plugin of age holds (age-plugin protocol, version 1): a token, a phone, another machine.

The library starts the program ``age-plugin-NAME`` of the search path and speaks with it over its stdin and stdout. The
name stands in the recipient, and its letters are few; which program that is, is this machine's choice alone, so a
search path that leads into the folder where somebody happens to work is refused.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pyrage

from keyhole.core.errors import InvalidRequest, Sealed
from keyhole.core.value import Secret

_MAX = 4096  # characters; post-quantum keys have two thousand
_CHARS = "02-9ac-hj-np-z"
_RECIPIENT = re.compile(rf"age1([a-z0-9+_.-]{{1,64}})1[{_CHARS}]{{6,{_MAX}}}")
_IDENTITY = re.compile(rf"AGE-PLUGIN-([A-Z0-9+_.-]{{1,64}})-1[{_CHARS.upper()}]{{6,{_MAX}}}")
_MOST_SHOWN = 500


class Prompts(Protocol):
    """Whoever is asked while a key is opened."""

    def passphrase(self, question: str) -> Secret | None:
        """What is entered and not shown, such as a PIN; ``None`` where nobody can be asked."""

    def answer(self, question: str) -> str | None:
        """What is entered and may be seen; likewise."""

    def confirm(self, question: str) -> bool | None:
        """Yes or no; likewise."""

    def show(self, message: str) -> None:
        """Say something, such as that a token waits to be touched."""


class _Nobody:
    """Nobody can be asked: a server, a job, a pipe."""

    def passphrase(self, _question: str) -> Secret | None:
        """``None``."""
        return None

    def answer(self, _question: str) -> str | None:
        """``None``."""
        return None

    def confirm(self, _question: str) -> bool | None:
        """``None``."""
        return None

    def show(self, _message: str) -> None:
        """Say it to nobody."""


NOBODY: Prompts = _Nobody()


@dataclass(frozen=True, slots=True)
class _Callbacks:
    """What a plugin says and asks, in the library's words. Its texts are the program's: bounded, and made printable."""

    prompts: Prompts = field(repr=False)

    def display_message(self, message: str) -> None:
        self.prompts.show(_printable(message))

    def confirm(self, message: str, yes: str, no: str | None = None) -> bool | None:
        choice = f"{_printable(yes)}, or {_printable(no)}" if no else _printable(yes)
        return self.prompts.confirm(f"{_printable(message)} ({choice})")

    def request_public_string(self, description: str) -> str | None:
        return self.prompts.answer(_printable(description))

    def request_passphrase(self, description: str) -> str | None:
        entered = self.prompts.passphrase(_printable(description))
        return None if entered is None else entered.reveal().decode(errors="replace")


@dataclass(frozen=True, slots=True)
class Holder:
    """A private key that a plugin holds.

    Attributes:
        text: ``AGE-PLUGIN-NAME-1…``.
        prompts: who is asked when it opens a file.
    """

    text: str = field(repr=False)
    prompts: Prompts = field(repr=False)

    def __post_init__(self) -> None:
        try:
            pyrage.plugin.Identity.from_str(self.text if _IDENTITY.fullmatch(self.text) else "")
        except (ValueError, pyrage.IdentityError):
            raise InvalidRequest(
                "this is no identity of a plugin of age", "it begins with AGE-PLUGIN-, and its program writes it"
            ) from None

    def opening(self) -> Any:
        """What the library opens files with.

        Raises:
            Sealed: there is no program, or nobody could be asked what it may ask.
        """
        if self.prompts is NOBODY:
            raise Sealed(
                "the plugin of the key may have to ask a person, and nobody can be asked here",
                "use keyhole repo on a terminal, or a key that opens by itself",
            )
        key = pyrage.plugin.Identity.from_str(self.text)
        _require_program(key.plugin())
        return pyrage.plugin.IdentityPluginV1(key.plugin(), [key], _Callbacks(self.prompts))


def is_recipient(text: str) -> bool:
    """Whether it has the form of a plugin's recipient."""
    return _RECIPIENT.fullmatch(text) is not None


def parse_recipient(text: str) -> Any:
    """The library's recipient. Raises ``pyrage.RecipientError``."""
    return pyrage.plugin.Recipient.from_str(text)


def sealing(recipient: Any) -> Any:
    """What the library seals with for a plugin's recipient. Raises ``Sealed`` where its program is not there."""
    _require_program(recipient.plugin())
    return pyrage.plugin.RecipientPluginV1(recipient.plugin(), [recipient], [], _Callbacks(NOBODY))


def _require_program(name: str) -> None:
    program = f"age-plugin-{name}"
    found = shutil.which(program)
    if found is None:
        raise Sealed(f"{program} is not on this machine", "install this plugin of age; it seals and opens for its keys")
    if not Path(found).is_absolute():
        raise Sealed(
            f"the search path finds {program} in the folder where you are", "take '.' and empty parts out of PATH"
        )


def _printable(text: str) -> str:
    return "".join(each if each.isprintable() else " " for each in text[:_MOST_SHOWN])
