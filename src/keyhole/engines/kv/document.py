"""What is stored of a secret: its metadata with the data of the current version in one entry, older versions apart."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from keyhole.core.errors import Expired, NotFound
from keyhole.core.path import parse_path
from keyhole.core.times import format_time
from keyhole.engines import Context, Writing

DEFAULT_VERSIONS = 10
CONFIG = "config"
_decode = json.JSONDecoder().raw_decode
_VERSIONS, _DATA = b',"versions":{', b',"data":'
_HEADS = 256
_HEAD_LIMIT = 2048  # bytes of one that is kept


class Document:
    """Metadata of a secret and the data of its current version, as stored. The data come last: see ``split``.

    One that was never stored, or was deleted, has the revision 0 or that of its tombstone and ``stored`` false.
    ``rotated`` is when the value last became another one, ``told`` names the notices of its end that were given.
    """

    def __init__(
        self,
        created: float,
        updated: float,
        *,
        current: int = 0,
        oldest: int = 0,
        max_versions: int = 0,
        cas_required: bool = False,
        delete_after: int = 0,
        custom: dict[str, str] | None = None,
        type: str = "",  # noqa: A002  # it is called what it is
        owner: str = "",
        tags: list[str] | None = None,
        expires: float = 0.0,
        rotate_every: int = 0,
        rotated: float = 0.0,
        told: list[str] | None = None,
        versions: dict[str, dict[str, Any]] | None = None,
        data: Any = None,
        revision: int = 0,
        stored: bool = True,
    ) -> None:
        self.created = created
        self.updated = updated
        self.current = current
        self.oldest = oldest
        self.max_versions = max_versions
        self.cas_required = cas_required
        self.delete_after = delete_after
        self.custom = custom
        self.type = type
        self.owner = owner
        self.tags = [] if tags is None else tags
        self.expires = expires
        self.rotate_every = rotate_every
        self.rotated = rotated
        self.told = [] if told is None else told
        self.versions = {} if versions is None else versions
        self.data = data
        self.revision = revision
        self.stored = stored

    def encode(self) -> bytes:
        """JSON, without what the store keeps."""
        fields = {name: value for name, value in vars(self).items() if name not in {"revision", "stored"}}
        return json.dumps(fields, separators=(",", ":")).encode()

    def describe(self, number: int) -> dict[str, Any]:
        """The ``metadata`` block of one version."""
        return describe(self.versions[str(number)], number, self.custom)

    def gone(self, number: int, now: float) -> bool:
        """Is the version deleted or destroyed?"""
        return gone(self.versions[str(number)], now)

    @property
    def renewed(self) -> float:
        """When the value was last another one, seconds since the epoch."""
        if self.rotated or not self.current:
            return self.rotated or self.created
        return float(self.versions[str(self.current)]["created"])

    async def writing(self, context: Context, name: str) -> Writing:
        """What stores it where it was read, due when somebody is to be told of its end."""
        due = None
        if (self.expires or self.rotate_every) and self.current and not self.gone(self.current, context.now):
            from keyhole.engines.kv import lifetime  # noqa: PLC0415  # few secrets end

            ends = lifetime.ends_of(self.expires, self.rotate_every, self.renewed)
            due = lifetime.next_time(ends, await context.notices.days(), self.told, context.now)
        return (f"k/{name}", self.encode(), self.revision, due)

    async def save(self, context: Context, name: str) -> None:
        """Write it where it was read. Raises ``Conflict`` when somebody else wrote meanwhile."""
        await context.storage.change([await self.writing(context, name)])


async def load(context: Context, name: str) -> Document:
    """The document of a secret as it is now; a new one, not ``stored``, where there is none."""
    item = await context.storage.get_one(f"k/{name}")
    if item.data is None:
        return Document(context.now, context.now, revision=item.revision, stored=False)
    return decode(item)


def decode(item: Any) -> Document:
    """The document that an item of the storage holds."""
    return Document(revision=item.revision, **_decode(item.data.decode())[0])


async def load_stored(context: Context, name: str) -> Document:
    """The document of a secret. Raises ``NotFound`` where there is none."""
    document = await load(context, name)
    if not document.stored:
        raise _nothing(name)
    return document


def split(context: Context, stored: bytes) -> tuple[Mapping[str, Any], bytes]:
    """A stored document as its fields without the data, which nobody may change, and the data as JSON.

    The fields are most of the text and stay the same from read to read, so they are kept parsed. Of the data nothing
    is kept. The first of these marks are the true ones: within a text their quotes would be escaped, and before the
    data only the versions hold objects, in which there is no such name.
    """
    end = stored.index(_DATA, stored.index(_VERSIONS))
    head, heads = stored[:end], context.storage.heads
    fields = heads.get(head)
    if fields is None:
        fields = json.loads(head + b"}")
        if len(heads) >= _HEADS:
            heads.clear()
        if end <= _HEAD_LIMIT:
            heads[head] = fields
    return fields, stored[end + len(_DATA) : -1]


async def load_split(context: Context, name: str) -> tuple[Mapping[str, Any], bytes]:
    """``split`` of a secret as it is now. Raises ``NotFound`` where there is none."""
    item = await context.storage.get_one(f"k/{name}")
    if item.data is None:
        raise _nothing(name)
    return split(context, item.data)


async def load_current(context: Context, name: str) -> Any:
    """The data of the current version, and nothing of the document besides: every loan comes this way.

    Raises:
        NotFound: there is no such secret, or its current version is deleted.
        Expired: it has passed its date.
    """
    fields, data = await load_split(context, name)
    current = fields["current"]
    if current == 0 or gone(fields["versions"][str(current)], context.now):
        raise NotFound(f"the current version of the secret {name!r} is deleted", f"keyhole set {name}")
    require_unexpired(fields.get("expires", 0.0), name, context.now)
    return _decode(data.decode())[0]


def describe(version: Mapping[str, Any], number: int, custom: Mapping[str, str] | None) -> dict[str, Any]:
    """The ``metadata`` block of one version."""
    return {
        "created_time": format_time(version["created"]),
        "deletion_time": format_time(version["deleted"]) if version["deleted"] else "",
        "destroyed": version["destroyed"],
        "version": number,
        "custom_metadata": None if custom is None else {**custom},
    }


def gone(version: Mapping[str, Any], now: float) -> bool:
    """Is this version deleted or destroyed?"""
    return version["destroyed"] or bool(version["deleted"] and version["deleted"] <= now)


def require_unexpired(expires: float, name: str, now: float) -> None:
    """Raises ``Expired`` once a secret has passed its date, unless that is 0."""
    if expires and expires <= now:
        raise Expired(
            f"the secret {name!r} expired at {format_time(expires)}", f"store a new value: keyhole set {name}"
        )


def _nothing(name: str) -> NotFound:
    return NotFound(f"there is no secret {name!r}", "keyhole list")


async def exists(context: Context, params: Mapping[str, str]) -> bool:
    """Is there such a secret, with or without a live version?"""
    return (await context.storage.get_one(f"k/{parse_path(params['path'])}")).data is not None


async def load_settings(context: Context) -> dict[str, Any]:
    """The engine's defaults: ``max_versions``, ``cas_required``, ``delete_version_after`` in seconds."""
    item = await context.storage.get_one(CONFIG)
    defaults = {"max_versions": 0, "cas_required": False, "delete_version_after": 0}
    return defaults if item.data is None else {**defaults, **json.loads(item.data)}


def go_duration(seconds: int) -> str:
    """Seconds as Go writes a duration, which is what clients of Vault parse: ``1h0m0s``."""
    hours, rest = divmod(seconds, 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s" if minutes else f"{rest}s"
