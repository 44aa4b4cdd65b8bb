"""Private keys of people and agents on this machine: files that only their owner reads, never written over."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from keyhole.core.errors import Conflict, InvalidRequest, NotFound
from keyhole.crypto import age
from keyhole.crypto.age import Identity
from keyhole.repo.names import parse_part

VARIABLES = ("KEYHOLE_REPO_KEY", "AGENT_VAULT_KEY")
_MAX = 64 * 1024  # bytes


def folder(environ: Mapping[str, str]) -> Path:
    """Where the tools of the format keep keys."""
    return Path(environ.get("HOME") or Path.home()) / ".agent-vault"


def owner_file(environ: Mapping[str, str]) -> Path:
    """The owner's key."""
    return folder(environ) / "owner.key"


def agent_file(environ: Mapping[str, str], name: str) -> Path:
    """The key of an agent that was made here."""
    return folder(environ) / "agents" / f"{parse_part(name, 'agent')}.key"


def find(environ: Mapping[str, str], path: str = "") -> Identity:
    """The key to be used: from a file, from ``KEYHOLE_REPO_KEY`` or ``AGENT_VAULT_KEY``, or the owner's.

    A variable holds the path of a file or the key itself, which is never written anywhere.

    Raises:
        NotFound: there is none.
        InvalidRequest: others may read the file, or it has no key.
    """
    if path:
        return load(Path(path))
    for name in VARIABLES:
        if text := environ.get(name, "").strip():
            return age.parse_identity(text) if text.startswith(age.PRIVATE) else load(Path(text))
    owner = owner_file(environ)
    if not owner.exists():
        raise NotFound(
            "no identity key found", f"use --key FILE, or set {VARIABLES[0]}; an owner's key lies in {owner}"
        )
    return load(owner)


def load(path: Path) -> Identity:
    """The key in a file.

    Raises:
        NotFound: there is no such file.
        InvalidRequest: others may read it, or it has no key.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except FileNotFoundError:
        raise NotFound(f"there is no key file {path}", "keyhole repo restore-agent writes an agent's again") from None
    except OSError as error:
        raise InvalidRequest(f"the key file {path} cannot be read: {error.strerror}", "see its rights") from None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX:
            raise InvalidRequest(f"{path} is no key file", "name the file that keyhole repo init made")
        if stat.S_IMODE(status.st_mode) & 0o077:
            raise InvalidRequest(f"the key file {path} can be read by others", f"chmod 600 {path}")
        try:
            return age.find_identity(file.read(_MAX).decode())
        except UnicodeDecodeError:
            raise InvalidRequest(f"{path} is no key file", "it is a text that begins with AGE-SECRET-KEY-1") from None


def write(path: Path, identity: Identity) -> None:
    """A new key file, 0600 from the first byte. Raises ``Conflict`` when anything is there."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise Conflict(f"{path} is there already", "a key file is never written over: name another") from None
    except OSError as error:
        raise InvalidRequest(f"the key file {path} cannot be made: {error.strerror}", "name another place") from None
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(descriptor, 0o600)  # whatever the umask left of it
        file.write(identity.to_text())
        file.flush()
        os.fsync(descriptor)


def free(path: Path) -> Path:
    """This path, or one beside it where a key is there already."""
    found, number = path, 1
    while found.exists():
        number += 1
        found = path.with_name(f"{path.name.removesuffix('.key')}.{number}.key")
    return found
