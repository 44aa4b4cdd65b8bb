"""One canonical form for hosts, URLs and targets: what is judged is what is dialled and sent."""

from __future__ import annotations

import json
import os
import re
import tarfile
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyhole.core.errors import BadRequestFraming, InvalidRequest, KeyholeError
from keyhole.core.url import (
    Authority,
    HostPattern,
    PathGlob,
    canonical_target,
    parse_authority,
    parse_host,
    parse_url,
    readings,
    split_url,
)

DATA = Path(__file__).parent.parent / "data" / "core"
CASES = [json.loads(line) for line in (DATA / "allowlist_cases.jsonl").read_text().splitlines()]


def case_id(case):
    return case["id"]


@pytest.mark.parametrize("case", [c for c in CASES if c["kind"] == "host"], ids=case_id)
def test_only_the_allowed_host_in_any_spelling_gets_the_credential(case):
    pattern = HostPattern.parse(case["policy"]["host"], case["policy"]["port"])
    try:
        matched = pattern.matches(parse_authority(case["value"], 443))
    except InvalidRequest:
        matched = False
    assert matched == (case["must"] == "allow")


@pytest.mark.parametrize("case", [c for c in CASES if c["kind"] == "path"], ids=case_id)
def test_no_spelling_of_a_path_evades_the_path_rules(case):
    allow, deny = PathGlob("/v1/public/**"), PathGlob("/v1/admin/**")
    try:
        paths = readings(canonical_target(case["value"].encode()))
        allowed = all(allow.matches(path) and not deny.denies(path) for path in paths)
    except (InvalidRequest, BadRequestFraming):
        allowed = False
    assert allowed == (case["must"] == "allow")


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("API.Stripe.com", "api.stripe.com"),
        ("api.stripe.com.", "api.stripe.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
        ("faß.de", "xn--fa-hia.de"),
        ("r3---sn-abc.example.com", "r3---sn-abc.example.com"),
        ("localhost", "localhost"),
        ("Project_web_1", "project_web_1"),
        ("_dmarc.my_bucket.s3.example.com", "_dmarc.my_bucket.s3.example.com"),
        ("0x7f000001", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("\uff12130706433", "127.0.0.1"),
        ("0x7f.0.0.1.", "127.0.0.1"),
        ("255.255.255.255", "255.255.255.255"),
        ("[::FFFF:127.0.0.1]", "::ffff:7f00:1"),
        ("[2001:DB8:0:0::1]", "2001:db8::1"),
        ("::1", "::1"),
        ("[::]", "::"),
    ],
)
def test_a_host_has_one_canonical_form(text, host):
    assert parse_host(text) == host
    assert parse_host(text.encode()) == host
    assert parse_host(host) == host


@pytest.mark.parametrize(
    "text",
    [
        "", ".", "..", "a..b", ".a", "a b", "a\tb", "a\n", "a\x00", "a%00b", "a%2eb", "user@a", "a/b", "a\\b", "a#b",
        "a?b", "*", "*.a.test", "a.1_0", "127.0.0.1_", "0x7f_1", "é_b.test",
        "-a.test", "a-.test", "a,b", "a;b", "a\u200bb.test", "a\u00adb.test",
        "a\u202eb.test", "x" * 64 + ".test", "a." * 127 + "test", "256.0.0.1", "1.2.3.4.5", "a.0x", "a.1",
        "08.0.0.1",
        "010.0.0.1", "017700000001", "127.0.0.01", "4294967296", "1.16777216", "127.0.0.1.1",
        "[127.0.0.1]", "[::1", "::1]", "[::1%eth0]", "[::g]",
        "[1:2:3:4:5:6:7:8:9]", "[::1]x", "xn--a", "xn--", "xn--zzzzzzzzzzzz", "\u2460.\ufe52", b"\xff.test", "[]",
        "xn--bcher-kva8445foa.\u0301", "a\u0301\u2044b.test", "a\u2100b.test",
    ],
)  # fmt: skip
def test_a_host_that_two_programs_could_read_differently_is_refused(text):
    with pytest.raises(InvalidRequest):
        parse_host(text)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("API.example.com", "api.example.com:443"),
        ("api.example.com:8443", "api.example.com:8443"),
        ("[::1]:80", "[::1]:80"),
        ("[::1]", "[::1]:443"),
        ("127.1:1", "127.0.0.1:1"),
    ],
)
def test_an_authority_is_printed_as_it_is_dialled(text, canonical):
    assert str(parse_authority(text, 443)) == canonical


