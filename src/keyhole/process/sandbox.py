"""The sandbox of one command, out of Linux namespaces alone.

Modes, from the strongest to none; each is tried in a fresh launcher, because a namespace once entered cannot be left:

========== ==============================================================================================
``user+pid`` user, mount and pid namespaces, a fresh ``/proc``: nothing outside can be seen, traced or signalled
``user``     user and mount namespaces: for systems that mask ``/proc``, as most containers do
``root+pid`` mount and pid namespaces: for root where user namespaces are forbidden
``root``     a mount namespace
``none``     nothing
========== ==============================================================================================

All but ``none`` have an IPC namespace and a session keyring of their own as well.

What covers the vault's files are mounts. They hold because the command has lost every capability that could undo
them, and because a further user namespace of its own gets them locked (mount_namespaces(7), user_namespaces(7)).
The user id stays what it was.
"""

from __future__ import annotations

import os
import re
import stat

from keyhole.process import linux, seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

USER_PID, USER, ROOT_PID, ROOT, NONE = "user+pid", "user", "root+pid", "root", "none"

# What root keeps: to work with files and users as root does. Not: mount, trace, raw devices, handles of hidden files.
_CHOWN, _DAC_OVERRIDE, _FOWNER, _FSETID, _KILL, _SETGID, _SETUID, _NET_BIND, _SETFCAP = 0, 1, 3, 4, 5, 6, 7, 10, 31
_ROOT_KEEPS = sum(
    1 << capability
    for capability in (_CHOWN, _DAC_OVERRIDE, _FOWNER, _FSETID, _KILL, _SETGID, _SETUID, _NET_BIND, _SETFCAP)
)

_RESOLVER = "/etc/resolv.conf"  # without it, names are asked of this machine (resolv.conf(5))
_MEMORY = "/dev/shm"  # noqa: S108  # it is covered, nothing is put there
_KEPT_FLAGS = {"nosuid": linux.MS_NOSUID, "nodev": linux.MS_NODEV, "noexec": linux.MS_NOEXEC}
_EMPTY = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC


_MODES = {"off": (NONE,), "auto": (USER_PID, USER, NONE), "require": (USER_PID,)}
_MODES_OF_ROOT = _MODES | {"auto": (USER_PID, ROOT_PID, USER, ROOT, NONE), "require": (USER_PID, ROOT_PID)}


def modes(wish: str) -> tuple[str, ...]:
    """What is tried for this user, in order: ``off``, ``auto`` or ``require``."""
    return (_MODES_OF_ROOT if os.geteuid() == 0 else _MODES)[wish]


class Unavailable(Exception):
    """This system does not allow this mode; the text says which step it refused."""


def has_pid_namespace(mode: str) -> bool:
    """Whether a child forked after ``enter`` is process 1 of a new pid namespace."""
    return mode in {USER_PID, ROOT_PID}


def enter(mode: str) -> None:
    """Move this process, which must have one thread, into the namespaces of ``mode``.

    Raises:
        Unavailable: the system refused.
    """
    if mode == NONE:
        return
    # Shared memory and queues of System V are a way to others of the same user, as files of theirs are not.
    flags = linux.CLONE_NEWNS | linux.CLONE_NEWIPC | (linux.CLONE_NEWPID if has_pid_namespace(mode) else 0)
    try:
        if mode in {ROOT, ROOT_PID}:
            linux.unshare(flags)
        elif os.geteuid() == 0:
            _enter_with_all_ids(flags)
        else:
            _enter_with_own_id(flags)
    except OSError as error:
        raise Unavailable(f"namespaces are not allowed ({error.strerror})") from error
    linux.join_new_keyring()


def _enter_with_own_id(flags: int) -> None:
    user, group = os.geteuid(), os.getegid()
    linux.unshare(flags | linux.CLONE_NEWUSER)
    _write("/proc/self/setgroups", "deny")  # without it a group could be dropped that denies access
    _write("/proc/self/uid_map", f"{user} {user} 1")
    _write("/proc/self/gid_map", f"{group} {group} 1")


