"""Ways out over sockets."""

from __future__ import annotations

import base64
import ctypes
import os
import re
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from keyhole.trial.escapes import Escape, State, Try, text_of

_PATIENCE = 2.0  # seconds
_NOWHERE = (("IPv4", socket.AF_INET, "192.0.2.1"), ("IPv6", socket.AF_INET6, "2001:db8::1"))  # RFC 5737, RFC 3849
_METADATA = "169.254.169.254"
_FAKE = b"\xc6\x12"  # 198.18.0.0/16: what --transparent answers
_UP = 1  # RTF_UP (linux/route.h)
_LISTENING = "0A"  # include/net/tcp_states.h
_LISTENS = 1 << 16  # __SO_ACCEPTCON
_VSOCK, _PACKET, _RING = 40, 17, 425
_SCRIPT = "auto_proxy"  # as Chromium spells it
_PORTS = ("PGPORT", "MYSQL_TCP_PORT", "AGENTSECRETS_PORT")
_QUESTION = struct.pack(">HHHHHH", 7, 0x0100, 1, 0, 0, 0) + b"\x06doctor\x07invalid\0" + struct.pack(">HH", 1, 1)


def _routes() -> Iterator[Escape]:
    """Whether an address outside has a route. Connecting a datagram socket sends nothing (udp(7))."""
    for version, family, address in _NOWHERE:
        source = _source(family, address)
        if source in {"", address} or source.startswith("127.") or source == "::1":
            yield Escape(f"{version} to the internet", "held", "no route leads out")
        else:
            yield Escape(f"{version} to the internet", "open", f"anything can be connected to, from {source}")
    source = _source(socket.AF_INET, _METADATA)
    state: State = "held" if source in {"", _METADATA} or source.startswith("127.") else "open"
    why = {
        "held": f"{_METADATA} has no route",
        "open": f"{_METADATA} has a route: a cloud gives its machine's keys there",
    }
    yield Escape("cloud metadata", state, why[state])


def _networks() -> Iterator[Escape]:
    """Networks beside this machine, such as that of other containers, which need no way to the internet."""
    found = []
    for line in text_of("/proc/net/route").splitlines()[1:]:
        fields = line.split()
        place, mask = (socket.inet_ntoa(struct.pack("=I", int(fields[at], 16))) for at in (1, 7))
        if fields[0] != "lo" and int(fields[3], 16) & _UP and mask != "0.0.0.0":  # noqa: S104  # an address, not bound
            found.append(f"{place}/{mask} by {fields[0]}")
    for line in text_of("/proc/net/ipv6_route").splitlines():
        fields = line.split()
        wide = fields[1] not in {"00", "80"} and not fields[0].startswith(("fe8", "ff"))
        if fields[9] != "lo" and int(fields[8], 16) & _UP and wide:
            found.append(
                f"{socket.inet_ntop(socket.AF_INET6, bytes.fromhex(fields[0]))}/{int(fields[1], 16)} by {fields[9]}"
            )
    if found:
        yield Escape("networks beside", "open", f"machines there can be connected to: {', '.join(found[:4])}")
    else:
        yield Escape("networks beside", "held", "no network but loopback is there")


