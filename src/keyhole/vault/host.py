"""What ``sys/host-info`` says of the machine, read from Linux' ``/proc``; on other systems only what Python knows."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import time
from pathlib import Path
from typing import Any

_PROC = Path("/proc")
_TIMES = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guestNice")
_CPU = {
    "vendor_id": "vendorId",
    "cpu family": "family",
    "model": "model",
    "physical id": "physicalId",
    "core id": "coreId",
    "model name": "modelName",
    "microcode": "microcode",
}
_MEMORY = {
    "MemTotal": "total",
    "MemAvailable": "available",
    "MemFree": "free",
    "Active": "active",
    "Inactive": "inactive",
    "Buffers": "buffers",
    "Cached": "cached",
    "Dirty": "dirty",
    "Shmem": "shared",
    "Slab": "slab",
    "SwapTotal": "swaptotal",
    "SwapFree": "swapfree",
    "Mapped": "mapped",
}
_HERTZ = 100  # of the times in /proc/stat (proc(5), USER_HZ)


def host_info() -> dict[str, Any]:
    """Processors, their times, disks, memory and system. What cannot be read is left out."""
    return {"cpu": _cpu(), "cpu_times": _times(), "disk": _disks(), "host": _host(), "memory": _memory()}


def _read(name: str) -> str:
    try:
        return (_PROC / name).read_text(errors="replace")
    except OSError:
        return ""


def _cpu() -> list[dict[str, Any]]:
    found = []
    for number, block in enumerate(_read("cpuinfo").strip().split("\n\n")):
        fields = dict(part.split(":", 1) for part in block.splitlines() if ":" in part)
        values = {name.strip(): value.strip() for name, value in fields.items()}
        if values:
            known = {ours: values[theirs] for theirs, ours in _CPU.items() if theirs in values}
            found.append({"cpu": number, "cores": 1, **known, "flags": values.get("flags", "").split()})
    return found


def _times() -> list[dict[str, Any]]:
    found = []
    for line in _read("stat").splitlines():
        name, *numbers = line.split()
        if name.startswith("cpu") and name != "cpu":
            seconds = [int(number) / _HERTZ for number in numbers]
            found.append({"cpu": name, **dict(zip(_TIMES, seconds, strict=False))})
    return found


def _disks() -> list[dict[str, Any]]:
    found, seen = [], set()
    for line in _read("self/mounts").splitlines():
        device, path, kind = line.split()[:3]
        if not device.startswith("/dev/") or device in seen:
            continue
        seen.add(device)
        try:
            usage = shutil.disk_usage(path)
        except OSError:
            continue
        share = 100 * usage.used / usage.total if usage.total else 0.0
        sizes = {"total": usage.total, "free": usage.free, "used": usage.used, "usedPercent": share}
        found.append({"path": path, "fstype": kind, **sizes})
    return found


def _memory() -> dict[str, Any]:
    values = {}
    for line in _read("meminfo").splitlines():
        name, _, rest = line.partition(":")
        if name in _MEMORY:
            values[_MEMORY[name]] = int(rest.split()[0]) * 1024
    if values.get("total"):
        values["used"] = values["total"] - values.get("available", 0)
        return {**values, "usedPercent": 100 * values["used"] / values["total"]}
    return values


def _host() -> dict[str, Any]:
    system = os.uname()
    uptime = _read("uptime").split()
    seconds = int(float(uptime[0])) if uptime else 0
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    return {
        "hostname": socket.gethostname(),
        "uptime": seconds,
        "bootTime": int(time.time()) - seconds,
        "procs": sum(path.name.isdecimal() for path in _PROC.iterdir()) if _PROC.exists() else 0,
        "os": system.sysname.lower(),
        "platform": release.get("ID", ""),
        "platformFamily": release.get("ID_LIKE", release.get("ID", "")),
        "platformVersion": release.get("VERSION_ID", ""),
        "kernelVersion": system.release,
        "kernelArch": system.machine,
    }
