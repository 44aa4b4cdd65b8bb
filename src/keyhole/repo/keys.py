"""Private keys of people and agents on this machine: files that only their owner reads, never written over.

A file holds its key in one of the forms of ``repo.kept``.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from keyhole.core.errors import Conflict, IntegrityError, InvalidRequest, NotFound
from keyhole.core.value import Secret
from keyhole.crypto import age
from keyhole.crypto.age import Identity
from keyhole.crypto.age_plugin import Prompts
from keyhole.repo.kept import (
    KEYCHAIN,
    PKCS11,
    UNATTENDED,
    Asked,
    Form,
    forget,
    form_of,
    from_keychain,
    keep,
    open_kept,
    opens_unattended,
)
from keyhole.repo.names import parse_part
from keyhole.repo.tree import sync_folder

VARIABLES = ("KEYHOLE_REPO_KEY", "AGENT_VAULT_KEY")
_MAX = 64 * 1024  # bytes
_NEXT_KEY = f"a key begins with {age.PRIVATE}, without quotes; else give the path of its file"


def folder(environ: Mapping[str, str]) -> Path:
    """Where the tools of the format keep keys."""
    return Path(environ.get("HOME") or Path.home()) / ".agent-vault"


def owner_file(environ: Mapping[str, str]) -> Path:
    """The owner's key."""
    return folder(environ) / "owner.key"


def agent_file(environ: Mapping[str, str], name: str) -> Path:
    """The key of an agent that was made here."""
    return folder(environ) / "agents" / f"{parse_part(name, 'agent')}.key"


def find(environ: Mapping[str, str], place: str = "", asked: Asked = UNATTENDED) -> Identity:
    """The key to be used: from a place, from ``KEYHOLE_REPO_KEY`` or ``AGENT_VAULT_KEY``, or the owner's.

    Args:
        environ: of the process.
        place: what ``--key`` said: a file of any form (``repo.kept``), ``keychain:NAME``, or ``pkcs11:URI`` for the
            owner's file, sealed by that key of a token. A variable holds the same, or the key itself, which is never
            written anywhere.
        asked: who may be asked for a passphrase or a PIN.

    Raises:
        NotFound: there is none.
        InvalidRequest: others may read the file, or it has no key.
        Sealed: a passphrase or PIN is missing or wrong, or the keychain or token does not answer.
    """
    if place:
        return open_place(environ, place, asked)
    for name in VARIABLES:
        if text := environ.get(name, "").strip():
            if _is_key(text):
                return age.find_identity(text, asked.prompts)
            if not text.startswith((KEYCHAIN, PKCS11)) and not os.path.lexists(text):  # it may be a key all the same
                raise NotFound(f"{name} holds no key, and no file of that name is there", _NEXT_KEY)
            return open_place(environ, text, asked)
    owner = owner_file(environ)
    if not owner.exists():
        raise NotFound(
            "no identity key found", f"use --key FILE, or set {VARIABLES[0]}; an owner's key lies in {owner}"
        )
    return load(owner, asked)


def open_place(environ: Mapping[str, str], place: str, asked: Asked = UNATTENDED) -> Identity:
    """The key of one place. Raises as ``find``; a key itself in place of one is not repeated."""
    if _is_key(place) or age.PRIVATE in place.upper():
        raise InvalidRequest("this is a key itself, and the place of one is meant", f"put it into {VARIABLES[0]}")
    if place.startswith(KEYCHAIN):
        return from_keychain(place, asked)
    if place.startswith(PKCS11):
        path = owner_file(environ)
        data = read(path)
        if form_of(data) is not Form.TOKEN:
            raise NotFound(f"no token seals the key {path}", "keyhole repo key move --in pkcs11:URI")
        return open_kept(data, asked, place)
    return load(Path(place), asked)


def place_of(environ: Mapping[str, str], place: str = "") -> str:
    """The place that ``find`` would open, as a file's path or ``keychain:NAME``.

    Raises:
        InvalidRequest: it is a variable that holds the key itself.
    """
    found = place or next((text for name in VARIABLES if (text := environ.get(name, "").strip())), "")
    if _is_key(found):
        raise InvalidRequest("a variable holds the key itself, which is written nowhere", "--key FILE")
    if found.startswith(PKCS11):
        found = ""
    return found or str(owner_file(environ))


def load_unattended(environ: Mapping[str, str], place: str) -> Identity:
    """The key of a file's path or ``keychain:NAME``, for what opens it with nobody there.

    Raises:
        InvalidRequest: somebody would have to enter something, or as ``find``.
        NotFound, Sealed: as ``find``.
    """
    if not place.startswith(KEYCHAIN) and not opens_unattended(read(Path(place))):
        raise InvalidRequest(
            f"the key {place} does not open by itself, and nobody can be asked here",
            "use a key in a file, in the keychain, or of a token with pin-source",
        )
    return open_place(environ, place)


def _is_key(text: str) -> bool:
    return text.startswith((age.PRIVATE, age.PLUGIN, "-----BEGIN")) or "\n" in text


def load(path: Path, asked: Asked = UNATTENDED) -> Identity:
    """The key in a file, or where the file leads.

    Raises:
        NotFound: there is no such file.
        InvalidRequest: others may read it, or it has no key.
        Sealed: it is not open without a passphrase, PIN, keychain or token, and that is not to be had.
    """
    return open_kept(read(path), asked)


