"""A filter against typing into the terminal of the shell that started us.

``ioctl(TIOCSTI)`` puts characters into the terminal's input queue, where the user's own shell, outside the sandbox,
would run them after the command has ended (CVE-2017-5226). ``TIOCLINUX`` can do the same on a virtual console.
"""

from __future__ import annotations

import ctypes
import struct
import sys

from keyhole.process import linux

_TIOCSTI = 0x5412
_TIOCLINUX = 0x541C

# linux/audit.h and the syscall tables: architecture -> numbers of ioctl. A kernel runs its 32 bit flavour too.
_X32 = 0x40000000
_IOCTL = {
    "x86_64": ((0xC000003E, (16, _X32 + 514)), (0x40000003, (54,))),
    "aarch64": ((0xC00000B7, (29,)), (0x40000028, (54,))),
}

_LOAD, _JUMP_IF, _RETURN = 0x20, 0x15, 0x06  # linux/filter.h
_NUMBER, _ARCH, _ARG1 = 0, 4, 24  # offsets in struct seccomp_data, little endian
_ALLOW, _EPERM = 0x7FFF0000, 0x00050001
_MODE_FILTER = 2


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def needed() -> bool:
    """Whether this kernel still lets a program type into its terminal."""
    try:
        with open("/proc/sys/dev/tty/legacy_tiocsti", "rb") as switch:  # noqa: PTH123  # no pathlib on this path
            return switch.read().strip() != b"0"
    except OSError:
        return True


def forbid_typing(machine: str) -> bool:
    """Install the filter on this process for good; ``False`` when the machine is not one we know.

    Needs ``PR_SET_NO_NEW_PRIVS`` first (seccomp(2)).
    """
    table = _IOCTL.get(machine)
    if table is None or sys.byteorder != "little":
        return False
    code = _assemble(table)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(code) // 8, ctypes.addressof(buffer))
    linux.prctl_pointer(linux.PR_SET_SECCOMP, _MODE_FILTER, program)
    return True


def _assemble(table: tuple[tuple[int, tuple[int, ...]], ...]) -> bytes:
    """``if arch and number are an ioctl and its request is one of ours: EPERM; else allow``."""
    judge = (
        (_LOAD, 0, 0, _ARG1),
        (_JUMP_IF, 2, 0, _TIOCSTI),
        (_JUMP_IF, 1, 0, _TIOCLINUX),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _EPERM),
    )
    lines: list[tuple[int, int, int, int]] = []
    for arch, numbers in table:
        block = [(_LOAD, 0, 0, _NUMBER)]
        for index, number in enumerate(numbers):
            block.append((_JUMP_IF, len(numbers) - index, 0, number))
        block.append((_RETURN, 0, 0, _ALLOW))
        block.extend(judge)
        lines += [(_LOAD, 0, 0, _ARCH), (_JUMP_IF, 0, len(block), arch), *block]
    lines.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *line) for line in lines)
