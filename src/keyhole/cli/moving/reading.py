"""From a source to a batch: files of every kind, and the folder of another repo vault."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from keyhole.cli.base import Session
from keyhole.cli.consent import ask_hidden, has_terminal
from keyhole.cli.import_sources import Source, read_file
from keyhole.cli.moving.batch import PLAIN, Batch
from keyhole.cli.moving.past import committed
from keyhole.config import home
from keyhole.core.errors import Expired, IntegrityError, InvalidRequest, NotFound
from keyhole.core.path import DEFAULT_FIELD
from keyhole.core.value import Secret
from keyhole.crypto import age
from keyhole.crypto.age import Identity
from keyhole.importers import MANAGERS, Found, Origin, Skipped, load
from keyhole.importers.found import Opens
from keyhole.repo import keys
from keyhole.repo.names import group_of
from keyhole.repo.opened import open_vault
from keyhole.repo.reads import release
from keyhole.repo.tree import VAULT

MODULES = {"1password": "onepassword"}
"""Formats whose word is no name of a module."""
_MAX_KEYS = 64 * 1024
_SOPS_KEY, _SOPS_FILE = "SOPS_AGE_KEY", "SOPS_AGE_KEY_FILE"
_MAIL_KEY = "AGENTICMAIL_VAULT_KEY"


@dataclass(slots=True)
class Given:
    """What the command line says of a source.

    Attributes:
        identities: files with age keys.
        password_file: with the password of the source in its first line.
        under: first part of all names.
    """

    identities: Sequence[str] = field(default_factory=tuple)
    password_file: str = ""
    under: str = ""


def from_file(kind: str, path: Path, given: Given) -> Batch:
    """Read a file of a format.

    Raises:
        NotFound: there is no file, or nothing that opens it.
        InvalidRequest: it is not of that format.
        IntegrityError: it was changed, or the password is another.
    """
    content, status = read_file(path)
    module = MODULES.get(kind, kind)
    group = given.under or path.absolute().parent.name or "imported"
    try:
        origin = Origin(str(path), group, _opens(kind, content, given))
        report = load(module).parse(content, origin)
    except InvalidRequest as error:
        raise InvalidRequest(f"{path}: {error.reason}", error.hint) from None
    source = Source(module, str(path), report, path, content, status)
    seen = report.seen if module in MANAGERS else PLAIN
    found = [_under(each, given.under) for each in report.found]
    past = committed(path, found)
    return Batch(str(path), found, list(report.skipped), report.notes, seen, source, past)


def _under(found: Found, under: str) -> Found:
    named = not under or found.name.startswith(f"{under}/")
    return found if named else replace(found, name=f"{under}/{found.name}")


def _opens(kind: str, content: bytes, given: Given) -> Opens:
    """What opens a file of this kind: read or asked for only where the kind is a sealed one."""
    if kind == "sops":
        return Opens(tuple(age_keys(given.identities)))
    if kind == "agenticmail" or (kind == "bitwarden" and b"passwordProtected" in content[:4096]):
        return Opens(password=password(given.password_file, _MAIL_KEY if kind == "agenticmail" else ""))
    return Opens()


def age_keys(files: Sequence[str]) -> list[Identity]:
    """The age keys of these files, else those that sops itself would use. Raises ``NotFound``, ``InvalidRequest``."""
    if files:
        return [identity for file in files for identity in _keys_of(Path(file).expanduser())]
    if text := os.environ.get(_SOPS_KEY, ""):
        return _keys_in(text, _SOPS_KEY)
    named = os.environ.get(_SOPS_FILE, "")
    usual = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "sops/age/keys.txt"
    path = Path(named) if named else usual
    return _keys_of(path) if named or path.exists() else []


def _keys_of(path: Path) -> list[Identity]:
    content, status = read_file(path)
    if os.name == "posix" and status.st_mode & 0o077:
        raise InvalidRequest(f"the key file {path} can be read by others", f"chmod 600 {path}")
    if len(content) > _MAX_KEYS:
        raise InvalidRequest(f"{path} is no key file", "name the file that age-keygen made")
    return _keys_in(content.decode(errors="replace"), str(path))


def _keys_in(text: str, where: str) -> list[Identity]:
    lines = [line.strip() for line in text.splitlines() if line.strip().startswith(age.PRIVATE)]
    if not lines:
        raise InvalidRequest(f"{where} has no key of age", "it begins with AGE-SECRET-KEY-1")
    return [age.parse_identity(line) for line in lines]


def password(file: str, variable: str = "") -> Secret:
    """The password of a source, from a file, a variable, or asked for; ``NotFound`` where nobody can be asked."""
    if file:
        content, _ = read_file(Path(file).expanduser())
        found = Secret(content.split(b"\n", 1)[0].removesuffix(b"\r"))
    elif variable and os.environ.get(variable):
        found = Secret(os.environ[variable])
    elif has_terminal():
        found = ask_hidden("Password of the file: ")
    else:
        hint = f"--password-file FILE{f', or {variable}' if variable else ''}"
        raise NotFound("there is no password, and nobody can be asked for it here", hint)
    if not len(found):
        raise InvalidRequest("the password is empty", "its first line is what counts")
    return found


def from_repo(session: Session, folder: Path, key_file: str, given: Given) -> Batch:
    """Read a repo vault, with the key that opens it; each value that is taken is on record there as read.

    Raises:
        NotFound: there is no vault, or no key.
        IntegrityError: something in it is not genuine.
    """
    start = folder.resolve()
    root = next((each for each in (start, *start.parents) if (each / VAULT).is_dir()), None)
    if root is None:
        raise NotFound(f"there is no vault in {start} or above it", "name the folder that has .agent-vault")
    from keyhole.cli.repo.asking import asked_of  # noqa: PLC0415  # the noun repo has a verb that reads this module

    opened, identity = open_vault(root, home()), keys.find(os.environ, key_file, asked_of(session))
    opened.unlock(identity)
    found, skipped = list[Found](), list[Skipped]()
    for stem in opened.names():
        name = opened.shown(stem)
        try:
            value = release(opened, identity, stem, how="import", environ=os.environ)
        except (NotFound, Expired, IntegrityError) as error:
            skipped.append(Skipped(name, str(root), error.reason))
            continue
        due = opened.sidecar(stem).due if opened.signed else ""
        fields = {DEFAULT_FIELD: value}
        found.append(
            _under(
                Found(name, fields, group_of(name), kind="custom", seen=f"was due already: {due}" if due else ""),
                given.under,
            )
        )
    notes = [] if opened.signed else ["nothing in that vault is signed: whoever can write to it chose these values"]
    if not found and not skipped:
        notes.append("that vault has no secrets")
    return Batch(str(root), found, skipped, notes)
