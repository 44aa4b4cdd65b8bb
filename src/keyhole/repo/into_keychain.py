"""Values that a key can open, kept in the keychain of the system: service ``keyhole-repo``, user name ``VAULT/NAME``.

VAULT is the vault's id. One more entry, with the id alone as its user name, lists what is there, so that it can be
taken away again: what was removed or has expired, and what this key may not open any more. Nothing of it is written to
a file, not even a name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from keyhole.core.errors import NotFound
from keyhole.core.value import Secret
from keyhole.crypto.age import Identity
from keyhole.keepers.keychain import Entries, Keychain
from keyhole.repo.hidden import Kind
from keyhole.repo.opened import Opened

SERVICE = "keyhole-repo"
_MOST = 100_000


@dataclass(slots=True)
class Kept:
    """What was done, by names.

    Attributes:
        vault: its id, with which user names begin.
        put: new or changed entries.
        same: entries that were right already.
        taken: entries that are gone now.
        left: names that cannot be entries, and why.
    """

    vault: str
    put: list[str] = field(default_factory=list)
    same: list[str] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)


def keep_values(
    opened: Opened,
    identity: Identity,
    groups: Iterable[str],
    keychain: Keychain,
    release: Callable[[str], Secret],
    now: datetime | None = None,
) -> Kept:
    """Let the keychain have what this key can open, and no more.

    Args:
        opened: a signed vault.
        identity: the key that opens.
        groups: only what belongs to one of these, and what is in the keychain already; everything where none is named.
        keychain: to be used.
        release: gives a value, and records that it was read.
        now: the time, with its zone.

    Raises:
        NotFound: nothing belongs to a group.
        Sealed: the keychain is locked or not there; what was there is there.
        IntegrityError: the vault is not signed, or a file is not what was signed.
    """
    vault = opened.require_members().vault
    opened.unlock(identity)
    may = _readable(opened, identity, now or datetime.now(UTC))
    there = _listed(keychain, vault)
    wanted = may.keys() & (_of_groups(opened, groups) | there.keys())
    kept = Kept(vault, left={})
    values: dict[str, str] = {}
    for name in sorted(wanted):
        if there.get(name) == may[name] and keychain.run(_get(f"{vault}/{name}")) is not None:
            kept.same.append(name)
            continue
        try:
            values[name] = release(name).reveal().decode()
        except UnicodeDecodeError:
            kept.left[name] = "it is not text in UTF-8"
    gone = sorted(there.keys() - set(kept.same) - values.keys())
    # Listed first, so that what a crash leaves is found again.
    _list(keychain, vault, {**there, **dict.fromkeys(values, "")})
    for name, value in values.items():
        keychain.run(_set(f"{vault}/{name}", value))
        kept.put.append(name)
    for name in gone:
        keychain.run(_delete(f"{vault}/{name}"))
        kept.taken.append(name)
    _list(keychain, vault, {name: may[name] for name in (*kept.same, *kept.put)})
    return kept


def _readable(opened: Opened, identity: Identity, now: datetime) -> dict[str, str]:
    """Names that the key opens, as people read them, with the digests of their files."""
    mine = identity.recipient.text
    found = {stem: opened.sidecar(stem) for stem in opened.names()}
    return {
        opened.shown(stem): each.digest
        for stem, each in found.items()
        if mine in each.recipients and (each.expires is None or each.expires > now)
    }


def _of_groups(opened: Opened, groups: Iterable[str]) -> set[str]:
    named = [opened.hidden(Kind.GROUP, group) for group in groups]
    belonging = {opened.shown(stem): set(opened.sidecar(stem).groups) for stem in opened.names()}
    for group in named:
        if not any(group in each for each in belonging.values()):
            raise NotFound(f"no secret belongs to the group {opened.shown(group)!r}", "keyhole repo list")
    return {name for name, each in belonging.items() if not named or not each.isdisjoint(named)}


def _listed(keychain: Keychain, vault: str) -> dict[str, str]:
    """What the keychain's own list says; a damaged one says nothing, and is written again."""
    try:
        found = json.loads(keychain.run(_get(vault)) or "{}")
    except ValueError:
        return {}
    if not isinstance(found, dict) or len(found) > _MOST:
        return {}
    return {str(name): str(digest) for name, digest in found.items()}


def _list(keychain: Keychain, vault: str, names: dict[str, str]) -> None:
    if names:
        keychain.run(_set(vault, json.dumps(names, sort_keys=True)))
    else:
        keychain.run(_delete(vault))


def _get(name: str) -> Callable[[Entries], str | None]:
    return lambda entries: entries.get_password(SERVICE, name)


def _set(name: str, value: str) -> Callable[[Entries], None]:
    return lambda entries: entries.set_password(SERVICE, name, value)


def _delete(name: str) -> Callable[[Entries], None]:
    def work(entries: Entries) -> None:
        if entries.get_password(SERVICE, name) is not None:
            entries.delete_password(SERVICE, name)

    return work
