"""Shelf: who you are. A login method is an engine whose open routes say who somebody is; the door makes the token.

    async def login(context: Context, call: Call) -> Reply:
        return Reply(login=Login(name="user/ann", policies=("app",)))

Promises of a member:

1. A login that fails says the same, after the same work, whether the name or the proof was wrong.
2. What it stores to check a proof is a keyed hash or, of what a person chose, a hash by a profile of ``crypto.kdf``.
3. It bounds the guesses of one address, and those at what a person chose also by name.
4. It never makes a token, and its replies have no proof, but for the one that hands a new one out, as a ``Secret``.

``make`` gives an engine for one mount. What it keeps in memory belongs to that mount; failures are counted for all
mounts of a vault together, so that another mount gives nobody more guesses.
"""

from __future__ import annotations

import importlib

from keyhole.auth.guesses import Guesses
from keyhole.core.errors import InvalidRequest
from keyhole.engines import Engine

__all__ = ["MEMBERS", "Guesses", "load"]

_OTHER_NAMES = {"oidc": "jwt"}  # one method, as in Vault
MEMBERS = ("approle", "aws", "cert", "github", "jwt", "kubernetes", "oidc", "userpass")


def load(name: str, guesses: Guesses | None = None) -> Engine:
    """The login method of this type for one mount. Raises ``InvalidRequest`` when it is not on this shelf.

    Args:
        name: of the type.
        guesses: counts failures, for all mounts of a vault.
    """
    if name not in MEMBERS:
        raise InvalidRequest(f"plugin not found in the catalog: {name}")
    module = importlib.import_module(f"keyhole.auth.{_OTHER_NAMES.get(name, name)}")
    engine: Engine = module.make(guesses or Guesses())
    return engine._replace(type=name)
