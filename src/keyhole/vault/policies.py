"""Policies as stored: their text for people, and their rules for the compiler."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from keyhole.core.errors import Conflict, InvalidRequest
from keyhole.core.policy import DEFAULT, ROOT, WRAPPING, PathRule
from keyhole.vault.hcl import parse_policy, render_policy
from keyhole.vault.storage import Change, Storage, Write

MOUNT = "policies"
DEFAULT_TEXT = """\
# What every token may do with itself.
path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/renew-self" { capabilities = ["update"] }
path "auth/token/revoke-self" { capabilities = ["update"] }
path "sys/capabilities-self" { capabilities = ["update"] }

# Who it is.
path "identity/entity/id/{{identity.entity.id}}" { capabilities = ["read"] }
path "identity/entity/name/{{identity.entity.name}}" { capabilities = ["read"] }
path "identity/oidc/provider/+/authorize" { capabilities = ["read", "update"] }

# What it can see and use, by name, and why not.
path "sys/internal/ui/resultant-acl" { capabilities = ["read"] }
path "sys/internal/ui/mounts" { capabilities = ["read"] }
path "sys/internal/ui/mounts/*" { capabilities = ["read"] }
path "sys/keyhole" { capabilities = ["read"] }
path "sys/what-can" { capabilities = ["read"] }
path "sys/why" { capabilities = ["update"] }
path "sys/own/*" { capabilities = ["read", "update"] }
path "tools/own/*" { capabilities = ["update"] }

# What it was given for a time. Whoever knows the id of a lease may look it up and renew it, as in Vault.
path "sys/leases/lookup" { capabilities = ["update"] }
path "sys/leases/renew" { capabilities = ["update"] }
path "sys/renew" { capabilities = ["update"] }

# Its own drawer, and answers that are wrapped.
path "cubbyhole/*" { capabilities = ["create", "read", "update", "delete", "list"] }
path "sys/wrapping/wrap" { capabilities = ["update"] }
path "sys/wrapping/lookup" { capabilities = ["update"] }
path "sys/wrapping/unwrap" { capabilities = ["update"] }

# Hashes of what it sends.
path "sys/tools/hash" { capabilities = ["update"] }
path "sys/tools/hash/*" { capabilities = ["update"] }
"""
# What the token of a wrapped answer may: take the answer out. Nobody can change it or give it to another token.
_WRAPPING_TEXT = """\
path "cubbyhole/response" { capabilities = ["read"] }
path "sys/wrapping/unwrap" { capabilities = ["update"] }
"""
_BUILTIN = {DEFAULT: DEFAULT_TEXT, WRAPPING: _WRAPPING_TEXT}


async def load(storage: Storage, name: str) -> list[PathRule]:
    """The rules of a policy; an unknown one grants nothing."""
    stored = await read(storage, name)
    return [PathRule.from_data(rule) for rule in stored["rules"]] if stored else []


async def read(storage: Storage, name: str) -> dict[str, Any] | None:
    """``text`` and ``rules`` of a policy as stored."""
    stored, _ = await _read(storage, name)
    return stored


async def _read(storage: Storage, name: str) -> tuple[dict[str, Any] | None, int]:
    """A policy and the revision that a write made from it must expect."""
    item = await storage.get_one(f"p/{name}")
    if item.data is not None and name != WRAPPING:
        return json.loads(item.data), item.revision
    text = _BUILTIN.get(name)
    return None if text is None else {"text": text, "rules": parse_policy(text)}, item.revision


async def write(storage: Storage, name: str, text: str) -> None:
    """Store a policy. Raises ``InvalidRequest`` with the place of a mistake."""
    if name in {ROOT, WRAPPING}:
        raise InvalidRequest(
            f'cannot update "{name}" policy', "write one of another name: keyhole policy write NAME FILE"
        )
    _, revision = await _read(storage, name)
    await _put(storage, name, text, parse_policy(text), revision)


async def delete(storage: Storage, name: str) -> None:
    """Remove a policy; an unknown one counts as removed."""
    if name in {ROOT, DEFAULT, WRAPPING}:
        raise InvalidRequest(f"cannot delete {name} policy", "the others: keyhole policy list")
    item = await storage.get_one(f"p/{name}")
    if item.data is not None:
        await storage.commit(Change(deletes=[(f"p/{name}", item.revision)]))


async def names(storage: Storage) -> list[str]:
    """Names of all policies, with the built-in ones."""
    return sorted({*await storage.list("p", recursive=True), DEFAULT, ROOT})


async def set_capability(storage: Storage, name: str, path: str, capability: str, *, given: bool) -> bool:
    """Add a capability on an exact path to a policy, or take it out; returns whether that changed anything."""
    if name in {ROOT, WRAPPING}:
        raise InvalidRequest(f'cannot update "{name}" policy', "use one of another name: keyhole policy list")
    found, revision = await _read(storage, name)
    stored = found or {"text": "", "rules": []}
    rules: list[dict[str, Any]] = stored["rules"]
    there = [rule for rule in rules if rule["path"] == path]
    if given and any("deny" in rule["capabilities"] for rule in there):
        raise Conflict(f"the policy {name!r} denies {path}, and deny wins", f"keyhole policy show {name}")
    if any(capability in rule["capabilities"] for rule in there) == given:
        return False
    if given:
        added = {"path": path, "capabilities": [capability]}
        await _put(storage, name, _appended(stored["text"], [*rules, added], added), [*rules, added], revision)
        return True
    left = []
    for rule in rules:
        kept = [c for c in rule["capabilities"] if rule["path"] != path or c != capability]
        # A stanza that gives nothing shadows wider ones, so only one that this change has emptied goes.
        if kept or not rule["capabilities"]:
            left.append({**rule, "capabilities": kept})
    await _put(storage, name, render_policy(left), left, revision)
    return True


def _appended(text: str, rules: list[dict[str, Any]], added: dict[str, Any]) -> str:
    """The text with one stanza more; written anew when it is not HCL that can be added to."""
    longer = f"{text.rstrip()}\n{render_policy([added])}".lstrip()
    try:
        return longer if parse_policy(longer) == rules else render_policy(rules)
    except InvalidRequest:
        return render_policy(rules)


async def _put(storage: Storage, name: str, text: str, rules: Sequence[dict[str, Any]], revision: int) -> None:
    data = json.dumps({"text": text, "rules": list(rules)}).encode()
    await storage.commit(Change([Write(f"p/{name}", data, revision)]))