def read(path: Path) -> bytes:
    """The bytes of a key file, which only its owner reads.

    Raises:
        NotFound: there is no such file.
        InvalidRequest: others may read it, or it is too long. One that leads to a token, whose module is loaded, has to
            belong to this user or to root.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except FileNotFoundError:
        raise NotFound(f"there is no key file {path}", "keyhole repo restore-agent writes an agent's again") from None
    except OSError as error:
        raise InvalidRequest(f"the key file {path} cannot be read: {error.strerror}", "see its rights") from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX:
        os.close(descriptor)
        raise InvalidRequest(f"{path} is no key file", "name the file that keyhole repo init made")
    with os.fdopen(descriptor, "rb") as file:
        if stat.S_IMODE(status.st_mode) & 0o077:
            raise InvalidRequest(f"the key file {path} can be read by others", f"chmod 600 {path}")
        data = file.read(_MAX)
    if form_of(data) is Form.TOKEN and status.st_uid not in {os.geteuid(), 0}:
        raise InvalidRequest(f"the key file {path} belongs to somebody else", f"chown {os.geteuid()} {path}")
    return data


def make(path: Path, identity: Identity, where: str, asked: Asked, new: Callable[[str], Secret]) -> None:
    """A new key file for a new key, which is in the place that ``where`` says (``repo.kept``).

    What was kept is read back from there and compared before the file counts.

    Raises:
        Conflict: anything is there, or the keychain has another key of that name.
        InvalidRequest, Sealed: the place cannot be used; no file is left.
    """
    if path.exists():
        raise Conflict(f"{path} is there already", "a key file is never written over: name another")
    data = keep(identity, where, asked, new)
    try:
        _compare(data, identity, asked, new)
        _write(path, data)
    except BaseException:
        forget(data, asked)
        raise


def unmake(path: Path, asked: Asked) -> None:
    """Take a key away that was made for something which came to nothing. Raises ``Sealed`` for a locked keychain."""
    forget(read(path), asked)
    path.unlink()


def move(path: Path, where: str, asked: Asked, new: Callable[[str], Secret]) -> Identity:
    """Give a key another place, and let its file hold or name that. The old place is let go last.

    Args:
        path: its file.
        where: as ``repo.kept.keep`` takes it.
        asked: opens the key where it is, and unlocks a keychain.
        new: a new passphrase, or the PIN of a token.

    Raises:
        InvalidRequest: it is an SSH key or that of a plugin, which other programs look for where it is; the file has
            several names, of which the others would keep the key; or there is no such place.
        Sealed: it does not open, or the new place does not; nothing was changed.
    """
    path = path.resolve()  # a link is left as it is, and what it leads to gets the key's new form
    before = read(path)
    _beside(path).unlink(missing_ok=True)  # a command that was ended may have left it as a second name
    if path.stat().st_nlink > 1:
        raise InvalidRequest(f"the key file {path} has several names", "remove the other hard links to it")
    form = form_of(before)
    if form in {Form.SSH, Form.PLUGIN}:
        what = "an SSH key" if form is Form.SSH else "the key of a plugin"
        raise InvalidRequest(f"{what} stays where other programs find it", "name its file with --key")
    identity = open_kept(before, asked)
    data = keep(identity, where, asked, new)
    if data == before:
        return identity
    _compare(data, identity, asked, new)
    beside = path.with_name(f"{path.name}.new")
    beside.unlink(missing_ok=True)  # of a move that was ended; the key itself is still in its place
    _write(beside, data)
    beside.replace(path)
    sync_folder(path.parent)
    forget(before, asked)
    return identity


def _compare(data: bytes, identity: Identity, asked: Asked, new: Callable[[str], Secret]) -> None:
    """Open what was kept, from where it is, as the next command will."""
    found = open_kept(data, Asked(_Entered(asked.prompts, new), keychain=asked.keychain))
    if found.to_text() != identity.to_text():  # pragma: no cover - a keeper that gives back something else
        raise IntegrityError("the new place gives back another key", "the key is still where it was; use another place")


class _Entered:
    """Answers with what was entered for the new place."""

    def __init__(self, prompts: Prompts, new: Callable[[str], Secret]) -> None:
        self.answer, self.confirm, self.show = prompts.answer, prompts.confirm, prompts.show
        self._new = new

    def passphrase(self, question: str) -> Secret | None:
        """What ``new`` gave before."""
        return self._new(question)


def write(path: Path, identity: Identity) -> None:
    """A new key file in clear, 0600 from the first byte. Raises ``Conflict`` when anything is there."""
    _write(path, identity.to_text().encode())


def _write(path: Path, data: bytes) -> None:
    """A new file that is there whole or not at all. Raises ``Conflict`` when anything is there."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = _beside(path)
    try:
        fresh.unlink(missing_ok=True)  # of a command that was ended
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)  # whatever the umask left of it
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        try:
            os.link(fresh, path)  # never over another
        finally:
            fresh.unlink(missing_ok=True)
        sync_folder(path.parent)
    except FileExistsError:
        raise Conflict(f"{path} is there already", "a key file is never written over: name another") from None
    except OSError as error:
        raise InvalidRequest(f"the key file {path} cannot be made: {error.strerror}", "name another place") from None


def _beside(path: Path) -> Path:
    """Where a key file is written before it gets its name."""
    return path.with_name(f".{path.name}.new")


def free(path: Path) -> Path:
    """This path, or one beside it where a key is there already."""
    found, number = path, 1
    while found.exists():
        number += 1
        found = path.with_name(f"{path.name.removesuffix('.key')}.{number}.key")
    return found
