"""The vault's own routes, one topic a file. Each file makes a table over the vault it is given.

A table is made, and its file read, when its mount is first asked: a command on a local vault asks one or two of them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache, partial
from importlib import import_module

from keyhole import engines
from keyhole.engines import Engine, Route
from keyhole.vault.mounts import Mount
from keyhole.vault.vault import Vault

# In this order: the first route that fits answers.
_SYSTEM = (
    "policies",
    "passwords",
    "tools",
    "quotas",
    "server",
    "latency",
    "audit",
    "own",
    "reports",
    "devices",
    "orgs",
    "honey",
    "notices",
    "rotations",
    "capabilities",
    "leases",
    "mounts",
    "ui",
    "plugins",
    "wrapping",
    "system",
    "describe",
)


def tables(vault: Vault, vault_id: str, seal: Callable[[], Awaitable[None]], more: tuple[Route, ...]) -> list[Mount]:
    """Mounts of everything that administers a vault.

    Args:
        vault: open.
        vault_id: its id, for the history of its journal.
        seal: closes it.
        more: routes below ``sys/`` of whoever stands around it.
    """

    @cache  # each org has mounts of its own, and all of them these engines
    def system() -> Engine:
        from keyhole.vault.history import History  # noqa: PLC0415  # most commands do not look back

        past = History(vault.store, vault.keys, vault_id)
        given = {
            "audit": (vault, past),
            "own": (vault, past),
            "reports": (vault, past),
            "system": (vault, seal),
            "tools": (),
            "plugins": (),
        }
        found = [_routes(topic, *given.get(topic, (vault,))) for topic in _SYSTEM]
        return Engine("system", (*(route for routes in found for route in routes), *more))

    def made(kind: str, *topics: str, configures: bool = False) -> Callable[[], Engine]:
        return cache(
            lambda: Engine(
                kind, tuple(route for topic in topics for route in _routes(topic, vault)), configures=configures
            )
        )

    return [
        Mount("sys/", "sys", system, "system", "the vault itself"),
        Mount("auth/token/", "token", made("token", "tokens", "exchange"), "token", "tokens"),
        Mount(
            "cubbyhole/",
            "cubbyhole",
            partial(engines.load, "cubbyhole"),
            "cubbyhole",
            "a drawer for each token",
            local=True,
        ),
        Mount("services/", "services", partial(engines.load, "services"), "services", "where secrets may go"),
        Mount("identity/", "identity", cache(partial(_identity, vault)), "identity", "entities and groups"),
        Mount("agents/", "agents", made("agents", "agents", configures=True), "agents", "machine identities"),
        Mount("tools/", "tools", made("tools", "gateway"), "tools", "servers of tools, and uses of their tools"),
        Mount(
            "approvals/", "approvals", made("approvals", "approvals"), "approvals", "requests that wait for a person"
        ),
    ]


def _identity(vault: Vault) -> Engine:
    routes: tuple[Route, ...] = import_module("keyhole.vault.identity.routes").routes(vault)
    return Engine("identity", routes)


def _routes(topic: str, *given: object) -> tuple[Route, ...]:
    routes: tuple[Route, ...] = import_module(f"{__name__}.{topic}").routes(*given)
    return routes
