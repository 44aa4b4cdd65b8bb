"""No spelling of a refused address gets past parser and guard."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyhole.core.errors import AddressDenied, InvalidRequest
from keyhole.core.url import parse_authority, split_url
from keyhole.net.guard import Guard

DATA = Path(__file__).parent.parent / "data" / "net"
CASES = [json.loads(line) for line in (DATA / "ssrf_urls.jsonl").read_text().splitlines()]


def passes(url, resolved):
    """Whether a connection would be made, if names resolved to ``resolved``."""
    try:
        _, authority, _ = split_url(url)
        Guard().check(authority.host if authority.is_ip else resolved, authority.host)
    except (InvalidRequest, AddressDenied):
        return False
    return True


@pytest.mark.parametrize("case", [c for c in CASES if c["must"] == "block"], ids=lambda case: case["id"])
def test_a_url_that_means_an_internal_address_makes_no_connection(case):
    assert not passes(case["url"], case["effective_ip"])


@pytest.mark.parametrize("case", [c for c in CASES if c["must"] != "block"], ids=lambda case: case["id"])
def test_a_url_that_means_a_public_address_is_not_refused(case):
    assert passes(case["url"], "93.184.215.14")


def refused(guard, address, host=""):
    try:
        guard.check(address, host)
    except AddressDenied:
        return True
    return False


def test_one_allowed_address_opens_no_other():
    guard = Guard(allow=["10.0.0.5/32"])
    assert not refused(guard, "10.0.0.5")
    assert not refused(guard, "::ffff:10.0.0.5")
    assert not refused(guard, "64:ff9b::10.0.0.5")
    for address in ("10.0.0.4", "10.0.0.6", "::ffff:10.0.0.6", "64:ff9b::10.0.0.6", "2002:a00:5::1", "::10.0.0.5",
                    "169.254.169.254", "127.0.0.1", "::1", "fd00::1"):  # fmt: skip
        assert refused(guard, address), address


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "169.254.170.2", "169.254.170.23", "100.100.100.200", "168.63.129.16", "192.0.0.192",
     "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "0.0.0.0", "::", "fe80::1", "224.0.0.1", "255.255.255.255"],
)  # fmt: skip
def test_a_metadata_service_is_only_allowed_by_its_exact_address(address):
    wide = Guard(allow=["0.0.0.0/0", "::/0", "169.254.0.0/16", "fd00::/8", "168.63.129.0/24", "metadata.test"])
    assert refused(wide, address, "metadata.test")
    assert refused(wide, "64:ff9b::169.254.169.254")
    assert refused(wide, "::ffff:169.254.169.254")
    exact = Guard(allow=[address])
    assert not refused(exact, address)
    assert refused(exact, "169.254.169.253")


def test_a_host_is_allowed_by_name_for_that_name_only():
    guard = Guard(allow=["Intranet.Example.com."])
    assert not refused(guard, "10.0.0.5", "intranet.example.com")
    assert refused(guard, "10.0.0.5", "other.example.com")
    assert refused(guard, "10.0.0.5")
    assert refused(guard, "169.254.169.254", "intranet.example.com")


def test_networks_are_allowed_in_both_families():
    guard = Guard(allow=["127.0.0.0/8", "fd12::/16", "::ffff:10.1.0.0/112"])
    for address in ("127.0.0.1", "127.255.0.1", "fd12::1", "10.1.0.9"):
        assert not refused(guard, address)
    assert refused(guard, "::1")
    assert refused(guard, "fd13::1")
    assert refused(guard, "10.2.0.1")


@pytest.mark.parametrize(
    "entry", ["10.0.0.5/8", "10.0.0.0/33", "", "a b", "*.example.com", "10.0.0.0/x", "/8", "http://a/"]
)
def test_an_exception_that_is_malformed_is_refused_when_it_is_made(entry):
    with pytest.raises(InvalidRequest):
        Guard(allow=[entry])


@pytest.mark.parametrize(
    "address", ["", "localhost", "fe80::1%eth0", "2606:4700::1%1", "0x7f000001", "127.1", "1.1.1.1 "]
)
def test_only_plain_addresses_are_judged(address):
    with pytest.raises(AddressDenied):
        Guard().check(address)


def test_a_refusal_says_what_kind_of_address_it_is_and_not_which():
    with pytest.raises(AddressDenied) as caught:
        Guard().check("10.20.30.40", "db.internal")
    assert "private" in str(caught.value)
    assert "10.20.30.40" not in str(caught.value)


@given(st.integers(min_value=0, max_value=2**32 - 1))
def test_no_private_address_is_reachable_through_a_translation_or_tunnel(number):
    inner = ipaddress.IPv4Address(number)
    if not refused(Guard(), str(inner)):
        return
    for prefix, shift in ((0xFFFF << 32, 0), (0x64FF9B << 96, 0), (0x2002 << 112, 80), (0, 0), (0x20010000 << 96, 64),
                          (0x2A000000 << 96 | 0x5EFE << 32, 0)):  # fmt: skip
        assert refused(Guard(), str(ipaddress.IPv6Address(prefix | number << shift)))


@given(st.ip_addresses())
def test_nothing_that_the_standard_library_knows_as_internal_is_passed(address):
    if address.is_private or address.is_loopback or address.is_link_local or address.is_multicast:
        mapped = getattr(address, "ipv4_mapped", None)
        assert refused(Guard(), str(address)) or mapped


def test_a_host_in_any_spelling_is_judged_as_the_address_it_is_dialled_as():
    for text in ("0x7f.1", "2130706433", "127.1", "[::ffff:7f00:1]", "127.0.0.1."):
        assert refused(Guard(), parse_authority(text, 80).host)
