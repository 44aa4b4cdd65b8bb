"""The seal of another vault: a key of its transit engine, in Keyhole or in Vault.

The token is read from a file before each use, so whoever renews it there is followed; while a server runs it also
renews the token itself, at half of its life.
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable
from pathlib import Path

from keyhole.core.errors import InvalidRequest, Sealed
from keyhole.core.value import Secret
from keyhole.crypto.aead import does_not_open
from keyhole.seals.kept import KeptSeal, settings
from keyhole.seals.rest import Answer, Endpoint, decoded

NAME = "transit"
_OPTIONS = ("token-file", "mount", "namespace", "ca")
_EXAMPLE = "https://vault.example:8200/KEY?token-file=/etc/keyhole/token"
_KEY = re.compile(r"[A-Za-z0-9._-]{1,128}")
_MOUNT = re.compile(r"[A-Za-z0-9._/-]{1,128}")
_MAX_TOKEN = 4096
_RETRY = 60.0


class TransitSeal(KeptSeal):
    """A seal that opens with a key of another vault.

    Args:
        endpoint: the other vault.
        key: name of the key.
        token_file: holds the token.
        vault_id: blobs open for this vault only.
        mount: of the transit engine.
        namespace: or org, of the mount.
        monotonic: source of elapsed seconds.
    """

    name = NAME

    def __init__(
        self,
        endpoint: Endpoint,
        key: str,
        token_file: Path,
        vault_id: str,
        *,
        mount: str = NAME,
        namespace: str = "",
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(vault_id)
        self._endpoint = endpoint
        self._key = key
        self._token_file = token_file
        self._mount = mount
        self._namespace = namespace
        self._monotonic = monotonic
        self._renew_at = 0.0

    def lock(self, key: bytes) -> bytes:
        """The random key of a blob, encrypted there."""
        text = self._ask("encrypt", {"plaintext": base64.b64encode(key).decode()}).get("ciphertext")
        if not isinstance(text, str):
            raise does_not_open()
        return text.encode()

    def unlock(self, wrapped: bytes) -> bytes:
        """What was encrypted there."""
        return decoded(self._ask("decrypt", {"ciphertext": wrapped.decode("ascii", "replace")}).get("plaintext"))

    def keep_alive(self) -> None:
        """Renew the token when half of its life is over. Raises ``Sealed`` when that cannot be asked for now."""
        if self._monotonic() < self._renew_at:
            return
        self._renew_at = self._monotonic() + _RETRY
        answer = self._post("auth/token/renew-self", {})
        auth = answer.data.get("auth")
        lives = auth.get("lease_duration") if isinstance(auth, dict) else None
        if answer.status == 200 and isinstance(lives, int) and lives > 0:
            self._renew_at = self._monotonic() + max(lives / 2, 1.0)

    def _ask(self, verb: str, body: dict[str, str]) -> dict[str, object]:
        bound = {**body, "associated_data": base64.b64encode(self.vault_id.encode()).decode()}
        answer = self._post(f"{self._mount}/{verb}/{self._key}", bound)
        data = answer.data.get("data")
        if answer.status == 200 and isinstance(data, dict):
            return data
        raise self._refused(answer, verb)

    def _refused(self, answer: Answer, verb: str) -> Exception:
        where = f"{self._mount}/{verb}/{self._key}"
        unknown = "not found" in str(answer.data.get("errors"))
        if answer.status == 400 and verb == "decrypt" and not unknown:
            return does_not_open()
        if answer.status == 403:
            return Sealed(
                "the vault that keeps the key refuses the token",
                f"put a token into {self._token_file} that may update {where}",
            )
        if answer.status in {400, 404}:
            return Sealed(f"there is no {where} in the vault that keeps the key", "check the key's name and mount=")
        if answer.status == 503:
            return Sealed("the vault that keeps the key is sealed", "unseal that one first")
        return Sealed(f"the vault that keeps the key answers {answer.status}", "look at its log")

    def _post(self, path: str, body: dict[str, str]) -> Answer:
        headers = {"X-Vault-Token": self._token(), "X-Vault-Request": "true"}
        if self._namespace:
            headers["X-Vault-Namespace"] = self._namespace
        return self._endpoint.post(f"/v1/{path}", body, headers)

    def _token(self) -> str:
        try:
            with self._token_file.open("rb") as file:
                token = file.read(_MAX_TOKEN + 1).strip()
        except OSError as error:
            raise Sealed(
                f"the token file {self._token_file} cannot be read: {error.strerror}", "mount it, or check token-file="
            ) from None
        if not token or len(token) > _MAX_TOKEN or not token.isascii() or not token.decode().isprintable():
            raise Sealed(f"the token file {self._token_file} holds no token", "write the token into it, in one line")
        return token.decode()


def open_seal(rest: str, *, passphrase: Secret | None, vault_id: str, create: bool, interactive: bool) -> TransitSeal:
    """See ``keyhole.seals.open_seal``."""
    del passphrase, create, interactive
    target, options = settings(NAME, rest, _OPTIONS, _EXAMPLE)
    url, _, key = target.rpartition("/")
    mount = options.get("mount", NAME).strip("/")
    if not _KEY.fullmatch(key) or not _MOUNT.fullmatch(mount) or "token-file" not in options:
        raise InvalidRequest("the seal transit needs an address, a key and a token file", f"--seal '{NAME}:{_EXAMPLE}'")
    endpoint = Endpoint(url, "the vault that keeps the key", ca=options.get("ca", ""))
    namespace = options.get("namespace", "")
    return TransitSeal(endpoint, key, Path(options["token-file"]), vault_id, mount=mount, namespace=namespace)
