"""The guard of outgoing connections: which addresses nobody may make this program connect to.

1. The table is our own, from the IANA special-purpose address registries (RFC 6890 and its updates). What is not
   globally reachable is refused; of IPv6 everything outside global unicast (2000::/3) as well.
2. An address that carries an IPv4 address is judged by that one too: mapped, NAT64, 6to4, Teredo, ISATAP.
3. An administrator can allow networks and host names. Metadata services, link-local, unspecified, multicast and
   reserved addresses are only allowed when they are named exactly (``/32``, ``/128``), never by a wider network or
   by a host name.

A NAT64 prefix of the network's own (RFC 6052) cannot be told from ordinary IPv6; there the network has to filter.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence

from keyhole.core.errors import AddressDenied, InvalidRequest
from keyhole.core.host import parse_host

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _table(*rows: tuple[str, str]) -> tuple[tuple[_Network, str], ...]:
    return tuple((ipaddress.ip_network(network), kind) for network, kind in rows)


# Only allowed when named exactly. Checked first, so that the more telling kind is reported.
_EXACT = _table(
    ("169.254.0.0/16", "link-local, where clouds serve credentials (RFC 3927)"),
    ("100.100.100.200/32", "the metadata service of Alibaba Cloud"),
    ("168.63.129.16/32", "the platform service of Azure"),
    ("192.0.0.192/32", "the metadata service of Oracle Cloud"),
    ("0.0.0.0/8", "this network (RFC 791)"),
    ("224.0.0.0/4", "multicast (RFC 5771)"),
    ("240.0.0.0/4", "reserved (RFC 1112)"),
    ("fd00:ec2::/32", "the metadata service of AWS"),
    ("fd20:ce::254/128", "the metadata service of Google Cloud"),
    ("fd00:42::42/128", "the metadata service of Scaleway"),
    ("::/128", "unspecified (RFC 4291)"),
    ("fe80::/10", "link-local (RFC 4291)"),
    ("ff00::/8", "multicast (RFC 4291)"),
)
_REFUSED = _table(
    ("10.0.0.0/8", "private (RFC 1918)"),
    ("100.64.0.0/10", "shared address space (RFC 6598)"),
    ("127.0.0.0/8", "loopback (RFC 1122)"),
    ("172.16.0.0/12", "private (RFC 1918)"),
    ("192.0.0.0/24", "IETF protocol assignments (RFC 6890)"),
    ("192.0.2.0/24", "documentation (RFC 5737)"),
    ("192.88.99.0/24", "6to4 relay anycast (RFC 7526)"),
    ("192.168.0.0/16", "private (RFC 1918)"),
    ("198.18.0.0/15", "benchmarking (RFC 2544)"),
    ("198.51.100.0/24", "documentation (RFC 5737)"),
    ("203.0.113.0/24", "documentation (RFC 5737)"),
    ("::1/128", "loopback (RFC 4291)"),
    ("64:ff9b:1::/48", "local-use NAT64 (RFC 8215)"),
    ("fc00::/7", "unique local (RFC 4193)"),
    ("2001::/23", "IETF protocol assignments (RFC 2928)"),
    ("2001:db8::/32", "documentation (RFC 3849)"),
    ("2002::/16", "6to4 (RFC 7526)"),
    ("3fff::/20", "documentation (RFC 9637)"),
)
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NAT64_LOCAL = ipaddress.IPv6Network("64:ff9b:1::/48")
_TEREDO = ipaddress.IPv6Network("2001::/32")
_SIX_TO_FOUR = ipaddress.IPv6Network("2002::/16")
_COMPATIBLE = ipaddress.IPv6Network("::/96")
_SIIT = ipaddress.IPv6Network("::ffff:0:0:0/96")
_ISATAP = frozenset({0x00005EFE, 0x02005EFE})  # the interface identifier's upper half (RFC 5214, section 6.1)


class Guard:
    """Judges addresses before they are dialled. Immutable; one guard may serve many services.

    Args:
        allow: networks in CIDR form, addresses, and host names that are exempt from the table.

    Raises:
        InvalidRequest: an entry is none of these.
    """

    __slots__ = ("_hosts", "_networks")

    def __init__(self, allow: Sequence[str] = ()) -> None:
        networks: list[_Network] = []
        hosts: set[str] = set()
        for entry in allow:
            if network := _network(entry):
                networks.append(network)
            else:
                hosts.add(parse_host(entry))
        self._networks = tuple(networks)
        self._hosts = frozenset(hosts)

    def check(self, address: str, host: str = "") -> None:
        """Raise ``AddressDenied`` unless this address may be dialled.

        Args:
            address: IPv4 or IPv6 in text form, without a zone.
            host: the canonical name that resolved to it, for exceptions by name.
        """
        try:
            outer: _Address = ipaddress.ip_address(address)
        except ValueError:
            raise AddressDenied("the destination is not an address that can be judged") from None
        if "%" in address:
            raise AddressDenied("the destination is an address with a zone")
        if isinstance(outer, ipaddress.IPv6Address) and outer.ipv4_mapped:
            outer = outer.ipv4_mapped  # the kernel sends IPv4 packets to it
        for judged in (outer, *_embedded(outer)):
            kind = self._refusal(judged, host)
            if kind:
                raise AddressDenied(
                    f"the destination resolves to an address that is refused: {kind}",
                    "an administrator can allow it for the service with --allow-address",
                )

    def _refusal(self, address: _Address, host: str) -> str:
        """What kind of address it is, when it is refused; else empty."""
        exact = _find(_EXACT, address)
        if exact:
            named = any(network.prefixlen == network.max_prefixlen for network in self._containing(address))
            return "" if named else exact
        kind = _find(_REFUSED, address)
        if not kind and address.version == 6 and address not in _GLOBAL_UNICAST and address not in _NAT64:
            kind = "not global unicast (RFC 4291)"
        if kind and (host in self._hosts or any(self._containing(address))):
            return ""
        return kind

    def _containing(self, address: _Address) -> Iterator[_Network]:
        return (network for network in self._networks if address in network)


def _network(entry: str) -> _Network | None:
    """The network of an entry, or ``None`` for a host name."""
    if "/" not in entry:
        try:
            host = parse_host(entry)
            return ipaddress.ip_network(host)
        except ValueError:
            return None
    try:
        network = ipaddress.ip_network(entry)
    except ValueError:
        raise InvalidRequest("an allowed network is not in CIDR form", "write 10.0.0.0/8 or 10.0.0.5/32") from None
    if isinstance(network, ipaddress.IPv6Network) and network.network_address.ipv4_mapped and network.prefixlen >= 96:
        return ipaddress.IPv4Network((network.network_address.ipv4_mapped, network.prefixlen - 96))
    return network


def _find(table: tuple[tuple[_Network, str], ...], address: _Address) -> str:
    return next((kind for network, kind in table if address in network), "")


def _embedded(address: _Address) -> Iterator[ipaddress.IPv4Address]:
    """The IPv4 addresses that an IPv6 address would be translated or tunnelled to."""
    if isinstance(address, ipaddress.IPv4Address):
        return
    value = int(address)
    low = value & 0xFFFFFFFF
    if address in _COMPATIBLE:
        if value > 1:
            yield ipaddress.IPv4Address(low)
    elif address in _NAT64 or address in _NAT64_LOCAL or address in _SIIT:
        yield ipaddress.IPv4Address(low)
    elif address in _SIX_TO_FOUR:
        yield ipaddress.IPv4Address(value >> 80 & 0xFFFFFFFF)
    elif address in _TEREDO:
        yield ipaddress.IPv4Address(value >> 64 & 0xFFFFFFFF)  # the server
        yield ipaddress.IPv4Address(low ^ 0xFFFFFFFF)  # the client, with its bits inverted
    if value >> 32 & 0xFFFFFFFF in _ISATAP:
        yield ipaddress.IPv4Address(low)
