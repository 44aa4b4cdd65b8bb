"""Blocks of addresses that a credential is bound to, as CIDR text (RFC 4632, RFC 4291). Pure."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable
from typing import Any

from keyhole.core.errors import InvalidRequest

_MOST = 256
_LONGEST = 64
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Block = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_cidrs(value: Any, name: str) -> list[str]:
    """Canonical blocks from a list or from text with commas; a bare address is a block of one.

    Raises:
        InvalidRequest: it is something else; names the field.
    """
    parts = value.split(",") if isinstance(value, str) else value
    if value is None or value == "":
        return []
    if not isinstance(parts, list) or len(parts) > _MOST or not all(isinstance(part, str) for part in parts):
        raise InvalidRequest(f"{name} is a list of at most {_MOST} address blocks", 'write like ["10.0.0.0/8"]')
    try:
        return [str(ipaddress.ip_network(part.strip()[:_LONGEST], strict=False)) for part in parts]
    except ValueError:
        raise InvalidRequest(f"{name} has something that is no address block", "write like 10.0.0.0/8") from None


def within(remote: str, cidrs: Iterable[str]) -> bool:
    """Does the address lie in one of the blocks? One that cannot be read, or is not known, lies in none."""
    try:
        address: _Address = ipaddress.ip_address(remote)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in _block(cidr) for cidr in cidrs)


def covers(outer: Iterable[str], inner: Iterable[str]) -> bool:
    """Does each of the inner blocks lie in one of the outer ones?"""
    blocks = [_block(cidr) for cidr in outer]
    return all(any(_lies_in(_block(cidr), block) for block in blocks) for cidr in inner)


def network(remote: str) -> str:
    """Who counts as one stranger: an IPv4 address, or a /64 of IPv6, which one customer has to itself (RFC 6177)."""
    if ":" not in remote:
        return remote
    try:
        address = ipaddress.IPv6Address(remote)
    except ValueError:
        return remote
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))


@functools.lru_cache(maxsize=1024)
def _block(cidr: str) -> _Block:
    return ipaddress.ip_network(cidr)


def _lies_in(inner: _Block, outer: _Block) -> bool:
    if isinstance(inner, ipaddress.IPv4Network) and isinstance(outer, ipaddress.IPv4Network):
        return inner.subnet_of(outer)
    if isinstance(inner, ipaddress.IPv6Network) and isinstance(outer, ipaddress.IPv6Network):
        return inner.subnet_of(outer)
    return False
