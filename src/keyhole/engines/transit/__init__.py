"""Encryption as a service, as Vault's transit: applications send data, the keys stay in the vault.

Nothing that is sent is kept. Records name the path, and with it the key; never an input, a context or a result.
"""

from __future__ import annotations

import os

from keyhole.core.errors import InvalidRequest
from keyhole.core.numbers import parse_count
from keyhole.core.request import Operation, Reply
from keyhole.engines import Call, Context, Engine, Field, Handler, Route
from keyhole.engines.transit import importing, manage, messages, signing
from keyhole.engines.transit.fields import hidden

_MAX_RANDOM = 128 * 1024
_SOURCES = ("platform", "seal", "all")
_CACHE = "cache"
_SMALLEST_CACHE = 10


async def random_bytes(_context: Context, call: Call) -> Reply:
    """Random bytes from the operating system, whatever source is named: a vault has no other."""
    source = call.params.get("source") or call.data.get("source") or "platform"
    if source not in _SOURCES:
        raise InvalidRequest(f"unsupported entropy source {str(source)[:40]!r}", f"use one of {', '.join(_SOURCES)}")
    asked = call.params.get("count") or call.data.get("bytes") or 32
    data = os.urandom(parse_count(asked, "bytes", least=1, most=_MAX_RANDOM))
    return Reply({"random_bytes": hidden(signing.formatted(call, data, "base64"))})


async def read_cache_config(context: Context, _call: Call) -> Reply:
    """Vault caches keys here; the size 0 is its word for no limit. Keyhole keeps none in clear between requests."""
    item = await context.storage.get_one(_CACHE)
    return Reply({"size": 0 if item.data is None else int(item.data)})


async def write_cache_config(context: Context, call: Call) -> None:
    """Keeps the size, for who compares it with what he wrote."""
    size = parse_count(call.data.get("size") or 0, "size", most=10**9)
    if 0 < size < _SMALLEST_CACHE:
        raise InvalidRequest(f"size must be 0 or a value greater or equal to {_SMALLEST_CACHE}")
    item = await context.storage.get_one(_CACHE)
    await context.storage.change([(_CACHE, str(size).encode(), item.revision)])


_CONTEXT = Field("context", "base64; needed by derived keys")
_VERSION = Field("key_version", "version to use; the latest when it is not said")
_ASSOCIATED = Field("associated_data", "base64; authenticated, not encrypted")
_BATCH = (
    Field("batch_input", "list of objects with the same fields, at most 1,000"),
    Field("partial_failure_response_code", "status when some items of a batch fail; 400 when it is not said"),
)
_HASH = Field("hash_algorithm", "sha2-224, -256, -384, -512 or sha3-…")
_INPUT = Field("input", "base64")
_SCHEME = (
    Field("prehashed", "the input is a digest already"),
    Field("signature_algorithm", "of RSA: pss or pkcs1v15"),
    Field("marshaling_algorithm", "of ECDSA: asn1 or jws"),
    Field("salt_length", "of PSS: auto, hash, or a number"),
)
_IMPORT = (
    Field(
        "ciphertext", "base64: an AES-256 key under the wrapping key by RSA-OAEP, then the key under that by AES-KWP"
    ),
    Field("hash_function", "of OAEP: SHA256, or SHA224, SHA384, SHA512"),
)
_SETTINGS = (
    Field("exportable", "the key may leave; cannot be taken back"),
    Field("allow_plaintext_backup", "the key may be backed up; cannot be taken back"),
    Field("auto_rotate_period", "add a version so long after the latest; an hour at least, 0 for never", "duration"),
)


def _write(pattern: str, handler: Handler, help_text: str, *fields: Field) -> Route:
    return Route(pattern, {Operation.CREATE: handler}, fields=fields, help=help_text)


