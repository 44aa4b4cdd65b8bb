"""What a curious client can do to an answer: decoders that know nothing of the implementation under test."""

import base64
import binascii
import contextlib
import gzip
import html
import json
import re
import urllib.parse
import zlib

import brotli

try:
    from compression import zstd
except ImportError:
    from backports import zstd


def _base64(data, alphabet):
    joined = re.sub(rb"\s+|\\r|\\n", b"", data)
    for source in {data, joined}:
        for run in re.findall(rb"[A-Za-z0-9" + alphabet + rb"]{8,}", source):
            plain = run.translate(bytes.maketrans(b"-_", b"+/"))
            for skip in range(4):
                part = plain[skip:]
                yield base64.b64decode(part[: len(part) // 4 * 4] + b"")
                yield base64.b64decode(part + b"A" * (-len(part) % 4))


def _hex(data):
    for run in re.findall(rb"[0-9a-fA-F]{16,}", data):
        for skip in range(2):
            part = run[skip:]
            yield binascii.unhexlify(part[: len(part) // 2 * 2])


def _json_strings(data):
    for literal in re.findall(rb'"(?:[^"\\]|\\.)*"', data, re.DOTALL):
        try:
            yield json.loads(literal, strict=False).encode("utf-8", "surrogatepass")
        except ValueError:
            continue
    yield re.sub(rb"\\u00([0-9a-fA-F]{2})", lambda match: binascii.unhexlify(match[1]), data).replace(rb"\/", b"/")


def _compressed(data):
    for decode in (gzip.decompress, zlib.decompress, lambda d: zlib.decompress(d, -15), brotli.decompress):
        try:
            yield decode(data)
        except (OSError, EOFError, zlib.error, brotli.error):
            continue
    if data.startswith(b"\x28\xb5\x2f\xfd"):
        with contextlib.suppress(zstd.ZstdError):
            yield zstd.decompress(data)


def once(data):
    """Every reading of the data that is one step away."""
    yield from _base64(data, b"+/")
    yield from _base64(data, b"_-")
    yield from _hex(data)
    yield from _json_strings(data)
    yield from _compressed(data)
    yield urllib.parse.unquote_to_bytes(data)
    yield urllib.parse.unquote_to_bytes(data.replace(b"+", b" "))
    yield html.unescape(data.decode("latin-1")).encode("utf-8", "surrogatepass")
    for skip in range(2):
        for name in ("utf-16-le", "utf-16-be"):
            yield data[skip:].decode(name, "ignore").encode("utf-8", "surrogatepass")


def shows(data, secret, depth=2):
    """Whether the secret, or three quarters of it from its beginning, can be read out of the data."""
    wanted = secret[: min(len(secret), max(12, len(secret) * 3 // 4))]
    layer = {data}
    seen = set()
    for level in range(depth + 1):
        if any(wanted in text for text in layer):
            return True
        if level < depth:
            seen |= layer
            layer = {plain for text in layer for plain in once(text) if len(plain) >= len(wanted)} - seen
    return False
