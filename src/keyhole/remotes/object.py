"""A bucket as a remote: S3 and what speaks like it, Google Cloud Storage, Azure Blob Storage, by ``obstore``.

The head is replaced under the condition that it is still the one that was read (``If-Match``, or the generation on
Google's), and what is new is stored under the condition that nothing is there (``If-None-Match: *``), RFC 9110, section
13.1. A store that ignores conditions is found out before the first push and refused.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from keyhole.core.errors import Conflict, IntegrityError, InvalidRequest, NotFound, PolicyDenied, Unreachable
from keyhole.remotes import Found, check_name
from keyhole.repo.snapshots import digest_of, is_digest

if TYPE_CHECKING:
    from obstore.store import ObjectStore

SCHEMES = ("s3", "gs", "az")
_MOST = 4_000_000  # objects
_STATUS = re.compile(r"status code: (\d{3} [A-Za-z ]{1,40})")
_PROBE = b"Keyhole has looked whether this store keeps to conditions.\n"
_VARIABLES = {
    "s3": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_KEY, or what else its tools read",
}


class Bucket:
    """Objects below a prefix of one bucket.

    Args:
        store: of obstore, with the prefix.
        name: for messages.
        variables: of the environment that say who asks, for messages.
    """

    slow = True

    def __init__(self, store: ObjectStore, name: str, variables: str = "") -> None:
        self._store = store
        self._name = name
        self._variables = variables
        self._probed = False

    def get(self, name: str, most: int) -> Found | None:
        """See ``Remote.get``."""
        import obstore  # noqa: PLC0415 - an extra

        name = check_name(name)
        try:
            with self._asking():
                found = obstore.get(self._store, name)
                data = bytearray()
                if found.meta["size"] <= most:
                    for chunk in found.stream(min_chunk_size=64 * 1024):
                        data += memoryview(chunk)
                        if len(data) > most:
                            break
        except FileNotFoundError:
            return None
        if max(len(data), found.meta["size"]) > most:
            raise IntegrityError(f"{name} of the remote is longer than {most} bytes", "take nothing of it")
        return Found(bytes(data), _tag(found.meta["e_tag"], found.meta["version"]))

    def list(self) -> list[str]:
        """See ``Remote.list``."""
        import obstore  # noqa: PLC0415 - an extra

        found: list[str] = []
        with self._asking():
            for page in obstore.list(self._store, "objects", chunk_size=1000):
                found += [str(each["path"]).rpartition("/")[2] for each in page]
                if len(found) > _MOST:
                    break
        if len(found) > _MOST:
            raise IntegrityError(f"{self._name} has more than {_MOST} objects", "this is no remote of ours")
        return sorted(filter(is_digest, found))

    def put(self, name: str, data: bytes, expected: str = "") -> str:
        """See ``Remote.put``."""
        if not self._probed and not expected and check_name(name) == "head":
            self._probe()
        return self._put(check_name(name), data, expected)

    def close(self) -> None:
        """Connections end with the process."""

    def _put(self, name: str, data: bytes, expected: str) -> str:
        import obstore  # noqa: PLC0415 - an extra

        mode: Any = json.loads(expected) if expected else "create"
        try:
            with self._asking():
                done = obstore.put(self._store, name, data, mode=mode, use_multipart=False)
        except FileNotFoundError:
            raise NotFound(f"{self._name} is not there", "make the bucket first, with its own tools") from None
        return _tag(done["e_tag"], done["version"])

    def _probe(self) -> None:
        """See that the store keeps to conditions, before anything depends on it."""
        name = f"objects/{digest_of(_PROBE)}"
        for _ in range(2):
            try:
                self._put(name, _PROBE, "")
            except Conflict:
                self._probed = True
                return
        raise InvalidRequest(
            f"{self._name} ignores conditions of a write, so two pushes at once would lose one",
            "use a store with conditional writes (If-None-Match), or a server",
        )

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        """Its errors as ours. Of what they say only the status is kept: settings may stand in the rest."""
        from obstore import exceptions  # noqa: PLC0415 - an extra

        try:
            yield
        except FileNotFoundError:
            raise
        except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
            raise Conflict("somebody changed it meanwhile", "fetch again") from None
        except Exception as error:  # noqa: BLE001 - they have no class in common but this
            status = _STATUS.search(str(error))
            said = f" ({status[1].strip()})" if status else ""
            if isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError):
                raise PolicyDenied(f"{self._name} refuses{said}", f"see {self._variables}") from None
            raise Unreachable(f"{self._name} cannot be asked{said}", f"is it there? see {self._variables}") from None


def _tag(e_tag: str | None, version: str | None) -> str:
    return json.dumps({name: value for name, value in (("e_tag", e_tag), ("version", version)) if value is not None})


def _allows_http(scheme: str) -> bool:
    """The variable by which the store's own clients let an endpoint be without TLS."""
    name = {"s3": "AWS", "gs": "GOOGLE", "az": "AZURE"}[scheme]
    return os.environ.get(f"{name}_ALLOW_HTTP", "").lower() in {"1", "true"}


def make(where: str) -> Bucket:
    """The bucket of a URL such as ``s3://BUCKET/PREFIX``; who asks is said by the environment.

    Raises:
        NotFound: the extra is not installed.
        InvalidRequest: it is no URL of a bucket.
    """
    try:
        from obstore.store import from_url  # noqa: PLC0415 - an extra
    except ImportError:
        raise NotFound("buckets need the extra sync", "pip install 'keyhole[sync]'") from None
    scheme = where.partition("://")[0]
    if scheme not in SCHEMES:
        raise InvalidRequest("that is no URL of a bucket", "such as s3://BUCKET/PREFIX")
    try:
        store = from_url(
            where,
            client_options={"timeout": "60s", "connect_timeout": "5s", "allow_http": _allows_http(scheme)},
            retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=60)},
        )
    except Exception:  # noqa: BLE001 - its errors have no common class but this, and may have settings in their text
        raise InvalidRequest(f"{where} cannot be used", f"see {_VARIABLES[scheme]}") from None
    return Bucket(store, where, _VARIABLES[scheme])
