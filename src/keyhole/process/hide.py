"""Which places of the file system the sandbox covers."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

# Below $XDG_RUNTIME_DIR: sockets that answer with keys, or that start programs outside the sandbox.
_RUNTIME = (
    "bus",
    "docker.sock",
    "gcr",
    "gnupg",
    "keyring",
    "kwallet5.socket",
    "kwallet6.socket",
    "openssh_agent",
    "org.keepassxc.KeePassXC.BrowserServer",
    "p11-kit",
    "podman",
    "ssh-agent.socket",
    "systemd",
)
_SYSTEM = (
    "/run/buildkit",
    "/run/containerd",
    "/run/crio",
    "/run/dbus/system_bus_socket",
    "/run/docker.sock",
    "/run/k3s",
    "/run/libvirt",
    "/run/pcscd",
    "/run/podman",
    "/run/snapd.socket",
    "/run/systemd/private",
    "/var/lib/incus/unix.socket",
    "/var/lib/lxd/unix.socket",
    "/var/snap/lxd/common/lxd/unix.socket",
)
_HOME = (
    ".1password",
    ".bitwarden-ssh-agent.sock",
    ".colima/*/docker.sock",
    ".docker/desktop",
    ".docker/run",
    ".gnupg/S.*",
    ".lima/*/sock",
    ".rd/docker.sock",
    ".ssh/agent",
)
# Variables with the socket of an agent, or of an editor, a terminal or a window manager that starts what it is told.
_NAMED = (
    "ALACRITTY_SOCKET",
    "CONTAINER_HOST",
    "DOCKER_HOST",
    "I3SOCK",
    "KITTY_LISTEN_ON",
    "NVIM",
    "NVIM_LISTEN_ADDRESS",
    "SSH_AUTH_SOCK",
    "SWAYSOCK",
    "VSCODE_GIT_IPC_HANDLE",
    "VSCODE_IPC_HOOK_CLI",
    "WEZTERM_UNIX_SOCKET",
)
_LISTENS = 1 << 16  # __SO_ACCEPTCON in the flags of /proc/net/unix (net/unix/af_unix.c)
_DATAGRAMS = "0002"  # SOCK_DGRAM, there as well
_SQLITE_COMPANIONS = ("-wal", "-shm", "-journal")  # https://sqlite.org/tempfiles.html


@dataclass(frozen=True, slots=True)
class Cover:
    """What is to be covered, absolute and free of symbolic links, and what cannot be.

    Attributes:
        vault: the vault's own; the sandbox is not complete without these.
        others: what belongs to keychains, agents and programs that would start something outside.
        missing: what no mount can hide, in words for the user.
        private: folders of which the command gets one of its own: sockets that are opened there later are not in it.
    """

    vault: tuple[str, ...]
    others: tuple[str, ...]
    missing: tuple[str, ...] = ()
    private: tuple[str, ...] = ()


def cover(
    hidden: Sequence[Path], environ: Mapping[str, str], *, shut: bool = False, allowed: Sequence[Path] = ()
) -> Cover:
    """The paths to cover for a command of this user, of those that exist now.

    Args:
        hidden: the vault's own.
        environ: the command's.
        shut: the command lives in a network namespace, where abstract sockets are not to be seen, and where every
            socket of a server outside is a way out.
        allowed: sockets that stay.
    """
    vault = [path for given in hidden for path in (given, *_companions(given))]
    missing = []
    address = environ.get("DBUS_SESSION_BUS_ADDRESS", "")
    if "unix:abstract=" in address and not shut:
        missing.append("the session bus is an abstract socket, which only a network namespace would hide")
    vault_paths = _outermost(vault)
    kept = {os.path.realpath(path) for path in allowed}
    candidates = [*_others(environ, address), *(_servers() if shut else ())]
    found = _outermost(path for path in candidates if os.path.realpath(path) not in kept)
    others = [path for path in found if not _inside(path, vault_paths)]
    private = _outermost([Path(f"/run/user/{os.getuid()}")]) if shut else ()
    return Cover(vault_paths, tuple(others), tuple(missing), private)


def _companions(path: Path) -> list[Path]:
    return [path.with_name(path.name + suffix) for suffix in _SQLITE_COMPANIONS] if path.is_file() else []


def _others(environ: Mapping[str, str], bus_address: str) -> Iterator[Path]:
    user = os.getuid()
    runtimes = {environ.get("XDG_RUNTIME_DIR") or f"/run/user/{user}", f"/run/user/{user}"}
    for runtime in runtimes:
        yield from (Path(runtime, name) for name in _RUNTIME)
    yield from (Path(name) for name in _SYSTEM)
    yield from _bus_paths(bus_address)
    yield from (Path(environ[name].removeprefix("unix:").replace("//", "/")) for name in _NAMED if environ.get(name))
    if agent := environ.get("GPG_AGENT_INFO"):
        yield Path(agent.split(":", 1)[0])
    temporary = {"/tmp", environ.get("TMPDIR") or "/tmp"}  # noqa: S108  # to hide what others put there
    for folder in temporary:
        yield from Path(folder).glob("ssh-*/agent.*")
        # A terminal multiplexer types whatever it is told into shells outside.
        yield Path(environ.get("TMUX_TMPDIR") or folder, f"tmux-{user}")
    yield from Path("/run/screen").glob("S-*")
    if home := environ.get("HOME"):
        data = Path(environ.get("XDG_DATA_HOME") or Path(home, ".local/share"))
        yield from (data / "keyrings", data / "kwalletd")
        yield from (path for name in _HOME for path in Path(home).glob(name))
        yield from Path(home, ".agent-vault").glob("*.key")  # an owner's; an agent that has a key of its own may use it


def _servers() -> Iterator[Path]:
    """The socket files on which some process of this machine listens now, but for those of this process.

    A socket for datagrams is one as soon as it has a name. A relative name is looked for where processes are.
    """
    try:
        with open("/proc/net/unix", encoding="utf-8", errors="surrogateescape") as table:  # noqa: PTH123  # as below
            lines = [line.rstrip("\n").split(None, 7) for line in table]
        own = {os.readlink(f"/proc/self/fd/{name}") for name in _descriptors()}  # noqa: PTH115  # there may be many
    except OSError:
        return
    begun = []
    for fields in lines[1:]:
        if len(fields) == 8 and (int(fields[3], 16) & _LISTENS or fields[4] == _DATAGRAMS):
            path = Path(fields[7])
            if f"socket:[{fields[6]}]" in own or fields[7].startswith("@"):
                continue
            if not path.is_absolute():
                begun.append(path)
            elif _is_socket(path):
                yield path
    places = _working_directories() if begun else ()
    yield from (place / path for place in places for path in begun if _is_socket(place / path))


def _working_directories() -> set[Path]:
    """Those of the processes that this user may look at."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/cwd"):
        with suppress(OSError):
            found.add(link.readlink())
    return found