@pytest.mark.parametrize(
    "text",
    ["a:", "a:0", "a:+80", "a:080", "a:65536", "a:8o", "a:80:80", "a: 80", ":80", "", "::1", "::1:80", "[::1]80",
     "[::1", "u@a:80", "a:٨٠", "a:80\n"],
)  # fmt: skip
def test_an_authority_without_exactly_one_port_is_refused(text):
    with pytest.raises(InvalidRequest):
        parse_authority(text, 443)


def test_connect_needs_a_written_port():
    with pytest.raises(InvalidRequest):
        parse_authority("api.example.com", None)
    assert parse_authority("api.example.com:443", None) == Authority("api.example.com", 443)


def test_the_host_header_leaves_out_the_port_that_the_scheme_implies():
    assert Authority("a.test", 443).header("https") == b"a.test"
    assert Authority("a.test", 443).header("http") == b"a.test:443"
    assert Authority("::1", 80).header("http") == b"[::1]"
    assert Authority("127.0.0.1", 80).is_ip
    assert Authority("::1", 80).is_ip
    assert not Authority("a.test", 80).is_ip
    assert not Authority("db1", 80).is_ip
    assert not Authority("replica.db_1", 80).is_ip


def test_a_wildcard_covers_exactly_one_label():
    pattern = HostPattern.parse("*.Example.com", 443)
    assert pattern.matches(Authority("api.example.com", 443))
    assert not pattern.matches(Authority("example.com", 443))
    assert not pattern.matches(Authority("a.b.example.com", 443))
    assert not pattern.matches(Authority("evilexample.com", 443))
    assert not pattern.matches(Authority("api.example.com", 8443))
    assert HostPattern.parse("api.example.com:8443", 443).matches(Authority("api.example.com", 8443))
    assert HostPattern.parse("api.example.com", 443).specificity > pattern.specificity
    assert str(pattern) == "*.example.com:443"


@pytest.mark.parametrize(
    "text", ["*example.com", "a.*.com", "*", "*.", "*.*.com", "*.com", "*.0.0.1", "*.[::1]", "**.a.b"]
)
def test_a_wildcard_in_any_other_place_is_refused(text):
    with pytest.raises(InvalidRequest):
        HostPattern.parse(text, 443)


def test_a_url_is_read_into_scheme_authority_and_canonical_target():
    assert parse_url("HTTPS://API.example.com./v1/%61?x=%zz") == (
        "https",
        Authority("api.example.com", 443),
        b"/v1/a?x=%zz",
    )
    assert parse_url(b"http://a.test") == ("http", Authority("a.test", 80), b"/")
    assert parse_url("http://a.test:81?q") == ("http", Authority("a.test", 81), b"/?q")


@pytest.mark.parametrize(
    "text",
    ["ftp://a/", "//a/", "/a", "http:a", "http:/a", "http:///a", "http:\\\\a\\", "https://u:p@a/", "https://@a/",
     "https://a/#f", "https://a#f", "https://a\\@b/", " https://a/", "https://a/\ud800", b"https://a\xff/", "",
     "https://a/../b", "https://a/%2e/b"],
)  # fmt: skip
def test_a_url_that_is_not_plain_http_is_refused(text):
    with pytest.raises(InvalidRequest):
        parse_url(text)


def test_a_refused_url_does_not_repeat_its_password():
    with pytest.raises(InvalidRequest) as caught:
        parse_url("https://user:hunter2@api.example.com/")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("target", "canonical"),
    [
        (b"/", b"/"),
        (b"/v1/%61%2d%7E", b"/v1/a-~"),
        (b"/v1/\xc3\xa9/%c3%a9", b"/v1/%C3%A9/%C3%A9"),
        (b"/a{b}|[c]^", b"/a%7Bb%7D%7C%5Bc%5D%5E"),
        (b"/a%20b/100%25/c%3Bd", b"/a%20b/100%25/c%3Bd"),
        (b"/a;v=1/b:c@d,e=f!$&'()*+", b"/a;v=1/b:c@d,e=f!$&'()*+"),
        (b"/compare/a...b/.well-known/x..y/", b"/compare/a...b/.well-known/x..y/"),
        (b'/a?q=%zz&u=http://x/../%2f{}|"<>\\&a=1&a=2', b'/a?q=%zz&u=http://x/../%2f{}|"<>\\&a=1&a=2'),
        (b"/a?q=\xe9", b"/a?q=%E9"),
    ],
)  # fmt: skip
def test_a_target_has_one_normal_form(target, canonical):
    assert canonical_target(target) == canonical
    assert canonical_target(canonical) == canonical


