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

from keyhole.process import linux, places, scope, seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

USER_PID, USER, ROOT_PID, ROOT, NONE = "user+pid", "user", "root+pid", "root", "none"

# What root keeps: to work with files and users as root does. Not: mount, trace, raw devices, handles of hidden files.
_CHOWN, _DAC_OVERRIDE, _FOWNER, _FSETID, _KILL, _SETGID, _SETUID, _NET_BIND, _SETFCAP = 0, 1, 3, 4, 5, 6, 7, 10, 31
_ROOT_KEEPS = sum(
    1 << capability
    for capability in (_CHOWN, _DAC_OVERRIDE, _FOWNER, _FSETID, _KILL, _SETGID, _SETUID, _NET_BIND, _SETFCAP)
)

_SEEN = "the command sees other processes of this user, and may leave some behind"
_SIGNALLED = "the command sees and can signal other processes of this user, and may leave some behind"
_RESOLVER = "/etc/resolv.conf"  # without it, names are asked of this machine (resolv.conf(5))

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


def furnish(
    mode: str,
    vault: list[str],
    others: list[str],
    resolver: str = "",
    named: Sequence[str] = (),
    code: Sequence[Sequence[str]] = ((), ()),
    private: Iterable[str] = (),
) -> list[str]:
    """Mount what hides; runs as process 1 of the pid namespace where there is one.

    Args:
        mode: the mode that was entered.
        vault: the vault's own files and directories, absolute and free of symbolic links.
        others: sockets and directories of keychains and agents, the same.
        resolver: a file that stands in the place of ``/etc/resolv.conf``; empty for the system's own.
        named: texts such as arguments; what they name in folders that are the command's own stays there.
        code: files that stay as they are, and directories in these that need not; see ``pinned``.
        private: folders in which there is only what was named.

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
        mounts = places.Mounts()
        for path in vault:
            for name in mounts.names(path):
                places.cover(name)
        if resolver and os.path.exists(_RESOLVER):  # noqa: PTH110  # no pathlib on this path
            linux.mount(resolver, os.path.realpath(_RESOLVER), None, linux.MS_BIND)
    except OSError as error:
        raise Unavailable(error.strerror or str(error)) from error
    missing = [why for why in (places.own_memory(named), places.own_terminals()) if why]
    missing += places.own_queues()
    missing += filter(None, (places.own_folder(path, named, "mode=0700", f"what lies in {path}") for path in private))
    for path in others:
        try:
            for name in mounts.names(path):
                places.cover(name)
        except OSError as error:
            missing.append(f"{path} is not hidden ({error.strerror})")
    missing += places.keep(*code)
    missing += places.close_devices()
    missing += places.close_settings("/sys" if os.geteuid() == 0 else "/sys/fs/cgroup")
    if os.geteuid() == 0:
        missing += places.close_roots_settings()
    if not has_pid_namespace(mode):
        missing.append(_SEEN if scope.known() else _SIGNALLED)
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
    scope.limit_signals()
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
