"""Calls of AWS that answer with credentials of AWS. Whoever may make them has keys afterwards that work anywhere.

The list has the common ones and cannot be complete: what the secret's own policy in AWS allows is the limit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from keyhole.core.message import Message
from keyhole.core.target import readings
from keyhole.injections.parameters import require_few
from keyhole.injections.sigv4.canonical import decoded

FORMS = frozenset({"sts", "iam"})
"""Services whose calls are named in a form, or in the query."""

_CALLS = {
    "sts": "AssumeRole AssumeRoleWithSAML AssumeRoleWithWebIdentity AssumeRoot GetDelegatedAccessToken "
    "GetFederationToken GetSessionToken GetWebIdentityToken",
    "iam": "CreateAccessKey CreateServiceSpecificCredential ResetServiceSpecificCredential",
    "cognito-identity": "GetCredentialsForIdentity GetOpenIdTokenForDeveloperIdentity",
    "ecr": "GetAuthorizationToken",
    "redshift": "GetClusterCredentials GetClusterCredentialsWithIAM",
    "redshift-serverless": "GetCredentials",
}
_NAMES = {service: {name.lower(): name for name in names.split()} for service, names in _CALLS.items()}
_TOKEN = re.compile("/v1/authorization-token/?")
_OPERATION = re.compile(r"/operation/([A-Za-z0-9]+)/?\Z")


def mints(message: Message, service: str) -> str:
    """The name of the call when it answers with credentials; else empty."""
    query = message.target.partition(b"?")[2]
    if service == "s3express" and any(part.partition(b"=")[0] == b"session" for part in query.split(b"&")):
        return "CreateSession"
    if service == "codeartifact" and any(_TOKEN.fullmatch(path) for path in readings(message.target)):
        return "GetAuthorizationToken"
    known = _NAMES.get(service)
    if known is None:
        return ""
    require_few(message.content or b"")
    return next((known[name.lower()] for name in _named(message) if name.lower() in known), "")


def _named(message: Message) -> Iterator[str]:
    """Every name under which a server could take the call: of a form, of JSON, of CBOR."""
    query = message.target.partition(b"?")[2]
    for part in b"&".join([query, message.content or b""]).split(b"&"):
        name, _, value = part.partition(b"=")
        if decoded(name).strip().lower() == b"action":
            yield decoded(value).decode("latin-1").strip()
    yield from (v.decode("latin-1").rpartition(".")[2] for name, v in message.headers if name == b"x-amz-target")
    yield from (found[1] for path in readings(message.target) if (found := _OPERATION.search(path)))
