"""What a request of git means: fetching, or pushing. Pure.

Source: ``gitprotocol-http`` of git for the smart and the dumb protocol, and the Git LFS API for large files. Whatever
is none of their requests is neither, and refused where a service says ``git``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from keyhole.core.checks.urlencoded import fold
from keyhole.core.errors import InvalidRequest
from keyhole.core.strict_json import JsonBounds, parse_object

FETCH = "fetch"
PUSH = "push"
_BOUNDS = JsonBounds()
_SERVICES = {"git-upload-pack": FETCH, "git-receive-pack": PUSH}
_OPERATIONS = {"download": FETCH, "upload": PUSH}
_READS = frozenset({"GET", "HEAD"})
_DUMB = re.compile(
    r"/.*/(?:HEAD|objects/info/(?:packs|alternates|http-alternates)|objects/[0-9a-f]{2}/[0-9a-f]{38,62}"
    r"|objects/pack/pack-[0-9a-f]{40,64}\.(?:pack|idx))"
)
_LFS_BATCH = re.compile(r"/.*/info/lfs/objects/batch")
_LFS_OBJECT = re.compile(r"/.*/(?:info/lfs|gitlab-lfs)/objects/[0-9a-f/]{1,130}(?:/[0-9]{1,20})?")
_LFS_WRITES = re.compile(r"/.*/info/lfs/(?:verify|locks|locks/verify|locks/[A-Za-z0-9_-]{1,128}/unlock)")
_LFS_LOCKS = re.compile(r"/.*/info/lfs/locks")


def parse_rule(data: Any) -> str:
    """Read ``git`` of a service. Raises ``InvalidRequest``."""
    if data not in {FETCH, PUSH}:
        raise InvalidRequest("git is fetch, or push (which may fetch too)", '"git": "fetch"')
    return str(data)


def asks_in_body(method: str, path: str) -> bool:
    """Whether only the body says what is asked, as in LFS."""
    return method == "POST" and _LFS_BATCH.fullmatch(path) is not None


def meaning(method: str, path: str, query: str, kinds: Sequence[bytes] = (), content: bytes | None = None) -> str:
    """``fetch``, ``push``, or empty for what is no request of git.

    Args:
        method: of the request.
        path: decoded.
        query: as it is sent.
        kinds: its ``Content-Type`` fields.
        content: the body, where ``asks_in_body`` says so.

    Raises:
        InvalidRequest: the body of an LFS batch cannot be read.
    """
    name = path.rpartition("/")[2]
    if method in _READS:
        if path.endswith("/info/refs"):
            service = query.removeprefix("service=")
            return _SERVICES.get(service, "") if query else FETCH
        if query:
            return FETCH if _LFS_LOCKS.fullmatch(path) else ""
        return FETCH if any(form.fullmatch(path) for form in (_DUMB, _LFS_OBJECT, _LFS_LOCKS)) else ""
    if query:
        return ""
    if method == "POST":
        if asks_in_body(method, path):
            return _operation(content or b"")
        if _LFS_WRITES.fullmatch(path):
            return PUSH
        # An API may have a route that ends in this name; what it would take for its own request is none of git's.
        smart = [*kinds] == [f"application/x-{name}-request".encode()] and path.count("/") > 1
        return _SERVICES.get(name, "") if smart else ""
    return PUSH if method == "PUT" and _LFS_OBJECT.fullmatch(path) else ""


def _operation(content: bytes) -> str:
    batch = parse_object(content, _BOUNDS)
    named = [key for key in batch if fold(key) == "operation"]
    if named != ["operation"]:  # servers written in Go do not look at case
        return ""
    operation = batch["operation"]
    return _OPERATIONS.get(operation, "") if isinstance(operation, str) else ""
