"""What a sandbox mounts over places of the file system. Runs in the launcher, in the mount namespace of the command."""

from __future__ import annotations

import os
import re
import stat

from keyhole.process import linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_MEMORY = "/dev/shm"  # noqa: S108  # it is covered, nothing is put there
_TERMINALS = "/dev/pts"
_KEPT_FLAGS = {"nosuid": linux.MS_NOSUID, "nodev": linux.MS_NODEV, "noexec": linux.MS_NOEXEC}
_EMPTY = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
_PTS = 136  # major number of /dev/pts/N (devices.txt)
_MOST_TERMINALS = 1024  # of which the last one still keeps its number
# By which the kernel and its devices are set. They are the machine's, whatever namespace a /proc is made for.
_SETTINGS = ("acpi", "asound", "bus", "driver", "fs", "irq", "mtrr", "scsi", "sys", "sysrq-trigger")
# Disks below their files, memory, keyboards, screens and consoles of whoever sits there.
_DEVICES = re.compile(r"bsg|console|input|kmem|mem|mtd.*|ng\d+n\d+|nvme\d+|port|raw|sg\d+|tty\d+|uinput|vcs.*")


def cover(path: str) -> None:
    """Lay an empty read-only directory, or the null device, over what is there; nothing there is nothing to hide."""
    try:
        kind = os.stat(path).st_mode  # noqa: PTH116  # no pathlib on this path
    except (FileNotFoundError, NotADirectoryError):
        return
    if stat.S_ISDIR(kind):
        linux.mount("keyhole", path, "tmpfs", _EMPTY | linux.MS_RDONLY, "size=4k,nr_inodes=2,mode=0555")
    else:
        linux.mount("/dev/null", path, None, linux.MS_BIND)


class Mounts:
    """The mounts that there are, for what can be reached by more than one name."""

    def __init__(self) -> None:
        self.lines = [_fields(line) for line in _read("/proc/self/mountinfo").splitlines()]

    def names(self, path: str) -> Iterator[str]:
        """All names of a file or directory, its own first, and those of parts of it that are mounted by themselves.

        Args:
            path: absolute and free of symbolic links.
        """
        identity = _identity(path)
        device, within = self._place(path)
        yield path
        for number, root, point in self.lines:
            if number != device:
                continue
            if _inside(within, root):
                other = _joined(point, within[len(root.rstrip("/")) :])
                if other != path and _identity(other) == identity:  # else another mount is above it
                    yield other
            elif _inside(root, within):
                yield point

    def _place(self, path: str) -> tuple[str, str]:
        """The device, and where on it a path leads."""
        device, within, longest = "", path, -1
        for number, root, point in self.lines:
            if _inside(path, point) and len(point) >= longest:  # of two at one place the later one counts
                device, within, longest = number, _joined(root, path[len(point.rstrip("/")) :]), len(point)
        return device, within


def _identity(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)  # noqa: PTH116  # no pathlib on this path
    except OSError:
        return -1, -1
    return found.st_dev, found.st_ino


def _fields(line: str) -> tuple[str, str, str]:
    """Device, root and mount point of a line of mountinfo (proc(5))."""
    fields = line.split()
    return fields[2], _unescaped(fields[3]), _unescaped(fields[4])


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def _joined(folder: str, rest: str) -> str:
    return folder.rstrip("/") + rest or "/"


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def keep(kept: Sequence[str], left: Sequence[str]) -> list[str]:
    """Let nobody change what is there.

    Args:
        kept: files and directories.
        left: directories in these, which may be changed all the same.

    Returns:
        What could not be kept, in words.
    """
    missing = []
    opened = [(path, os.open(path, os.O_PATH)) for path in left if os.path.isdir(path)]  # noqa: PTH112  # no pathlib
    for path in kept:
        try:
            linux.mount(path, path, None, linux.MS_BIND | linux.MS_REC)
            _close(path, os.statvfs(path).f_flag & _EMPTY)  # these have the same numbers in statvfs(3) and mount(2)
            for open_path, descriptor in opened:
                if _inside(open_path, path):
                    linux.mount(f"/proc/self/fd/{descriptor}", open_path, None, linux.MS_BIND | linux.MS_REC)
        except OSError as error:
            missing.append(f"code of Keyhole in {path} may be changed ({error.strerror})")
    for _, descriptor in opened:
        os.close(descriptor)
    return missing


