"""Mounts an engine in an open vault, as its tests need it."""


async def mount(vault, path, kind, **options):
    """Put an engine of a kind at a path."""
    await vault.ask("update", f"sys/mounts/{path}", {"type": kind, "options": options})
