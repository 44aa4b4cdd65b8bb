"""The kinds of injection that sign with a key instead of sending it. Pure. The table is in ``core.inject``."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from keyhole.core.errors import InvalidRequest
from keyhole.core.kind import Kind, Option
from keyhole.core.recipe import HMAC

SCOPE_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
LONGEST_PRESIGNED = 7 * 24 * 3600  # seconds; AWS takes no longer
OAUTH1_METHODS = {"HMAC-SHA1": "sha1", "HMAC-SHA256": "sha256"}
_CLIENT = re.compile(r"[\x21-\x7e]{8,128}")


def _scope_part(what: str, example: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        text = str(value or "")
        if text and not SCOPE_PART.fullmatch(text):
            raise InvalidRequest(f"{text[:40]!r} is not the name of {what}", f"for example {example}")
        return text

    return check


def _client(value: Any) -> str:
    text = str(value or "")
    if text and (not _CLIENT.fullmatch(text) or set("/,") & set(text)):
        raise InvalidRequest("a client's access key id is 8 to 128 visible ASCII characters without '/' and ','")
    return text


def _expires(value: Any) -> int:
    text = str(value)
    if not re.fullmatch(r"[0-9]{1,6}", text) or not 1 <= int(text) <= LONGEST_PRESIGNED:
        raise InvalidRequest(f"expires is 1 to {LONGEST_PRESIGNED} seconds")
    return int(text)


def _credentials(value: Any) -> str:
    if value not in {None, "refuse", "allow"}:
        raise InvalidRequest("credentials is refuse or allow")
    return str(value or "refuse")


def _describe_sigv4(how: Any) -> str:
    pinned = [f"{name} {how[name]}" for name in ("region", "service") if how[name]]
    return ", ".join(["signed again with AWS Signature Version 4", *pinned])


SIGV4 = Kind(
    "signed again with AWS Signature Version 4",
    _describe_sigv4,
    (
        Option("region", _scope_part("a region", "eu-central-1"), "", "the only region; the client's unless said"),
        Option("service", _scope_part("an AWS service", "s3"), "", "the only AWS service; the client's unless said"),
        Option("expires", _expires, LONGEST_PRESIGNED, "seconds for which a presigned URL is good at most"),
        Option("credentials", _credentials, "refuse", "calls that answer with keys of AWS: refuse or allow"),
        Option("client", _client, "", "the access key id that clients must have signed with; any unless said"),
    ),
    fields=(("access_key_id", "secret_access_key", "session_token"), ("access_key_id", "secret_access_key")),
    sole=False,
    public=("access_key_id",),
    signs=True,
    longest=16 * 1024 * 1024,  # DynamoDB and others take as much in one request
)


def _method(value: Any) -> str:
    if value and str(value) not in OAUTH1_METHODS:
        raise InvalidRequest(f"{str(value)[:40]!r} is none of {', '.join(OAUTH1_METHODS)}")
    return str(value or "")


def _storage(value: Any) -> str:
    if value and str(value) not in {"blob", "table"}:
        raise InvalidRequest("storage is blob (also for queues and files) or table")
    return str(value or "")


OAUTH1 = Kind(
    "signed with OAuth 1.0 (RFC 5849)",
    lambda how: f"authorization: OAuth …, {how['method'] or 'the method of the client, else HMAC-SHA1'}",
    (Option("method", _method, "", "HMAC-SHA1 or HMAC-SHA256; the client's unless said"),),
    fields=(("consumer_key", "consumer_secret", "token", "token_secret"), ("consumer_key", "consumer_secret")),
    sole=False,
    public=("consumer_key",),
    signs=True,
)
AZURE_STORAGE = Kind(
    "signed with the key of an Azure storage account",
    lambda _: "authorization: SharedKey …",
    (Option("storage", _storage, "", "blob (also for queues and files) or table; what the host says unless said"),),
    fields=(("account_name", "account_key"),),
    sole=False,
    public=("account_name",),
    signs=True,
)

SIGNING: dict[str, Kind] = {"sigv4": SIGV4, "hmac": HMAC, "oauth1": OAUTH1, "azure-storage": AZURE_STORAGE}
