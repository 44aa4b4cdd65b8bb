"""Ways to values: files, sockets that answer with keys or start programs, and the environment."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import keyhole
from keyhole.config import home
from keyhole.process.hide import cover
from keyhole.trial.escapes import Escape, Try

_DISPLAYS = ("/tmp/.X11-unix", "/run/user/{user}")  # noqa: S108  # where others put theirs
_STARTERS = ("/run/docker.sock", "/var/run/docker.sock", "/run/dbus/system_bus_socket", "/run/systemd/private")
_KEYS = (
    ".aws/credentials", ".azure/msal_token_cache.json", ".config/gcloud/application_default_credentials.json",
    ".config/gh/hosts.yml", ".docker/config.json", ".git-credentials", ".kube/config", ".netrc", ".npmrc", ".pgpass",
    ".pypirc", ".vault-token",
)  # fmt: skip
_SECRET_NAME = re.compile(r"(?:^|_)(?:API_?KEY|KEY|TOKEN|SECRET|PASSWORD|PASSWD|PAT|CREDENTIALS?)$", re.IGNORECASE)
_SHORTEST = 8
_PATIENCE = 1.0


# What shells, logins, desktops, ssh, git and timers start, without being asked about what stands in it.
_STARTED = (
    ".bashrc", ".bash_profile", ".profile", ".zshrc", ".zshenv", ".config/fish/config.fish", ".ssh/config", ".ssh/rc",
    ".ssh/authorized_keys", ".gitconfig", ".config/autostart", ".config/systemd/user", ".local/bin",
    ".local/share/dbus-1/services",
)  # fmt: skip
_STARTED_HERE = (".git/config", ".git/hooks", ".vscode/tasks.json", ".envrc")
_STARTED_BY_ROOT = ("/etc/cron.d", "/etc/profile.d", "/etc/systemd/system", "/usr/local/bin")


def _vault() -> Iterator[Escape]:
    places = [home(), Path.home() / ".agent-vault"]
    readable = [path for folder in places for path in _inside(folder) if _reads(path)]
    if readable:
        yield Escape("vault", "open", f"{len(readable)} of its files can be read, such as {readable[0]}")
    else:
        yield Escape("vault", "held", "no file of a vault or of its owner's keys is in the usual places")


def _inside(folder: Path) -> Iterator[Path]:
    with suppress(OSError):
        yield from (path for path in sorted(folder.iterdir()) if path.is_file() and path.stat().st_size)


def _sockets() -> Iterator[Escape]:
    """Keychains, agents and programs that start others: what the sandbox covers, and what leads outside besides."""
    found = [Path(path) for path in cover((), os.environ, shut=True).others]
    found += [Path(path) for path in _STARTERS]
    for folder in _DISPLAYS:
        with suppress(OSError):
            found += sorted(Path(folder.format(user=os.getuid())).iterdir())
    own = Path(os.environ.get("SSL_CERT_FILE", "/nonexistent")).parent  # where the files of this command are
    reached = [str(path) for path in dict.fromkeys(found) if own not in path.parents and _connects(path)]
    if reached:
        yield Escape("agents, keychains, Docker, displays", "open", f"these answer: {', '.join(reached[:5])}")
    else:
        yield Escape("agents, keychains, Docker, displays", "held", "none of their sockets answers")


def _connects(path: Path) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
        with suppress(OSError):
            if path.is_socket():
                with socket.socket(socket.AF_UNIX, kind) as handle:
                    handle.settimeout(_PATIENCE)
                    handle.connect(str(path))
                    return True
    return False


def _own_code() -> Iterator[Escape]:
    """Files of Keyhole's own code, which the process with the keys loads when it needs them."""
    changed = [path for path in (Path(keyhole.__file__), Path(os.__file__)) if _changes(path)]
    if changed:
        detail = f"{', '.join(map(str, changed))} can be written: what stands there runs with the keys"
        yield Escape("Keyhole's own code", "open", detail)
    else:
        yield Escape("Keyhole's own code", "held", "none of its files can be written")


def _started_later() -> Iterator[Escape]:
    """Files of which the user, and others for him, start programs later, outside. They are not a sandbox's to close."""
    name = "files that run later"
    places = [*(Path.home() / each for each in _STARTED), *map(Path, _STARTED_BY_ROOT)]
    places += [path for each in _STARTED_HERE if (path := Path.cwd() / each).exists()]
    written = [str(path) for path in places if _writes(path)]
    if written:
        detail = f"it may write {', '.join(written[:4])} and {len(written) - 4} more" if written[4:] else ""
        detail = detail or f"it may write {', '.join(written)}"
        yield Escape(name, "not tried", f"{detail}: look at them before you start what reads them")
    else:
        yield Escape(name, "held", "none of the usual ones can be written")


def _writes(path: Path) -> bool:
    """Whether it, or the nearest folder that there is, can be written. Nothing is."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return os.access(path, os.W_OK)


def _changes(path: Path) -> bool:
    """Whether what stands there can be changed: written, made writable by whom it belongs to, or replaced."""
    if _writes(path) or _writes(path.parent):
        return True
    with suppress(OSError):
        return path.stat().st_uid == os.geteuid() and not os.statvfs(path).f_flag & os.ST_RDONLY
    return False


def _credentials() -> Iterator[Escape]:
    """Keys that other programs keep in files of the user's."""
    people = Path.home()
    keys = [people / name for name in _KEYS]
    with suppress(OSError):
        keys += [path for path in sorted((people / ".ssh").glob("id_*")) if path.suffix != ".pub"]
    readable = [f"~/{path.relative_to(people)}" for path in keys if _reads(path)]
    if readable:
        detail = f"{', '.join(readable[:6])}: move what is in them into the vault with keyhole import"
        yield Escape("keys of other programs", "open", detail)
    else:
        yield Escape("keys of other programs", "held", "none lies in the usual files")


def _reads(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return bool(file.read(1))
    except OSError:
        return False


def _environment() -> Iterator[Escape]:
    """Variables that look as if they had a real value: placeholders have our name in them."""
    real = sorted(
        name
        for name, value in os.environ.items()
        if _SECRET_NAME.search(name)
        and len(value) >= _SHORTEST
        and "keyhole" not in value.lower()
        and "/" not in value[:1]
    )
    if real:
        yield Escape("environment", "open", f"these look as if they had a real value: {', '.join(real[:6])}")
    else:
        yield Escape("environment", "held", "no variable looks as if it had a real value")


TRIES: tuple[Try, ...] = (
    (_vault, _sockets, _own_code, _credentials, _environment, _started_later) if os.name == "posix" else (_environment,)
)
