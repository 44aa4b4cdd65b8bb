"""The seal of Azure: an RSA key of a Key Vault, over its REST interface (7.4), with the identity of the workload.

RSA-OAEP has no associated data; the vault's id is bound by what is sealed under the wrapped key. The version of the key
is kept with what it wrapped, so a key that was rotated there still opens what is older.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from typing import Any
from urllib.parse import urlsplit

from keyhole.core import base64url
from keyhole.core.errors import InvalidRequest, KeyholeError, Sealed
from keyhole.core.value import Secret
from keyhole.crypto.aead import does_not_open
from keyhole.seals.kept import KeptSeal, settings
from keyhole.seals.rest import Answer, Endpoint, decoded

NAME = "azurekms"
_OPTIONS = ("ca", "scope")
_EXAMPLE = "https://NAME.vault.azure.net/keys/KEY"
_PATH = re.compile(r"/keys/([A-Za-z0-9-]{1,127})(?:/([0-9a-f]{32}))?")
_VERSION = re.compile(r"[0-9a-f]{32}")
_ALGORITHM = "RSA-OAEP-256"
_API = "api-version=7.4"
_SCOPE = "https://vault.azure.net/.default"


class AzureKmsSeal(KeptSeal):
    """A seal that opens with a key of an Azure Key Vault.

    Args:
        key: name of the key.
        version: the version that wraps; empty for the current one.
        vault_id: blobs open for this vault only.
        endpoint: the Key Vault.
        scope: what the access token is asked for.
    """

    name = NAME

    def __init__(self, key: str, version: str, vault_id: str, endpoint: Endpoint, scope: str = _SCOPE) -> None:
        super().__init__(vault_id)
        self._key = key
        self._version = version
        self._endpoint = endpoint
        self._scope = scope
        self._credential: Any = None

    def lock(self, key: bytes) -> bytes:
        """The version of the key, and what it wrapped."""
        answer = self._ask("wrapkey", self._version, key)
        version = str(answer.get("kid", "")).rpartition("/")[2]
        if not _VERSION.fullmatch(version):
            raise does_not_open()
        return bytes.fromhex(version) + decoded(answer.get("value"), urlsafe=True)

    def unlock(self, wrapped: bytes) -> bytes:
        """What that version wrapped."""
        return decoded(self._ask("unwrapkey", wrapped[:16].hex(), wrapped[16:]).get("value"), urlsafe=True)

    def _ask(self, verb: str, version: str, value: bytes) -> dict[str, Any]:
        body = {"alg": _ALGORITHM, "value": base64url.encode(value)}
        path = f"/keys/{self._key}/{version}/{verb}" if version else f"/keys/{self._key}/{verb}"
        answer = self._endpoint.post(f"{path}?{_API}", body, {"Authorization": f"Bearer {self._token()}"})
        if answer.status == 200:
            return answer.data
        raise self._refused(answer, verb)

    def _refused(self, answer: Answer, verb: str) -> KeyholeError:
        error = answer.data.get("error")
        inner = error.get("innererror") if isinstance(error, dict) else None
        if isinstance(inner, dict) and inner.get("code") in {"KeyDisabled", "KeyNotYetValid", "KeyExpired"}:
            return Sealed(
                "the key in Azure Key Vault is disabled or outside of its dates", f"enable the key {self._key}"
            )
        if answer.status == 400 and verb == "unwrapkey":
            return does_not_open()
        if answer.status == 404:
            return Sealed(f"this Azure Key Vault has no key {self._key}", "check the address of the key")
        if answer.status in {401, 403}:
            return Sealed(
                f"Azure Key Vault refuses {verb}",
                "give this identity the role Key Vault Crypto Service Encryption User on the key, and see that it "
                "is enabled",
            )
        return Sealed(f"Azure Key Vault answers {answer.status}", "look at the key in the portal")

    def _token(self) -> str:
        identity = importlib.import_module("azure.identity")
        errors = importlib.import_module("azure.core.exceptions")
        try:
            if self._credential is None:
                self._credential = identity.DefaultAzureCredential()
            return str(self._credential.get_token(self._scope).token)
        except errors.AzureError as error:
            raise Sealed(
                f"Azure's credentials cannot be had ({type(error).__name__})",
                "run where there is a managed identity, or set AZURE_CLIENT_ID and what goes with it",
            ) from None


def open_seal(rest: str, *, passphrase: Secret | None, vault_id: str, create: bool, interactive: bool) -> AzureKmsSeal:
    """See ``keyhole.seals.open_seal``."""
    del passphrase, create, interactive
    target, options = settings(NAME, rest, _OPTIONS, _EXAMPLE)
    parts = urlsplit(target)
    found = _PATH.fullmatch(parts.path)
    if found is None:
        raise InvalidRequest("this is not the address of a key", f"write --seal '{NAME}:{_EXAMPLE}'")
    if importlib.util.find_spec("azure") is None or importlib.util.find_spec("azure.identity") is None:
        raise InvalidRequest("the seal azurekms needs azure-identity", "pip install 'keyhole[azure]'")
    endpoint = Endpoint(f"{parts.scheme}://{parts.netloc}", "Azure Key Vault", ca=options.get("ca", ""))
    return AzureKmsSeal(found[1], found[2] or "", vault_id, endpoint, options.get("scope", _SCOPE))