@pytest.mark.parametrize(
    "target",
    [b"/..", b"/.", b"/a/./b", b"/a/%2E%2e/b", b"/a/.%2e", b"/..;/a", b"/..;x=1/a", b"/..%3b/a", b"/%2e%2e%3Bx/a",
     b"/;/a", b"/%3bx/a", b"/a/..%20/b", b"/a/%20/b", b"/...", b"/a%5Cb", b"/a//../b", b"//..", b"//a/..",
     b"/a/%252e%252e/b", b"/a/%25%32%65./b", b"/a/%252e/b", b"/a%255cb", b"/a%2500", b"/a%250d%250ab", b"/%253bx/a",
     b"/%25252f", b"/%252541", b"/a%252fb%2fc", b"/a%25u002e%25U002E", b"/%2f..", b"/a%2F.%2Fb", b"//%2e%2e",
     b"/%E9/.%E9.", b"/.%80/b", b"/a/%A0/b", b"/..%C0%AF", b"/%c0%2f", b"/%c1%9c", b"/%E0A.", b"/%f0%80%80%ae",
     b"/%f8%80%80%80%ae", b"//a%25e9/%2F%2Fb", b"/\xe9/%25e9/%2f/",
     b"/a\\b", b"/a%00", b"/a%0d%0ab", b"/a%7f", b"/a%",
     b"/a%2", b"/a%zz", b"/%u002e", b"/%c0%ae", b"/%e0%80%af", b"/%ed%a0%80",
     "/a/\u2025/b".encode(), "/a\uff0fb".encode(), "/\uff0e\uff0e/b".encode(), "/a\uff05".encode(),
     b"/" + ("a" + "\u0315\u0300" * 16).encode(),
     "/.\u200b./b".encode(), "/a\u2105b".encode(), "/..\u037e/b".encode()],
)  # fmt: skip
def test_a_path_that_can_be_read_in_two_ways_is_refused(target):
    with pytest.raises(InvalidRequest):
        canonical_target(target)


@pytest.mark.parametrize(
    "target",
    [b"", b"*", b"a", b"?a", b"http://a/", b"/a b", b"/a\t", b"/a\r\nX: y", b"/a\x00", b"/a#b", b"/a?b c", b"/a?\x7f"],
)
def test_bytes_that_no_request_line_may_have_are_refused(target):
    with pytest.raises(BadRequestFraming):
        canonical_target(target)


@pytest.mark.parametrize(
    ("target", "meant"),
    [
        (b"/https://example.com/a", ["/https://example.com/a", "/https:/example.com/a"]),
        (b"/bucket//key/", ["/bucket//key/", "/bucket/key/"]),
        (b"/a//", ["/a//", "/a/"]),
        (b"//v1//admin/keys", ["//v1//admin/keys", "/v1/admin/keys", "//admin/keys", "/admin/keys", "/keys"]),
        (b"//v1", ["//v1", "/v1", "/"]),
        (b"/sites/https%3A%2F%2Fa.b%2F", ["/sites/https://a.b/", "/sites/https:/a.b/", "/sites/https:%2F%2Fa.b%2F"]),
        (b"/a%2520b", ["/a%20b", "/a b"]),
        (b"/job/feature%252Fx", ["/job/feature%2Fx", "/job/feature/x"]),
        (b"/100%25", ["/100%"]),
        (b"/%2525", ["/%25", "/%"]),
        (b"/caf%E9/ad%FFmin", ["/café/adÿmin", "/caf\ufffd/ad\ufffdmin", "/caf/admin"]),
        (b"/x/%E9/y", ["/x/é/y", "/x/\ufffd/y", "/x//y", "/x/y"]),
        (b"/a%FCb%E4", ["/aübä", "/a\ufffdb\ufffd", "/ab"]),
    ],
)  # fmt: skip
def test_a_path_with_several_meanings_is_sent_as_it_is_and_has_them_all(target, meant):
    assert canonical_target(target) == target
    assert list(readings(target)) == meant


RESOLVED = st.sampled_from(["", "merge", "parser"])
CHARSETS = st.sampled_from([("latin-1", "strict"), ("utf-8", "replace"), ("utf-8", "ignore")])


def decoded_by_a_server(path, charset, *, slashes):
    path = path if slashes else re.sub("%2f", "%252F", path, flags=re.IGNORECASE)
    try:
        return unquote(path, errors="strict")
    except UnicodeDecodeError:
        return unquote(path, *charset)


