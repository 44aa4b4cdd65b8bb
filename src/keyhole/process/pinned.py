"""Where this process takes its code from, once a command runs beside it that may write to the user's files.

Modules are loaded when they are first needed, which is often after the command has started. Whoever installs a program
for himself owns its files, and so a command of his could change one that is still to be loaded: it would run here, with
the keys. So from then on

1. directories are reached by descriptors that were opened before, and not by their names, one of which could lead to
   another directory by now;
2. what is in them is read-only in the command's sandbox (``sandbox.furnish``);
3. nothing is loaded by a name that was not known before, which could be a file that the command has put there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from importlib.machinery import BuiltinImporter, FrozenImporter, ModuleSpec, PathFinder
from pathlib import Path
from typing import TYPE_CHECKING

import keyhole

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

# What ours and what it needs may load late, by their names in Python.
LATER = frozenset(
    (
        "_brotli", "_cffi_backend", "_yaml", "ahocorasick_rs", "annotated_types", "anyio", "apprise",
        "asn1crypto", "attr", "attrs", "azure", "backports", "bcrypt", "boto3", "botocore", "brotli", "bson",
        "certifi", "cffi", "charset_normalizer", "click", "cryptography", "dateutil", "dns", "google", "gridfs",
        "h11", "hpack", "httpcore2", "httpx2", "idna", "importlib_metadata", "jaraco", "jeepney", "jmespath",
        "joserfc", "jsonschema", "jsonschema_specifications", "jwt", "keyhole", "keyring", "markdown",
        "markdown_it", "mcp", "mcp_types", "mdurl", "more_itertools", "msal", "msal_extensions", "multipart",
        "oauthlib", "obstore", "opentelemetry", "pkcs11", "platformdirs", "psycopg", "psycopg_binary", "pyasn1",
        "pyasn1_modules", "pycparser", "pydantic", "pydantic_core", "pygments", "pymongo", "pymysql", "pyrage",
        "python_multipart", "referencing", "requests", "requests_oauthlib", "rich", "rpds", "s3transfer",
        "secretstorage", "six", "sse_starlette", "starlette", "truststore", "typing_extensions",
        "typing_inspection", "urllib3", "uvicorn", "uvloop", "yaml", "zipp",
    )
)  # fmt: skip
_BUILT = "_sysconfigdata_"  # a module of the library, whose name has the machine in it
_SITES = ("site-packages", "dist-packages")
_pinned: list[Pinned] = []


class Pinned:
    """The files of this program's code.

    Attributes:
        kept: directories and files that no command may change, absolute and free of symbolic links.
        left: directories in these that stay as they are, because more is installed there than ours.
    """

    def __init__(self) -> None:
        library = Path(os.__file__).resolve().parent
        names = {name.partition(".")[0] for name in sys.modules} - sys.stdlib_module_names
        self._known = sys.stdlib_module_names | LATER | names
        self.left = tuple(str(library / name) for name in _SITES if (library / name).is_dir())
        loaded = {place.parent for name in names if (place := _place(name))} | {library, library / "lib-dynload"}
        places = {entry: Path(entry).resolve() for entry in sys.path}
        self._homes = [entry for entry, place in places.items() if place in loaded]
        sites = {places[entry] for entry in self._homes} - {library, library / "lib-dynload"}
        parts = sorted({str(part) for site in sites for part in _parts(site, LATER | names)})
        self.kept = tuple(path for path in (str(library), *parts) if _is_ours(path))

    def parts(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What is kept, and what is left of it, for ``sandbox.furnish``."""
        return self.kept, self.left

    def hold(self) -> None:
        """Reach all of it by descriptors from now on, and nothing else."""
        ours = str(Path(keyhole.__file__).parent.parent)
        opened = {
            entry: os.open(entry or ".", os.O_PATH | os.O_DIRECTORY) for entry in dict.fromkeys((*self._homes, ours))
        }
        moved = {entry: f"/proc/self/fd/{descriptor}" for entry, descriptor in opened.items()}
        for module in list(sys.modules.values()):
            path = getattr(module, "__path__", None)
            if isinstance(path, list):
                path[:] = [_moved(entry, moved) for entry in path]
        sys.path[:] = [moved[entry] for entry in self._homes]
        sys.meta_path[:] = [_OnlyKnown(self._known), BuiltinImporter, FrozenImporter, PathFinder]


class _OnlyKnown:
    """Refuses what is not known by its name."""

    def __init__(self, known: frozenset[str]) -> None:
        self._known = known

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, _target: ModuleType | None = None, /
    ) -> ModuleSpec | None:
        """Nothing: the others find it, if it is known."""
        if path is None and fullname not in self._known and not fullname.startswith(_BUILT):
            raise ModuleNotFoundError(f"no module {fullname!r} was known when the command was started", name=fullname)
        return None


def current() -> Pinned | None:
    """What is pinned, if anything is."""
    return _pinned[0] if _pinned else None


def pin_code() -> Pinned:
    """Load code from where it is now, for as long as this process lives. Linux only; once is enough.

    Raises:
        OSError: a directory cannot be opened.
    """
    if not _pinned:
        found = Pinned()
        found.hold()
        _pinned.append(found)
    return _pinned[0]


def _place(name: str) -> Path | None:
    """The file or directory of a module that is loaded; ``None`` for one without, and for the program itself."""
    spec = getattr(sys.modules.get(name), "__spec__", None)
    origin = Path(getattr(spec, "origin", None) or "")
    if spec is None or not origin.is_absolute() or name == "__main__":
        return None
    return origin.parent.resolve() if spec.submodule_search_locations is not None else origin.resolve()


def _parts(site: Path, known: frozenset[str]) -> Iterator[Path]:
    """What is ours where others are installed too; the libraries that a wheel brings lie beside it in ``NAME.libs``."""
    with os.scandir(site) as entries:
        for entry in entries:
            name, _, rest = entry.name.partition(".")
            if name in known and (rest in {"", "libs"} or entry.name.endswith((".py", ".so"))):
                yield Path(entry.path).resolve() if entry.is_symlink() else Path(entry.path)


def _is_ours(path: str) -> bool:
    """Whether this user could change it."""
    return os.access(path, os.W_OK) or Path(path).stat().st_uid == os.geteuid()


def _moved(path: str, moved: Mapping[str, str]) -> str:
    for entry, there in moved.items():
        if path == entry or path.startswith(f"{entry}/"):
            return there + path[len(entry) :]
    return path
