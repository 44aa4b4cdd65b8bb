"""The seal of AWS: a symmetric key of the Key Management Service, through boto3, with its usual credentials.

The vault's id is the encryption context, so the service itself refuses the blob of another vault, and its trail names
the vault.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from typing import Any
from urllib.parse import urlsplit

from keyhole.config import is_loopback
from keyhole.core.errors import InvalidRequest, KeyholeError, Sealed
from keyhole.core.value import Secret
from keyhole.crypto.aead import does_not_open
from keyhole.seals.kept import KeptSeal, settings

NAME = "awskms"
_OPTIONS = ("region", "endpoint", "profile")
_EXAMPLE = "alias/keyhole?region=eu-central-1"
_KEY_ID = re.compile(r"(?:arn:[\w:-]+:key/)?[\w-]+")  # an alias may stand for another key today
_CONTEXT = "keyhole-vault"
_NOT_OURS = frozenset({"InvalidCiphertextException", "IncorrectKeyException"})
_UNUSABLE = frozenset({"DisabledException", "KMSInvalidStateException", "KeyUnavailableException"})
_SECONDS = 4


class AwsKmsSeal(KeptSeal):
    """A seal that opens with a key of AWS KMS.

    Args:
        key: id, ARN or alias of the key.
        vault_id: blobs open for this vault only.
        options: ``region``, ``profile``, ``endpoint`` where they are not as AWS's own settings say.
    """

    name = NAME

    def __init__(self, key: str, vault_id: str, options: dict[str, str]) -> None:
        super().__init__(vault_id)
        self._key = key
        self._options = options
        self._client: Any = None

    def lock(self, key: bytes) -> bytes:
        """The random key of a blob, encrypted there, and before it the ARN of the key that did it."""
        answer = self._ask("encrypt", Plaintext=key)
        arn = str(answer["KeyId"]).encode()
        return len(arn).to_bytes(2, "big") + arn + bytes(answer["CiphertextBlob"])

    def unlock(self, wrapped: bytes) -> bytes:
        """What was encrypted there."""
        end = 2 + int.from_bytes(wrapped[:2], "big")
        arn = wrapped[2:end].decode("ascii", "replace")
        if _KEY_ID.fullmatch(self._key) and arn.rpartition("/")[2] != self._key.rpartition("/")[2]:
            raise does_not_open()
        return bytes(self._ask("decrypt", CiphertextBlob=wrapped[end:])["Plaintext"])

    def _ask(self, verb: str, **what: bytes) -> dict[str, Any]:
        errors = importlib.import_module("botocore.exceptions")
        try:
            if self._client is None:
                self._client = _connect(self._options)
            answer: dict[str, Any] = getattr(self._client, verb)(
                KeyId=self._key, EncryptionContext={_CONTEXT: self.vault_id}, **what
            )
        except errors.ClientError as error:
            raise self._refused(str(error.response.get("Error", {}).get("Code", "")), verb) from None
        except errors.BotoCoreError as error:
            raise Sealed(
                f"AWS KMS cannot be asked ({type(error).__name__})",
                "check the network, region= and the credentials: aws sts get-caller-identity",
            ) from None
        return answer

    def _refused(self, code: str, verb: str) -> KeyholeError:
        if code in _NOT_OURS:
            return does_not_open()
        if code in _UNUSABLE:
            return Sealed("the key in AWS KMS is disabled or about to be deleted", f"enable it: {self._key}")
        if code == "NotFoundException":
            return Sealed(f"AWS KMS has no key {self._key} in this region", "check the key's name and region=")
        if code.startswith("AccessDenied"):
            return Sealed(f"AWS KMS refuses kms:{verb.title()}", f"allow it for this identity on {self._key}")
        return Sealed(f"AWS KMS refuses to {verb} ({code or 'no reason given'})", "check the credentials and the key")


def _connect(options: dict[str, str]) -> Any:
    boto3 = importlib.import_module("boto3")
    config = importlib.import_module("botocore.config").Config(
        connect_timeout=_SECONDS, read_timeout=_SECONDS, retries={"max_attempts": 2}
    )
    session = boto3.session.Session(profile_name=options.get("profile"), region_name=options.get("region"))
    return session.client("kms", endpoint_url=options.get("endpoint"), config=config)


def open_seal(rest: str, *, passphrase: Secret | None, vault_id: str, create: bool, interactive: bool) -> AwsKmsSeal:
    """See ``keyhole.seals.open_seal``."""
    del passphrase, create, interactive
    key, options = settings(NAME, rest, _OPTIONS, _EXAMPLE)
    endpoint = urlsplit(options.get("endpoint", "https://unsaid"))
    if endpoint.scheme != "https" and not (endpoint.scheme == "http" and is_loopback(endpoint.hostname or "")):
        raise InvalidRequest("endpoint= is not https://HOST", "http:// is for this machine only")
    _require_boto3()
    return AwsKmsSeal(key, vault_id, options)


def _require_boto3() -> None:
    if importlib.util.find_spec("boto3") is None:
        raise InvalidRequest("the seal awskms needs boto3", "pip install 'keyhole[aws]'")
