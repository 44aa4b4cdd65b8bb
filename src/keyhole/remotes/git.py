"""Git repositories, by the program ``git`` itself, and nothing of it that a repository can make run code.

Whoever made the repository may have written its settings too: see ``git_settings`` for what is said to git instead.
Objects are made from bytes and put into a tree directly, so that neither attributes nor ignore files of the repository
have a say, and what somebody has staged besides stays staged.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from keyhole.core.errors import Conflict, IntegrityError, InvalidRequest, KeyholeError, NotFound, PolicyDenied
from keyhole.remotes import git_health, git_locks, git_moving, git_settings
from keyhole.remotes.git_url import is_local, parse_git_url
from keyhole.repo.tree import LOCAL, VAULT, Change, Reading

_LOCKED = "another git works there; if it was killed: keyhole operator fsck --repair"
_TIMEOUT = 120.0  # seconds
_MOST = 400_000  # files
_LONGEST = 32 * 1024 * 1024  # bytes
_PLAIN = frozenset({"100644", "100755"})
_SMALL = 1024 * 1024  # bytes of a signed document that is read with the others
_ALL = 256 * 1024 * 1024  # bytes
_KEPT = {"HOME", "PATH", "SSH_AUTH_SOCK", "LANG", "TMPDIR", "XDG_CONFIG_HOME", "USER", "LOGNAME", "SSL_CERT_FILE"}
_REMOTE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/-]{0,99}")
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")


class Git:
    """The repository that a folder belongs to.

    Args:
        root: its work tree.
        environ: of this process; only what git needs of it is handed on.
    """

    def __init__(self, root: Path, environ: Mapping[str, str]) -> None:
        self.root = root
        self._environ = {
            **{name: value for name, value in environ.items() if name in _KEPT or name.lower() in _PROXIES},
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_NO_LAZY_FETCH": "1",
            **git_settings.AS_COMMITTED,
            "GIT_ALLOW_PROTOCOL": "https:ssh:file",
            "LC_ALL": "C.UTF-8",
        }
        self._known: list[tuple[str, str, str]] | None = None

    @classmethod
    def find(cls, folder: Path, environ: Mapping[str, str]) -> Git | None:
        """The repository around a folder; ``None`` for none.

        Raises:
            PolicyDenied: it belongs to another user, or its settings lead to files outside of it.
            InvalidRequest: it has no work tree, or git cannot read it.
        """
        git = cls(folder, environ)
        try:
            found = git.run("rev-parse", "--show-toplevel", "--absolute-git-dir")
        except GitFailed as failed:
            if "not a git repository" in failed.reason:
                git_health.require_none(folder)
                return None
            if "dubious ownership" in failed.reason:
                raise PolicyDenied(
                    f"the repository around {folder} belongs to another user",
                    "if you trust it: git config --global --add safe.directory FOLDER",
                ) from None
            raise
        top, inside = (Path(line) for line in found.decode(errors="surrogateescape").splitlines())
        if where := git_health.leads_out(top, inside):
            raise PolicyDenied(
                f"the repository around {folder} leads outside of it: {where[:200]!r}",
                "see .git there, and core.worktree in its config; a fresh clone has no such thing",
            )
        return cls(top, environ)

    def run(self, *arguments: str, data: bytes = b"", index: Path | None = None, timeout: float = _TIMEOUT) -> bytes:
        """What git prints.

        Raises:
            NotFound: git is not installed.
            InvalidRequest: it refuses, or takes too long; its words are in the reason.
        """
        environ = {**self._environ, **git_settings.told(self._settings())}
        if index is not None:
            environ["GIT_INDEX_FILE"] = str(index)
        return self._call(arguments, environ, data, timeout)

    def _settings(self) -> list[tuple[str, str, str]]:
        """What the repository and the user have set. Reading it runs nothing."""
        if self._known is None:
            environ = {**self._environ, **git_settings.told([])}
            words = ("config", "--list", "--null", "--show-scope", "--includes")
            self._known = git_settings.entries(self._call(words, environ, b"", _TIMEOUT))
        return self._known

    def _call(self, arguments: Sequence[str], environ: Mapping[str, str], data: bytes, timeout: float) -> bytes:
        try:
            done = subprocess.run(  # noqa: S603 - fixed words, and paths that were checked
                ["git", "--no-pager", *arguments],  # noqa: S607 - the one that the user has
                cwd=self.root,
                env=environ,
                input=data,
                capture_output=True,
                timeout=timeout,
                check=False,
            )
        except FileNotFoundError:
            if not self.root.is_dir():
                raise NotFound(f"there is no folder {self.root}", "make it, or name another") from None
            raise NotFound("git is not installed", "install git") from None
        except subprocess.TimeoutExpired:
            raise InvalidRequest(f"git {arguments[0]} took longer than {timeout:g} s", "is the remote there?") from None
        if done.returncode:
            raise GitFailed(f"git {arguments[0]}: {git_health.reason(done.stderr) or done.returncode}", done.stdout)
        return done.stdout

    def head(self) -> str:
        """The commit that is checked out; empty before the first."""
        with contextlib.suppress(InvalidRequest):
            return self.run("rev-parse", "--verify", "--quiet", "HEAD").decode().strip()
        return ""

    def record(self, change: Change, vault: Path) -> str:
        """Commit what a change has changed, and nothing else; returns the commit.

        Args:
            change: carried out already.
            vault: the folder that has ``.agent-vault``, the work tree or below it.

        Raises:
            Conflict: something else was committed meanwhile.
        """
        before = self.head()
        base = self._base(vault)
        lines = self._entries(base, change)
        with _scratch(vault) as index:
            if before:
                self.run("read-tree", before, index=index)
            self.run("update-index", "--add", "-z", "--index-info", data=lines, index=index)
            tree = self.run("write-tree", index=index).decode().strip()
        if before and tree == self.run("rev-parse", "--verify", f"{before}^{{tree}}").decode().strip():
            commit = before  # by the command that was ended after it
        else:
            parents = ["-p", before] if before else []
            commit = self.run("commit-tree", tree, *parents, data=change.message.encode()).decode().strip()
            try:
                self.run("update-ref", "-m", change.message, "HEAD", commit, before)  # nothing there: empty
            except InvalidRequest as error:
                raise _not_moved(error) from None
        self.run("update-index", "--add", "-z", "--index-info", data=lines)  # else it would look staged for removal
        return commit

    def is_moving(self, vault: Path) -> bool:
        """Whether a command was ended while it checked a commit out."""
        return git_moving.is_left(vault / VAULT / LOCAL)

    def recover(self, vault: Path) -> str:
        """Carry on with what a command that was ended had begun here; returns its message, empty for nothing.

        Raises:
            Conflict: another git works there, or somebody has changed a file meanwhile that would be written.
            IntegrityError: what it has noted cannot be read.
        """
        return git_moving.carry_on(self, vault / VAULT / LOCAL)

    def stop_moving(self, vault: Path) -> None:
        """Carry on with nothing; the work tree stays as it is."""
        git_moving.stop(vault / VAULT / LOCAL)

    def match_index(self, vault: Path) -> list[str]:
        """Note files of the vault in the index as they are committed, where they lie there like that; returns these."""
        return git_health.match_index(self, self._base(vault)) if self.head() else []

    def broken_objects(self) -> list[str]:
        """What git finds wrong with its objects, at most a hundred lines."""
        return git_health.broken_objects(self)

    def clear_locks(self) -> list[Path]:
        """Remove lock files that a killed git has left. Raises ``Conflict`` when another works there."""
        return git_locks.clear(self)

    def upstream(self) -> str:
        """The branch that is followed, such as ``origin/main``; empty for none."""
        with contextlib.suppress(InvalidRequest):
            return self.run("rev-parse", "--abbrev-ref", "--symbolic-full-name", "@{upstream}").decode().strip()
        return ""

    def fetch(self) -> str:
        """Fetch what is followed; returns its commit, empty when nothing is. Raises ``InvalidRequest``."""
        if not self.upstream():
            return ""
        followed = self._followed()
        url = self._address("ls-remote", "--get-url", followed.remote)
        self.run(
            "fetch",
            *git_settings.FETCH,
            f"--upload-pack={git_settings.program('upload-pack', url)}",
            "--",
            followed.remote,
            f"+{followed.theirs}:{followed.ours}",
        )
        return self.run("rev-parse", "--verify", followed.ours).decode().strip()

    def _followed(self) -> Followed:
        """What is followed. Raises ``InvalidRequest`` where the settings of the repository make something odd of it."""
        head = self.run("symbolic-ref", "--quiet", "HEAD").decode().strip()
        words = "%(upstream:remotename)%00%(upstream:remoteref)%00%(upstream)"
        found = self.run("for-each-ref", "--count=1", f"--format={words}", "--", head).decode(errors="replace")
        followed = Followed(*found.rstrip("\n").split("\0"))
        if (
            not _REMOTE.fullmatch(followed.remote)
            or not followed.theirs.startswith("refs/heads/")
            or not followed.ours.startswith("refs/remotes/")
        ):
            raise InvalidRequest("this branch follows no branch of a remote", "git push -u origin HEAD, once")
        return followed

    def _address(self, *words: str) -> str:
        """The address that git would use, judged; then the way to it. Raises ``InvalidRequest``."""
        said = self.run(*words).decode(errors="replace").removesuffix("\n")
        if "\n" in said:  # git would use each of them, and what is true of the first need not be of the others
            raise InvalidRequest("the remote has several addresses", "keep one: git remote get-url --push --all NAME")
        url = parse_git_url(said)
        if not is_local(url):
            git_settings.require_straight(self._settings())
        return url

    def common(self, one: str, other: str) -> str:
        """Where two commits parted; empty when they never met."""
        with contextlib.suppress(InvalidRequest):
            return self.run("merge-base", one, other).decode().strip()
        return ""

    def at(self, commit: str, vault: Path) -> CommitFiles:
        """The files of the vault in a commit."""
        return CommitFiles(self, commit, self._base(vault))

    def join(self, change: Change, vault: Path, theirs: str) -> str:
        """Commit the merge of ``theirs`` into what is checked out, with these files of the vault.

        Raises:
            Conflict: files outside of the vault clash, or work that is not committed would be lost.
        """
        ours = self.head()
        base = self._base(vault)
        merged = self._merged_tree(ours, theirs, base)
        lines = self._entries(base, change)
        with _scratch(vault) as index:
            self.run("read-tree", merged, index=index)
            self.run("rm", "-r", "-f", "-q", "--cached", "--ignore-unmatch", "--", base, index=index)
            kept = self.run("ls-tree", "-r", "-z", "--full-tree", ours, "--", base)
            self.run("update-index", "--add", "-z", "--index-info", data=kept, index=index)
            self.run("update-index", "--add", "-z", "--index-info", data=lines, index=index)
            tree = self.run("write-tree", index=index).decode().strip()
        words = ("-p", ours, "-p", theirs)
        commit = self.run("commit-tree", tree, *words, data=change.message.encode()).decode().strip()
        self.advance(commit, vault, change.message)
        return commit

    def advance(self, commit: str, vault: Path, message: str) -> None:
        """Check out a commit that goes on from this one. What is not committed stays as it is.

        Raises:
            Conflict: work that is not committed would be lost.
        """
        git_moving.move(self, vault / VAULT / LOCAL, commit, message)

    def _merged_tree(self, ours: str, theirs: str, base: str) -> str:
        """The tree of both, as git merges it; what clashes in the vault is settled by the caller."""
        try:
            return self.run("merge-tree", "--write-tree", "--no-messages", ours, theirs).decode().split()[0]
        except GitFailed as failed:
            lines = failed.printed.decode(errors="surrogateescape").splitlines()
            clashing = {line.split("\t", 1)[1] for line in lines[1:] if "\t" in line}
            outside = sorted(path for path in clashing if not path.startswith(f"{base}/"))
            if outside or not lines:
                raise Conflict(
                    "files outside of the vault clash: " + ", ".join(outside[:5]), "git merge, then pull again"
                ) from None
            return lines[0]

    def push(self) -> None:
        """Give what is committed here to the remote. Raises ``Conflict`` when it has more, ``PolicyDenied``."""
        if not self.upstream():
            raise InvalidRequest("this branch follows no remote", "git push -u origin HEAD, once")
        followed = self._followed()
        url = self._address("remote", "get-url", "--push", "--all", "--", followed.remote)
        try:
            self.run(
                "push",
                "--quiet",
                "--no-verify",
                "--no-signed",
                "--no-follow-tags",
                "--porcelain",
                f"--receive-pack={git_settings.program('receive-pack', url)}",
                "--",
                followed.remote,
                f"HEAD:{followed.theirs}",
            )
        except GitFailed as failed:
            raise git_health.not_pushed(failed.printed, failed) from None

    def _base(self, vault: Path) -> str:
        prefix = vault.relative_to(self.root).as_posix()
        return f"{prefix}/{VAULT}" if prefix != "." else VAULT

    def _entries(self, base: str, change: Change) -> bytes:
        """Lines of ``update-index --index-info``; the objects are made in one go from the bytes of the change."""
        present = [(f"{base}/{path}", data) for path, data in change.files.items() if data is not None]
        pack = b"".join(
            b"blob\nmark :%d\ndata %d\n%s\n" % (n, len(data), data) for n, (_, data) in enumerate(present, 1)
        )
        asked = b"".join(b"get-mark :%d\n" % n for n in range(1, len(present) + 1))
        blobs = self.run("fast-import", "--quiet", data=b"feature get-mark\n" + pack + asked + b"done\n").split()
        lines = [f"100644 {blob.decode()}\t{path}\0" for (path, _), blob in zip(present, blobs, strict=True)]
        gone = [f"{base}/{path}" for path, data in change.files.items() if data is None]
        return "".join([*lines, *git_health.removals(gone, self.head() if gone else "")]).encode()


@dataclass(frozen=True, slots=True)
class Followed:
    """What a branch follows.

    Attributes:
        remote: its name.
        theirs: the branch there, such as ``refs/heads/main``.
        ours: what was last seen of it, such as ``refs/remotes/origin/main``.
    """

    remote: str
    theirs: str
    ours: str


class CommitFiles(Reading):
    """The files of a vault in a commit, read without being checked out.

    Args:
        git: the repository.
        commit: its id.
        base: the folder of the vault in it.
    """

    def __init__(self, git: Git, commit: str, base: str) -> None:
        self._git = git
        self._files: dict[str, tuple[str, str, int]] = {}
        listed = git.run("ls-tree", "-r", "-l", "-z", "--full-tree", commit, "--", base)
        if listed.count(b"\0") > _MOST:
            raise IntegrityError(f"the commit has more than {_MOST} files in its vault", "this is no vault of ours")
        for line in filter(None, listed.decode(errors="surrogateescape").split("\0")):
            about, _, path = line.partition("\t")
            mode, _, blob, size = about.split()
            self._files[path.removeprefix(f"{base}/")] = (mode, blob, int(size) if size.isdecimal() else 0)
        if any(path == LOCAL or path.startswith(f"{LOCAL}/") for path in self._files):
            raise IntegrityError(
                f"the commit has {VAULT}/{LOCAL}, which belongs to one machine alone",
                "somebody put it there: remove it from the repository, in another clone",
            )
        small = {
            blob: size
            for path, (mode, blob, size) in self._files.items()
            if path.startswith(".x/") and size <= _SMALL and mode in _PLAIN
        }
        if sum(small.values()) > _ALL:
            raise IntegrityError(f"the signed documents have more than {_ALL} bytes", "this is no vault of ours")
        self._small = self._read_all(list(small))

    def read(self, path: str) -> bytes | None:
        """See ``Files.read``."""
        mode, blob, size = self._files.get(path, ("", "", 0))
        if not blob:
            return None
        if mode not in _PLAIN:
            raise IntegrityError(f"{VAULT}/{path} is not a plain file", "somebody put a link there: do not take it")
        if blob in self._small:
            return self._small[blob]
        if size > _LONGEST:
            raise IntegrityError(f"{VAULT}/{path} is longer than {_LONGEST} bytes", "this is no vault of ours")
        return self._git.run("cat-file", "blob", blob)

    def _read_all(self, blobs: list[str]) -> dict[str, bytes]:
        """The signed documents, of which there are many, in one go."""
        found: dict[str, bytes] = {}
        out = self._git.run("cat-file", "--batch", "--buffer", data="".join(f"{blob}\n" for blob in blobs).encode())
        position = 0
        for blob in blobs:
            head, _, _ = out[position : position + 200].partition(b"\n")
            size = git_health.size_in(head, blob)
            start = position + len(head) + 1
            found[blob] = out[start : start + size]
            position = start + size + 1
        return found

    def names(self, folder: str) -> list[str]:
        """See ``Files.names``."""
        below = f"{folder}/"
        return sorted({path[len(below) :].partition("/")[0] for path in self._files if path.startswith(below)})

    def paths(self) -> list[str]:
        """See ``Files.paths``."""
        return sorted(path for path in self._files if not path.startswith(f"{LOCAL}/"))


@contextlib.contextmanager
def _scratch(vault: Path) -> Iterator[Path]:
    """An index of one command, whose lock is held; what an earlier one left is taken away."""
    index = vault / VAULT / LOCAL / "index"

    def clear() -> None:
        for path in (index, index.with_suffix(".lock")):
            path.unlink(missing_ok=True)

    clear()
    try:
        yield index
    finally:
        clear()


def _not_moved(error: KeyholeError) -> KeyholeError:
    """Why a branch did not move."""
    if ".lock" in error.reason or "Unable to create" in error.reason:
        return Conflict(error.reason, _LOCKED)
    return Conflict("something was committed meanwhile", "try again")


class GitFailed(InvalidRequest):
    """Git has refused.

    Args:
        reason: its last words.
        printed: what it printed besides.
    """

    def __init__(self, reason: str, printed: bytes = b"") -> None:
        super().__init__(reason, _LOCKED if ".lock': File exists" in reason else "see git status")
        self.printed = printed