def own_memory(named: Iterable[str]) -> str:
    """Shared memory of POSIX for this command alone (shm_overview(7)), in which what was named is still there.

    Returns:
        Why it is not, in words, or nothing.
    """
    return own_folder(_MEMORY, named, "mode=1777", "shared memory")


def own_folder(folder: str, named: Iterable[str], how: str, what: str) -> str:
    """An empty folder in the place of one, in which what was named is still there.

    Args:
        folder: absolute.
        named: texts such as arguments.
        how: options of a ``tmpfs``.
        what: lies there, for words.

    Returns:
        Why it is not, in words, or nothing.
    """
    place = os.path.realpath(folder)
    if not os.path.isdir(place):  # noqa: PTH112  # no pathlib on this path
        return ""
    found = re.findall(rf"(?:{re.escape(folder)}|{re.escape(place)})/+([^/:;,=\"'\s]+)", "\n".join(named))
    held: dict[str, int] = {}
    try:
        with os.scandir(place) as entries:
            there = {entry.name for entry in entries}
        for name in there.intersection(found):
            held[name] = os.open(f"{place}/{name}", os.O_PATH | os.O_NOFOLLOW)
        linux.mount("shm", place, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, how)
        for name, descriptor in held.items():
            path = f"{place}/{name}"
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                os.mkdir(path)  # noqa: PTH102  # no pathlib on this path
            else:
                os.close(os.open(path, os.O_CREAT | os.O_EXCL))
            linux.mount(f"/proc/self/fd/{descriptor}", path, None, linux.MS_BIND | linux.MS_REC)
    except OSError as error:
        return f"{what} of others is not hidden ({error.strerror})"
    finally:
        for descriptor in held.values():
            os.close(descriptor)
    return ""


