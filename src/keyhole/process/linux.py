"""The system calls of Linux that Python does not offer in every version we support (3.11 has no ``os.unshare``)."""

from __future__ import annotations

import ctypes
import os

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_NEWIPC = 0x08000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4

SI_QUEUE = -1
_KEYCTL_JOIN_SESSION_KEYRING = 1

_CAPABILITY_VERSION_3 = 0x20080522  # capset(2)
_LAST_POSSIBLE_CAP = 63

_libc = ctypes.CDLL(None, use_errno=True)


class _CapHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapData(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def failure(call: str) -> OSError:
    """Why the last call of this library failed."""
    number = ctypes.get_errno()
    return OSError(number, f"{call}: {os.strerror(number)}")


def _check(result: int, call: str) -> None:
    if result != 0:
        raise failure(call)


def unshare(flags: int) -> None:
    """Leave the namespaces named by ``flags`` for new ones (unshare(2))."""
    _check(_libc.unshare(flags), "unshare")


def mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    """Mount (mount(2)); the error names the target."""
    result = _libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        kind.encode() if kind else None,
        ctypes.c_ulong(flags),
        options.encode() if options else None,
    )
    _check(result, f"mount {target}")


def prctl(option: int, *arguments: int) -> None:
    """Change an attribute of this process (prctl(2)); absent arguments are zero, as newer options demand."""
    padded = [ctypes.c_ulong(value) for value in (*arguments, 0, 0, 0, 0)[:4]]
    _check(_libc.prctl(option, *padded), f"prctl {option}")


def prctl_pointer(option: int, argument: int, pointer: ctypes.Array[ctypes.c_char] | ctypes.Structure) -> None:
    """``prctl`` with a structure as its second argument."""
    _check(_libc.prctl(option, ctypes.c_ulong(argument), ctypes.byref(pointer), 0, 0), f"prctl {option}")


def sigqueue(pid: int, number: int) -> None:
    """Send a signal that its receiver can tell from one sent to the whole process group (``SI_QUEUE``)."""
    _check(_libc.sigqueue(pid, number, None), "sigqueue")


def limit_capabilities(keep: int) -> None:
    """Give up every capability outside the bit mask ``keep``, for this process and all that it will execute.

    The bounding set goes first: a process with user id 0 would get everything in it back at ``execve``
    (capabilities(7)).
    """
    for capability in range(_LAST_POSSIBLE_CAP + 1):
        if not keep >> capability & 1:
            try:
                prctl(PR_CAPBSET_DROP, capability)
            except OSError:
                if capability == 0:
                    raise
                break  # past the last capability that this kernel knows
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    header = _CapHeader(_CAPABILITY_VERSION_3, 0)
    data = (_CapData * 2)()
    _check(_libc.capget(ctypes.byref(header), data), "capget")
    for half in range(2):
        mask = keep >> 32 * half & 0xFFFFFFFF
        data[half].permitted &= mask
        data[half].effective = data[half].permitted
        data[half].inheritable = 0
    _check(_libc.capset(ctypes.byref(header), data), "capset")


def address_of(buffer: bytearray) -> int:
    """Where its bytes are, for a structure that the kernel follows; it must outlive the call."""
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


def join_new_keyring() -> None:
    """Leave the session keyring, with the keys that whoever started us had in it, for an empty one (keyctl(2))."""
    number = {"x86_64": 250, "aarch64": 219}.get(os.uname().machine)
    if number is not None:
        _libc.syscall(number, _KEYCTL_JOIN_SESSION_KEYRING, None)  # a system that forbids it forbids its use as well
