"""The vault's own routes, one topic a file. Each file makes a table over the vault it is given."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from keyhole import engines
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
    devices,
    exchange,
    honey,
    leases,
    mounts,
    orgs,
    passwords,
    plugins,
    policies,
    quotas,
    server,
    system,
    tokens,
    tools,
    ui,
    wrapping,
)
from keyhole.vault.vault import Vault


def tables(vault: Vault, history: History, seal: Callable[[], None], more: tuple[Route, ...]) -> list[Mount]:
    """Mounts of everything that administers a vault."""
    routes = (
        *policies.routes(vault),
        *passwords.routes(vault),
        *tools.routes(),
        *quotas.routes(vault),
        *server.routes(vault),
        *audit.routes(vault, history),
        *devices.routes(vault),
        *orgs.routes(vault),
        *honey.routes(vault),
        *capabilities.routes(vault),
        *leases.routes(vault),
        *mounts.routes(vault),
        *ui.routes(vault),
        *plugins.ROUTES,
        *wrapping.routes(vault),
        *system.routes(vault, seal),
        *describe.routes(vault),
        *more,
    )
    of_tokens = (*tokens.routes(vault), *exchange.routes(vault))
    return [
        Mount("sys/", "sys", Engine("system", routes), "system", "the vault itself"),
        Mount("auth/token/", "token", Engine("token", of_tokens), "token", "tokens"),
        Mount(
            "cubbyhole/",
            "cubbyhole",
            partial(engines.load, "cubbyhole"),
            "cubbyhole",
            "a drawer for each token",
            local=True,
        ),
        Mount("services/", "services", partial(engines.load, "services"), "services", "where secrets may go"),
        Mount("identity/", "identity", Engine("identity", identities.routes(vault)), "identity", "entities and groups"),
        Mount("agents/", "agents", _agents(vault), "agents", "machine identities"),
        Mount("approvals/", "approvals", _approvals(vault), "approvals", "requests that wait for a person"),
    ]


def _agents(vault: Vault) -> Engine:
    return Engine("agents", agents.routes(vault), configures=True)


def _approvals(vault: Vault) -> Engine:
    return Engine("approvals", approvals.routes(vault))
