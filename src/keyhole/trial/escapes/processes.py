"""Ways out over other processes and the kernel's own doors."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from keyhole.trial.escapes import Escape, Try, text_of

_OURS = b"keyhole.faces.run.launcher"
_SEIZE = 0x4206  # ptrace(2): attaches without a stop, and ends with the tracer
_MOST_SEIZED = 16  # processes that are tried, of which the nearest come first
_TIOCSTI = 0x5412
_NEWUSER, _NEWNS, _NEWNET = 0x10000000, 0x00020000, 0x40000000
_NULL = 1 << 8 | 3  # the device that a sandbox lays over others
_DETACH = 2  # umount2(2)
_KEYCTL, _READ = {"x86_64": 250, "aarch64": 219}, 11  # keyctl(2)
_SYS_ADMIN = 21
_SETTINGS = ("sys/kernel/core_pattern", "sysrq-trigger", "irq/default_smp_affinity")
_CGROUPS = ("/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/freezer", "/sys/kernel/uevent_helper")
_CAPABILITIES = {
    2: "DAC_READ_SEARCH", 12: "NET_ADMIN", 13: "NET_RAW", 16: "SYS_MODULE", 17: "SYS_RAWIO", 18: "SYS_CHROOT",
    19: "SYS_PTRACE", 21: "SYS_ADMIN", 22: "SYS_BOOT", 27: "MKNOD", 34: "SYSLOG", 38: "PERFMON", 39: "BPF",
    40: "CHECKPOINT_RESTORE",
}  # fmt: skip


def _others() -> Iterator[Escape]:
    """Environment, memory and files of processes that are not this command's."""
    if not sys.platform.startswith("linux"):
        yield Escape("other processes", "not tried", "there is no /proc")
        return
    targets = _targets()
    readable = sorted({number for number in targets if any(_opens(number, name) for name in ("environ", "mem", "fd"))})
    if readable:
        detail = f"environment, memory or files of {len(readable)} can be read, such as {_name(readable[0])}"
        yield Escape("other processes", "open", detail)
    elif _inside():
        yield Escape("other processes", "held", "none is to be seen; the launcher beside this command is closed")
    else:
        yield Escape("other processes", "held", f"{len(targets)} are to be seen, and none can be read")
    tried = targets[:_MOST_SEIZED]
    seized = next((number for number in tried if _seizes(number)), 0)
    closed = f"{_name(tried[0])} is closed to it" if tried else "there is no process to attach to"
    yield Escape("ptrace", "open" if seized else "held", f"{_name(seized)} can be attached to" if seized else closed)


def _seizes(number: int) -> bool:
    return _in_child(lambda: ctypes.CDLL(None).ptrace(_SEIZE, number, None, None) == 0)


def _signals() -> Iterator[Escape]:
    """Whether processes that are not this command's could be ended. Signal 0 is none (kill(2))."""
    reached = [number for number in _targets() if _signalled(number)]
    if not reached:
        yield Escape("signals", "held", "nobody outside can be signalled")
    elif _inside():
        yield Escape("signals", "open", "keyhole run and its process group can be ended: this kernel has no Landlock 6")
    else:
        yield Escape("signals", "open", f"{len(reached)} processes can be ended, such as {_name(reached[0])}")


def _signalled(number: int) -> bool:
    try:
        os.kill(number, 0)
    except OSError:
        return False
    return True


def _terminals() -> Iterator[Escape]:
    """Terminals at which somebody else sits: whoever opens one reads what is typed there."""
    own = {found.st_rdev for stream in range(3) if (found := _status(f"/dev/fd/{stream}")) is not None}
    with suppress(OSError):
        descriptor = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
        own.add(os.fstat(descriptor).st_rdev)
        os.close(descriptor)
    places = [*Path("/dev/pts").glob("[0-9]*"), *Path("/dev").glob("tty[0-9]*")]
    others = [p for p in places if (found := _status(p)) is not None and found.st_rdev not in own | {_NULL}]
    opened = sorted(str(path) for path in others if _may(path))
    if opened:
        yield Escape("terminals of others", "open", f"{len(opened)} can be read, such as {opened[0]}")
    else:
        yield Escape("terminals of others", "held", "none can be opened")


def _typing() -> Iterator[Escape]:
    """Whether it could type at the terminal that it shares with a shell, which would run that (ioctl_tty(2))."""
    if not sys.platform.startswith("linux"):
        return
    name = "typing at its terminal"
    if not _can("/dev/tty", os.O_RDWR | os.O_NOCTTY):
        yield Escape(name, "held", "it has no terminal")
    elif _types():
        yield Escape(name, "open", "what it types there is read, and run, by the shell that started it")
    else:
        yield Escape(name, "held", "it is refused")


