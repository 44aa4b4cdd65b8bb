"""The network namespace of one command, made by its launcher with the system calls alone.

Inside there is loopback and nothing else: no route leads anywhere, and abstract sockets of Unix are those of the
namespace. What listens there are sockets that the launcher opens and hands to ``keyhole run`` (SCM_RIGHTS, unix(7)): a
socket belongs to the namespace in which it was made, whoever holds it. So there is no process in between that could be
attacked, and none that would have to be kept alive.

With ``every`` all addresses of both versions are this machine's ("AnyIP": a local route for everything, as in
``ip route add local default dev lo``), so that a client which knows nothing of a proxy arrives here all the same.

Imported by the launcher, which every run waits for.
"""

from __future__ import annotations

import errno
import fcntl
import socket
import struct

from keyhole.process import linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MOST = 200  # sockets; a message carries 253 (unix(7))
BACKLOG = 512
_LO = 1  # the first interface of a namespace
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1  # netdevice(7)
_RTM_NEWROUTE, _NLMSG_ERROR = 24, 2  # rtnetlink(7), netlink(7)
_REQUEST_ACK_CREATE_EXCL = 0x1 | 0x4 | 0x400 | 0x200
_TABLE_LOCAL, _BOOT, _SCOPE_HOST, _TYPE_LOCAL, _RTA_OIF = 255, 3, 254, 2, 4
_ETH_P_ALL = 3
_SO_ATTACH_FILTER = 26
_HEAD = 96  # bytes of a packet that are looked at


def shut(wanted: dict[str, Any]) -> list[socket.socket]:
    """Leave the network for a new, empty one.

    Args:
        wanted: ``listen``: pairs of address and port. ``every``: ports that listen on every address there is, which
            makes all of them ours; may be absent.

    Returns:
        The listening sockets, in that order. With ``every`` come then one for datagrams and one for streams on port 53,
        and one that sees the packets by which connections are begun.

    Raises:
        OSError: the system refused.
    """
    linux.unshare(linux.CLONE_NEWNET)
    _raise_loopback()
    found = [_listener(socket.AF_INET, address, port) for address, port in wanted["listen"]]
    if "every" in wanted:
        version6 = _take_every_address()
        family, address = (socket.AF_INET6, "::") if version6 else (socket.AF_INET, "")
        found += [_listener(family, address, port) for port in wanted["every"]]
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagrams.bind(("127.0.0.1", 53))
        found += [datagrams, _listener(socket.AF_INET, "127.0.0.1", 53), _watcher()]
    return found


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        flags = struct.unpack("16sH", fcntl.ioctl(handle, _SIOCGIFFLAGS, struct.pack("16sH14x", b"lo", 0))[:18])[1]
        fcntl.ioctl(handle, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | _IFF_UP))


def _listener(family: int, address: str, port: int) -> socket.socket:
    found = socket.socket(family, socket.SOCK_STREAM)
    if family == socket.AF_INET6:
        found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    found.bind((address, port))
    found.listen(BACKLOG)
    return found


def _take_every_address() -> bool:
    """Local routes for all that there is; whether that holds for IPv6 as well, which a kernel may be without."""
    _add_route(socket.AF_INET, 0)
    try:
        _add_route(socket.AF_INET6, 0)
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close()
    except OSError as error:
        if error.errno in {errno.EAFNOSUPPORT, errno.EOPNOTSUPP, errno.EPERM, errno.EACCES, errno.ENODEV}:
            return False
        raise
    return True


def _add_route(family: int, length: int) -> None:
    """``local default dev lo`` in the table of local routes."""
    scope = _SCOPE_HOST if family == socket.AF_INET else 0
    route = struct.pack("=BBBBBBBBI", family, length, 0, 0, _TABLE_LOCAL, _BOOT, scope, _TYPE_LOCAL, 0)
    route += struct.pack("=HHI", 8, _RTA_OIF, _LO)
    message = struct.pack("=IHHII", 16 + len(route), _RTM_NEWROUTE, _REQUEST_ACK_CREATE_EXCL, 1, 0) + route
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as kernel:
        kernel.bind((0, 0))
        kernel.send(message)
        _, kind, _, _, _, number = struct.unpack("=IHHIIi", kernel.recv(4096)[:20])
    if kind != _NLMSG_ERROR or number:
        raise OSError(-number or errno.EPROTO, "the route for every address is refused")


def _watcher() -> socket.socket:
    """Sees the first packet of each TCP connection and each datagram of UDP, on its way in; nothing of what is said."""
    found = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)  # receives nothing before it is bound
    code = b"".join(struct.pack("=HBBI", *line) for line in _FILTER)
    buffer = bytearray(code)
    address = linux.address_of(buffer)
    found.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", len(_FILTER), address))
    found.bind(("lo", _ETH_P_ALL))
    return found


# Classic BPF (bpf(2), linux/filter.h); offset 0 is the head of the IP packet, above _META stands what the kernel knows.
_META = 0xFFFFF000
_PACKET_TYPE, _OUTGOING = _META + 4, 4
_FILTER = (
    (0x30, 0, 0, _PACKET_TYPE),
    (0x15, 18, 0, _OUTGOING),  # seen once is enough
    (0x30, 0, 0, 0),
    (0x54, 0, 0, 0xF0),
    (0x15, 0, 8, 0x40),  # IPv4, else on at 13
    (0x28, 0, 0, 6),
    (0x45, 13, 0, 0x1FFF),  # a later fragment has no ports
    (0x30, 0, 0, 9),
    (0x15, 12, 0, 17),  # UDP
    (0x15, 0, 10, 6),  # TCP
    (0xB1, 0, 0, 0),  # X = length of the head
    (0x50, 0, 0, 13),
    (0x05, 0, 0, 5),
    (0x15, 0, 6, 0x60),  # IPv6
    (0x30, 0, 0, 6),
    (0x15, 5, 0, 17),
    (0x15, 0, 3, 6),
    (0x30, 0, 0, 53),
    (0x54, 0, 0, 0x12),  # SYN and ACK
    (0x15, 1, 0, 0x02),  # SYN alone
    (0x06, 0, 0, 0),
    (0x06, 0, 0, _HEAD),
)
