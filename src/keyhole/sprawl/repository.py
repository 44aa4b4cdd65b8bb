"""What a repository of git has staged, by the program ``git``: read from its objects, never from the working copy."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.sprawl.finding import LIMITS

_TIMEOUT = 120.0  # seconds
_SAFE = ("core.fsmonitor=false", "core.quotePath=false", "protocol.allow=never")
_LINKED = "160000"  # the mode of a submodule, whose files are of another repository
_ID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")


@dataclass(frozen=True, slots=True)
class Staged:
    """A file that the next commit changes or adds.

    Attributes:
        path: from the top of the work tree.
        blob: id of its content.
    """

    path: str
    blob: str


class Repository:
    """A repository as git finds it: with what git says in the environment of a hook, such as another index.

    Args:
        folder: in the work tree.
        environ: of this process.

    Raises:
        NotFound: it is in no repository, or git is not installed.
    """

    def __init__(self, folder: Path, environ: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self._environ = {
            **(os.environ if environ is None else environ),
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_NO_LAZY_FETCH": "1",
            "LC_ALL": "C.UTF-8",
        }
        self.top = Path(self._line("rev-parse", "--show-toplevel") or folder)
        self.folder = self.top

    def staged(self) -> tuple[list[Staged], list[str]]:
        """Files that the next commit adds or changes, and ids of the contents that they replace.

        In a merge only what differs from every parent counts: the rest was somebody else's commit.
        """
        parents = self._parents()
        added: dict[str, str] = {}
        replaced: list[str] = []
        for number, parent in enumerate(parents):
            changed = dict[str, str]()
            for old, _, mode, blob, path in self._changes(parent):
                if old and set(old) != {"0"}:
                    replaced.append(old)
                if mode not in {_LINKED, "000000"}:
                    changed[path] = blob
            added = changed if number == 0 else {path: blob for path, blob in added.items() if path in changed}
        return [Staged(path, blob) for path, blob in added.items()], replaced

    def blobs(self, ids: Sequence[str], most: int = LIMITS.file) -> Iterator[tuple[bytes, int]]:
        """Contents and their whole sizes; of a longer one than ``most`` bytes the beginning."""
        rest = list(ids)
        while rest:
            with self._open("cat-file", "--batch") as process:
                stdin, stdout = process.stdin, process.stdout
                assert stdin is not None and stdout is not None  # noqa: S101, PT018  # pipes were asked for
                while rest:
                    blob = rest.pop(0)
                    stdin.write(f"{blob}\n".encode())
                    stdin.flush()
                    head = stdout.readline().split()
                    if len(head) < 3:
                        raise InvalidRequest(f"git does not have the object {blob}", "git fsck")
                    size = int(head[2])
                    yield stdout.read(min(size, most)), size
                    if size > most:
                        process.kill()  # the rest of it is not read
                        break
                    stdout.read(1)

    def file(self, path: str) -> bytes:
        """A staged file; empty where there is none."""
        listed = self.run("ls-files", "--stage", "-z", "--", f":(top,literal){path}").decode(errors="surrogateescape")
        for line in filter(None, listed.split("\0")):
            mode, blob, _ = line.partition("\t")[0].split(" ")
            if mode in {"100644", "100755"}:
                return next(self.blobs([blob]))[0]
        return b""

    def run(self, *words: str, data: bytes = b"") -> bytes:
        """What git prints.

        Raises:
            NotFound: git is not installed, or this is no repository.
            InvalidRequest: git refuses.
        """
        try:
            done = subprocess.run(  # noqa: S603  # fixed words, and paths after them
                self._command(*words),
                cwd=self.folder,
                env=self._environ,
                input=data,
                capture_output=True,
                timeout=_TIMEOUT,
                check=False,
            )
        except FileNotFoundError:
            raise NotFound("git is not installed", "install git") from None
        except subprocess.TimeoutExpired:
            raise InvalidRequest(f"git {words[0]} took longer than {_TIMEOUT:g} s", "try it by hand") from None
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            reason = f"git {words[0]}: {said[-1][:300] if said else done.returncode}"
            if any("not a git repository" in line for line in said):
                raise NotFound(f"{self.folder} is in no git repository", "git init")
            raise InvalidRequest(reason, "see git status")
        return done.stdout

    def config(self, name: str) -> str:
        """A setting as git uses it; empty where it is not set."""
        return self._line("config", "--get", name)

    def hooks(self) -> Path:
        """The folder from which git runs hooks, whoever has set it."""
        return self.folder / os.fsdecode(self.run("rev-parse", "--git-path", "hooks")).rstrip("\n")

    def common(self) -> Path:
        """The folder of git itself that all work trees of the repository have in common."""
        return (self.folder / os.fsdecode(self.run("rev-parse", "--git-common-dir")).rstrip("\n")).resolve()

    def _parents(self) -> list[str]:
        head = self._line("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
        parents = [head or self.run("hash-object", "-t", "tree", "--stdin").decode().strip()]
        merging = self._line("rev-parse", "--git-path", "MERGE_HEAD")
        if merging and (self.folder / merging).is_file():
            parents += _ID.findall((self.folder / merging).read_text("ascii", "replace"))
        # So that a hook knows before there is a MERGE_HEAD (git-merge(1)).
        parents += [name[8:] for name in self._environ if name.startswith("GITHEAD_") and _ID.fullmatch(name[8:])]
        return list(dict.fromkeys(parents))

    def _changes(self, parent: str) -> Iterator[tuple[str, str, str, str, str]]:
        """Id before, mode before, mode and id now, path: of everything that differs between a commit and the index."""
        words = ("diff-index", "--cached", "--raw", "--no-abbrev", "--no-renames", "-z", parent, "--")
        parts = iter(self.run(*words).decode(errors="surrogateescape").split("\0"))
        for about in parts:
            if not about:
                return
            before, after, old, new, _ = about.lstrip(":").split(" ")
            yield old if before != _LINKED else "", before, after, new, next(parts)

    def _line(self, *words: str) -> str:
        try:
            return os.fsdecode(self.run(*words)).rstrip("\n")
        except InvalidRequest:
            return ""

    def _command(self, *words: str) -> list[str]:
        return ["git", "--no-pager", *(word for setting in _SAFE for word in ("-c", setting)), *words]

    def _open(self, *words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603  # fixed words
            self._command(*words), cwd=self.folder, env=self._environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