ENGINE = Engine(
    "transit",
    (
        Route("keys", {Operation.LIST: manage.list_names}, help="Names of keys."),
        _write("keys/{name}/rotate", manage.rotate, "Add a version, which is used from now on."),
        _write(
            "keys/{name}/config",
            manage.configure,
            "Which versions count, and what may be done with the key.",
            Field("min_decryption_version", "older versions open nothing"),
            Field("min_encryption_version", "older versions make nothing; 0 for the latest only"),
            Field("deletion_allowed", "the key may be deleted"),
            *_SETTINGS,
        ),
        _write(
            "keys/{name}/trim",
            manage.trim,
            "Remove old versions for good.",
            Field("min_available_version", "the oldest that stays"),
        ),
        _write(
            "keys/{name}/import",
            importing.import_key,
            "Make a key of one that was made elsewhere.",
            *_IMPORT,
            Field("type", "type of the key"),
            Field("allow_rotation", "versions may be made here"),
            *_SETTINGS,
        ),
        _write(
            "keys/{name}/import_version", importing.import_version, "Add a version that was made elsewhere.", *_IMPORT
        ),
        Route(
            "wrapping_key", {Operation.READ: importing.wrapping_key}, help="The public key for keys that are brought."
        ),
        Route(
            "keys/{name}",
            {Operation.CREATE: manage.create, Operation.READ: manage.read, Operation.DELETE: manage.delete},
            fields=(
                Field("type", "type of the key; aes256-gcm96 when it is not said"),
                Field("derived", "each context has a key of its own"),
                Field("convergent_encryption", "the same plaintext and context give the same ciphertext"),
                Field("key_size", "bytes of a key of the type hmac, 32 to 512"),
                *_SETTINGS,
            ),
            help="Make a key, see its settings, delete it.",
        ),
        Route(
            "encrypt/{name}",
            {Operation.CREATE: messages.encrypt},
            exists=messages.exists,
            fields=(Field("plaintext", "base64"), _CONTEXT, _ASSOCIATED, _VERSION, *_BATCH),
            help="Encrypt; makes the key when it is not there.",
        ),
        _write(
            "decrypt/{name}",
            messages.decrypt,
            "Decrypt.",
            Field("ciphertext", "vault:vN:…"),
            _CONTEXT,
            _ASSOCIATED,
            *_BATCH,
        ),
        _write(
            "rewrap/{name}",
            messages.rewrap,
            "Encrypt again with the latest version, unseen.",
            Field("ciphertext", "vault:vN:…"),
            _CONTEXT,
            _ASSOCIATED,
            _VERSION,
            *_BATCH,
        ),
        _write(
            "datakey/{form}/{name}",
            messages.data_key,
            "A new data key, under the key and with `plaintext` also in clear.",
            Field("bits", "128, 256 or 512"),
            _CONTEXT,
            _VERSION,
        ),
        *(
            _write(pattern, handler, help_text, *fields)
            for start, handler, help_text, fields in (
                ("sign", signing.sign, "Sign.", (_INPUT, _HASH, *_SCHEME, _CONTEXT, _VERSION, *_BATCH)),
                (
                    "verify",
                    signing.verify,
                    "Verify a signature or an HMAC.",
                    (_INPUT, Field("signature", ""), Field("hmac", ""), _HASH, *_SCHEME, _CONTEXT, *_BATCH),
                ),
                ("hmac", signing.make_hmac, "HMAC of an input.", (_INPUT, _HASH, _VERSION, *_BATCH)),
            )
            for pattern in (f"{start}/{{name}}", f"{start}/{{name}}/{{algorithm}}")
        ),
        *(
            _write(pattern, signing.make_hash, "Digest of an input.", _INPUT, Field("format", "hex or base64"))
            for pattern in ("hash", "hash/{algorithm}")
        ),
        *(
            _write(pattern, random_bytes, "Random bytes.", Field("bytes", "how many"), Field("format", "base64 or hex"))
            for pattern in ("random", "random/{count}", "random/{source}/{count}")
        ),
        *(
            Route(pattern, {Operation.READ: manage.export}, help="The key itself, when it is exportable.")
            for pattern in ("export/{what}/{name}", "export/{what}/{name}/{version}")
        ),
        Route("backup/{name}", {Operation.READ: manage.back_up}, help="The key with all versions, as one text."),
        *(
            _write(
                pattern,
                manage.restore,
                "Make a key from a backup.",
                Field("backup", "what backup gave"),
                Field("force", "replace a key that is there"),
            )
            for pattern in ("restore", "restore/{name}")
        ),
        Route(
            "cache-config",
            {Operation.READ: read_cache_config, Operation.CREATE: write_cache_config},
            fields=(Field("size", "kept; nothing is cached", "integer"),),
            help="How many keys Vault would cache.",
        ),
    ),
    due=manage.rotate_due,
)