def _types() -> bool:
    """Whether the call is let through, shown by a device that knows nothing of it; a kernel may refuse it as well."""
    import fcntl  # noqa: PLC0415  # POSIX only

    with Path("/dev/null").open("rb") as nothing:
        try:
            fcntl.ioctl(nothing, _TIOCSTI, b"x")
        except OSError as error:
            if error.errno != errno.ENOTTY:
                return False
    found = re.search(r"CapEff:\s*([0-9a-f]+)", text_of("/proc/self/status"))
    may_always = found is not None and bool(int(found[1], 16) >> _SYS_ADMIN & 1)
    return may_always or text_of("/proc/sys/dev/tty/legacy_tiocsti").strip() != "0"


def _memory() -> Iterator[Escape]:
    """Memory that programs share by names or numbers (shm_overview(7), sysvipc(7))."""
    if " - tmpfs keyhole " in text_of("/proc/self/mountinfo"):
        yield Escape("shared memory", "held", "what is there is this command's own")
        return
    found = [str(path) for path in _listed(Path("/dev/shm")) if _may(path)]  # noqa: S108  # looked at, not used
    lines = [line.split() for line in text_of("/proc/sysvipc/shm").splitlines()[1:]]
    user = os.geteuid()
    found += [f"segment {f[1]}" for f in lines if user in {0, int(f[7])} or int(f[2], 8) & 0o4]
    if found:
        yield Escape("shared memory", "open", f"{len(found)} pieces of others can be read, such as {found[0]}")
    else:
        yield Escape("shared memory", "held", "there is none that it could read")


def _status(path: str | Path) -> os.stat_result | None:
    try:
        return os.stat(path)  # noqa: PTH116  # of either kind
    except OSError:
        return None


def _may(path: Path) -> bool:
    return os.access(path, os.R_OK)


def _queues() -> Iterator[Escape]:
    """Message queues of POSIX, where there is a place that shows them (mq_overview(7))."""
    places = re.findall(r"(?m)^\S+ \S+ \S+ \S+ (\S+) .* - mqueue ", text_of("/proc/self/mountinfo"))
    found = [str(path) for place in places for path in _listed(Path(place)) if _may(path)]
    if found:
        yield Escape("message queues", "open", f"{len(found)} of others can be read, such as {found[0]}")
    else:
        yield Escape("message queues", "held", "there is none that it could read")


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _inside() -> bool:
    """Whether process 1 is the launcher of keyhole run, so that all others are the command's own."""
    return _OURS in _command(1)


def _targets() -> list[int]:
    """Processes that are not this command's, nearest ancestors first: the launcher alone where it is process 1.

    The command's own are what the launcher has started. Without a launcher there is none but this one's.
    """
    if _inside():
        return [1]
    parents = _parents()
    line, top = [os.getpid()], os.getpid()
    while (above := parents.get(line[-1], 0)) > 0 and above not in line:
        line.append(above)
    for below, above in pairwise(line):
        if _OURS in _command(above):
            top = below
            break
    own = [top]
    for number in own:
        own += [child for child, parent in parents.items() if parent == number]
    ancestors = [number for number in line if number not in own]
    return ancestors + sorted(parents.keys() - {*own, *ancestors})


