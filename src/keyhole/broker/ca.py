"""The certificate authority of each org: its key lies in the vault only; leaves are cached and bounded.

A leaf lives days and is one per host. Who asks for many has a share of the cache and of the work, and leaves the rest
to others. Minting runs in a thread, because making a TLS context takes milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import ssl

from keyhole.core.errors import Conflict
from keyhole.core.fair import FairCache
from keyhole.core.identity import Caller
from keyhole.crypto.x509 import CertificateAuthority, create_ca
from keyhole.net.tls import server_context
from keyhole.net.together import Together
from keyhole.vault.compiled import OrgState
from keyhole.vault.storage import Storage
from keyhole.vault.vault import Vault

MOUNT = "ca"
_ITEM = "authority"
_LEAVES = 1024
_LEAF_LIFE = 3 * 24 * 3600.0
_ALPN = ("h2", "http/1.1")


class Authorities:
    """The CAs of the orgs of one vault.

    Args:
        vault: holds their keys.

    Attributes:
        minted: certificates made so far.
    """

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._known: dict[str, CertificateAuthority] = {}
        self._contexts: FairCache[str, tuple[float, ssl.SSLContext]] = FairCache(_LEAVES)
        self._minting: Together[tuple[str, str], ssl.SSLContext] = Together()
        self._loading: Together[str, CertificateAuthority] = Together()
        self.minted = 0

    async def get(self, state: OrgState) -> CertificateAuthority:
        """The CA of an org; the first call makes it."""
        org_id = state.org.id
        known = self._known.get(org_id)
        if known is None:
            storage, now = self._vault.storage(org_id, MOUNT), self._vault.clock.now()
            known = self._known[org_id] = await self._loading.wait(org_id, lambda: _load(storage, state.org.name, now))
        return known

    def kept(self, state: OrgState, host: str) -> ssl.SSLContext | None:
        """What ``context`` gives, if it is there."""
        cached = self._contexts.get(state.org.id, host)
        return cached[1] if cached is not None and cached[0] > self._vault.clock.now() else None

    async def context(self, state: OrgState, host: str, caller: Caller | None = None) -> ssl.SSLContext:
        """The server side of TLS for a host, the same object while its leaf lives.

        Args:
            state: of the org.
            host: canonical.
            caller: for whom a new leaf is counted; ``None`` for nobody.

        Raises:
            RateLimited: the caller has had its share of new leaves.
        """
        kept = self.kept(state, host)
        if kept is not None:
            return kept
        name = (state.org.id, host)
        if caller is not None and self._minting.get(name) is None:
            self._vault.shares.take_certificate(state, caller)
        return await self._minting.wait(name, lambda: self._made(state, host))

    async def _made(self, state: OrgState, host: str) -> ssl.SSLContext:
        """A new leaf, which is kept."""
        now, authority = self._vault.clock.now(), await self.get(state)
        self.minted += 1
        context = await asyncio.to_thread(_mint, authority, host)
        self._contexts.put(state.org.id, host, (now + _LEAF_LIFE, context))
        return context


def _mint(authority: CertificateAuthority, host: str) -> ssl.SSLContext:
    return server_context(*authority.issue(host), _ALPN)


async def _load(storage: Storage, org: str, now: float) -> CertificateAuthority:
    while True:
        item = await storage.get_one(_ITEM)
        if item.data is not None:
            data = json.loads(item.data)
            return CertificateAuthority(data["certificate"].encode(), data["key"].encode())
        certificate, key = create_ca(f"Keyhole {org}", now=now)
        data = {"certificate": certificate.decode(), "key": key.decode()}
        try:
            await storage.change([(_ITEM, json.dumps(data).encode(), item.revision)])
        except Conflict:
            continue  # another node made it first
