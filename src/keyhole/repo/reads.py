"""Who has read what: a record that is durable before a value is let go, one file for each vault and machine.

Each line is a document that the reader's key signs, and names the one before by its digest, so that none can be changed
or taken out unnoticed by who knows a later one. There is no field for a value. ``release`` is the way in which values
leave a repo vault for a person or a program; what is lent by a mount is in the journal of the vault that lends it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from keyhole.core.errors import AuditUnavailable, IntegrityError
from keyhole.core.value import Secret
from keyhole.crypto.age import Identity
from keyhole.repo import signed
from keyhole.repo.documents import instant
from keyhole.repo.members import Members
from keyhole.repo.opened import Opened
from keyhole.repo.signed import Signed
from keyhole.repo.tree import sync_folder

KIND = "read"
CONTEXT = ("workflow", "run", "step")
"""What ``KEYHOLE_WORKFLOW`` and so on say of the work that reads."""
MAX_LINE = 8 * 1024  # bytes
_MAX_CONTEXT = 200  # characters of each


@dataclass(frozen=True, slots=True)
class Read:
    """One read.

    Attributes:
        log: id of the file, random.
        number: from 1, without a gap.
        previous: digest of the one before; empty for the first.
        time: when, by the clock of that machine.
        vault: its id; empty for one that is not signed.
        who: the member, or the public key of who is none.
        secret: where the secret lies in the vault: its name, or what stands for a name that is hidden.
        version: of the secret; 0 where nothing is signed.
        how: through which verb.
        context: of the run, such as ``{"workflow": "deploy"}``; what the environment said.
        document: as it was signed.
    """

    log: str
    number: int
    previous: str
    time: datetime
    vault: str
    who: str
    secret: str
    version: int
    how: str
    context: Mapping[str, str] = field(default_factory=dict)
    document: Signed | None = None

    @property
    def content(self) -> dict[str, Any]:
        """What is signed."""
        return {
            "log": self.log,
            "number": self.number,
            "previous": self.previous,
            "time": instant(self.time),
            "vault": self.vault,
            "who": self.who,
            "secret": self.secret,
            "version": self.version,
            "how": self.how,
            "context": dict(self.context),
        }

    @property
    def digest(self) -> str:
        """Of what is signed; the next one names it."""
        return Signed(KIND, self.content, {}, "").digest

    def is_signed(self, everybody: list[Members]) -> bool:
        """Whether the key that this member has or had signed it."""
        if self.document is None:
            return False
        people = (m.members.get(self.who) for m in reversed(everybody))
        return any(one is not None and self.document.is_by(one.name, one.sign) for one in people)


def parse(document: Signed) -> Read:
    """What a document says. Raises ``IntegrityError``."""
    content = document.content
    try:
        found = Read(
            str(content["log"]),
            int(content["number"]),
            str(content["previous"]),
            datetime.fromisoformat(str(content["time"])).astimezone(UTC),
            str(content["vault"]),
            str(content["who"]),
            str(content["secret"]),
            int(content["version"]),
            str(content["how"]),
            {str(name): str(text) for name, text in content["context"].items()},
            document,
        )
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
        raise IntegrityError(f"{document.where} is no record of a read", "keyhole repo reads --verify") from None
    if found.content != content:
        raise IntegrityError(f"{document.where} says more than a record of a read does", "keyhole repo reads --verify")
    return found


def release(
    opened: Opened, identity: Identity, name: str, *, how: str, environ: Mapping[str, str], now: datetime | None = None
) -> Secret:
    """The value of a secret, once it is on record that it was read.

    Args:
        opened: the vault.
        identity: who reads.
        name: of the secret.
        how: the verb.
        environ: says which run it is for.
        now: the time, with its zone.

    Raises:
        AuditUnavailable: the record cannot be written, so the value is not given.
        NotFound, Expired, IntegrityError: see ``Opened.get``.
    """
    value = opened.get(name, [identity], now)
    version = opened.sidecar(name).version if opened.signed else 0
    record(opened, identity, name, version, how=how, environ=environ, now=now)
    return value


def record(
    opened: Opened,
    identity: Identity,
    name: str,
    version: int,
    *,
    how: str,
    environ: Mapping[str, str],
    now: datetime | None = None,
) -> Read:
    """Write down that a version of a secret is read; durable when this returns. Raises ``AuditUnavailable``."""
    path = path_of(opened)
    member = opened.members.of(identity.recipient) if opened.members is not None else None
    who = member.name if member is not None else identity.recipient.text
    context = {
        each: text[:_MAX_CONTEXT] for each in CONTEXT if (text := environ.get(f"KEYHOLE_{each.upper()}", "").strip())
    }
    vault = opened.members.vault if opened.members is not None else ""
    with _appending(path) as file:
        last = _last(file, path)
        read = Read(
            os.urandom(8).hex() if last is None else last.log,
            1 if last is None else last.number + 1,
            "" if last is None else last.digest,
            now or datetime.now(UTC),
            vault,
            who,
            opened.where(name),
            version,
            how,
            context,
        )
        signs = member is not None and identity.signs and member.sign == identity.signing.public
        data = signed.write(KIND, read.content, [(who, identity.signing)] if signs else [])
        line = json.dumps(json.loads(data), separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
        if len(line) > MAX_LINE:  # pragma: no cover - names and the context are bounded
            raise AuditUnavailable(f"a record of a read has at most {MAX_LINE} bytes")
        os.write(file, line)
        os.fsync(file)
        if last is None:
            sync_folder(path.parent)
    return read


def load(path: Path) -> list[Read]:
    """Everything that was recorded here, oldest first; a line that was torn by a crash released nothing.

    Raises:
        IntegrityError: a line is none of ours, or does not follow the one before.
    """
    found: list[Read] = []
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return found
    with file:
        while line := file.readline(MAX_LINE + 1):
            if not line.endswith(b"\n") and len(line) <= MAX_LINE:
                break
            found.append(parse(signed.read(KIND, line, f"line {len(found) + 1} of {path}")))
    require_chain(found, str(path))
    return found


def require_chain(found: list[Read], where: str, number: int = 0, digest: str = "") -> None:
    """See that records follow each other, from the one of this number and digest. Raises ``IntegrityError``."""
    for read in found:
        if (read.number, read.previous, read.log) != (number + 1, digest, found[0].log):
            raise IntegrityError(
                f"record {number + 1} in {where} is missing or was changed", "somebody has been at it: ask who could"
            )
        number, digest = read.number, read.digest


def path_of(opened: Opened) -> Path:
    """Where reads of a vault are recorded. Raises ``AuditUnavailable`` for files that lie in no folder."""
    if opened.seen.path is None:
        raise AuditUnavailable("this state of the vault is not in a folder of this machine", "open it where it lies")
    return opened.seen.path.with_suffix(".reads.jsonl")


@contextlib.contextmanager
def _appending(path: Path) -> Iterator[int]:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        file = os.open(path, flags, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file
        finally:
            os.close(file)
    except OSError as error:
        raise AuditUnavailable(
            f"the read cannot be recorded in {path}: {error.strerror}; so the value is not given",
            "let KEYHOLE_HOME name a folder that can be written, in a CI job such as one below $RUNNER_TEMP",
        ) from None


def _last(file: int, path: Path) -> Read | None:
    """The last record; what a crash has left after it is taken off."""
    size = os.fstat(file).st_size
    start = max(0, size - 2 * MAX_LINE)
    tail = os.pread(file, size - start, start)
    whole = tail.rfind(b"\n") + 1
    if whole != len(tail):
        if not whole and start:
            raise AuditUnavailable(f"{path} has a line that is none of ours", "move it away, and keep it")
        os.ftruncate(file, start + whole)
    if not whole:
        return None
    line = tail[tail.rfind(b"\n", 0, whole - 1) + 1 : whole]
    try:
        return parse(signed.read(KIND, line, str(path)))
    except IntegrityError:
        raise AuditUnavailable(
            f"the last line of {path} is no record of a read, so none can follow it", "move it away, and keep it"
        ) from None
