"""Which vault is meant, and with which token: the same for the command line and for Python.

1. the vault that is named, or ``KEYHOLE_VAULT``: ``sqlite:PATH``, ``postgres://…``, ``http(s)://…``;
2. else ``KEYHOLE_ADDR``; several servers of one vault have commas between them;
3. else the local vault.

Vault's own ``VAULT_ADDR`` and ``VAULT_TOKEN`` count only when the caller says so: a secret must not go to somebody
else's server by accident. A stored token is kept per address and goes nowhere else.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from keyhole.core.errors import InvalidRequest

_WEB = ("http://", "https://")
_MOST = 16
_STORES = ("sqlite:", "postgres:", "postgresql:", "memory:")


class Where:
    """A vault, found.

    Attributes:
        location: a server's address, or the location of a store.
        remote: it is a server.
        token: empty where none is known; not in ``repr``.
    """

    def __init__(self, location: str, *, remote: bool, token: str = "") -> None:
        self.location: Final = location
        self.remote: Final = remote
        self.token: Final = token

    def __repr__(self) -> str:
        return f"Where({self.location!r})"


def discover(
    vault: str = "", *, token: str | None = None, vault_env: bool = False, environ: Mapping[str, str] | None = None
) -> Where:
    """Find the vault and the token.

    Args:
        vault: what the user named; empty to look further.
        token: used instead of any that would be found.
        vault_env: let ``VAULT_ADDR`` and ``VAULT_TOKEN`` count, after Keyhole's own variables.
        environ: instead of the process's environment.

    Raises:
        InvalidRequest: the location is of no known kind, or the token file is not safe.
    """
    env = os.environ if environ is None else environ
    location = vault or env.get("KEYHOLE_VAULT", "") or env.get("KEYHOLE_ADDR", "")
    if not location and vault_env:
        location = env.get("VAULT_ADDR", "")
    location = location.strip() or _local_vault()
    if not location.startswith(_WEB + _STORES):
        raise InvalidRequest(
            "the vault's location is of no known kind",
            "write https://HOST:PORT of a server, http:// on this machine, or sqlite:PATH in KEYHOLE_ADDR or --vault",
        )
    remote = location.startswith(_WEB)
    if remote:
        location = _servers(location)
    if token is None:
        token = env.get("KEYHOLE_TOKEN", "") or (env.get("VAULT_TOKEN", "") if vault_env else "")
        token = token.strip() or (stored_token(location) if remote else "")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise InvalidRequest("the token has characters that no token has", "check KEYHOLE_TOKEN")
    return Where(location, remote=remote, token=token)


def _servers(text: str) -> str:
    """The addresses of one or several servers of a vault, with commas between them and without spaces."""
    found = [each.strip().rstrip("/") for each in text.split(",")]
    if not all(each.startswith(_WEB) for each in found) or len(found) > _MOST:
        raise InvalidRequest(
            f"one of the servers' addresses is not https://HOST:PORT, or they are more than {_MOST}",
            "write them with commas between them, such as https://a:8200,https://b:8200",
        )
    return ",".join(dict.fromkeys(found))


def token_file() -> Path:
    """Where ``keyhole login`` keeps tokens: a JSON object from server addresses to tokens."""
    return _home() / "tokens.json"


def stored_token(address: str) -> str:
    """The token that was stored for this very address; empty when there is none. Raises ``InvalidRequest``."""
    token = _read_tokens().get(address, "")
    return token if isinstance(token, str) else ""


def store_token(address: str, token: str) -> Path:
    """Keep a token for an address, or forget it when it is empty; the file belongs to its owner alone (0600)."""
    tokens = _read_tokens()
    tokens.pop(address, None)
    if token:
        tokens[address] = token
    path = token_file()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not tokens:
        path.unlink(missing_ok=True)
        return path
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(tokens, file)
    fresh.replace(path)
    return path


def _read_tokens() -> dict[str, Any]:
    path = token_file()
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            content = file.read(1 << 20)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InvalidRequest(f"the token file {path} cannot be read: {error.strerror}", f"ls -l {path}") from None
    if os.name == "posix" and (status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077):
        raise InvalidRequest(
            f"the token file {path} can be used by others than you", f"remove it and log in again: rm {path}"
        )
    try:
        tokens = json.loads(content)
    except (ValueError, RecursionError):
        tokens = None
    if not isinstance(tokens, dict):
        raise InvalidRequest(f"the token file {path} is damaged", f"remove it and log in again: rm {path}")
    return tokens


def _home() -> Path:
    from keyhole.config import home  # noqa: PLC0415  # a command with KEYHOLE_ADDR and KEYHOLE_TOKEN needs no config

    return home()


def _local_vault() -> str:
    from keyhole.config import local_vault  # noqa: PLC0415  # the same

    return local_vault()
