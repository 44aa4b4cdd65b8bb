"""Addresses of git remotes: https, ssh, or an absolute path on this machine, and nothing that git could read as more.

Judged before git sees it. Pure but for a look at whether a path is a repository.
"""

from __future__ import annotations

import re
from pathlib import Path

from keyhole.core.errors import InvalidRequest

_MAX = 2048  # characters
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\])"
_PORT = r"(?::[0-9]{1,5})?"
_USER = r"(?:[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}@)?"
_PATH = r"[A-Za-z0-9._~+@:,=%-]+(?:/[A-Za-z0-9._~+@:,=%-]+)*/?"
_NETWORK = re.compile(rf"(?:https|ssh)://{_USER}{_HOST}{_PORT}/(?:~[A-Za-z0-9_-]*/)?{_PATH}")
_SCP = re.compile(rf"(?!(?:https?|ssh|git|ftps?|file|ext|fd|rsync):){_USER}{_HOST}:(?!:)/?(?:~[A-Za-z0-9_-]*/)?{_PATH}")
_PASSWORD = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/]*:[^/]*@")
_NEXT = "use https://HOST/PATH, ssh://USER@HOST/PATH, USER@HOST:PATH, or the absolute path of a repository, without .."


def parse_git_url(text: str) -> str:
    """The address of a git remote, as it is.

    Raises:
        InvalidRequest: it is none of the kinds that are used, or holds a password; the address is not repeated then.
    """
    if _PASSWORD.match(text):
        raise InvalidRequest(
            "the address of the remote holds a password", "keep it in git's credential helper, and leave it out"
        )
    if 0 < len(text) <= _MAX and not any(part.startswith("-") for part in re.split(r"[/:@]", text)):
        if _NETWORK.fullmatch(text) or (_SCP.fullmatch(text) and not re.match(r"[A-Za-z]:", text)):
            return text
        if is_local(text) and _is_repository(Path(text.removeprefix("file://"))):
            return text
    raise InvalidRequest(f"{text[:80]!r} is not the address of a git remote", _NEXT)


def is_local(url: str) -> bool:
    """Whether it is a path of this machine."""
    return url.removeprefix("file://").startswith("/")


def _is_repository(path: Path) -> bool:
    # What these hold stands for something else from one process to the next.
    of_the_process = path.parts[1:2] in {("proc",), ("sys",)} or (
        path.parts[1:2] == ("dev",) and path.parts[2:3] != ("shm",)
    )
    if not str(path).isprintable() or ".." in path.parts or of_the_process:
        return False
    return any((folder / "HEAD").is_file() and (folder / "objects").is_dir() for folder in (path, path / ".git"))