def _enter_with_all_ids(flags: int) -> None:
    """Root keeps every user id that it had, so that ``chown`` and ``su`` work on.

    Maps with more than one's own id are written from outside the new namespace: by a child that stays behind.
    """
    maps = {name: _own_ranges(f"/proc/self/{name}") for name in ("uid_map", "gid_map")}
    target = os.getpid()
    ready, go = os.pipe()
    writer = os.fork()
    if writer == 0:
        code = 1
        try:
            os.close(go)
            if os.read(ready, 1):
                for name, text in maps.items():
                    _write(f"/proc/{target}/{name}", text)
                code = 0
        finally:
            os._exit(code)
    os.close(ready)
    try:
        linux.unshare(flags | linux.CLONE_NEWUSER)
        os.write(go, b"1")
    finally:
        os.close(go)
        _, status = os.waitpid(writer, 0)
    if status != 0:
        raise PermissionError(1, "the user id map is refused")


def _own_ranges(path: str) -> str:
    lines = []
    for line in _read(path).splitlines():
        first, _, count = line.split()
        lines.append(f"{first} {first} {count}\n")
    return "".join(lines)


def furnish(mode: str, vault: list[str], others: list[str], resolver: str = "", named: Iterable[str] = ()) -> list[str]:
    """Mount what hides; runs as process 1 of the pid namespace where there is one.

    Args:
        mode: the mode that was entered.
        vault: the vault's own files and directories, absolute and free of symbolic links.
        others: sockets and directories of keychains and agents, the same.
        resolver: a file that stands in the place of ``/etc/resolv.conf``; empty for the system's own.
        named: texts such as arguments; what they name in the folder of shared memory stays there.

    Returns:
        The protections that do not hold in this mode, in words.

    Raises:
        Unavailable: the essential part was refused: the fresh ``/proc``, or hiding one of the vault's own.
    """
    if mode == NONE:
        return []
    try:
        linux.mount("none", "/", None, linux.MS_REC | linux.MS_PRIVATE)
        if has_pid_namespace(mode):
            linux.mount("proc", "/proc", "proc", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC)
        memory = _own_memory(named)
        for path in vault:
            _cover(path)
        if resolver and os.path.exists(_RESOLVER):  # noqa: PTH110  # no pathlib on this path
            linux.mount(resolver, os.path.realpath(_RESOLVER), None, linux.MS_BIND)
    except OSError as error:
        raise Unavailable(error.strerror or str(error)) from error
    missing = [memory] if memory else []
    for path in others:
        try:
            _cover(path)
        except OSError as error:
            missing.append(f"{path} is not hidden ({error.strerror})")
    missing += _close_settings("/sys" if os.geteuid() == 0 else "/sys/fs/cgroup")
    if os.geteuid() == 0:
        missing += _take_roots_back_doors()
    if not has_pid_namespace(mode):
        missing.append("the command sees and can signal other processes of this user, and may leave some behind")
    return missing


def _cover(path: str) -> None:
    """Lay an empty read-only directory, or the null device, over what is there; nothing there is nothing to hide."""
    try:
        kind = os.stat(path).st_mode  # noqa: PTH116  # no pathlib on this path
    except (FileNotFoundError, NotADirectoryError):
        return
    if stat.S_ISDIR(kind):
        linux.mount("keyhole", path, "tmpfs", _EMPTY | linux.MS_RDONLY, "size=4k,nr_inodes=2,mode=0555")
    else:
        linux.mount("/dev/null", path, None, linux.MS_BIND)


