"""What ``add`` and ``import`` share: a vault that is there, a known API's services bound to a secret, and grants."""

from __future__ import annotations

import asyncio
import hashlib

from keyhole.catalog import CatalogEntry
from keyhole.cli.base import Session
from keyhole.core.errors import NotFound


def ensure_vault(session: Session) -> None:
    """Make the local vault where there is none; a server's is its administrator's matter."""
    if session.where.remote:
        return
    from keyhole.cli.init import make_local  # noqa: PLC0415  # a client of a server makes no vault
    from keyhole.cli.local import has_vault  # noqa: PLC0415  # the same

    location = session.where.location
    if not asyncio.run(has_vault(location)):
        make_local(session, location)
        session.out.say(f"made your vault in {location}")


def bound_secret(session: Session, service: str) -> str | None:
    """Which secret (``path#field``) a service lends; ``None`` where there is no such service."""
    try:
        return str(session.client.read(f"services/{service}").data["secret"])
    except NotFound:
        return None


def other_bindings(session: Session, entry: CatalogEntry, secret: str) -> dict[str, str]:
    """The services of an entry's names that lend another secret, and are the user's own: name to secret."""
    ours = {name: data["secret"] for name, data in entry.bindings(secret).items()}
    bound = {name: bound_secret(session, name) for name in ours}
    return {name: other for name, other in bound.items() if other not in {None, ours[name]}}


def bind(
    session: Session,
    entry: CatalogEntry,
    secret: str,
    *,
    only: tuple[str, ...] = (),
    without: tuple[str, ...] = (),
) -> list[str]:
    """Write the services of an entry, bound to ``secret``; all of them, or those that ``only`` names.

    Args:
        session: whose vault.
        entry: of the catalog.
        secret: path.
        only: names of services.
        without: optional fields that the secret does not have.
    """
    bindings = entry.bindings(secret, without=without)
    made = {name: data for name, data in bindings.items() if not only or name in only}
    for name, data in made.items():
        session.client.write(f"services/{name}", data)
    return list(made)


def grant(session: Session, agent: str, services: list[str]) -> None:
    """Let an agent use services; it is made where there is none."""
    try:
        session.client.read(f"agents/{agent}")
    except NotFound:
        session.client.write(f"agents/{agent}")
    for service in services:
        session.client.write(f"agents/{agent}/services/{service}")


def placeholder_for(secret: str, entry: CatalogEntry | None, field: str = "") -> str:
    """What stands for a secret outside the vault: in the shape that SDKs expect, where the catalog knows it.

    Args:
        secret: as it is written in a command, such as ``stripe/api-key`` or ``db/prod#password``.
        entry: what the catalog knows of it.
        field: of the entry, where it has several.
    """
    if entry is not None:
        return entry.placeholder(secret.encode(), field)
    return f"keyhole_placeholder_{hashlib.sha256(secret.encode()).hexdigest()[:16]}"
