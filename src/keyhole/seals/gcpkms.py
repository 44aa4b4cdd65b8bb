"""The seal of Google Cloud: a symmetric key of Cloud KMS, over its REST interface (v1).

It uses the application default credentials: a service account's file, or the identity of the machine or workload. The
vault's id is the additional authenticated data, so the service itself refuses the blob of another vault.
"""

from __future__ import annotations

import base64
import importlib
import importlib.util
import re
from typing import Any

from keyhole.core.errors import InvalidRequest, KeyholeError, Sealed
from keyhole.core.value import Secret
from keyhole.crypto.aead import does_not_open
from keyhole.seals.kept import KeptSeal, settings
from keyhole.seals.rest import Answer, Endpoint, decoded

NAME = "gcpkms"
_OPTIONS = ("endpoint", "ca")
_EXAMPLE = "projects/P/locations/L/keyRings/R/cryptoKeys/K"
_KEY = re.compile(r"projects/[^/?#]+/locations/[^/?#]+/keyRings/[\w-]+/cryptoKeys/[\w-]+")
_SCOPES = ["https://www.googleapis.com/auth/cloudkms"]
_SERVICE = "https://cloudkms.googleapis.com"


class GcpKmsSeal(KeptSeal):
    """A seal that opens with a key of Google Cloud KMS.

    Args:
        key: resource name of the key.
        vault_id: blobs open for this vault only.
        endpoint: the service.
    """

    name = NAME

    def __init__(self, key: str, vault_id: str, endpoint: Endpoint) -> None:
        super().__init__(vault_id)
        self._key = key
        self._endpoint = endpoint
        self._credentials: Any = None

    def lock(self, key: bytes) -> bytes:
        """The random key of a blob, encrypted there."""
        return decoded(self._ask("encrypt", plaintext=key).get("ciphertext"))

    def unlock(self, wrapped: bytes) -> bytes:
        """What was encrypted there."""
        return decoded(self._ask("decrypt", ciphertext=wrapped).get("plaintext"))

    def _ask(self, verb: str, **what: bytes) -> dict[str, Any]:
        values = {**what, "additionalAuthenticatedData": self.vault_id.encode()}
        body = {name: base64.b64encode(value).decode() for name, value in values.items()}
        headers = {"Authorization": f"Bearer {self._token()}"}
        answer = self._endpoint.post(f"/v1/{self._key}:{verb}", body, headers)
        if answer.status == 200:
            return answer.data
        raise self._refused(answer, verb)

    def _refused(self, answer: Answer, verb: str) -> KeyholeError:
        error = answer.data.get("error")
        state = str(error.get("status", "")) if isinstance(error, dict) else ""
        if state == "FAILED_PRECONDITION":
            return Sealed("the key in Google Cloud KMS is disabled or destroyed", f"enable its version: {self._key}")
        if answer.status == 400 and verb == "decrypt":
            return does_not_open()
        if answer.status == 404:
            return Sealed(f"Google Cloud KMS has no key {self._key}", "check its name, project and location")
        if answer.status in {401, 403}:
            return Sealed(
                f"Google Cloud KMS refuses to {verb}",
                "give this identity roles/cloudkms.cryptoKeyEncrypterDecrypter on the key",
            )
        return Sealed(f"Google Cloud KMS answers {answer.status} {state}".rstrip(), "look at the key in the console")

    def _token(self) -> str:
        auth = importlib.import_module("google.auth")
        errors = importlib.import_module("google.auth.exceptions")
        transport = importlib.import_module("google.auth.transport.requests")
        try:
            if self._credentials is None:
                self._credentials, _ = auth.default(scopes=_SCOPES)
            if not self._credentials.valid:
                self._credentials.refresh(transport.Request())
        except errors.GoogleAuthError as error:
            raise Sealed(
                f"Google's credentials cannot be had ({type(error).__name__})",
                "set GOOGLE_APPLICATION_CREDENTIALS, or run where there is an identity",
            ) from None
        return str(self._credentials.token)


def open_seal(rest: str, *, passphrase: Secret | None, vault_id: str, create: bool, interactive: bool) -> GcpKmsSeal:
    """See ``keyhole.seals.open_seal``."""
    del passphrase, create, interactive
    key, options = settings(NAME, rest, _OPTIONS, _EXAMPLE)
    if not _KEY.fullmatch(key):
        raise InvalidRequest("this is not the resource name of a key", f"write --seal '{NAME}:{_EXAMPLE}'")
    if importlib.util.find_spec("google") is None or importlib.util.find_spec("google.auth") is None:
        raise InvalidRequest("the seal gcpkms needs google-auth", "pip install 'keyhole[gcp]'")
    endpoint = Endpoint(options.get("endpoint", _SERVICE), "Google Cloud KMS", ca=options.get("ca", ""))
    return GcpKmsSeal(key, vault_id, endpoint)
