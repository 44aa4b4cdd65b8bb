"""Where repo vaults of a team lie on a server that cannot open them: objects by their SHA-256, and one head for each.

``NAME/objects`` takes and gives objects, ``NAME/head`` is replaced by compare-and-set. What members put here is sealed
for them before it comes; nothing that they send opens it. Whoever may read a vault here still reads ciphertext, and
whoever may write one cannot pass anything for the work of a member, so policies only say who takes part and who fills
the disk.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any

from keyhole.core.errors import BodyTooLarge, Conflict, InvalidRequest, NotFound
from keyhole.core.request import Operation, Reply
from keyhole.core.value import Secret
from keyhole.engines import Call, Context, Engine, Field, Route
from keyhole.repo.names import parse_part
from keyhole.repo.snapshots import digest_of, is_digest


@dataclass(frozen=True, slots=True)
class Limits:
    """What one vault may take.

    Attributes:
        object: bytes of an object.
        head: bytes of a head.
        objects: how many.
        total: bytes of all of them.
        batch: objects in one request.
        answer: bytes of objects in one answer.
    """

    object: int = 8 * 1024 * 1024
    head: int = 4096
    objects: int = 500_000
    total: int = 4 * 1024 * 1024 * 1024
    batch: int = 1000
    answer: int = 8 * 1024 * 1024


LIMITS = Limits()
_TRIES = 20


def _name(call: Call) -> str:
    return parse_part(call.params["name"], "vault")


def _bytes(text: Any, most: int) -> bytes:
    if not isinstance(text, str) or len(text) > 4 * (most + 2) // 3:
        raise BodyTooLarge(f"it is no text in base64, or longer than {most} bytes", "send less")
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest("it is not base64", "encode it as RFC 4648 says, section 4") from None
    if len(data) > most:
        raise BodyTooLarge(f"it is longer than {most} bytes", "send less")
    return data


def _shown(data: bytes) -> Secret:
    """Only who may read it is shown it: no device of the journal keeps a copy."""
    return Secret(json.dumps(base64.b64encode(data).decode()))


async def read_head(context: Context, call: Call) -> Reply:
    """The head of a vault, and the tag that its replacement has to name."""
    item = await context.storage.get_one(f"{_name(call)}/head")
    if item.data is None:
        raise NotFound("there is no vault of this name here")
    return Reply({"data": _shown(item.data), "tag": digest_of(item.data)})


async def write_head(context: Context, call: Call) -> Reply:
    """Replaces the head if it is still the one that the caller has seen."""
    data, expected = _bytes(call.data.get("data"), LIMITS.head), call.data.get("expected", "")
    path = f"{_name(call)}/head"
    item = await context.storage.get_one(path)
    if (digest_of(item.data) if item.data is not None else "") != expected:
        raise Conflict("somebody has pushed meanwhile", "pull, then push again")
    await context.storage.change([(path, data, item.revision)])
    return Reply({"tag": digest_of(data)})


async def read_objects(context: Context, call: Call) -> Reply:
    """Objects by digest; those that are not here are left out, those that do not fit into one answer are null."""
    name, asked = _name(call), call.data.get("digests", "")
    digests = asked.split(",") if isinstance(asked, str) else asked
    if not isinstance(digests, list) or not digests or len(digests) > LIMITS.batch or not all(map(is_digest, digests)):
        raise InvalidRequest(f"digests are up to {LIMITS.batch} SHA-256 with commas between them", "digests=HEX,HEX")
    found: dict[str, Any] = {}
    size = 0
    for digest in dict.fromkeys(digests):
        if size >= LIMITS.answer:
            found[digest] = None
            continue
        item = await context.storage.get_one(f"{name}/objects/{digest}")
        if item.data is not None:
            found[digest] = _shown(item.data)
            size += len(item.data)
    return Reply({"objects": found})


async def write_objects(context: Context, call: Call) -> Reply:
    """Stores objects, each under the SHA-256 of its bytes. What is here already stays."""
    name, given = _name(call), call.data.get("objects")
    if not isinstance(given, dict) or not given or len(given) > LIMITS.batch:
        raise InvalidRequest(f"objects are up to {LIMITS.batch}, each under its SHA-256", 'send {"objects": {HEX: …}}')
    objects = {digest: _bytes(text, LIMITS.object) for digest, text in given.items()}
    if any(digest_of(data) != digest for digest, data in objects.items()):
        raise InvalidRequest("an object is not what its name says", "the name is the SHA-256 of the bytes")
    for _ in range(_TRIES):
        try:
            return Reply({"stored": await _store(context, name, objects)})
        except Conflict:  # somebody stores here at the same time
            continue
    raise Conflict("many store here at once", "try again")


async def _store(context: Context, name: str, objects: dict[str, bytes]) -> int:
    paths = [f"{name}/objects/{digest}" for digest in objects]
    usage, *items = await context.storage.get(f"{name}/usage", *paths)
    writes: list[tuple[str, bytes, int]] = [
        (path, data, item.revision)
        for path, data, item in zip(paths, objects.values(), items, strict=True)
        if item.data is None
    ]
    if not writes:
        return 0
    count, total = json.loads(usage.data) if usage.data is not None else (0, 0)
    count, total = count + len(writes), total + sum(len(data) for _, data, _ in writes)
    if count > LIMITS.objects or total > LIMITS.total:
        raise BodyTooLarge(
            f"the vault would have more than {LIMITS.objects} objects or {LIMITS.total} bytes here",
            "begin again under another name: the present state alone is pushed to it",
        )
    await context.storage.change([*writes, (f"{name}/usage", json.dumps([count, total]).encode(), usage.revision)])
    return len(writes)


async def list_objects(context: Context, call: Call) -> Reply:
    """Digests of all objects of a vault."""
    keys = await context.storage.list(f"{_name(call)}/objects")
    if not keys:
        raise NotFound("there is nothing here")
    return Reply({"keys": list(keys)})


async def list_vaults(context: Context, _call: Call) -> Reply:
    """Names of vaults."""
    keys = [key.removesuffix("/") for key in await context.storage.list("")]
    if not keys:
        raise NotFound("there is nothing here")
    return Reply({"keys": keys})


async def delete_vault(context: Context, call: Call) -> None:
    """Removes a vault with all that it has here; the head first, so that a cut leaves none that lacks objects."""
    name = _name(call)
    paths = [f"{name}/head", f"{name}/usage"]
    paths += [f"{name}/objects/{digest}" for digest in await context.storage.list(f"{name}/objects")]
    for start in range(0, len(paths), LIMITS.batch):
        batch = paths[start : start + LIMITS.batch]
        items = await context.storage.get(*batch)
        gone = [(path, item.revision) for path, item in zip(batch, items, strict=True) if item.data is not None]
        if gone:
            await context.storage.change((), gone)


ENGINE = Engine(
    "remote",
    (
        Route("", {Operation.LIST: list_vaults}, help="Names of the vaults that lie here."),
        Route(
            "{name}/head",
            {Operation.READ: read_head, Operation.CREATE: write_head},
            fields=(
                Field("data", "the head, in base64", "string"),
                Field("expected", "the tag of the head that it replaces; empty for the first", "string"),
            ),
            help="The head of a vault, replaced by compare-and-set.",
        ),
        Route(
            "{name}/objects",
            {Operation.READ: read_objects, Operation.CREATE: write_objects, Operation.LIST: list_objects},
            fields=(
                Field("objects", "SHA-256 in hexadecimal to the bytes in base64", "map"),
                Field("digests", "which are wanted, with commas between them", "list"),
            ),
            help="The objects of a vault, by the SHA-256 of their bytes.",
        ),
        Route("{name}", {Operation.DELETE: delete_vault}, help="A vault, to be removed with all that it has here."),
    ),
)