def own_queues() -> list[str]:
    """Message queues of POSIX are those of this command's IPC namespace in the file system too (mq_overview(7))."""
    missing = []
    for line in _read("/proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        if after.startswith("mqueue "):
            place = _unescaped(before.split()[4])
            try:
                linux.mount("mqueue", place, "mqueue", _EMPTY)
            except OSError as error:
                missing.append(f"message queues of others in {place} are not hidden ({error.strerror})")
    return missing


def own_terminals() -> str:
    """Pseudo terminals of this command's own, and that one which it was started on under its own name.

    Whoever opens another one of the same user reads what is typed there. The number of ours is taken in the new
    instance by a terminal that is not used, so that the one of the old instance can be laid over it.

    Returns:
        Why it has none, in words, or nothing.
    """
    if not os.path.exists(f"{_TERMINALS}/ptmx"):  # noqa: PTH110  # no pathlib on this path
        return ""
    wanted = {number for number in _terminals() if number < _MOST_TERMINALS}
    held: dict[int, int] = {}
    try:
        for number in wanted:
            held[number] = os.open(f"{_TERMINALS}/{number}", os.O_PATH | os.O_NOFOLLOW)
        flags = linux.MS_NOSUID | linux.MS_NOEXEC
        linux.mount("devpts", _TERMINALS, "devpts", flags, "newinstance,ptmxmode=0666,mode=0600")
        for number in range(max(wanted, default=-1) + 1):
            taken = os.open(f"{_TERMINALS}/ptmx", os.O_RDWR | os.O_NOCTTY)
            held[-1 - number] = taken
            if number in wanted:
                linux.mount(f"/proc/self/fd/{held[number]}", f"{_TERMINALS}/{number}", None, linux.MS_BIND)
    except OSError as error:
        return f"terminals of others are not hidden ({error.strerror})"
    finally:
        for number, descriptor in held.items():
            if number >= 0 or -1 - number not in wanted:
                os.close(descriptor)
    return ""


def _terminals() -> set[int]:
    """The numbers of pseudo terminals that are ours: of the three streams, and the one that controls the session."""
    found = {device for device in (_device(stream) for stream in range(3)) if device}
    controlling = int(_read("/proc/self/stat").rpartition(")")[2].split()[4])
    found.add(os.makedev(controlling >> 8 & 0xFFF, controlling & 0xFF | controlling >> 12 & 0xFFF00))
    numbers = {os.minor(device) for device in found if os.major(device) == _PTS}
    return {number for number in numbers if _is_there(number)}


def _device(stream: int) -> int:
    """The device that a stream is; 0 for what is none."""
    try:
        found = os.fstat(stream)
    except OSError:
        return 0
    return found.st_rdev if stat.S_ISCHR(found.st_mode) else 0


def _is_there(number: int) -> bool:
    try:
        found = os.stat(f"{_TERMINALS}/{number}")  # noqa: PTH116  # no pathlib on this path
    except OSError:
        return False
    return found.st_rdev == os.makedev(_PTS, number)


def close_devices() -> list[str]:
    """Cover disks, which have the vault below its files, and what others sit at, as far as this user may open it."""
    own = {_device(stream) for stream in range(3)}
    missing = []
    for path in _devices(own):
        try:
            cover(path)
        except OSError as error:
            missing.append(f"the device {path} is not hidden ({error.strerror})")
    return missing


def _devices(own: set[int]) -> list[str]:
    found = []
    for folder in ("/dev", "/dev/mapper"):
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if _is_closed(entry, own):
                        found.append(entry.path)  # noqa: PERF401  # a comprehension of four lines is not clearer
        except OSError:
            continue
    return found


def _is_closed(entry: os.DirEntry[str], own: set[int]) -> bool:
    """Whether it is a device that a command has no business with, and that it could open."""
    named = _DEVICES.fullmatch(entry.name) is not None
    try:
        found = entry.stat(follow_symlinks=False)
    except OSError:
        return False  # it has gone
    if stat.S_ISLNK(found.st_mode) or stat.S_ISREG(found.st_mode) or found.st_rdev in own:
        return False
    return (named or stat.S_ISBLK(found.st_mode)) and (os.access(entry.path, os.R_OK) or os.access(entry.path, os.W_OK))


def close_settings(place: str) -> list[str]:
    """Make mounts read-only through which a kernel is set: processes outside can be frozen or ended by their cgroup."""
    missing = []
    for line in _read("/proc/self/mountinfo").splitlines():
        fields = line.split()
        path = _unescaped(fields[4])
        if (path != place and not path.startswith(f"{place}/")) or "ro" in fields[5].split(","):
            continue
        try:
            _close(path, sum(flag for name, flag in _KEPT_FLAGS.items() if name in fields[5].split(",")))
        except OSError as error:
            missing.append(f"kernel settings in {path} may be written ({error.strerror})")
    return missing


def close_roots_settings() -> list[str]:
    """Root could have the kernel start a program outside, end all processes, or take a device away."""
    missing = []
    for name in _SETTINGS:
        path = f"/proc/{name}"
        try:
            if os.path.exists(path):  # noqa: PTH110  # no pathlib on this path
                linux.mount(path, path, None, linux.MS_BIND | linux.MS_REC)
                _close(path, _EMPTY)
        except OSError as error:
            missing.append(f"root may write kernel settings in {path} ({error.strerror})")
    return missing


def _close(path: str, flags: int) -> None:
    """Make a mount read-only; the flags that it has have to be said again."""
    linux.mount("none", path, None, linux.MS_BIND | linux.MS_REMOUNT | linux.MS_RDONLY | flags)


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH123  # no pathlib on this path
        return file.read()
