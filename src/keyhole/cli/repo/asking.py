"""What is asked of a person while a key is opened, or put in another place."""

from __future__ import annotations

from keyhole.cli.base import Session
from keyhole.cli.consent import PassphraseSource, ask_text, ask_yes, has_terminal
from keyhole.core.errors import Sealed
from keyhole.core.value import Secret
from keyhole.repo.kept import Asked


class Terminal:
    """The person at the terminal, or ``--passphrase-file`` and ``--passphrase-fd`` for passphrases and PINs."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def passphrase(self, question: str) -> Secret | None:
        """What is entered and not shown."""
        return self._session.passphrase.get(f"{question}: ")

    def answer(self, question: str) -> str | None:
        """What is entered and may be seen."""
        return ask_text(f"{question}: ") if has_terminal() else None

    def confirm(self, question: str) -> bool | None:
        """Yes or no."""
        return ask_yes(question) if has_terminal() else None

    def show(self, message: str) -> None:
        """What a plugin says."""
        self._session.out.say(message)


def asked_of(session: Session) -> Asked:
    """Who may be asked in this session."""
    return Asked(Terminal(session), keychain=session.asks and has_terminal())


class New:
    """Asks once for the passphrase of a new place, or for the PIN of its token."""

    def __init__(self, source: PassphraseSource) -> None:
        self._source = source
        self._entered: Secret | None = None

    def __call__(self, question: str) -> Secret:
        """What was entered. Raises ``InvalidRequest`` and ``Sealed`` where nobody can be asked."""
        if self._entered is None:
            pin = question.startswith("PIN")
            self._entered = self._source.get(f"{question}: ") if pin else self._source.get_new()
        if self._entered is None:
            raise Sealed("no PIN was given", "enter it on a terminal, or name it with --passphrase-file")
        return self._entered
