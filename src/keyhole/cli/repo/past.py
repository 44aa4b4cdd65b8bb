"""The past of a vault, as git or a remote keeps it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from keyhole.cli.base import Session
from keyhole.cli.repo.peers import chain_at, remote_at
from keyhole.cli.repo.place import Place
from keyhole.cli.repo.touched import touched_by
from keyhole.cli.repo.unchosen import with_unchosen
from keyhole.config import home
from keyhole.core.errors import IntegrityError, InvalidRequest, KeyholeError, NotFound
from keyhole.remotes.chain import Chain
from keyhole.remotes.git import Git
from keyhole.remotes.settings import Settings
from keyhole.repo.past import Past, Trace
from keyhole.repo.reviewing import Touched
from keyhole.repo.seen import Seen
from keyhole.repo.tree import VAULT, Files

_MOST = 50_000  # commits
_LONGEST = 4 * 1024 * 1024  # bytes of a signed document
_ALL = 256 * 1024 * 1024  # bytes of all of them
_PLAIN = {"100644", "100755"}


def past_of(session: Session, place: Place) -> Past | None:
    """What is kept of the past of a vault: by git, else by its remote and here of what was not chosen."""
    if place.git is not None:
        return GitPast(place.git, place.tree.root)
    return with_unchosen(_at_remote(session, place), place.tree)


def _at_remote(session: Session, place: Place) -> Past | None:
    met = Seen.load(home(), place.tree.root).remotes
    for name, address in Settings(home(), place.tree.root).all().items():
        if name in met and met[name].version:
            try:
                return ObjectPast(chain_at(place.tree.root, name, remote_at(address)), met[name].version)
            except KeyholeError as error:
                session.out.warn(f"the remote {name} was not asked for older versions: {error.reason}")
    return None


def commits_of(place: Place) -> GitPast:
    """The past of a vault in git. Raises ``NotFound`` for another."""
    if place.git is None:
        raise NotFound("this vault lies in no git repository, so nothing of its past is kept", "git init")
    return GitPast(place.git, place.tree.root)


class GitPast:
    """The commits that are reachable from the one that is checked out.

    Args:
        git: the repository.
        root: the folder that has ``.agent-vault``.
    """

    def __init__(self, git: Git, root: Path) -> None:
        self._git, self._root = git, root
        prefix = root.relative_to(git.root).as_posix()
        self._base = VAULT if prefix == "." else f"{prefix}/{VAULT}"

    def traces(self, folders: Iterable[str]) -> list[Trace]:
        """See ``Past.traces``."""
        if not self._git.head():
            return []
        paths = [f":(top,literal){self._base}/{folder}" for folder in folders]
        words = ("--full-history", "--topo-order", "--reverse", "-m", "--raw", "--no-abbrev", "--no-renames", "-z")
        listed = self._git.run(
            "log",
            *words,
            f"--max-count={_MOST}",
            "--format=%x01%H%x02%ct%x02%s",
            "HEAD",
            "--",
            *paths,
        )
        found: dict[tuple[str, str], tuple[str, int, str, bool]] = {}
        commit, seconds, message, mode = "", 0, "", ""
        tokens = iter(listed.decode(errors="replace").split("\0"))
        for token in tokens:
            text = token.lstrip("\n")
            if text.startswith("\x01"):
                commit, stamp, message = text[1:].split("\x02", 2)
                seconds = int(stamp)
            elif text.startswith(":"):
                _, mode, _, blob, _ = text.split(" ")
                path = next(tokens, "").removeprefix(f"{self._base}/")
                if blob.strip("0"):
                    found.setdefault((path, blob), (commit, seconds, message, mode in _PLAIN))
        data = self._blobs({blob for (_, blob), (*_, plain) in found.items() if plain})
        return [
            Trace(path, data.get(blob), place, _time(at), said) for (path, blob), (place, at, said, _) in found.items()
        ]

    def touched(self, before: str, after: str) -> list[Touched]:
        """Files of the vault that are not alike in two commits; ``before`` may be empty for nothing."""
        return touched_by(self._git, self._base, before, after)

    def commits(self, before: str, after: str) -> list[tuple[str, str]]:
        """Those of a range that touched the vault, the newest first, each with its first parent or nothing."""
        without = [f"^{before}"] if before else []
        paths = f":(top,literal){self._base}"
        words = ("log", "--full-history", f"--max-count={_MOST}", "--format=%H %P", after, *without, "--", paths)
        lines = self._git.run(*words).decode().splitlines()
        return [(parts[0], parts[1] if len(parts) > 1 else "") for line in lines if (parts := line.split())]

    def _blobs(self, wanted: Iterable[str]) -> dict[str, bytes]:
        """The bytes of those that are not too long, in one go."""
        asked = "".join(f"{blob}\n" for blob in sorted(wanted)).encode()
        if not asked:
            return {}
        listed = self._git.run("cat-file", "--batch-check", data=asked).decode().splitlines()
        sizes = {words[0]: int(words[2]) for line in listed if (words := line.split())[1:2] == ["blob"]}
        small = [blob for blob, size in sizes.items() if size <= _LONGEST]
        if sum(sizes[blob] for blob in small) > _ALL:
            raise IntegrityError(
                f"the signed documents in this history have more than {_ALL} bytes", "ask who can write to the remote"
            )
        out = self._git.run("cat-file", "--batch", "--buffer", data="".join(f"{each}\n" for each in small).encode())
        found, position = {}, 0
        for blob in small:
            end = out.index(b"\n", position)
            start, size = end + 1, int(out[position:end].split(b" ")[2])
            found[blob] = out[start : start + size]
            position = start + size + 1
        return found

    def at(self, place: str) -> Files:
        """See ``Past.at``."""
        return self._git.at(place, self._root)

    def resolve(self, text: str) -> str:
        """See ``Past.resolve``."""
        try:
            found = self._git.run("rev-parse", "--verify", "--quiet", "--end-of-options", f"{text}^{{commit}}")
        except InvalidRequest:
            raise NotFound(
                f"there is no commit {text[:80]!r} here", "git fetch; a CI job may have to fetch the whole history"
            ) from None
        return found.decode().strip()

    def common(self, one: str, other: str) -> str:
        """Where two commits parted; empty when they never met."""
        return self._git.common(one, other)


class ObjectPast:
    """The snapshots in a remote, up to the one with which this clone was last the same. None of them has a time.

    Args:
        chain: of the remote.
        last: digest of the snapshot.

    Raises:
        IntegrityError, Unreachable, PolicyDenied: the remote cannot be asked, or is not what it was.
    """

    def __init__(self, chain: Chain, last: str) -> None:
        self._chain = chain
        self._places = [last]
        current = chain.snapshot(last)
        while current.parent:
            below = chain.snapshot(current.parent)
            if below.number != current.number - 1 or len(self._places) == _MOST:
                raise IntegrityError("the snapshots of the remote do not follow each other", "ask who can write to it")
            self._places.append(current.parent)
            current = below

    def traces(self, folders: Iterable[str]) -> list[Trace]:
        """See ``Past.traces``."""
        wanted = tuple(folders)
        found: dict[tuple[str, str], Trace] = {}
        for place in reversed(self._places):
            files = self._chain.files(place)
            for path, entry in files.entries.items():
                if path.startswith(tuple(f"{each}/" for each in wanted)) or path in wanted:
                    data = files.read(path) if entry.size <= _LONGEST else None
                    found.setdefault((path, entry.digest), Trace(path, data, place))
        return list(found.values())

    def at(self, place: str) -> Files:
        """See ``Past.at``."""
        return self._chain.files(place)

    def resolve(self, text: str) -> str:
        """See ``Past.resolve``."""
        found = [place for place in self._places if len(text) >= 7 and place.startswith(text)]
        if len(found) != 1:
            raise NotFound(f"there is no snapshot {text[:80]!r} in the remote", "keyhole repo history")
        return found[0]


def _time(seconds: int) -> datetime | None:
    """When a commit says that it was made: anything, for whoever has written it."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None
