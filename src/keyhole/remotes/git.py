"""Git repositories, by the program ``git`` itself, and nothing of it that a repository can make run code.

Hooks, filters, external diffs, the file system monitor and other transports than those of the network are off; objects
are made from bytes (``hash-object --no-filters``) and put into a tree directly, so that neither attributes nor ignore
files of the repository have a say, and what somebody has staged besides stays staged.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from keyhole.core.errors import Conflict, InvalidRequest, NotFound
from keyhole.repo.tree import VAULT, Change

AUTHOR = "agent-vault"
EMAIL = "agent-vault@localhost"
_TIMEOUT = 120.0  # seconds
_OFF = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.attributesFile=/dev/null",
    "core.sshCommand=ssh -oBatchMode=yes",
    "protocol.ext.allow=never",
    "protocol.allow=never",
    "protocol.https.allow=always",
    "protocol.ssh.allow=always",
    "protocol.file.allow=user",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
    "fetch.fsckObjects=true",
    "transfer.fsckObjects=true",
    "commit.gpgSign=false",
    "gc.auto=0",
    "maintenance.auto=false",
    f"user.name={AUTHOR}",
    f"user.email={EMAIL}",
)
_KEPT = {"HOME", "PATH", "SSH_AUTH_SOCK", "LANG", "TMPDIR", "XDG_CONFIG_HOME", "USER", "LOGNAME", "SSL_CERT_FILE"}
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
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_CONFIG_NOSYSTEM": "1",
            "LC_ALL": "C.UTF-8",
        }

    @classmethod
    def find(cls, folder: Path, environ: Mapping[str, str]) -> Git | None:
        """The repository around a folder; ``None`` for none."""
        git = cls(folder, environ)
        with contextlib.suppress(InvalidRequest):
            top = git.run("rev-parse", "--show-toplevel").decode(errors="surrogateescape").strip()
            if top:
                return cls(Path(top), environ)
        return None

    def run(self, *arguments: str, data: bytes = b"", index: Path | None = None, timeout: float = _TIMEOUT) -> bytes:
        """What git prints.

        Raises:
            NotFound: git is not installed.
            InvalidRequest: it refuses, or takes too long; its words are in the reason.
        """
        settings = [word for setting in _OFF for word in ("-c", setting)]
        environ = {**self._environ, **({"GIT_INDEX_FILE": str(index)} if index is not None else {})}
        try:
            done = subprocess.run(  # noqa: S603 - fixed words, and paths that were checked
                ["git", "--no-pager", *settings, *arguments],  # noqa: S607 - the one that the user has
                cwd=self.root,
                env=environ,
                input=data,
                capture_output=True,
                timeout=timeout,
                check=False,
            )
        except FileNotFoundError:
            raise NotFound("git is not installed", "install git") from None
        except subprocess.TimeoutExpired:
            raise InvalidRequest(f"git {arguments[0]} took longer than {timeout:g} s", "is the remote there?") from None
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise InvalidRequest(f"git {arguments[0]}: {said[-1][:300] if said else done.returncode}", "see git status")
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
        prefix = vault.relative_to(self.root).as_posix()
        base = f"{prefix}/{VAULT}" if prefix != "." else VAULT
        entries = [self._entry(f"{base}/{path}", data) for path, data in change.files.items()]
        lines = "".join(entries).encode()
        with tempfile.TemporaryDirectory(prefix="keyhole-") as folder:
            index = Path(folder) / "index"
            if before:
                self.run("read-tree", before, index=index)
            self.run("update-index", "--add", "-z", "--index-info", data=lines, index=index)
            tree = self.run("write-tree", index=index).decode().strip()
        parents = ["-p", before] if before else []
        commit = self.run("commit-tree", tree, *parents, data=change.message.encode()).decode().strip()
        try:
            self.run("update-ref", "-m", change.message, "HEAD", commit, before or "0" * 40)
        except InvalidRequest:
            raise Conflict("something was committed meanwhile", "try again") from None
        self.run("update-index", "--add", "-z", "--index-info", data=lines)  # else it would look staged for removal
        return commit

    def upstream(self) -> str:
        """The branch that is followed, such as ``origin/main``; empty for none."""
        with contextlib.suppress(InvalidRequest):
            return self.run("rev-parse", "--abbrev-ref", "--symbolic-full-name", "@{upstream}").decode().strip()
        return ""

    def fast_forward(self) -> None:
        """Fetch, and go on to what the remote has where nothing here differs. Uncommitted work stays as it is.

        Raises:
            InvalidRequest: the remote cannot be asked, or has gone another way.
        """
        if not self.upstream():
            return
        self.run("fetch", "--quiet", "--no-tags", "--no-recurse-submodules")
        self.run("merge", "--quiet", "--ff-only", "@{upstream}")

    def _entry(self, path: str, data: bytes | None) -> str:
        """A line of ``update-index --index-info``."""
        if data is None:
            return f"0 {'0' * 40}\t{path}\0"
        blob = self.run("hash-object", "-w", "--no-filters", "--stdin", data=data).decode().strip()
        return f"100644 {blob}\t{path}\0"


def environment() -> Mapping[str, str]:
    """Of this process."""
    return os.environ
