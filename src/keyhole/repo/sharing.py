"""Records of reads that a team shares: signed files in the vault that are only ever added to.

``.agent-vault/.x/reads/LOG/000001.json`` and so on are of one machine, and never change: each names the one before by
its digest, and is signed by who shared it. So they merge as files, none can be changed, and whoever has seen one sees
when it is gone. A secret is named by where it lies, which says nothing where names are hidden.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from keyhole.core.errors import IntegrityError, InvalidRequest, KeyholeError, PolicyDenied
from keyhole.repo import reads, signed
from keyhole.repo.members import Members
from keyhole.repo.opened import Opened
from keyhole.repo.past import everybody
from keyhole.repo.reads import Read
from keyhole.repo.sealing import Actor
from keyhole.repo.seen import write_private
from keyhole.repo.signed import Signed
from keyhole.repo.tree import Change, Files

KIND = "reads"
SHARED = ".x/reads"
MOST = 1000  # records of one file
_LOG = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Segment:
    """One file.

    Attributes:
        log: of which machine's record; random.
        number: from 1, without a gap.
        previous: digest of the one before; empty for the first.
        by: the member who shared it.
        records: that it has.
        document: as it was signed.
    """

    log: str
    number: int
    previous: str
    by: str
    records: tuple[Read, ...]
    document: Signed


@dataclass(slots=True)
class Known:
    """What this machine has seen of shared records, and whether it shares its own with each push.

    Attributes:
        always: share with each push.
        heads: log to number and digest of its last file.
        path: where this is kept.
    """

    always: bool = False
    heads: dict[str, tuple[int, str]] = field(default_factory=dict)
    path: Path | None = None

    @classmethod
    def load(cls, opened: Opened) -> Known:
        """What is kept for a vault. Raises ``IntegrityError`` when it cannot be read."""
        if opened.seen.path is None:
            return cls()
        path = opened.seen.path.with_suffix(".shared.json")
        try:
            data = json.loads(path.read_bytes())
            heads = {str(log): (int(number), str(digest)) for log, (number, digest) in data["heads"].items()}
            return cls(data["always"] is True, heads, path)
        except FileNotFoundError:
            return cls(path=path)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise IntegrityError(
                f"{path} cannot be read, so it is not known which records of reads were here",
                "remove it, if you trust them",
            ) from None

    def store(self) -> None:
        """Make it last."""
        if self.path is None:
            return
        write_private(self.path, json.dumps({"always": self.always, "heads": self.heads}).encode())


def share(opened: Opened, actor: Actor) -> Change | None:
    """What this machine has recorded and not shared yet, as new files; ``None`` for nothing.

    Raises:
        PolicyDenied: the actor's key signs nothing here.
        IntegrityError: the record of this machine was changed, or is not the one of which a part was shared.
    """
    mine = reads.load(reads.path_of(opened))
    if not mine:
        return None
    if actor.member.sign != actor.identity.signing.public:
        raise PolicyDenied(
            f"{actor.member.name} signs nothing here, so cannot share records", "ask who can to share them"
        )
    log, lists = mine[0].log, everybody(opened)
    before = segments(opened, log, lists)
    shared = [each for segment in before for each in segment.records]
    if [each.digest for each in shared] != [each.digest for each in mine[: len(shared)]]:
        raise IntegrityError(
            "the record of reads of this machine is not the one of which a part was shared",
            f"keep {reads.path_of(opened)} elsewhere; a new one begins then",
        )
    foreign = {each.vault for each in mine[len(shared) :]} - {opened.require_members().vault, ""}
    if foreign:
        raise InvalidRequest("the record has reads of another vault", f"keep {reads.path_of(opened)} elsewhere")
    files: dict[str, bytes | None] = {}
    number, digest = (before[-1].number, before[-1].document.digest) if before else (0, "")
    for start in range(len(shared), len(mine), MOST):
        number += 1
        content = {
            "log": log,
            "number": number,
            "previous": digest,
            "vault": opened.require_members().vault,
            "by": actor.member.name,
            "records": [_record(each) for each in mine[start : start + MOST]],
        }
        path = f"{SHARED}/{log}/{number:06}.json"
        files[path] = data = signed.write(KIND, content, [(actor.member.name, actor.identity.signing)])
        digest = signed.read(KIND, data, path).digest
    return Change(f"agent-vault: share {len(mine) - len(shared)} records of reads", files) if files else None


def logs(tree: Files) -> list[str]:
    """Ids of the records that are shared. Raises ``IntegrityError`` for what is none."""
    found = tree.names(SHARED)
    for name in found:
        if not _LOG.fullmatch(name):
            raise IntegrityError(f"{SHARED}/{name[:60]} is no record of reads", "remove it")
    return found


def segments(opened: Opened, log: str, lists: list[Members]) -> list[Segment]:
    """The files of one record, verified. Raises ``IntegrityError``."""
    found: list[Segment] = []
    digest, last = "", (0, "")
    vault = opened.require_members().vault
    for name in opened.tree.names(f"{SHARED}/{log}"):
        path = f"{SHARED}/{log}/{name}"
        document = signed.read(KIND, opened.tree.require(path), path)
        segment = _segment(document)
        following = (segment.log, segment.number, segment.previous, f"{segment.number:06}.json")
        if following != (log, len(found) + 1, digest, name) or document.content["vault"] != vault:
            raise IntegrityError(f"{path} does not follow the one before it", "restore it from its history")
        people = (each.members.get(segment.by) for each in lists)
        if not any(one is not None and document.is_by(one.name, one.sign) for one in people):
            raise IntegrityError(f"{path} is not signed by {segment.by}, who shared it", "restore it from its history")
        reads.require_chain(list(segment.records), path, *last)
        for each in segment.records:
            if each.log != log or (each.document and each.document.signatures and not each.is_signed(lists)):
                raise IntegrityError(f"record {each.number} in {path} is not by {each.who}", "ask who shared it")
        found.append(segment)
        digest, last = document.digest, (segment.records[-1].number, segment.records[-1].digest)
    return found


def all_shared(opened: Opened) -> Iterator[Segment]:
    """Everything that is shared, verified, and compared with what this machine has seen. Raises ``IntegrityError``."""
    lists, known = everybody(opened), Known.load(opened)
    heads = dict(known.heads)
    for log in logs(opened.tree):
        found = segments(opened, log, lists)
        number, digest = heads.get(log, (0, ""))
        if number > len(found) or (number and found[number - 1].document.digest != digest):
            raise _cut(log, number)
        if found:
            heads[log] = (found[-1].number, found[-1].document.digest)
        yield from found
    for log in set(heads) - set(logs(opened.tree)):
        raise _cut(log, heads[log][0])
    if heads != known.heads:
        known.heads = heads
        known.store()


def problems(opened: Opened) -> list[str]:
    """What is wrong with the records that are shared, in words."""
    if opened.members is None:
        return []
    try:
        for _ in all_shared(opened):
            pass
    except KeyholeError as error:
        return [error.reason]
    return []


def require_kept(before: Files, after: Files) -> None:
    """See that a later state has all the files of an earlier one, as they were. Raises ``IntegrityError``."""
    for log in logs(before):
        for name in before.names(f"{SHARED}/{log}"):
            path = f"{SHARED}/{log}/{name}"
            if before.read(path) != after.read(path):
                raise IntegrityError(
                    f"{path}, a record of who has read what, was changed or taken away",
                    "it is not taken over: ask who can write to the remote",
                )


def require_taken(before: Files | None, ours: Opened, theirs: Opened) -> None:
    """See that a state from elsewhere has the records of the one from which both went on, and only genuine new ones.

    Raises:
        IntegrityError: it has not.
    """
    if before is not None:
        require_kept(before, theirs.tree)
    if not theirs.signed:
        return
    for log in logs(theirs.tree):
        paths = [f"{SHARED}/{log}/{name}" for name in theirs.tree.names(f"{SHARED}/{log}")]
        if any(theirs.tree.read(path) != ours.tree.read(path) for path in paths):
            segments(theirs, log, everybody(theirs))


def _segment(document: Signed) -> Segment:
    content = document.content
    try:
        records = [_read(each, document.where) for each in content["records"]]
        if set(content) == {"log", "number", "previous", "vault", "by", "records"} and 0 < len(records) <= MOST:
            return Segment(
                str(content["log"]),
                int(content["number"]),
                str(content["previous"]),
                str(content["by"]),
                tuple(records),
                document,
            )
    except (KeyError, TypeError, ValueError, AttributeError):
        pass
    raise IntegrityError(f"{document.where} is no record of reads", "restore it from its history")


def _read(data: dict[str, object], where: str) -> Read:
    if set(data) != {"content", "signatures"}:
        raise ValueError(where)
    return reads.parse(signed.read(reads.KIND, json.dumps(data).encode(), where))


def _record(read: Read) -> dict[str, object]:
    signatures = {} if read.document is None else read.document.signatures
    said = {name: base64.b64encode(signature).decode() for name, signature in signatures.items()}
    return {"content": read.content, "signatures": said}


def _cut(log: str, number: int) -> IntegrityError:
    return IntegrityError(
        f"{SHARED}/{log} had {number} files when this machine looked last, and has not all of them as they were",
        "somebody took records of reads away: restore them from the history",
    )
