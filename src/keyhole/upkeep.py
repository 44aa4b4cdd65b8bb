"""What a server does beside serving: certificates that change, the file of its CA, and what it says of its settings."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keyhole.config import Config, home, local_vault
from keyhole.core.errors import KeyholeError
from keyhole.core.request import LocalOwner
from keyhole.net.served import ServedTls
from keyhole.net.trust import Trust

if TYPE_CHECKING:
    from keyhole.app import Keyhole

_TRUST_EVERY = 10.0
_log = logging.getLogger("keyhole")


async def watch(trust: Trust, tls: ServedTls | None) -> None:
    """Notice changed files also while no connection is made."""
    while True:
        await asyncio.sleep(_TRUST_EVERY)
        _read_again(trust, tls)


def begin_again(keyhole: Keyhole, tls: ServedTls | None) -> None:
    """At SIGHUP: read certificates again, and open audit files again, which were moved away."""
    _read_again(keyhole.trust, tls)
    if keyhole.node.vault is not None:
        keyhole.node.vault.devices.reopen()


def _read_again(trust: Trust, tls: ServedTls | None) -> None:
    trust.context()
    if tls is not None and tls.refresh():
        _log.info("the TLS certificate was renewed")


def settings(keyhole: Keyhole) -> dict[str, Any]:
    """What ``sys/config/state/sanitized`` says of this server: no path, no location, no secret."""
    config = keyhole.config
    listen = {"address": config.listen, "tls_disable": not config.tls_cert}
    return {
        "api_addr": keyhole.node.address,
        "listeners": [{"config": listen, "type": "tcp"}],
        "seals": [{"disabled": False, "type": config.seal.partition(":")[0] or "as stored"}],
        "storage": {"type": (config.vault or local_vault()).partition(":")[0], "disable_clustering": True},
    }


def data_dir(config: Config, stack: contextlib.AsyncExitStack, *, dev: bool) -> Path:
    """Where files that are not secret go; for development a folder that the stack removes."""
    if config.data:
        return Path(config.data)
    if dev:
        folder = Path(tempfile.mkdtemp(prefix="keyhole-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        return folder
    return home()


async def write_ca(keyhole: Keyhole, path: Path) -> None:
    """Put the certificate of the CA of the org root where clients can be pointed at it; it is public."""
    await keyhole.opened.wait()
    try:
        vault = keyhole.node.open_vault()
        state, _ = await vault.authenticate(LocalOwner())
        authority = await keyhole.broker.authorities(vault).get(state)
        write_public(path, authority.cert_pem)
    except (KeyholeError, OSError) as error:
        # Nothing depends on the file: clients that ask sys/keyhole get the certificate all the same.
        _log.warning("the CA's certificate could not be written to %s: %s", path, error)


def write_public(path: Path, content: bytes) -> None:
    """Put a file that everybody may read and nobody else may write in the place of whatever has its name.

    A link or a pipe with its name is replaced and not followed. Raises ``OSError``.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if path.parent.stat().st_mode & 0o022:
        _log.warning("others can write to %s, and put another certificate there: chmod go-w", path.parent)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    with os.fdopen(descriptor, "wb") as file:
        if hasattr(os, "fchmod"):  # not on Windows
            os.fchmod(descriptor, 0o644)  # whatever the umask
        file.write(content)
    try:
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
