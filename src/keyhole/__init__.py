"""Keyhole: AI agents use credentials without ever holding them."""

from typing import Any

__version__ = "0.1.0"
__all__ = ["AsyncClient", "AsyncRepoVault", "Client", "RepoVault", "__version__"]


def __getattr__(name: str) -> Any:
    """The clients, imported when somebody asks for them: the command line must start fast."""
    if name in {"Client", "AsyncClient"}:
        from keyhole.cli import sdk  # noqa: PLC0415  # that is the point

        return getattr(sdk, name)
    if name in {"RepoVault", "AsyncRepoVault"}:
        from keyhole.client import repo  # noqa: PLC0415  # the same

        return getattr(repo, name)
    raise AttributeError(f"module 'keyhole' has no attribute {name!r}")