def _source(family: int, address: str) -> str:
    """From which address that one would be spoken to; empty when it cannot be."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as handle:
            handle.connect((address, 9))
            return str(handle.getsockname()[0])
    except OSError:
        return ""


def _names() -> Iterator[Escape]:
    servers = re.findall(r"(?m)^nameserver\s+(\S+)", text_of("/etc/resolv.conf")) or ["127.0.0.1"]
    for server in servers:
        said = _ask(server)
        if said and _FAKE not in said:
            yield Escape("names (DNS)", "open", f"{server} answers: a question carries data out to whose name it is")
            return
    yield Escape("names (DNS)", "held", "nobody outside is asked for names")


def _ask(server: str) -> bytes:
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as handle:
            handle.settimeout(_PATIENCE)
            handle.connect((server, 53))
            handle.send(_QUESTION)
            return handle.recv(512)
    except OSError:
        return b""


def _local() -> Iterator[Escape]:
    """Servers of this machine. Those that Keyhole opened for this command are in its environment."""
    listening = sorted(set(_listeners()) - _given())
    reached = [port for port in listening if _answers(port)]
    if reached:
        shown = ", ".join(map(str, reached[:10]))
        yield Escape("servers on loopback", "open", f"ports {shown} answer: servers outside, or --allow-local")
    else:
        yield Escape("servers on loopback", "held", "nothing answers but what keyhole run has opened for this command")


def _listeners() -> Iterator[int]:
    own = _own_sockets()
    for name in ("tcp", "tcp6"):
        for line in text_of(f"/proc/net/{name}").splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTENING and fields[9] not in own:
                yield int(fields[1].rpartition(":")[2], 16)


def _own_sockets() -> set[str]:
    """Inodes of sockets that this process holds."""
    found = set()
    for path in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found.update(re.findall(r"socket:\[(\d+)\]", str(path.readlink())))
    return found


def _given() -> set[int]:
    """Ports that keyhole run names in the environment."""
    found = {port for name in ("HTTPS_PROXY", "HTTP_PROXY") if (port := urlsplit(os.environ.get(name, "")).port)}
    found |= {int(os.environ[name]) for name in os.environ if name.endswith(_PORTS) and os.environ[name].isdecimal()}
    script = os.environ.get(_SCRIPT, "").partition("base64,")[2]
    with suppress(ValueError):
        found |= {int(port) for port in re.findall(rb"127\.0\.0\.1:(\d+)", base64.b64decode(script))}
    # A resolver and the ports of HTTP belong to a network in which every address is local.
    return found | ({53, 80, 443} if _source(*_NOWHERE[0][1:]) == _NOWHERE[0][2] else set())


def _answers(port: int) -> bool:
    for address in ("127.0.0.1", "::1"):
        with suppress(OSError), socket.create_connection((address, port), _PATIENCE):
            return True
    return False


def _kinds() -> Iterator[Escape]:
    """Sockets that see or send what is not theirs."""
    kinds = (("IP", socket.AF_INET, 1), ("packet", _PACKET, 0))
    raw = [name for name, family, protocol in kinds if _opens(family, 3, protocol)]
    detail = f"{' and '.join(raw)} sockets can be opened: what others send can be read and forged"
    yield Escape("raw sockets", "open" if raw else "held", detail if raw else "they are refused")
    if not sys.platform.startswith("linux"):
        return
    past = [name for name, possible in (("AF_VSOCK", _opens(_VSOCK, 1)), ("io_uring", _ring())) if possible]
    detail = f"{' and '.join(past)} can be had, which no network namespace holds"
    yield Escape("sockets past a namespace", "open" if past else "held", detail if past else "they are refused")


def _opens(family: int, kind: int, protocol: int = 0) -> bool:
    try:
        socket.socket(family, kind, protocol).close()
    except OSError:
        return False
    return True


def _ring() -> bool:
    descriptor = ctypes.CDLL(None).syscall(_RING, 1, ctypes.create_string_buffer(120))
    if descriptor >= 0:
        os.close(descriptor)
    return bool(descriptor >= 0)


def _abstract() -> Iterator[Escape]:
    own = _own_sockets()
    lines = [line.split(None, 7) for line in text_of("/proc/net/unix").splitlines()[1:]]
    named = [f for f in lines if len(f) == 8 and f[7].startswith("@") and int(f[3], 16) & _LISTENS and f[6] not in own]
    if named:
        yield Escape("abstract sockets", "open", f"{len(named)} servers outside listen on some, such as {named[0][7]}")
    else:
        yield Escape("abstract sockets", "held", "nobody listens on any")


def _proxy() -> Iterator[Escape]:
    """The way that is meant to be there, and whether it is the only one that programs are told of."""
    url = urlsplit(os.environ.get("HTTPS_PROXY", ""))
    if not url.hostname:
        yield Escape("proxy", "not tried", "HTTPS_PROXY is not set: this is no command of keyhole run")
        return
    if os.environ.get("NO_PROXY") or os.environ.get("no_proxy"):
        yield Escape("proxy", "open", "NO_PROXY leads programs past it")
        return
    pair = base64.b64encode(f"{unquote(url.username or '')}:{unquote(url.password or '')}".encode()).decode()
    head = (
        f"CONNECT doctor.invalid:443 HTTP/1.1\r\nHost: doctor.invalid:443\r\nProxy-Authorization: Basic {pair}\r\n\r\n"
    )
    said = b""
    with suppress(OSError), socket.create_connection((url.hostname, url.port or 80), _PATIENCE) as handle:
        handle.sendall(head.encode())
        said = handle.recv(4096)
    if b" 403 " in said[:16]:
        yield Escape("proxy", "held", "it answers, and refuses a host for which there is no service")
    elif b" 200 " in said[:16]:
        yield Escape("proxy", "open", "it passes hosts without a service: egress of the org is not deny")
    else:
        yield Escape("proxy", "not tried", "it does not answer, so no call can be made at all")


TRIES: tuple[Try, ...] = (_routes, _networks, _names, _local, _kinds, _abstract, _proxy)
