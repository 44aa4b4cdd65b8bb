"""Which remotes a vault has besides the branch that git follows: names and addresses, kept on this machine alone.

They lie beside what the machine has seen of the vault, and never in the vault, where whoever can write to it could name
another place for what is pushed. An address has no password in it; a bucket's credentials are found in the environment,
a server's token where ``keyhole login`` keeps it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from keyhole.core.errors import Conflict, IntegrityError, InvalidRequest, NotFound
from keyhole.remotes.git_url import parse_git_url
from keyhole.repo.names import parse_part
from keyhole.repo.seen import place, write_private
from keyhole.repo.snapshots import HEAD

GIT = "git"
"""The name of the branch that git follows, which is a remote too."""
_BUCKETS = ("s3", "gs", "az")
_SERVERS = {"keyhole+https": "https", "keyhole+http": "http"}
_KINDS = (
    "a folder, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://ACCOUNT/CONTAINER/PREFIX, keyhole+https://HOST/MOUNT/NAME"
)
_MOST = 32


@dataclass(frozen=True, slots=True)
class Address:
    """Where a remote is.

    Attributes:
        kind: member of the shelf.
        url: as it is shown and kept.
        where: as the member takes it.
        server: address of the server that is asked, for ``server``.
    """

    kind: str
    url: str
    where: str
    server: str = ""


def parse_address(text: str, folder: Path) -> Address:
    """The address in a text; a path is taken from a folder. A text of git is one of ``git``.

    Raises:
        InvalidRequest: it has a password in it, or is of no known kind. What was typed is not repeated.
    """
    if not text or not text.isprintable() or text.startswith("-") or "\\" in text:
        raise InvalidRequest("that is no address of a remote", f"write {_KINDS}")
    scheme, mark, _ = text.partition("://")
    if not mark:
        if ":" in text.partition("/")[0]:  # git's own short form, HOST:PATH, with or without a user
            return _git(text)
        return _folder(folder / Path(text).expanduser())
    try:
        parts = urlsplit(text)
        user, password, host = parts.username, parts.password, parts.hostname
    except ValueError:
        raise InvalidRequest("that is no address of a remote", f"write {_KINDS}") from None
    if password is not None or (user is not None and scheme != "ssh") or parts.query or parts.fragment:
        raise InvalidRequest(
            "an address of a remote has no user, password or parameters in it: it would be kept and shown",
            "credentials come from the environment, from keyhole login, or from git's own helpers",
        )
    if scheme == "file" and not host:
        return _folder(Path(unquote(parts.path)))
    if scheme in _BUCKETS and host:
        return Address("object", text.rstrip("/"), text.rstrip("/"))
    if scheme in _SERVERS and host and "/" in parts.path.strip("/"):
        return Address("server", text, parts.path.strip("/"), f"{_SERVERS[scheme]}://{parts.netloc}")
    if scheme in {"https", "ssh"} and host:
        return _git(text)
    raise InvalidRequest("that is no address of a remote", f"write {_KINDS}")


def _git(text: str) -> Address:
    try:
        return Address("git", text, parse_git_url(text))
    except InvalidRequest:
        raise InvalidRequest("that is no address of a remote", f"write {_KINDS}, or one of git") from None


def _folder(path: Path) -> Address:
    path = path.resolve()
    try:
        return Address("git", str(path), parse_git_url(str(path)))
    except InvalidRequest:
        return Address("folder", str(path), str(path))


def require_free(address: Address) -> None:
    """Raises ``InvalidRequest`` for a folder that has other things in it than a vault that was pushed there."""
    path = Path(address.where)
    if address.kind != "folder" or not path.is_dir() or (path / HEAD).exists():
        return
    try:
        other = any(not each.name.startswith(".") for each in path.iterdir())
    except OSError as error:
        raise InvalidRequest(f"the folder cannot be read: {error.strerror}", "see its rights") from None
    if other:
        raise InvalidRequest("there are other things in that folder", "name a folder of its own for the vault")


class Settings:
    """The remotes of the vault in a folder.

    Args:
        home: where this machine keeps what it knows of vaults.
        root: the folder that has ``.agent-vault``.
    """

    def __init__(self, home: Path, root: Path) -> None:
        self._path = place(home, root).with_suffix(".remotes")
        self._root = root

    def all(self) -> dict[str, Address]:
        """Name to address, in the order of names. Raises ``IntegrityError`` where they cannot be read."""
        try:
            data = json.loads(self._path.read_bytes())
            return {parse_part(name): parse_address(url, self._root) for name, url in sorted(data.items())}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError, TypeError, InvalidRequest):
            raise IntegrityError(
                f"{self._path} cannot be read", "remove that file, then: keyhole repo remote add"
            ) from None

    def get(self, name: str) -> Address:
        """The address of a remote. Raises ``NotFound``."""
        found = self.all().get(name)
        if found is None:
            raise NotFound(f"there is no remote {name[:40]!r}", "keyhole repo remote list")
        return found

    def add(self, name: str, address: Address) -> None:
        """A new remote.

        Raises:
            Conflict: there is one of that name.
            InvalidRequest: git knows its own remotes, or there are too many.
        """
        name = parse_part(name, "remote")
        found = self.all()
        if name in found:
            raise Conflict(f"there is a remote {name}", "keyhole repo remote rm, or choose another name")
        if address.kind == "git" or name == GIT:
            raise InvalidRequest(
                "git knows its own remotes, and the branch's is used as the remote git",
                "git remote add origin URL, then once: git push -u origin HEAD",
            )
        if len(found) >= _MOST:
            raise InvalidRequest(f"there are {_MOST} remotes already", "keyhole repo remote rm")
        self._store({**found, name: address})

    def remove(self, name: str) -> None:
        """Forget a remote; what lies there stays. Raises ``NotFound``."""
        self.get(name)
        self._store({other: each for other, each in self.all().items() if other != name})

    def _store(self, found: dict[str, Address]) -> None:
        write_private(self._path, json.dumps({name: each.url for name, each in found.items()}).encode())
