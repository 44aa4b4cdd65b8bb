"""A new root token, by a threshold of shares; only who began has the one-time pad that hides it."""

from __future__ import annotations

import base64
import secrets
import string
from typing import TYPE_CHECKING, Any

from keyhole.core.errors import InvalidRequest
from keyhole.core.policy import ROOT
from keyhole.vault.ceremony import Ceremony
from keyhole.vault.tokens import MOUNT as TOKENS
from keyhole.vault.tokens import Grant

if TYPE_CHECKING:
    from keyhole.vault.node import Node
    from keyhole.vault.vault import Vault

_ALPHABET = string.ascii_letters + string.digits
_RANDOM = 24
TOKEN_SIZE = len("hvs.") + _RANDOM
"""A root token that is made so has the size of Vault's (143 random bits), since clients bring pads of that size."""


class RootGeneration(Ceremony):
    """Making a root token. See ``Ceremony``."""

    def __init__(self, node: Node) -> None:
        super().__init__(node, "root generation", "sys/generate-root/update")
        self._pad = b""

    async def status(self) -> dict[str, Any]:
        """How it stands, in the field names of Vault. Raises ``Sealed``."""
        required, attempt = await self.required(), self.attempt
        return {
            "nonce": attempt.nonce if attempt else "",
            "started": attempt is not None,
            "progress": attempt.progress if attempt else 0,
            "required": required,
            "complete": False,
            "encoded_token": "",
            "encoded_root_token": "",
            "pgp_fingerprint": "",
            "otp": "",
            "otp_length": TOKEN_SIZE,
        }

    async def start(self, pad: str = "") -> dict[str, Any]:
        """Begin. Without a one-time pad of one's own one is made, and stands in this answer and nowhere else.

        Raises:
            InvalidRequest: the pad is not as long as a token, or an attempt is going on, or nobody has shares.
        """
        async with self._lock:
            if pad and len(pad.encode()) != TOKEN_SIZE:
                raise InvalidRequest("OTP string is wrong length", f"it has {TOKEN_SIZE} characters; or leave it out")
            await self._begin()
            made = "" if pad else "".join(secrets.choice(_ALPHABET) for _ in range(TOKEN_SIZE))
            self._pad = (pad or made).encode()
            return {**await self.status(), "otp": made}

    async def enter(self, share: bytes, nonce: str) -> dict[str, Any]:
        """Take one share. The last one makes the token, hidden by the pad. Raises as ``Ceremony._enter`` does."""
        async with self._lock:
            vault = await self._enter(share, nonce)
            status = await self.status()
            if vault is None:
                return status
            pad = self._pad
            self._forget()
            encoded = await self._make(vault, pad)
            return {**status, "complete": True, "encoded_token": encoded, "encoded_root_token": encoded}

    async def _make(self, vault: Vault, pad: bytes) -> str:
        intent = await self._record_intent(vault)
        clear = "hvs." + "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM))
        grant = Grant(name="user/root", policies=(ROOT,), endless=True, path="auth/token/root", display="root")
        storage = vault.storage(vault.root_org, TOKENS)
        await vault.tokens.create(storage, grant, now=vault.clock.now(), clear=clear)
        self._record_outcome(vault, intent)
        hidden = bytes(left ^ right for left, right in zip(clear.encode(), pad, strict=True))
        return base64.b64encode(hidden).decode().rstrip("=")

    def _forget(self) -> None:
        super()._forget()
        self._pad = b""