def _descriptors() -> list[str]:
    return [name for name in os.listdir("/proc/self/fd") if _is_open(name)]  # noqa: PTH208  # as above


def _is_open(name: str) -> bool:
    """Whether it is not the one with which the directory was read."""
    return os.path.lexists(f"/proc/self/fd/{name}")


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except OSError:
        return False


def _bus_paths(address: str) -> Iterator[Path]:
    """The socket files of a D-Bus address list: ``unix:path=/run/user/1000/bus,guid=…;…``."""
    for server in address.split(";"):
        transport, _, pairs = server.partition(":")
        for pair in pairs.split(",") if transport == "unix" else ():
            key, _, value = pair.partition("=")
            if key == "path":
                yield Path(value)


def _outermost(paths: Iterable[Path]) -> tuple[str, ...]:
    """Resolved, existing, each once, and none that lies inside another."""
    found: list[str] = []
    for path in sorted({os.path.realpath(path) for path in paths if _exists(path)}):
        if not _inside(path, found):
            found.append(path)
    return tuple(found)


def _exists(path: Path) -> bool:
    try:
        return path.is_absolute() and path.exists()
    except OSError:
        return False  # what this user cannot reach, the command cannot reach either


def _inside(path: str, folders: Iterable[str]) -> bool:
    return any(path == folder or path.startswith(folder.rstrip("/") + "/") for folder in folders)
