"""Make, look at, set, rotate, trim, delete, export, back up and restore keys."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.core.lease import parse_duration
from keyhole.core.numbers import parse_count, parse_flag
from keyhole.core.request import Reply
from keyhole.core.times import format_time
from keyhole.crypto import asymmetric
from keyhole.crypto.message import CIPHERS
from keyhole.engines import Call, Context, InvalidForVault, Writing
from keyhole.engines.transit import keys
from keyhole.engines.transit.fields import hidden, text_of
from keyhole.engines.transit.keys import MAX_VERSIONS, TYPES, Key, Material

_BACKUP = "keyhole-transit-1"
_END_OF_TIME = 10**11  # seconds; the year 5138
_SHORTEST_ROTATION = 3600  # seconds
_EXPORTS = ("encryption-key", "signing-key", "hmac-key", "public-key")


def _flag(data: Mapping[str, Any], name: str, default: bool) -> bool:  # noqa: FBT001 - what it is when it is not said
    value = data.get(name)
    return default if value is None else parse_flag(value, name)


def parse_rotation(data: Mapping[str, Any], default: int = 0) -> int:
    """Seconds between rotations, 0 for none. Raises ``InvalidRequest``."""
    value = data.get("auto_rotate_period")
    period = default if value is None else parse_duration(value, name="auto_rotate_period")
    if 0 < period < _SHORTEST_ROTATION:
        raise InvalidRequest("auto rotate period must be 0 to disable or at least an hour", "write like 720h")
    return period


def new_key(name: str, data: Mapping[str, Any]) -> Key:
    """A key without a version, as these fields want it. Raises ``InvalidRequest``."""
    kind = text_of(data, "type") or "aes256-gcm96"
    if kind not in TYPES:
        raise InvalidRequest(f"unknown key type {kind[:40]}", f"use one of {', '.join(TYPES)}")
    key = Key(
        keys.parse_key_name(name),
        kind,
        derived=_flag(data, "derived", default=False),
        convergent=_flag(data, "convergent_encryption", default=False),
        exportable=_flag(data, "exportable", default=False),
        plaintext_backup=_flag(data, "allow_plaintext_backup", default=False),
        auto_rotate=parse_rotation(data),
        size=parse_count(data.get("key_size") or 32, "key_size", least=32, most=512),
    )
    if key.derived and not keys.can_derive(kind):
        raise InvalidRequest(f"key derivation and convergent encryption not supported for keys of type {kind}")
    if key.convergent and not (key.derived and kind in CIPHERS):
        raise InvalidRequest("convergent encryption requires derivation to be enabled", 'send {"derived": true}')
    return key


async def create_key(context: Context, name: str, data: Mapping[str, Any]) -> None:
    """Make a key; one that is there stays as it is."""
    key = new_key(name, data)
    if await keys.find(context, name) is None:
        await keys.save_new(context, key, await asyncio.to_thread(keys.generate, key.type, key.size))


async def create(context: Context, call: Call) -> None:
    """Makes a key."""
    await create_key(context, call.params["name"], call.data)


def _shown(key: Key, version: str) -> Any:
    about = key.versions[version]
    if key.type not in asymmetric.KINDS:
        return int(about["created"])
    curve = asymmetric.CURVES[key.type][1] if key.type in asymmetric.CURVES else key.type
    public = "" if key.derived else about["public"]
    return {"creation_time": format_time(about["created"]), "name": curve, "public_key": public}


async def read(context: Context, call: Call) -> Reply:
    """Settings and versions of a key."""
    key = await keys.find(context, call.params["name"])
    if key is None:
        raise NotFound("there is no such key", "make it first: POST keys/NAME")
    data = {
        "name": key.name,
        "type": key.type,
        "derived": key.derived,
        "deletion_allowed": key.deletion_allowed,
        "exportable": key.exportable,
        "allow_plaintext_backup": key.plaintext_backup,
        "auto_rotate_period": key.auto_rotate,
        "imported_key": key.imported,
        "keys": {n: _shown(key, n) for n in key.versions if int(n) >= key.min_decryption},
        "latest_version": key.latest,
        "min_available_version": key.min_available,
        "min_decryption_version": key.min_decryption,
        "min_encryption_version": key.min_encryption,
        "supports_encryption": key.encrypts,
        "supports_decryption": key.encrypts,
        "supports_derivation": keys.can_derive(key.type),
        "supports_signing": key.signs,
    }
    if key.imported:
        data["imported_key_allow_rotation"] = key.rotatable
    if key.derived:
        data["kdf"] = "hkdf_sha256"
    if key.derived and key.type in CIPHERS:
        data["convergent_encryption"] = key.convergent
        if key.convergent:
            data["convergent_encryption_version"] = -1
    return Reply(data)


async def list_names(context: Context, _call: Call) -> Reply:
    """Names of keys."""
    names = await context.storage.list("p")
    if not names:
        raise NotFound("there are no keys", "make one: POST keys/NAME")
    return Reply({"keys": list(names)})


async def delete(context: Context, call: Call) -> None:
    """Removes a key with all versions, when it allows that."""
    name = call.params["name"]
    key = await keys.load(context, name, f"error deleting policy {name}: could not delete key; not found")
    if not key.deletion_allowed:
        raise InvalidRequest(
            f"error deleting policy {name}: deletion is not allowed for this key",
            'POST keys/NAME/config {"deletion_allowed": true}',
        )
    older = await keys.archived(context, name, [int(n) for n in key.versions if int(n) != key.latest])
    await context.storage.change((), [(f"p/{name}", key.revision), *older])


async def rotate(context: Context, call: Call) -> None:
    """Adds a version, which is used from now on."""
    key = await keys.load(context, call.params["name"], "key not found")
    if not key.rotatable:
        raise InvalidRequest(f"imported key {key.name} does not allow rotation", "use keys/NAME/import_version")
    await keys.save_new(context, key, await asyncio.to_thread(keys.generate, key.type, key.size))


async def rotate_due(context: Context, path: str) -> str:
    """Adds a version to a key whose time has come; of several nodes that try it one does."""
    key = await keys.find(context, path.removeprefix("p/"))
    if key is None or key.next_rotation is None or key.next_rotation > context.now:
        return ""
    if key.full:
        await keys.save(context, key, due=context.now + key.auto_rotate)
        raise InvalidRequest("the key has as many versions as may be", "trim those that nothing needs any more")
    await keys.save_new(context, key, await asyncio.to_thread(keys.generate, key.type, key.size))
    return f"keys/{key.name}/rotate"


def _configure(key: Key, data: Mapping[str, Any]) -> list[str]:
    warnings = []
    least = key.min_decryption
    if data.get("min_decryption_version") is not None:
        least = parse_count(data["min_decryption_version"], "min_decryption_version", most=10**9)
        if least == 0:
            least = 1
            warnings.append("the minimum decryption version is 1: there is no version 0")
        if least > key.latest:
            raise InvalidRequest(f"cannot set min decryption version of {least}, latest key version is {key.latest}")
    writes = key.min_encryption
    if data.get("min_encryption_version") is not None:
        writes = parse_count(data["min_encryption_version"], "min_encryption_version", most=10**9)
        if writes > key.latest:
            raise InvalidRequest(f"cannot set min encryption version of {writes}, latest key version is {key.latest}")
    if 0 < writes < least:
        raise InvalidRequest(
            f"cannot set min encryption/decryption values; min encryption version of {writes} must be greater than "
            f"or equal to min decryption version of {least}"
        )
    if least < key.min_available:
        raise InvalidRequest("min decryption version should not be less than min available version")
    key.min_decryption, key.min_encryption = least, writes
    key.deletion_allowed = _flag(data, "deletion_allowed", key.deletion_allowed)
    # What was once exportable may have left: it never looks as if it had not.
    key.exportable = key.exportable or _flag(data, "exportable", default=False)
    key.plaintext_backup = key.plaintext_backup or _flag(data, "allow_plaintext_backup", default=False)
    return warnings


async def configure(context: Context, call: Call) -> Reply:
    """Sets which versions count, and what may be done with the key."""
    name = call.params["name"]
    key = await keys.load(context, name, f"no existing key named {name} could be found")
    period = parse_rotation(call.data, key.auto_rotate)
    if period and not key.rotatable:
        raise InvalidRequest(f"imported key {key.name} does not allow rotation", "use keys/NAME/import_version")
    warnings = _configure(key, call.data)
    key.auto_rotate = period
    await keys.save(context, key)
    return Reply(warnings=warnings)


async def trim(context: Context, call: Call) -> None:
    """Removes versions for good."""
    key = await keys.load(context, call.params["name"], "invalid key name")
    if call.data.get("min_available_version") is None:
        raise InvalidRequest("missing min_available_version")
    least = parse_count(call.data["min_available_version"], "min_available_version", most=10**9)
    if key.min_encryption == 0:
        raise InvalidRequest("minimum available version cannot be set when minimum encryption version is not set")
    if least < key.min_available:
        raise InvalidRequest("minimum available version cannot be decremented")
    if least > min(key.min_encryption, key.min_decryption):
        raise InvalidRequest("minimum available version cannot be higher than the minimum encryption or decryption")
    gone = [n for n in key.versions if int(n) < least]
    older = await keys.archived(context, key.name, [int(n) for n in gone])
    for number in gone:
        del key.versions[number]
    key.min_available = least
    await keys.save(context, key, older)


def _exported(key: Key, what: str, material: Material) -> str:
    if what == "hmac-key":
        return base64.b64encode(material.hmac).decode()
    if key.type in CIPHERS or key.type == "hmac":
        return base64.b64encode(material.key).decode()
    return asymmetric.public_text(material.key) if what == "public-key" else asymmetric.private_text(material.key)


def _check_export(key: Key, what: str) -> None:
    if what not in _EXPORTS:
        raise InvalidRequest(f"invalid export type: {what[:40]}", f"use one of {', '.join(_EXPORTS)}")
    if what == "public-key" and key.signs:
        return
    if not key.exportable:
        raise InvalidRequest("key is not exportable", 'POST keys/NAME/config {"exportable": true}')
    if what == "encryption-key" and not key.encrypts:
        raise InvalidRequest("encryption not supported for the key")
    if what in {"signing-key", "public-key"} and not key.signs:
        raise InvalidRequest("signing not supported for the key")


async def export(context: Context, call: Call) -> Reply:
    """The key itself, of one version or of all that may still be read."""
    key = await keys.find(context, call.params["name"])
    if key is None:
        raise NotFound("there is no such key", "make it first: POST keys/NAME")
    what = call.params["what"]
    _check_export(key, what)
    wanted = call.params.get("version") or ""
    numbers = [int(n) for n in key.versions if int(n) >= key.min_decryption]
    if wanted:
        number = key.latest if wanted == "latest" else parse_count(wanted, "version", most=10**9)
        if number < key.min_decryption:
            raise InvalidRequest("version for export is below minimum decryption version")
        if number not in numbers:
            raise InvalidRequest("version does not exist or cannot be found")
        numbers = [number]
    held = await keys.material(context, key, numbers)
    shown = {str(number): _exported(key, what, held[number]) for number in numbers}
    return Reply({"name": key.name, "type": key.type, "keys": hidden(shown)})


async def back_up(context: Context, call: Call) -> Reply:
    """The key with all versions and settings as one text, for ``restore``."""
    key = await keys.load(context, call.params["name"], "key not found")
    if not key.exportable:
        raise InvalidRequest("exporting is disallowed on the policy", 'POST keys/NAME/config {"exportable": true}')
    if not key.plaintext_backup:
        raise InvalidForVault(
            "plaintext backup is disallowed on the policy", 'POST keys/NAME/config {"allow_plaintext_backup": true}'
        )
    held = await keys.material(context, key, [int(n) for n in key.versions])
    document = {
        "format": _BACKUP,
        "name": key.name,
        "policy": json.loads(key.encode()),
        "materials": {str(number): held[number].as_data() for number in sorted(held)},
    }
    return Reply({"backup": hidden(base64.b64encode(json.dumps(document).encode()).decode())})


async def restore(context: Context, call: Call) -> None:
    """Makes a key from what ``backup`` gave; ``force`` replaces one that is there."""
    text = text_of(call.data, "backup", "'backup' must be supplied")
    key, held = await asyncio.to_thread(_read_backup, text, call.params.get("name") or "")
    force = _flag(call.data, "force", default=False)
    there = await keys.find(context, key.name)
    if there is not None and not force:
        raise InvalidForVault(f'key "{key.name}" already exists', 'send {"force": true} to replace it')
    key.revision = there.revision if there is not None else (await context.storage.get_one(f"p/{key.name}")).revision
    old = [int(n) for n in there.versions] if there is not None else []
    deletes = [
        (path, revision)
        for path, revision in await keys.archived(context, key.name, old)
        if int(path.split("/")[1]) not in held or int(path.split("/")[1]) == key.latest
    ]
    writes: list[Writing] = [(f"p/{key.name}", key.encode(), key.revision, key.next_rotation)]
    for number in sorted(held.keys() - {key.latest}):
        path = f"v/{number}/{key.name}"
        item = await context.storage.get_one(path)
        writes.append((path, json.dumps(held[number].as_data()).encode(), item.revision))
    await context.storage.change(writes, deletes)


def _read_backup(text: str, name: str) -> tuple[Key, dict[int, Material]]:
    """What a backup says, all of it checked: it may come from anybody who may call ``restore``."""
    try:
        document = json.loads(base64.b64decode(text, validate=True))
        if document["format"] != _BACKUP:
            raise InvalidRequest("the backup has another format", "restore takes what backup gave")
        policy = document["policy"]
        settings: dict[str, Any] = {field: parse_flag(policy[field], field) for field in _FLAGS}
        settings |= {field: parse_count(policy[field], field, most=10**9) for field in _COUNTS}
        settings["auto_rotate"] = parse_rotation({"auto_rotate_period": policy.get("auto_rotate")})
        key = Key(keys.parse_key_name(name or str(document["name"])), str(policy["type"]), **settings)
        held = {int(number): Material.from_data(data) for number, data in document["materials"].items()}
        created = {number: float(policy["versions"][str(number)]["created"]) for number in held}
        _check_restored(key, held, created)
    except (binascii.Error, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InvalidRequest("the backup cannot be read", "restore takes what backup gave") from None
    for number, material in sorted(held.items()):
        keys.check_material(key.type, material)
        key.versions[str(number)] = keys.describe_version(key.type, material, created[number])
    key.material = held[key.latest].as_data()
    return key, held


_FLAGS = ("derived", "convergent", "exportable", "plaintext_backup", "deletion_allowed", "imported", "rotatable")
_COUNTS = ("min_decryption", "min_encryption", "min_available", "size", "latest")


def _check_restored(key: Key, held: Mapping[int, Material], created: Mapping[int, float]) -> None:
    consistent = (
        key.type in TYPES
        and all(0 <= moment < _END_OF_TIME for moment in created.values())
        and 1 <= len(held) <= MAX_VERSIONS
        and sorted(held) == list(range(max(key.min_available, 1), key.latest + 1))
        and max(key.min_available, 1) <= key.min_decryption <= key.latest
        and (key.min_encryption == 0 or key.min_decryption <= key.min_encryption <= key.latest)
        and (not key.derived or keys.can_derive(key.type))
        and (not key.convergent or (key.derived and key.type in CIPHERS))
    )
    if not consistent:
        raise InvalidRequest("the backup contradicts itself", "restore takes what backup gave")
