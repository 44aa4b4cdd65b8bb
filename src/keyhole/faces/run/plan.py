"""What is to be run, and what protected it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from keyhole.core.value import Secret

if TYPE_CHECKING:
    from keyhole.faces.run.agentsecrets.names import Wish

OWN_FAILURE = 125
NOT_EXECUTABLE = 126
NOT_FOUND = 127

SandboxWish = Literal["auto", "require", "off"]
SandboxLevel = Literal["full", "partial", "none"]
NetworkWish = Literal["auto", "broker", "host"]


@dataclass(frozen=True, slots=True)
class Database:
    """A database that the command may open sessions with.

    Attributes:
        service: that binds its login.
        scheme: ``postgres`` or ``mysql``.
        authority: ``HOST:PORT``.
        name: the only database that the service opens; empty for any.
    """

    service: str
    scheme: str
    authority: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class SshHost:
    """A host that the command may log in to by SSH.

    Attributes:
        service: that binds its key.
        host: name or address.
        port: of it.
        users: as which.
        known_hosts: lines with the keys that the host proves itself by.
    """

    service: str
    host: str
    port: int
    users: tuple[str, ...]
    known_hosts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunPlan:
    """One command to run.

    Attributes:
        argv: the command and its arguments; the command is looked up in the child's ``PATH``.
        proxy_url: ``http://agent:TOKEN@HOST:PORT``, with a token made for this child.
        ca_pem: the certificate of our authority, PEM.
        placeholders: environment variable to placeholder.
        reveal: environment variable to the real value; the caller was allowed to ``read`` it.
        files: environment variable to the content of a file that it names, which ends with the command.
        hidden: the vault's files and directories, out of reach inside the sandbox. Prefer directories: a file that is
            replaced while the command runs is visible again.
        databases: that the command may open sessions with.
        logins: hosts that the command may log in to by SSH.
        agentsecrets: for a port that the SDK of AgentSecrets knows; ``None`` for none.
        withheld: variables of the caller that open the vault's own store, and that the child does not get.
        cwd: working directory of the child; ours when ``None``.
        base_env: the caller's environment.
        scrub: take the values in ``reveal`` out of what the command prints.
        network: ``broker``: the command's own, out of which only the broker is to be reached; ``auto``: that, where the
            system allows it; ``host``: the machine's.
        transparent: in a network of its own, a client that knows nothing of a proxy reaches the broker too.
        local: ports of this machine's loopback that stay within reach in a network of the command's own.
        sockets: Unix sockets that stay within reach there.
        served: ``HOST:PORT`` of services, for ports on which ``transparent`` is to serve besides 80 and 443.
        adopt: given a listening socket, has the broker itself serve it; ``None`` where it is in another process.
        sandbox: ``require`` refuses to run without the full sandbox, ``auto`` says what is missing.
    """

    argv: tuple[str, ...]
    proxy_url: str
    ca_pem: bytes
    placeholders: Mapping[str, str] = field(default_factory=dict)
    reveal: Mapping[str, Secret] = field(default_factory=dict)
    hidden: Sequence[Path] = ()
    cwd: Path | None = None
    base_env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ), repr=False)
    sandbox: SandboxWish = "auto"
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    withheld: Sequence[str] = ()
    databases: Sequence[Database] = ()
    logins: Sequence[SshHost] = ()
    agentsecrets: Wish | None = None
    scrub: bool = False
    network: NetworkWish = "auto"
    transparent: bool = False
    local: Sequence[int] = ()
    sockets: Sequence[Path] = ()
    served: Sequence[str] = ()
    adopt: Callable[[socket.socket], None] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class SandboxReport:
    """How far the child is shut in.

    Attributes:
        level: ``full``: it sees neither the vault's files, the keychain and agent sockets, nor other processes;
            ``partial``: some of that is missing; ``none``: it can do what its user can do.
        missing: each protection that does not hold, and why, in words for the user.
        network: ``broker`` where only that is to be reached, ``open`` where the command has the machine's network.
    """

    level: SandboxLevel
    missing: tuple[str, ...] = ()
    network: Literal["broker", "open"] = "open"
