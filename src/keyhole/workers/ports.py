"""Ports that belong to several processes: reserved by a socket that never listens, so that all can bind to them.

The kernel lets only processes of one user share a port (``SO_REUSEPORT``, socket(7)), and gives connections to those of
the sockets that listen.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from keyhole.config import Config, split_address, sql_address
from keyhole.core.errors import InvalidRequest


def reserve(config: Config, stack: contextlib.ExitStack) -> Config:
    """The settings with the ports that were found for those that are 0; all are reserved until ``stack`` ends.

    Raises:
        InvalidRequest: somebody listens there, or there is no such address.
    """
    api = _reserved(config.listen, "listen", stack)
    proxy = _reserved(config.proxy_listen, "proxy_listen", stack)
    sql = []
    for listener in config.sql_listen:
        scheme, address = sql_address(listener)
        sql.append(f"{scheme}://{_reserved(address, 'sql_listen', stack)}")
    return config._replace(listen=api, proxy_listen=proxy, sql_listen=tuple(sql))


def _reserved(address: str, name: str, stack: contextlib.ExitStack) -> str:
    host, port = split_address(address, name)
    try:
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        if port:
            _bound(family, where, together=False).close()  # or two servers would share it unawares
        sock = stack.enter_context(_bound(family, where, together=True))
    except OSError as error:
        option = "--" + name.replace("_", "-")
        raise InvalidRequest(f"cannot listen on {address}: {error.strerror}", f"choose another {option}") from None
    return f"{f'[{host}]' if ':' in host else host}:{sock.getsockname()[1]}"


def _bound(family: int, where: tuple[Any, ...], *, together: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if together:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(where)
    except BaseException:
        sock.close()
        raise
    return sock