def resolved_by_a_server(path, how):
    if how == "parser" and path.startswith("//"):
        return urlsplit("http:" + re.sub("^/+", "//", path)).path or "/"
    return re.sub("/+", "/", path) if how == "merge" else path


@given(
    st.lists(st.sampled_from(["/", "a", "%2F", "%2f", "%25", "%32%46", "2F", "41", "%E9", "%FF", "é", ".", ";", "E9"]),
             max_size=9),
    st.lists(st.tuples(RESOLVED, CHARSETS, st.booleans()), min_size=1, max_size=2),
    RESOLVED,
)  # fmt: skip
def test_what_a_server_makes_of_an_accepted_path_is_among_its_readings(parts, steps, last):
    try:
        target = canonical_target(b"/" + "".join(parts).encode())
    except KeyholeError:
        return
    meant = readings(target)
    path = target.decode()
    for how, charset, slashes in steps:
        path = decoded_by_a_server(resolved_by_a_server(path, how), charset, slashes=slashes)
    assert resolved_by_a_server(path, last) in meant


@given(st.binary(max_size=40))
def test_the_normal_form_is_stable_and_means_the_same_to_every_decoder(tail):
    try:
        target = canonical_target(b"/" + tail)
    except KeyholeError:
        return
    assert canonical_target(target) == target
    assert target.isascii()
    for path in readings(target):
        assert not {".", ".."} & {part.partition(";")[0] for part in path.split("/")}
    once, *others = readings(target)
    if others:
        return
    # A server that decodes, decodes again, or resolves dot segments sees the very same segments.
    assert once.split("/") == [unquote(part) for part in target.partition(b"?")[0].decode().split("/")]
    assert unquote(once) == once


@given(st.text(alphabet="aA.-_0x19:[]%@é\u3002\uff0e\u200d", max_size=20))
def test_a_canonical_host_is_its_own_canonical_form(text):
    try:
        host = parse_host(text)
    except InvalidRequest:
        return
    assert host.isascii()
    assert parse_host(host) == host
    authority = Authority(host, 443)
    assert urlsplit(f"https://{authority}/").hostname == host
    assert parse_authority(str(authority), None) == authority


def wpt(name):
    root = os.environ.get("KEYHOLE_VECTORS")
    if not root:
        pytest.skip(f"KEYHOLE_VECTORS is not set: the WPT URL vectors in {name} did not run")
    with tarfile.open(Path(root) / "third-party" / "url-wpt.tar.gz") as archive:
        member = archive.extractfile(f"url-wpt/{name}")
        assert member is not None
        return [row for row in json.loads(member.read()) if isinstance(row, dict)]


def ascii_host(host):
    return host.strip("[]").removesuffix(".")


@pytest.mark.vectors
@pytest.mark.parametrize("name", ["urltestdata.json", "ada_extra_urltestdata.json", "ada_long_urltestdata.json"])
def test_no_accepted_url_has_another_host_than_the_url_standard_gives_it(name):
    accepted = 0
    for row in wpt(name):
        try:
            scheme, authority, _ = split_url(row["input"])
        except InvalidRequest:
            continue
        accepted += 1
        if row.get("failure"):
            with pytest.raises(InvalidRequest):  # then it is the base that fails
                split_url(row["base"])
            continue
        assert ascii_host(row["hostname"]) == authority.host, row["input"]
        assert row["protocol"] == scheme + ":"
        assert row["port"] in {"", str(authority.port)}
    assert accepted > 20 or name != "urltestdata.json"


@pytest.mark.vectors
@pytest.mark.parametrize("name", ["toascii.json", "IdnaTestV2.json", "verifydnslength_tests.json"])
def test_no_accepted_host_has_another_a_label_than_the_url_standard_gives_it(name):
    accepted = 0
    for row in wpt(name):
        try:
            host = parse_host(row["input"])
        except InvalidRequest:
            continue
        accepted += 1
        assert row["output"] is not None, row["input"]
        assert ascii_host(row["output"]) == host, row["input"]
    assert accepted > 5 or name == "verifydnslength_tests.json"


def test_a_segment_that_cannot_be_seen_is_a_segment_also_for_a_rule_that_denies():
    rule, found = PathGlob("/*"), readings(canonical_target(b"/%86"))
    assert "/\x86" in found
    assert all(rule.denies(reading) for reading in found if rule.matches(reading))


def test_a_url_where_a_host_is_meant_is_told_so():
    with pytest.raises(InvalidRequest) as caught:
        parse_authority("https://api.example.com", 443)
    assert caught.value.hint == "write the host alone, without a scheme"
