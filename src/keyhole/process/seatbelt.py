"""The sandbox of one command on macOS: a profile for ``sandbox-exec``, which applies it and becomes the command.

Not tested: written after sandbox-exec(1) and profiles that are in use, for a system that this project does not have.
``sandbox-exec`` is called deprecated and is there in every macOS so far; without it there is no sandbox.

The profile allows what a program does and denies, the last rule that fits winning: the vault's files, keychains and the
services that hand out keys or have others start programs; signals to and looks at processes that are not its own; and
the network but for the ports of loopback that are named. A profile knows no hosts other than ``localhost`` and ``*``.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Mapping, Sequence

PROGRAM = "/usr/bin/sandbox-exec"
MISSING = (
    "the sandbox of macOS is not tested with Keyhole",
    "the command sees the names of other processes' files and may leave processes of its own behind",
)

# Keychain and its agents, Apple events (which have other programs do things), launch services, tokens, the clipboard.
_SERVICES = (
    "com.apple.SecurityServer",
    "com.apple.securityd",
    "com.apple.securityd.xpc",
    "com.apple.security.agent",
    "com.apple.coreservices.appleevents",
    "com.apple.coreservices.launchservicesd",
    "com.apple.lsd.open",
    "com.apple.ctkd.token-client",
    "com.apple.pasteboard.1",
)
_KEYS = ("Library/Keychains", ".ssh/agent")
_OWN = "(target same-sandbox)"


def profile(
    hidden: Sequence[str], environ: Mapping[str, str], ports: Iterable[int] | None, sockets: Sequence[str] = ()
) -> str:
    """The profile, in the language of ``sandbox-exec``.

    Args:
        hidden: the vault's own files and directories, absolute.
        environ: of the caller, for where the user's keys are.
        ports: of loopback that the command may connect to; ``None`` leaves it the network.
        sockets: Unix sockets that it may connect to besides.
    """
    home = environ.get("HOME", "")
    places = [*hidden, *(posixpath.join(home, name) for name in _KEYS if home)]
    lines = ["(version 1)", "(allow default)"]
    lines += [f"(deny file-read* file-write* (subpath {_quoted(path)}))" for path in _spellings(places)]
    lines += [f"(deny mach-lookup (global-name {_quoted(name)}))" for name in _SERVICES]
    for operation in ("signal", "process-info*"):
        lines += [f"(deny {operation})", f"(allow {operation} (target self))", f"(allow {operation} {_OWN})"]
    if ports is None:
        agent = [environ["SSH_AUTH_SOCK"]] if environ.get("SSH_AUTH_SOCK") else []
        lines += [f"(deny network-outbound (literal {_quoted(path)}))" for path in _spellings(agent)]
        return "\n".join(lines) + "\n"
    lines += ["(deny network*)", '(allow network-bind (local ip "localhost:*"))']
    lines += ['(allow network-inbound (local ip "localhost:*"))']
    lines += [f'(allow network-outbound (remote ip "localhost:{port}"))' for port in sorted(set(ports))]
    lines += [f"(allow network-outbound (literal {_quoted(path)}))" for path in _spellings(sockets)]
    return "\n".join(lines) + "\n"


def _spellings(paths: Iterable[str]) -> list[str]:
    """Each path as given and without links: a profile compares with what the kernel has found, ``/private/var/…``."""
    return list(dict.fromkeys(name for path in paths for name in (path, os.path.realpath(path))))


def _quoted(text: str) -> str:
    """A string of the language."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
