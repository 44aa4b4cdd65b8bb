"""Filters for what namespaces leave open.

``ioctl(TIOCSTI)`` puts characters into the terminal's input queue, where the user's own shell, outside the sandbox,
would run them after the command has ended (CVE-2017-5226). ``TIOCLINUX`` can do the same on a virtual console.

A network namespace holds the internet's families and abstract Unix sockets. Others belong to the machine whatever the
namespace, such as ``AF_VSOCK``, by which a virtual machine talks to its host; so sockets of these are refused.
``io_uring`` opens sockets past any filter, and ``socketcall`` of 32 bit x86 hides its arguments from it: both are
refused with them.
"""

from __future__ import annotations

import ctypes
import errno
import struct
import sys
from typing import NamedTuple

from keyhole.process import linux

_TIOCSTI = 0x5412
_TIOCLINUX = 0x541C
_FAMILIES = (1, 2, 10, 16)  # AF_UNIX, AF_INET, AF_INET6, AF_NETLINK (linux/socket.h)


class _Numbers(NamedTuple):
    """System calls of one architecture of linux/audit.h: its number, and those of the calls in its tables."""

    arch: int
    ioctl: tuple[int, ...]
    socket: tuple[int, ...]
    io_uring: tuple[int, ...]
    socketcall: tuple[int, ...] = ()


_X32 = 0x40000000
_RING = 425  # io_uring_setup, the same everywhere
# A kernel runs the 32 bit flavour of its architecture too.
_TABLES = {
    "x86_64": (
        _Numbers(0xC000003E, (16, _X32 + 514), (41, _X32 + 41), (_RING, _X32 + _RING)),
        _Numbers(0x40000003, (54,), (359,), (_RING,), (102,)),
    ),
    "aarch64": (_Numbers(0xC00000B7, (29,), (198,), (_RING,)), _Numbers(0x40000028, (54,), (281,), (_RING,))),
}

_LOAD, _JUMP_IF, _RETURN = 0x20, 0x15, 0x06  # linux/filter.h
_NUMBER, _ARCH, _ARG0, _ARG1 = 0, 4, 16, 24  # offsets in struct seccomp_data, little endian
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000
_MODE_FILTER = 2

_Line = tuple[int, int, int, int]


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def typing_allowed() -> bool:
    """Whether this kernel still lets a program type into its terminal."""
    try:
        with open("/proc/sys/dev/tty/legacy_tiocsti", "rb") as switch:  # noqa: PTH123  # no pathlib on this path
            return switch.read().strip() != b"0"
    except OSError:
        return True


def known(machine: str) -> bool:
    """Whether there is a filter for this machine."""
    return machine in _TABLES and sys.byteorder == "little"


def restrict(machine: str, *, typing: bool, families: bool) -> bool:
    """Install the filter on this process for good; ``False`` when the machine is not one we know.

    Needs ``PR_SET_NO_NEW_PRIVS`` first (seccomp(2)).

    Args:
        machine: as ``uname`` has it.
        typing: forbid typing into the terminal.
        families: forbid sockets that no network namespace holds.
    """
    if not known(machine):
        return False
    code = _assemble(_TABLES[machine], typing=typing, families=families)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(code) // 8, ctypes.addressof(buffer))
    linux.prctl_pointer(linux.PR_SET_SECCOMP, _MODE_FILTER, program)
    return True


def _assemble(tables: tuple[_Numbers, ...], *, typing: bool, families: bool) -> bytes:
    lines: list[_Line] = []
    for numbers in tables:
        block: list[_Line] = [(_LOAD, 0, 0, _NUMBER)]
        if typing:
            block += _when(numbers.ioctl, _judge(_ARG1, (_TIOCSTI, _TIOCLINUX), hit=_FAIL | errno.EPERM, miss=_ALLOW))
        if families:
            block += _when(numbers.socket, _judge(_ARG0, _FAMILIES, hit=_ALLOW, miss=_FAIL | errno.EAFNOSUPPORT))
            block += _when(numbers.io_uring, [(_RETURN, 0, 0, _FAIL | errno.ENOSYS)])  # libraries then do without
            block += _when(numbers.socketcall, [(_RETURN, 0, 0, _FAIL | errno.EPERM)])
        block.append((_RETURN, 0, 0, _ALLOW))
        lines += [(_LOAD, 0, 0, _ARCH), (_JUMP_IF, 0, len(block), numbers.arch), *block]
    lines.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


def _when(numbers: tuple[int, ...], then: list[_Line]) -> list[_Line]:
    """``if number in numbers: then``; ``then`` returns on every way."""
    found: list[_Line] = []
    for index, number in enumerate(numbers):
        left = len(numbers) - index - 1
        found.append((_JUMP_IF, left, 0 if left else len(then), number))
    return [*found, *then] if numbers else []


def _judge(offset: int, values: tuple[int, ...], *, hit: int, miss: int) -> list[_Line]:
    """``return hit if the argument is one of values else miss``."""
    tests = [(_JUMP_IF, len(values) - index, 0, value) for index, value in enumerate(values)]
    return [(_LOAD, 0, 0, offset), *tests, (_RETURN, 0, 0, miss), (_RETURN, 0, 0, hit)]
