"""The vault's own routes, one topic a file. Each file makes a table over the vault it is given."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from keyhole import auth
from keyhole.engines import Engine, Route
from keyhole.vault.history import History
from keyhole.vault.identity import routes as identities
from keyhole.vault.mounts import Mount
from keyhole.vault.sys import (
    agents,
    approvals,
    audit,
    capabilities,
    describe,
    honey,
    leases,
    orgs,
    passwords,
    policies,
    system,
    tokens,
    tools,
)
from keyhole.vault.vault import Vault


def tables(vault: Vault, history: History, seal: Callable[[], None], more: tuple[Route, ...]) -> list[Mount]:
    """Mounts of everything that administers a vault."""
    routes = (
        *policies.routes(vault),
        *passwords.routes(vault),
        *tools.routes(),
        *audit.routes(vault, history),
        *orgs.routes(vault),
        *honey.routes(vault),
        *capabilities.routes(vault),
        *leases.routes(vault),
        *system.routes(vault, seal),
        *describe.routes(vault),
        *more,
    )
    return [
        Mount("sys/", "sys", Engine("system", routes), "the vault itself"),
        Mount("auth/token/", "token", Engine("token", tokens.routes(vault)), "tokens"),
        Mount("auth/approle/", "approle", partial(auth.load, "approle"), "machines that log in"),
        Mount("auth/userpass/", "userpass", partial(auth.load, "userpass"), "people who log in"),
        Mount("identity/", "identity", Engine("identity", identities.routes(vault)), "entities and groups"),
        Mount("agents/", "agents", Engine("agents", agents.routes(vault), configures=True), "machine identities"),
        Mount(
            "approvals/", "approvals", Engine("approvals", approvals.routes(vault)), "requests that wait for a person"
        ),
    ]
