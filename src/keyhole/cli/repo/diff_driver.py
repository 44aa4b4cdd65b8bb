"""``repo diff-driver``: ``git diff`` and ``git log -p`` that show what the files of a vault say.

The driver's name is random and stands in this clone's own configuration and attributes, so that attributes that come
with a repository can neither turn it on nor point it at other files. Both are written under the lock of the vault, and
a lock that a killed git has left is taken away first.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from keyhole.cli.base import Session, group, pass_session
from keyhole.cli.output import printable
from keyhole.cli.repo.noun import repo
from keyhole.cli.repo.place import Place
from keyhole.core.errors import InvalidRequest, KeyholeError, NotFound
from keyhole.remotes.git import Git
from keyhole.repo.describing import describe
from keyhole.repo.tree import VAULT, Tree

_BEGIN, _END = "# begin of keyhole repo diff-driver", "# end of keyhole repo diff-driver"
_PREFIX = "keyhole-"
_PATTERNS = ("secrets/**/*.enc", "agents/**/*.escrow", ".x/**/*.json")
_LONGEST = 32 * 1024 * 1024  # bytes


@group("diff-driver", examples="keyhole repo diff-driver install\nkeyhole repo diff-driver remove")
def diff_driver() -> None:
    """Let git diff and git log -p of this clone show what the files of a vault say: never a value, without a key."""


repo.add_command(diff_driver)


def _directory(function: click.decorators.FC) -> click.decorators.FC:
    return click.option("--dir", "directory", default=".", metavar="DIR", help="Inside the repository.")(function)


@diff_driver.command("install", examples="keyhole repo diff-driver install")
@_directory
@pass_session
def install(session: Session, /, *, directory: str) -> None:
    """Set it up in this clone. Nothing of it is committed."""
    name = f"{_PREFIX}{secrets.token_hex(8)}"
    # -P: the working directory is the repository, and no module of Python is taken from there
    command = shlex.join([sys.executable, "-P", "-m", "keyhole", "repo", "diff-driver", "show"])
    lines = [_BEGIN, *(f"**/{VAULT}/{pattern} diff={name}" for pattern in _PATTERNS), _END]
    with _changing(session, directory) as git:
        others = _others(git)
        _clear(git)
        git.run("config", "--local", f"diff.{name}.textconv", command)
        _write(git, [*others, *lines])
    session.out.done(
        {"driver": name, "installed": True}, "git diff shows what the files of the vault say, in this clone"
    )


@diff_driver.command("remove", examples="keyhole repo diff-driver remove")
@_directory
@pass_session
def remove(session: Session, /, *, directory: str) -> None:
    """Take it out of this clone again."""
    with _changing(session, directory) as git:
        others = _others(git)
        _clear(git)
        _write(git, others)
    session.out.done({"installed": False}, "git diff shows the files of the vault as they are")


@diff_driver.command("show", examples="keyhole repo diff-driver show .agent-vault/.x/members/000001.json")
@click.argument("file")
@pass_session
def show(session: Session, /, *, file: str) -> None:
    """What a file of a vault says. It is not verified: keyhole repo review does that."""
    try:
        with Path(file).open("rb") as opened:
            data = opened.read(_LONGEST + 1)
    except FileNotFoundError:
        raise NotFound(f"there is no file {file[:200]}", "name a file of the vault") from None
    except OSError as error:
        raise InvalidRequest(f"{file[:200]} cannot be read: {error.strerror}", "name a file of the vault") from None
    if len(data) > _LONGEST:
        raise InvalidRequest(f"{file[:200]} is longer than {_LONGEST} bytes", "git diff --no-textconv")
    here = Tree(Path.cwd())  # git runs it at the top of the work tree
    lines = describe(data, here if here.exists() else None)
    session.out.result({"lines": lines}, (printable(line.replace("\t", " ")) for line in lines))


@contextlib.contextmanager
def _changing(session: Session, directory: str) -> Iterator[Git]:
    """The repository, with nobody else of ours at work in it.

    Raises:
        NotFound: there is none.
        Conflict: another command, or another git, works there.
    """
    place = Place(session, directory)
    if place.git is None:
        raise NotFound("this vault lies in no git repository", "git init")
    with place.tree.lock():
        place.git.clear_locks()
        yield place.git


def _attributes(git: Git) -> Path:
    """The attributes of this clone alone, which count before those of the work tree."""
    return git.root / os.fsdecode(git.run("rev-parse", "--git-path", "info/attributes").strip())


def _others(git: Git) -> list[str]:
    """Lines that are not ours. Raises ``InvalidRequest`` where they stand in no plain file."""
    path = _attributes(git)
    if path.is_symlink():
        raise InvalidRequest(f"{path} is a link", "put a plain file in its place")
    try:
        lines = path.read_text(errors="surrogateescape").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}", "put a plain file in its place") from None
    kept, ours = [], False
    for line in lines:
        ours = ours or line == _BEGIN
        if not ours:
            kept.append(line)
        ours = ours and line != _END
    return kept


def _write(git: Git, lines: list[str]) -> None:
    path = _attributes(git)
    path.parent.mkdir(exist_ok=True)
    fresh = path.with_name("attributes.keyhole")  # one name, so that what a kill leaves is written over
    fresh.unlink(missing_ok=True)
    with fresh.open("x", errors="surrogateescape") as file:
        file.writelines(f"{line}\n" for line in lines)
    fresh.replace(path)


def _clear(git: Git) -> None:
    """Take every driver of ours out of the configuration."""
    try:
        listed = git.run("config", "--local", "--name-only", "-z", "--get-regexp", rf"^diff\.{_PREFIX}[0-9a-f]+\.")
    except KeyholeError:
        return
    for name in filter(None, listed.decode(errors="replace").split("\0")):
        git.run("config", "--local", "--unset-all", name)
