"""A Keyhole server as a remote: it keeps objects and a head for each vault, and sees ciphertext only.

The other end is the engine ``remote``. What is sent is what a folder would get, and the caller's token for the server,
which opens nothing of the vault. Objects go and come in batches, because each request is one record of its journal.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from typing import Any

from keyhole.core.errors import Conflict, IntegrityError, InternalError, InvalidRequest, KeyholeError, NotFound
from keyhole.core.path import parse_path
from keyhole.remotes import Ask, Found, check_name
from keyhole.repo.snapshots import is_digest

_BATCH = 6 * 1024 * 1024  # bytes before base64
_NAMES = 48  # in one URL
_MOST = 4_000_000  # objects


class Server:
    """One vault in a mount of the engine ``remote``.

    Args:
        ask: asks the server.
        path: ``MOUNT/NAME``.
    """

    slow = True

    def __init__(self, ask: Ask, path: str) -> None:
        self._ask = ask
        self._path = path

    def get(self, name: str, most: int) -> Found | None:
        """See ``Remote.get``."""
        folder, _, digest = check_name(name).rpartition("/")
        if folder:
            found = self.get_many({digest: most}).get(digest)
            return None if found is None else Found(found, digest)
        try:
            data = self._ask("read", f"{self._path}/head", {})
        except NotFound:
            return None
        return Found(_decoded(data.get("data"), most), str(data.get("tag", "")))

    def list(self) -> list[str]:
        """See ``Remote.list``."""
        try:
            keys = self._ask("list", f"{self._path}/objects", {}).get("keys")
        except NotFound:
            return []
        if not isinstance(keys, list) or len(keys) > _MOST:
            raise _broken()
        return sorted(filter(is_digest, keys))

    def put(self, name: str, data: bytes, expected: str = "") -> str:
        """See ``Remote.put``."""
        folder, _, digest = check_name(name).rpartition("/")
        sent = base64.b64encode(data).decode()
        if not folder:
            done = self._ask("update", f"{self._path}/head", {"data": sent, "expected": expected})
            return str(done.get("tag", ""))
        done = self._ask("update", f"{self._path}/objects", {"objects": {digest: sent}})
        if done.get("stored") != 1:
            raise Conflict("it is there already", "fetch again")
        return digest

    def get_many(self, wanted: Mapping[str, int]) -> dict[str, bytes]:
        """See ``Many.get_many``."""
        found: dict[str, bytes] = {}
        left = list(wanted)
        while left:
            batch, left = left[:_NAMES], left[_NAMES:]
            try:
                objects = self._ask("read", f"{self._path}/objects", {"digests": ",".join(batch)}).get("objects")
            except NotFound:
                continue
            if not isinstance(objects, Mapping) or not set(objects) <= set(batch):
                raise _broken()
            found |= {digest: _decoded(text, wanted[digest]) for digest, text in objects.items() if text is not None}
            # What does not fit in one answer is named without its bytes, and asked for again.
            late = [digest for digest, text in objects.items() if text is None]
            if len(late) == len(batch):
                raise _broken()
            left = late + left
        return found

    def put_many(self, objects: Mapping[str, bytes]) -> None:
        """See ``Many.put_many``."""
        for batch in _batches(objects):
            sent = {digest: base64.b64encode(objects[digest]).decode() for digest in batch}
            self._ask("update", f"{self._path}/objects", {"objects": sent})

    def close(self) -> None:
        """The connection is that of who asks."""


def _batches(objects: Mapping[str, bytes]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for digest, data in objects.items():
        if batch and (size + len(data) > _BATCH or len(batch) >= 1000):
            yield batch
            batch, size = [], 0
        batch.append(digest)
        size += len(data)
    if batch:
        yield batch


def _decoded(text: Any, most: int) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise _broken() from None
    if len(data) > most:
        raise IntegrityError(f"an object of the server is longer than {most} bytes", "take nothing of it")
    return data


def _broken() -> KeyholeError:
    return IntegrityError("the server does not answer as a remote does", "is a mount of the type remote there?")


def make(where: str, ask: Ask | None) -> Server:
    """The remote at ``MOUNT/NAME``. Raises ``InvalidRequest``."""
    if ask is None:
        raise InternalError("a server is asked by somebody")
    path = parse_path(where)
    if "/" not in path:
        raise InvalidRequest(
            "the URL of a vault on a server has a mount and a name", "keyhole+https://HOST/vaults/team"
        )
    return Server(ask, path)
