"""``version``."""

from __future__ import annotations

import platform

from keyhole import __version__
from keyhole.cli.base import PROG, Session, command, pass_session


@command("version", examples="keyhole version\nkeyhole version --json")
@pass_session
def version_command(session: Session, /) -> None:
    """The version of Keyhole and of Python."""
    python = platform.python_version()
    session.out.result({"version": __version__, "python": python}, f"{PROG} {__version__} (Python {python})")
