"""API paths, secret paths and names: one spelling each, or a refusal.

A path means the same in the store, in a policy, in a lease id, in the audit record and as a file name of a repo vault.
So nothing is normalised silently: what has a second spelling (``a//b``, ``a/./b``, ``a%2fb``, another Unicode form) or
would look like another path is refused. Case counts.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from keyhole.core.codepoints import is_invisible
from keyhole.core.errors import InvalidRequest

MAX_PATH = 512  # bytes of UTF-8
MAX_SEGMENT = 255  # bytes of UTF-8: the longest file name of the common file systems
DEFAULT_FIELD = "value"
CERTIFICATE = "certificate:"  # begins the names under which the fields of a client's certificate are lent

OWN = frozenset({"agents", "approvals", "auth", "cubbyhole", "identity", "services", "sys", "tools"})
"""First segments of the paths at which Keyhole answers for itself in every org."""
_OWN_OF_ORG = ("auth/", "cubbyhole/", "sys/")  # of those what can hold a token

# Characters with a meaning of their own next to a path: URL syntax, policy globs, and the field of a reference.
_RESERVED = frozenset("%?#\\*")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")
_POLICY_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}(?:/[a-z0-9][a-z0-9._-]{0,62})?\Z")


def parse_path(text: str, *, listing: bool = False) -> str:
    """An API path without a leading slash, such as ``secret/data/stripe/api-key``.

    Args:
        text: the path, percent-decoded once where it came from a URL.
        listing: whether it names a folder. Then it may be empty (the root) and may end in ``/``; the result is
            empty or ends in ``/``.

    Raises:
        InvalidRequest: it has no spelling that is safe everywhere.
    """
    if listing:
        folder = text.removesuffix("/")
        if not folder and text != "/":
            return ""
        return parse_path(folder) + "/"
    return _parse(text)


# The same few paths are asked for again and again, and the rules are many. What is refused is not kept.
@functools.lru_cache(maxsize=4096)
def _parse(text: str) -> str:
    if not text:
        raise InvalidRequest("the path is empty", "give a path such as secret/data/stripe/api-key")
    if len(text) > MAX_PATH or _size(text) > MAX_PATH:
        raise InvalidRequest(f"the path is longer than {MAX_PATH} bytes", "choose a shorter path")
    if not unicodedata.is_normalized("NFC", text):
        raise InvalidRequest("the path is not in Unicode normal form C", "normalise it to NFC")
    for segment in text.split("/"):
        _check_segment(segment)
    return text


def parse_name(text: str) -> str:
    """The name of a service, tool, agent, user, org or mount: 1 to 63 of ``A-Za-z0-9._-``, a letter or digit first.

    Case counts. Raises ``InvalidRequest``.
    """
    if not _NAME.match(text):
        raise InvalidRequest(
            "the name is not 1 to 63 letters, digits, '.', '_' and '-', with a letter or digit first", "choose another"
        )
    return text


def parse_policy_name(text: str) -> str:
    """The name of a policy in lower case, as Vault compares them; ``agent/NAME`` is an agent's own policy.

    Raises ``InvalidRequest``.
    """
    name = text.lower() if text.isascii() else text
    if not _POLICY_NAME.match(name):
        raise InvalidRequest(
            "the policy name is not 1 to 63 letters, digits, '.', '_' and '-', with a letter or digit first",
            "choose another",
        )
    return name


@functools.lru_cache(maxsize=4096)
def parse_secret_ref(text: str) -> tuple[str, str]:
    """Read ``path[#field]``: the path and the field, which is ``value`` unless it is named.

    The path is relative to the mount ``secret/``; one with a leading slash (``/database/creds/readonly``) names a
    dynamic source, and the slash stays. Raises ``InvalidRequest``.
    """
    path, mark, field = text.partition("#")
    slash = "/" if path.startswith("/") else ""
    path = slash + parse_path(path[len(slash) :])
    return path, parse_field(field) if mark else DEFAULT_FIELD


def parse_shown_ref(text: str) -> tuple[str, str]:
    """As ``parse_secret_ref``, for what is read to be shown. Raises ``InvalidRequest`` for what Keyhole says of itself.

    Its own answers name no secret that is kept, and one of them is the token of who asks.
    """
    path, field = parse_secret_ref(text)
    first, _, rest = path[1:].partition("/")
    # An org may be named in front of a path, so a folder of such a name at the top of a KV 1 mount is refused too.
    if path.startswith("/") and (first in OWN or rest.startswith(_OWN_OF_ORG)):
        raise InvalidRequest(f"there is no secret at {path}", "name one of secret/, or of another mount of secrets")
    return path, field


def revealing(path: str) -> str:
    """The API path whose READ answers what a reference names; ``path`` as ``parse_secret_ref`` gives it."""
    return path.removeprefix("/") if path.startswith("/") else f"secret/data/{path}"


def fields_of(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields in the answer to such a READ: what is asked of KV version 2 has them below ``data``.

    A version that is deleted has none.
    """
    inner = answer.get("data", "")
    if set(answer) <= {"data", "metadata"} and (inner is None or isinstance(inner, Mapping)):
        return inner or {}
    return answer


def parse_field(text: str) -> str:
    """The name of one field of a secret: visible, at most 255 bytes. Raises ``InvalidRequest``."""
    if not text or text != text.strip() or any(is_invisible(char) for char in text):
        raise InvalidRequest("the field name is empty or has a character that cannot be seen", "write path#field")
    if _size(text) > MAX_SEGMENT or not unicodedata.is_normalized("NFC", text):
        raise InvalidRequest("the field name is too long or not in Unicode normal form C", "choose another")
    return text


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _check_segment(segment: str) -> None:
    if not segment:
        raise InvalidRequest("the path has an empty segment", "write a/b, without a slash at either end")
    if segment in {".", ".."}:
        raise InvalidRequest("the path has a '.' or '..' segment", "write the path out")
    if segment == "+" or "{{" in segment or "}}" in segment or not _RESERVED.isdisjoint(segment):
        raise InvalidRequest("the path has one of % ? # \\ * {{ }} or a lone '+'", "use other characters")
    if any(is_invisible(char) or (char.isspace() and char != " ") for char in segment):
        raise InvalidRequest("the path has a character that cannot be seen", "use visible characters")
    if segment != segment.strip(" "):
        raise InvalidRequest("a segment of the path begins or ends with a space", "leave it out")
    if _size(segment) > MAX_SEGMENT:
        raise InvalidRequest(f"a segment of the path is longer than {MAX_SEGMENT} bytes", "choose a shorter one")