def _parents() -> dict[int, int]:
    """Of each process that is to be seen, the one that started it."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError, IndexError):
            found[int(path.name)] = int((path / "stat").read_bytes().rpartition(b")")[2].split()[1])
    return found


def _command(number: int) -> bytes:
    try:
        return Path(f"/proc/{number}/cmdline").read_bytes()
    except OSError:
        return b""


def _opens(number: int, name: str) -> bool:
    path = f"/proc/{number}/{name}"
    try:
        if name == "fd":  # root may see which there are, which says nothing
            return any(entry.readlink() for entry in Path(path).iterdir())
        os.close(os.open(path, os.O_RDONLY))
    except OSError:
        return False
    return True


def _name(number: int) -> str:
    try:
        return f"process {number} ({Path(f'/proc/{number}/comm').read_text('utf-8', 'replace').strip()})"
    except OSError:
        return f"process {number}"


def _rights() -> Iterator[Escape]:
    status = text_of("/proc/self/status")
    found = re.search(r"CapEff:\s*([0-9a-f]+)", status)
    if found is None:
        yield Escape("capabilities", "not tried", "this system has none")
        return
    had = [name for bit, name in _CAPABILITIES.items() if int(found[1], 16) >> bit & 1]
    detail = f"it has {', '.join(had)}" if had else "it has none that undoes a sandbox"
    yield Escape("capabilities", "open" if had else "held", detail)
    locked = re.search(r"NoNewPrivs:\s*1", status)
    detail = "no program gives it more rights" if locked else "programs such as sudo may give it more rights"
    yield Escape("set-user-id programs", "held" if locked else "open", detail)


def _namespaces() -> Iterator[Escape]:
    """Entering those of process 1, and taking covers off in new ones of its own."""
    if not sys.platform.startswith("linux"):
        return
    entered = _in_child(lambda: _enter("/proc/1/ns/net"))
    detail = "the network of process 1 can be entered" if entered else "those of process 1 cannot be entered"
    yield Escape("other namespaces", "open" if entered else "held", detail)
    covers = re.findall(r"(?m)^\S+ \S+ \S+ \S+ (\S+) .* - tmpfs keyhole ", text_of("/proc/self/mountinfo"))
    if not covers:
        yield Escape("covers", "not tried", "nothing is covered here: the vault's files are as everybody's")
        return
    bare = _in_child(lambda: _take_off(covers[0], new=False)) or _in_child(lambda: _take_off(covers[0], new=True))
    detail = f"what hides {covers[0]} can be taken off" if bare else f"{len(covers)} places are covered, and stay so"
    yield Escape("covers", "open" if bare else "held", detail)


def _enter(path: str) -> bool:
    descriptor = os.open(path, os.O_RDONLY)
    return bool(ctypes.CDLL(None).setns(descriptor, _NEWNET) == 0)


def _take_off(place: str, *, new: bool) -> bool:
    libc = ctypes.CDLL(None)
    if new and libc.unshare(_NEWUSER | _NEWNS) != 0:
        return False
    if not new and libc.unshare(_NEWNS) != 0:  # so that nothing is taken off for anybody else
        return False
    return bool(libc.umount2(place.encode(), _DETACH) == 0)


def _in_child(work: Callable[[], bool]) -> bool:
    """Do something that changes a process, in one that ends with it; false when it fails."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads: the child takes no lock, and ends
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if work() else 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _kernel() -> Iterator[Escape]:
    """What only root could do: have the kernel start a program outside, read the disk below the files."""
    writable = any(os.access(path, os.W_OK) for path in (*(f"/proc/{name}" for name in _SETTINGS), *_CGROUPS))
    disks = [path.name for path in Path("/dev").iterdir() if path.is_block_device() and _can(str(path), os.O_RDONLY)]
    if writable or disks:
        what = ["kernel settings can be written"] * writable + [f"the disk {disks[0]} can be read"] * bool(disks)
        yield Escape("kernel and disks", "open", " and ".join(what))
    else:
        yield Escape("kernel and disks", "held", "settings are read-only, and no disk can be opened")


def _can(path: str, how: int) -> bool:
    try:
        os.close(os.open(path, how))
    except OSError:
        return False
    return True


def _keyring() -> Iterator[Escape]:
    """Keys in the kernel's keyrings, such as tickets of Kerberos. /proc/keys lists those that have a name for us."""
    call = _KEYCTL.get(os.uname().machine)
    if call is None or not sys.platform.startswith("linux"):
        return
    lines = [line.split(None, 8) for line in text_of("/proc/keys").splitlines()]
    keys = [fields for fields in lines if len(fields) == 9 and fields[7] != "keyring"]
    syscall = ctypes.CDLL(None).syscall
    read = [f[8].partition(":")[0] for f in keys if syscall(call, _READ, ctypes.c_int(int(f[0], 16)), None, 0) >= 0]
    if read:
        yield Escape("kernel keyrings", "open", f"{len(read)} keys can be read, such as {read[0]}")
    else:
        yield Escape("kernel keyrings", "held", "there is no key that it could read")


def _dumps() -> Iterator[Escape]:
    import resource  # noqa: PLC0415  # POSIX only

    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    if soft == hard == 0:
        yield Escape("core dumps", "held", "a crash leaves no memory on the disk")
    else:
        yield Escape("core dumps", "open", "a crash may leave this command's memory on the disk")


TRIES: tuple[Try, ...] = (
    (_others, _signals, _terminals, _typing, _queues, _memory, _rights, _namespaces, _kernel, _keyring, _dumps)
    if os.name == "posix"
    else ()
)
