"""Hosts and authorities in one canonical form, and the host patterns of services.

1. The canonical host is the one that is judged, resolved, dialled, sent as SNI and written into ``Host``.
2. It is in lower case, in A-labels (UTS #46 non-transitional, STD 3), without the root dot; an IPv4 address is a dotted
   quad, an IPv6 address is compressed text without brackets (RFC 5952, with the embedded IPv4 part in hexadecimal).
3. A host whose last label looks like a number is an IPv4 address as the WHATWG URL standard reads it (``127.1``,
   ``0x7f000001``), because some resolver would read it so; when it is none, it is refused. So are numbers with leading
   zeros, which some read as octal and others as decimal (CVE-2021-29921).
4. A label may have underscores, as names in networks of containers and many in the DNS have (RFC 2181, section 11).
5. What some parsers would drop, decode or cut is refused: userinfo, ``%``, zero-width characters, spaces, controls.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from dataclasses import dataclass
from typing import NamedTuple

import idna

from keyhole.core.codepoints import is_invisible
from keyhole.core.errors import InvalidRequest

_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\Z")  # RFC 1123, section 2.1, and the underscore
_PORT = re.compile(r"[1-9][0-9]{0,4}\Z")
_NUMERIC = re.compile(r"(?:[0-9]+|0x[0-9a-f]*)\Z")
_OCTAL = re.compile(r"0[0-9]")
_IPV6 = re.compile(r"[0-9A-Fa-f:.]{2,45}\Z")
_MAX_NAME = 253
DEFAULT_PORTS = {"http": 80, "https": 443}

# Reserved for private use, so that one label below them is not a registry (RFC 6761, RFC 6762, ICANN 2024-07-29).
_PRIVATE_SUFFIXES = frozenset({"test", "localhost", "local", "internal"})

_HINT = "give a plain host name or address, such as api.example.com"


class Authority(NamedTuple):
    """Where a call goes: a canonical host and a port from 1 to 65535."""

    host: str
    port: int

    @property
    def is_ip(self) -> bool:
        """Whether the host is an address and not a name."""
        return ":" in self.host or self.host.rpartition(".")[2].isdigit()

    @property
    def bracketed(self) -> str:
        """The host as it stands in a URL: an IPv6 address in brackets."""
        return f"[{self.host}]" if ":" in self.host else self.host

    def header(self, scheme: str) -> bytes:
        """The value of ``Host``: without the port where the scheme implies it (RFC 9110, section 7.2)."""
        return (self.bracketed if DEFAULT_PORTS.get(scheme) == self.port else str(self)).encode()

    def __str__(self) -> str:
        return f"{self.bracketed}:{self.port}"


@dataclass(frozen=True, slots=True)
class HostPattern:
    """The host of a service: a name, an address, or ``*.`` before a name for exactly one more label.

    Attributes:
        host: canonical host, without the ``*.`` of a wildcard.
        port: the only port that matches.
        wildcard: whether one label stands before ``host``.
    """

    host: str
    port: int
    wildcard: bool

    @classmethod
    def parse(cls, text: str, default_port: int) -> HostPattern:
        """Read ``host[:port]`` or ``*.host[:port]``. Raises ``InvalidRequest`` for a ``*`` in any other place."""
        wildcard = text.startswith("*.")
        authority = parse_authority(text[2:] if wildcard else text, default_port)
        if wildcard and authority.is_ip:
            raise InvalidRequest("a wildcard stands before an address", "name each address")
        if wildcard and "." not in authority.host and authority.host not in _PRIVATE_SUFFIXES:
            raise InvalidRequest(
                "the wildcard would cover a whole top-level domain", "use *.example.com, or name each host"
            )
        return cls(authority.host, authority.port, wildcard)

    def matches(self, authority: Authority) -> bool:
        """Whether this canonical authority is meant."""
        if authority.port != self.port:
            return False
        if not self.wildcard:
            return authority.host == self.host
        label, dot, rest = authority.host.partition(".")
        return bool(label and dot) and rest == self.host and not authority.is_ip

    def covers(self, other: HostPattern) -> bool:
        """Whether everything that the other one means is meant by this one as well."""
        if other.wildcard:
            return self == other
        return self.matches(Authority(other.host, other.port))

    @property
    def specificity(self) -> tuple[int, int]:
        """Sorts patterns that match the same host: the greater one is the more specific."""
        return (0 if self.wildcard else 1, len(self.host))

    def __str__(self) -> str:
        return f"{'*.' if self.wildcard else ''}{Authority(self.host, self.port)}"


def parse_authority(text: str | bytes, default_port: int | None) -> Authority:
    """Read ``host[:port]`` as it stands in ``Host`` and ``CONNECT`` (RFC 9110, section 7.2 and 9.3.6).

    Args:
        text: the authority; an IPv6 address stands in brackets.
        default_port: the port when none is written; ``None`` when it has to be written.

    Raises:
        InvalidRequest: it is not exactly one host and one port.
    """
    text = _text(text)
    if text.startswith("["):
        end = text.find("]") + 1
        host, rest = text[:end], text[end:]
        if not end or (rest and not rest.startswith(":")):
            raise InvalidRequest("the address in brackets is malformed", "write [address]:port")
        colon, port = rest[:1], rest[1:]
    else:
        host, colon, port = text.partition(":")
        if not host:
            raise InvalidRequest("the host is empty", _HINT)
    if colon:
        if not _PORT.match(port) or int(port) > 65535:
            hint = (
                "write the host alone, without a scheme"
                if port.startswith("//")
                else "write host:port, for example host:443"
            )
            raise InvalidRequest("the port is not a number from 1 to 65535", hint)
        return Authority(parse_host(host), int(port))
    if default_port is None:
        raise InvalidRequest("the port is missing", "write host:port, for example host:443")
    return Authority(parse_host(host), default_port)


def parse_host(text: str | bytes) -> str:
    """The canonical form of one host: a name, an IPv4 address, or an IPv6 address with or without brackets.

    Idempotent: a canonical host is its own canonical form.

    Raises:
        InvalidRequest: it is malformed, or two programs could read it differently.
    """
    return _parse_host(_text(text))


def _text(text: str | bytes) -> str:
    if isinstance(text, str):
        return text
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise InvalidRequest("the host is not UTF-8", _HINT) from None


@functools.lru_cache(maxsize=4096)
def _parse_host(text: str) -> str:
    if text.startswith("[") and text.endswith("]"):
        return _ipv6(text[1:-1])
    if ":" in text:
        return _ipv6(text)
    labels = _labels(text)
    if _NUMERIC.match(labels[-1].replace("_", "")):  # some read 1_0 as a number
        return _ipv4(labels)
    host = ".".join(_a_label(label) for label in labels)
    if len(host) > _MAX_NAME:
        raise InvalidRequest(f"the host is longer than {_MAX_NAME} characters", _HINT)
    return host


def _labels(text: str) -> list[str]:
    if len(text) > 4 * _MAX_NAME:
        raise InvalidRequest(f"the host is longer than {_MAX_NAME} characters", _HINT)
    if any(is_invisible(char) for char in text):
        raise InvalidRequest("the host has a character that cannot be seen", _HINT)
    if text.isascii():
        text = text.lower()
    else:
        try:
            text = idna.uts46_remap(text, std3_rules=True, transitional=False)
        except UnicodeError:
            raise InvalidRequest("the host has a character that no host name may have (UTS #46)", _HINT) from None
    labels = text.removesuffix(".").split(".")
    if "" in labels:
        raise InvalidRequest("the host has an empty label", _HINT)
    return labels


def _a_label(label: str) -> str:
    try:
        if not label.isascii():
            return idna.alabel(label).decode()
        if label.startswith("xn--"):
            if idna.alabel(idna.ulabel(label)).decode() != label:
                raise InvalidRequest("the host has an A-label that is not in normal form", _HINT)
            return label
    except UnicodeError:
        raise InvalidRequest("the host has a label that IDNA 2008 does not allow", _HINT) from None
    if not _LABEL.match(label):
        raise InvalidRequest("a label of the host is not 1 to 63 letters, digits, underscores and inner hyphens", _HINT)
    return label


def _ipv4(labels: list[str]) -> str:
    """Read a numeric host as the WHATWG URL standard does (section 3.5, "IPv4 parser"), but for octal numbers."""
    if len(labels) > 4 or not all(_NUMERIC.match(label) and len(label) <= 64 for label in labels):
        raise InvalidRequest("the host ends in a number and is not an IPv4 address", _HINT)
    if any(_OCTAL.match(label) for label in labels):
        raise InvalidRequest("the host is an IPv4 address with leading zeros", "write it as a dotted quad")
    numbers = [int(label[2:] or "0", 16) if label.startswith("0x") else int(label) for label in labels]
    *heads, last = numbers
    if any(number > 255 for number in heads) or last >= 256 ** (5 - len(numbers)):
        raise InvalidRequest("the host is an IPv4 address with a number out of range", _HINT)
    return str(ipaddress.IPv4Address(last + sum(head << (24 - 8 * place) for place, head in enumerate(heads))))


def _ipv6(text: str) -> str:
    if not _IPV6.match(text):
        raise InvalidRequest("the host is not an IPv6 address", _HINT)
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        raise InvalidRequest("the host is not an IPv6 address", _HINT) from None
    if address.ipv4_mapped:  # Python writes these in two ways, depending on its version
        value = int(address.ipv4_mapped)
        return f"::ffff:{value >> 16:x}:{value & 0xFFFF:x}"
    return address.compressed
