"""Mounts an engine in an open vault, as its tests need it."""

from keyhole import engines
from keyhole.vault.mounts import Mount


async def mount(vault, path, kind, **options):
    """Put an engine of a kind at a path."""
    vault.vault.mounts.add(Mount(f"{path}/", f"id-of-{path}", engines.load(kind, options)))
