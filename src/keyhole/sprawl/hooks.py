"""The guard's place among the hooks of a repository (githooks(5)): before all that is there, which is kept.

A hook that is a shell script gets a block after its first line, so that no early exit of its own passes by the guard.
One of another language, a link, or one that is not executable is moved aside, and run by ours, where it was run before.
Taking the guard out leaves every byte as it was.
"""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from keyhole.core.errors import Conflict
from keyhole.sprawl.repository import Repository

HOOKS = ("pre-commit", "pre-merge-commit")
_BEGIN = "# >>> keyhole-guard >>> take it out with: keyhole repo guard uninstall"
_END = "# <<< keyhole-guard <<<"
_BLOCK = re.compile(re.escape(_BEGIN) + r"\n.*?" + re.escape(_END) + r"\n", re.DOTALL)
_KEPT = ".before-keyhole"
_SHELL = re.compile(rb"#!\s*(?:/usr)?/bin/(?:env\s+)?(?:ba|da|z|k|a)?sh\b[^\n]*\n")
_OURS = "#!/bin/sh\n"
_CHAIN = f'kept="$0{_KEPT}"\nif [ -x "$kept" ]; then exec "$kept" "$@"; fi\n'


@dataclass(frozen=True, slots=True)
class Hook:
    """One hook and the guard in it.

    Attributes:
        path: of the hook.
        guarded: the guard runs.
    """

    path: Path
    guarded: bool


class Hooks:
    """The hooks that git runs for a repository.

    Args:
        repository: whose.
    """

    def __init__(self, repository: Repository) -> None:
        self.folder = repository.hooks()
        self._common = repository.common()
        self._top = repository.top.resolve()

    @property
    def is_own(self) -> bool:
        """They are of this clone alone: neither another repository nor another clone runs them."""
        return self.folder.resolve().is_relative_to(self._common)

    @property
    def is_tracked(self) -> bool:
        """They lie in the work tree, from where they go into commits and other clones."""
        return not self.is_own and self.folder.resolve().is_relative_to(self._top)

    def state(self) -> list[Hook]:
        """Each hook that has to have the guard."""
        return [Hook(self.folder / name, _is_guarded(self.folder / name)) for name in HOOKS]

    def install(self, program: str) -> list[Path]:
        """Put the guard in, or bring it up to date; returns the hooks that were changed.

        Args:
            program: path of ``keyhole``; left out of hooks that go to other machines.

        Raises:
            Conflict: what a hook would be moved to is there already.
        """
        block = _block("" if self.is_tracked else program)
        self.folder.mkdir(parents=True, exist_ok=True)
        return [path for path in (self.folder / name for name in HOOKS) if _put_in(path, block)]

    def uninstall(self) -> list[Path]:
        """Take the guard out; returns the hooks that were changed."""
        return [path for path in (self.folder / name for name in HOOKS) if _take_out(path)]


def _block(program: str) -> str:
    find = "keyhole_guard=$(command -v keyhole) || {\n"
    here = f'keyhole_guard={shlex.quote(program)}\n[ -x "$keyhole_guard" ] || '
    first = here + find if program else find
    return (
        f"{_BEGIN}\n{first}"
        '  echo "keyhole-guard: the program keyhole is missing, so what is staged was not looked at; install it" >&2\n'
        '  echo "keyhole-guard: to commit all the same: git commit --no-verify" >&2\n'
        "  exit 1\n}\n"
        '"$keyhole_guard" repo guard run || exit $?\n'
        f"{_END}\n"
    )


def _is_guarded(path: Path) -> bool:
    return _BEGIN.encode() in _content(path) and os.access(path, os.X_OK)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _decoded(content: bytes) -> str:
    return content.decode("utf-8", "surrogateescape")


def _put_in(path: Path, block: str) -> bool:
    content = _content(path)
    if _BEGIN.encode() in content and not path.is_symlink():
        fresh = _BLOCK.sub(lambda _: block, _decoded(content)).encode("utf-8", "surrogateescape")
        mode = path.stat().st_mode & 0o777
        return _write(path, fresh, mode | 0o100) if fresh != content or not mode & 0o100 else False
    if not os.path.lexists(path):
        return _write(path, (_OURS + block).encode(), 0o755)
    shell = _SHELL.match(content)
    if shell and not path.is_symlink() and os.access(path, os.X_OK):
        at = shell.end()
        return _write(path, content[:at] + block.encode() + content[at:], path.stat().st_mode & 0o777)
    _keep(path, path.with_name(path.name + _KEPT))
    return _write(path, (_OURS + block + _CHAIN).encode(), 0o755)


def _keep(path: Path, kept: Path) -> None:
    """Give a hook a second name before ours takes its own, so that at every moment one of both runs."""
    if os.path.lexists(kept):
        if os.path.samestat(path.lstat(), kept.lstat()):  # of an install that was ended
            return
        raise Conflict(f"{kept} is in the way", "look at it, and move it away")
    try:
        os.link(path, kept, follow_symlinks=False)
    except (OSError, NotImplementedError):  # a file system without second names
        path.rename(kept)


def _take_out(path: Path) -> bool:
    content = _decoded(_content(path))
    if _BEGIN not in content:
        return False
    rest = _BLOCK.sub("", content)
    kept = path.with_name(path.name + _KEPT)
    if rest == _OURS + _CHAIN and os.path.lexists(kept):
        kept.replace(path)
    elif rest in {_OURS, _OURS + _CHAIN}:
        path.unlink()
    else:
        _write(path, rest.encode("utf-8", "surrogateescape"), path.stat().st_mode & 0o777)
    return True


def _write(path: Path, content: bytes, mode: int) -> bool:
    """At once: a hook that is half there would let everything through, or nothing."""
    fresh = path.with_name(f".keyhole-{path.name}")
    fresh.unlink(missing_ok=True)  # of a command that was ended
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    fresh.chmod(mode)
    fresh.replace(path)
    return True