def _own_memory(named: Iterable[str]) -> str:
    """Shared memory of POSIX for this command alone (shm_overview(7)), in which what was named is still there.

    Returns:
        Why it is not, in words, or nothing.
    """
    place = os.path.realpath(_MEMORY)
    if not os.path.isdir(place):  # noqa: PTH112  # no pathlib on this path
        return ""
    found = re.findall(rf"(?:{re.escape(_MEMORY)}|{re.escape(place)})/+([^/:;,=\"'\s]+)", "\n".join(named))
    held: dict[str, int] = {}
    try:
        with os.scandir(place) as entries:
            there = {entry.name for entry in entries}
        for name in there.intersection(found):
            held[name] = os.open(f"{place}/{name}", os.O_PATH | os.O_NOFOLLOW)
        linux.mount("shm", place, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=1777")
        for name, descriptor in held.items():
            path = f"{place}/{name}"
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                os.mkdir(path)  # noqa: PTH102  # no pathlib on this path
            else:
                os.close(os.open(path, os.O_CREAT | os.O_EXCL))
            linux.mount(f"/proc/self/fd/{descriptor}", path, None, linux.MS_BIND | linux.MS_REC)
    except OSError as error:
        return f"shared memory of others is not hidden ({error.strerror})"
    finally:
        for descriptor in held.values():
            os.close(descriptor)
    return ""


def _close_settings(place: str) -> list[str]:
    """Make mounts read-only through which a kernel is set: processes outside can be frozen or ended by their cgroup."""
    missing = []
    for line in _read("/proc/self/mountinfo").splitlines():
        fields = line.split()
        path = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), fields[4])
        if (path != place and not path.startswith(f"{place}/")) or "ro" in fields[5].split(","):
            continue
        try:
            keep = sum(flag for name, flag in _KEPT_FLAGS.items() if name in fields[5].split(","))
            linux.mount("none", path, None, linux.MS_BIND | linux.MS_REMOUNT | linux.MS_RDONLY | keep)
        except OSError as error:
            missing.append(f"kernel settings in {path} may be written ({error.strerror})")
    return missing


def _take_roots_back_doors() -> list[str]:
    """Root could read the disk below the files, or have the kernel start a program outside."""
    missing = []
    try:
        linux.mount("/proc/sys", "/proc/sys", None, linux.MS_BIND | linux.MS_REC)
        linux.mount("none", "/proc/sys", None, linux.MS_BIND | linux.MS_REMOUNT | linux.MS_RDONLY | _EMPTY)
    except OSError as error:
        missing.append(f"root may write kernel settings ({error.strerror})")
    devices = []
    for folder in ("/dev", "/dev/mapper"):
        try:
            with os.scandir(folder) as entries:
                devices += [e.path for e in entries if stat.S_ISBLK(e.stat(follow_symlinks=False).st_mode)]
        except OSError:
            continue
    for path in devices:
        try:
            _cover(path)
        except OSError as error:
            missing.append(f"root may read the disk {path} ({error.strerror})")
    return missing


def lock(mode: str, *, shut: bool = False) -> None:
    """Give up, in the process that will become the command, whatever could undo the sandbox.

    Args:
        mode: that was entered.
        shut: it lives in a network namespace, so sockets that lead past one are to be refused.
    """
    if mode == NONE:
        return
    linux.limit_capabilities(_ROOT_KEEPS if os.geteuid() == 0 else 0)
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    typing = seccomp.typing_allowed()
    if typing or shut:
        seccomp.restrict(os.uname().machine, typing=typing, families=shut)


def die_with_parent() -> None:
    """Have the kernel end this process when the one that started it is gone (``PR_SET_PDEATHSIG``)."""
    linux.prctl(linux.PR_SET_PDEATHSIG, 9)


def close_to_debuggers() -> None:
    """Keep the launcher's memory from the command beside it."""
    linux.prctl(linux.PR_SET_DUMPABLE, 0)


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:  # noqa: PTH123  # no pathlib on this path: it costs more than the call
        return file.read()


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)  # one write(2): the kernel takes a map whole or not at all
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
