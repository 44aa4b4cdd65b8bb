"""What a merge did not choose, in a vault without git: nothing else would keep a value that was never pushed.

Each lies in a folder of its own below ``.agent-vault/.local``, as the files of a vault that has it alone.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from keyhole.core.errors import IntegrityError, NotFound
from keyhole.repo import sidecar, signed
from keyhole.repo.opened import Opened, sealed_path, signed_path
from keyhole.repo.past import Past, Trace
from keyhole.repo.sidecar import Sidecar
from keyhole.repo.snapshots import is_digest
from keyhole.repo.tree import LOCAL, VAULT, Change, Files, Tree

_FOLDER = "unchosen"


def keep_unchosen(ours: Opened, change: Change) -> None:
    """Keep the values that a change puts others in place of; the lock of the vault is held."""
    for stem, (document, each) in ours.secrets.items():
        after = _after(stem, change)
        if after is None or each.removed or (not after.removed and after.rotated == each.rotated):
            continue
        files = {path: ours.tree.read(path) for path in (signed_path(stem), sealed_path(stem))}
        _write(_folder(ours.tree) / document.digest, files)


def _write(folder: Path, files: Mapping[str, bytes | None]) -> None:
    """All of them, or none."""
    if folder.parent.is_symlink():
        raise IntegrityError(f"{folder.parent} is a link", "somebody put it there: remove it")
    if folder.exists():
        return
    fresh = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)  # of a command that was ended
    for path, data in files.items():
        (fresh / VAULT / path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (fresh / VAULT / path).open("xb") as file:
            file.write(data or b"")
            file.flush()
            os.fsync(file.fileno())
    fresh.rename(folder)


def _after(stem: str, change: Change) -> Sidecar | None:
    data = change.files.get(signed_path(stem))
    return None if data is None else sidecar.read(signed.read(sidecar.KIND, data, signed_path(stem)), stem)


def _folder(files: Files) -> Path:
    if not isinstance(files, Tree):  # pragma: no cover - what is open here is a folder
        raise TypeError("not a folder")
    return files.vault / LOCAL / _FOLDER


def with_unchosen(past: Past | None, tree: Tree) -> Past | None:
    """The past of a vault, and what was not chosen in this folder.

    Args:
        past: of the vault; ``None`` where nothing else keeps any.
        tree: of the vault.
    """
    folder = _folder(tree)
    listed = sorted(folder.iterdir()) if folder.is_dir() and not folder.is_symlink() else []
    found = [each for each in listed if is_digest(each.name)]
    return WithUnchosen(past, {each.name: Tree(each) for each in found}) if found else past


class WithUnchosen:
    """A past with some folders besides.

    Args:
        past: ``None`` where there are these alone.
        trees: digest of the signed document in each to that.
    """

    def __init__(self, past: Past | None, trees: Mapping[str, Tree]) -> None:
        self._past, self._trees = past, trees

    def traces(self, folders: Iterable[str]) -> list[Trace]:
        """See ``Past.traces``."""
        wanted = list(folders)
        return [*([] if self._past is None else self._past.traces(wanted)), *self._own(wanted)]

    def _own(self, folders: list[str]) -> Iterator[Trace]:
        for place, tree in self._trees.items():
            for path in tree.paths():
                if path in folders or path.startswith(tuple(f"{each}/" for each in folders)):
                    yield Trace(path, tree.read(path), place)

    def at(self, place: str) -> Files:
        """See ``Past.at``."""
        if place in self._trees or self._past is None:
            return self._trees[place]
        return self._past.at(place)

    def resolve(self, text: str) -> str:
        """See ``Past.resolve``."""
        if self._past is None:
            raise NotFound(f"there is no snapshot {text[:80]!r}", "keyhole repo history")
        return self._past.resolve(text)
