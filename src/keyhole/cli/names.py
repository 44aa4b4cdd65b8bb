"""Names for the shell's completion: of services, agents, secrets, policies and clients.

Whoever presses TAB must not be asked, made to wait or told of an error. So a vault counts only where it opens without a
person, every error means no names, and a time limit ends the process with nothing said.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import click

from keyhole.cli.base import Session
from keyhole.core.errors import Sealed
from keyhole.core.value import Secret

Complete = Callable[[click.Context, click.Parameter, str], list[str]]
PATIENCE = 3.0  # seconds
_MOST = 500
_LISTS = 25  # folders that are looked into


def limit_time() -> None:
    """From now on this process lives ``PATIENCE`` seconds at most."""
    timer = threading.Timer(PATIENCE, os._exit, (0,))
    timer.daemon = True
    timer.start()


def _complete(find: Callable[[Session, str], Iterator[str]]) -> Complete:
    def complete(context: click.Context, _parameter: click.Parameter, begin: str) -> list[str]:
        session = _silent(context.find_object(Session))
        found: list[str] = []
        try:
            for name in find(session, begin):
                if name.startswith(begin):
                    found.append(name)
                if len(found) >= _MOST:
                    break
        except Exception:  # noqa: BLE001, S110  # whatever it is, there is nobody to tell
            pass
        finally:
            _close(session)
        return sorted(found)

    return complete


def _silent(typed: Session | None) -> Session:
    """A session for the vault that the command line names, which asks nobody anything."""
    typed = typed or Session()
    session = Session()
    session.vault, session.org, session.vault_env = typed.vault, typed.org, typed.vault_env
    session.asks = False
    session.passphrase.file = typed.passphrase.file

    def given(prompt: str = "") -> Secret | None:
        if not session.passphrase.file:
            raise Sealed("the passphrase would have to be asked for")
        return type(session.passphrase).get(session.passphrase, prompt)

    session.passphrase.get = given  # type: ignore[method-assign]  # the only source that nobody has to answer
    return session


def _close(session: Session) -> None:
    with contextlib.suppress(Exception):
        session.close()


def _listed(path: str) -> Complete:
    return _complete(lambda session, _begin: iter(session.names(path)))


def _secrets(session: Session, begin: str) -> Iterator[str]:
    """Names below the folder that was typed, folder by folder."""
    waiting = [begin.rpartition("/")[0] + "/" if "/" in begin else ""]
    for _ in range(_LISTS):
        if not waiting:
            return
        folder = waiting.pop(0)
        for key in session.names(f"secret/metadata/{folder}".rstrip("/")):
            name = folder + key
            if not name.endswith("/"):
                yield name
            elif name.startswith(begin) or begin.startswith(name):
                waiting.append(name)


def _clients(_session: Session, _begin: str) -> Iterator[str]:
    from keyhole.trial.known import load_clients  # noqa: PLC0415  # nobody else needs them

    return iter(load_clients())


def command_line(_context: click.Context, _parameter: click.Parameter, begin: str) -> list[Any]:
    """Leaves the words of another program to the shell."""
    from click.shell_completion import CompletionItem  # noqa: PLC0415  # only a shell asks for it

    return [CompletionItem(begin, type="file")]


services = _listed("services")
agents = _listed("agents")
policies = _listed("sys/policies/acl")
secrets = _complete(_secrets)
clients = _complete(_clients)
