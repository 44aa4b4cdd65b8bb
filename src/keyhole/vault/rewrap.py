"""Everything of an org under the current term of its key, and then the older terms let go.

Nothing is sealed under an older term once a newer one is stored (``Keys.stands_on``), so one pass that finds nothing is
enough. Each entry is one step of its own, at its next revision: a process that dies leaves entries of two terms, which
both open, and the next one goes on. Journal records are not sealed again, and stay readable (``crypto.keyring``).
"""

from __future__ import annotations

from keyhole.core.errors import Conflict, IntegrityError
from keyhole.crypto.keyring import Keyring, Where, term_of
from keyhole.stores import Batch, Put
from keyhole.vault.vault import Vault

_PAGE = 200
_RETRIES = 20


async def rewrap(vault: Vault, org_id: str) -> int:
    """Seal again what older terms have sealed, and drop these; how many entries that were.

    Raises:
        IntegrityError: an entry does not open; nothing was dropped.
        Conflict: somebody else changes the org's key all the time.
    """
    rewrapped = 0
    for _ in range(_RETRIES):
        ring = await vault.keys.load_ring(org_id)
        if ring.terms == (ring.current,):
            return rewrapped
        while found := await _pass(vault, org_id):
            rewrapped += found
        epoch = vault.orgs.epoch_key(org_id)
        [entry] = await vault.store.get([epoch])
        try:
            await vault.keys.drop_terms(org_id, Put(epoch, b"", entry.revision))
        except Conflict:
            continue
        return rewrapped
    raise Conflict("the key of this org is being changed by many at once", "try again")


async def _pass(vault: Vault, org_id: str) -> int:
    """Seal again what is under an older term; how many entries were found so."""
    found, after = 0, ""
    while page := await vault.store.list(f"{org_id}/", after=after, limit=_PAGE):
        after = page[-1]
        puts = await _puts(vault, org_id, page)
        found += len(puts)
        if not puts:
            continue
        await vault.keys.reserve(org_id, len(puts))
        try:
            await vault.store.commit(Batch(puts=puts, checks=[vault.keys.stands_on(org_id)]))
        except Conflict:  # one of them was written meanwhile: that one is as it should be, the others follow singly
            for key in page:
                await _one(vault, org_id, key)
    return found


async def _one(vault: Vault, org_id: str, key: str) -> None:
    puts = await _puts(vault, org_id, [key])
    try:
        if puts:
            await vault.store.commit(Batch(puts=puts, checks=[vault.keys.stands_on(org_id)]))
    except Conflict:  # the next pass sees it again
        await vault.keys.load_ring(org_id)


async def _puts(vault: Vault, org_id: str, keys: list[str]) -> list[Put]:
    while True:
        ring = vault.keys.ring(org_id)
        try:
            return await _sealed_again(vault, ring, org_id, keys)
        except IntegrityError:  # another node may have rotated, and written, since
            if not await vault.keys.newer(org_id, ring):
                raise


async def _sealed_again(vault: Vault, ring: Keyring, org_id: str, keys: list[str]) -> list[Put]:
    puts = []
    for key, entry in zip(keys, await vault.store.get(keys), strict=True):
        if not entry.value or term_of(entry.value) == ring.current:  # some entries count by their revision only
            continue
        old = Where(org_id, key.split("/")[1], key, entry.revision)
        new = old._replace(revision=entry.revision + 1)
        puts.append(Put(key, ring.rewrap(entry.value, old, new), entry.revision, keep_due=True))
    return puts
