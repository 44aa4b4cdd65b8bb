"""URLs, hosts and path rules: one meaning, whoever reads them."""

import ipaddress
import posixpath
import re
import socket
from urllib.parse import unquote, urlsplit

import yarl

from fuzzing.corpora import lines
from fuzzing.engine import Target, refused
from keyhole.core.errors import KeyholeError
from keyhole.core.host import HostPattern, parse_host
from keyhole.core.target import PathGlob, canonical_target, readings
from keyhole.core.url import parse_url

_HOST = re.compile(r"[a-z0-9_](?:[a-z0-9._-]*[a-z0-9_])?|[0-9a-f:]+")


class Url(Target):
    """URLs and the hosts in them."""

    words = (
        b"http://", b"https://", b"HTTPS://", b"//", b"@", b":", b"#", b"?", b"\\", b"/", b"/../", b"%2e", b"%2F",
        b"%5c", b"%00", b"127.0.0.1", b"0x7f.1", b"0177.0.0.1", b"2130706433", b"[::1]", b"[::ffff:127.0.0.1]",
        b"localhost", b":443", b":0443", b".", b"..", b"xn--", b"xn--nxasmq6b", b"\xe2\x80\x8b", b"\xef\xbc\x8f",
        b"\xe3\x80\x82", b"\xc2\xad", b"\xef\xbc\x91", b"\xe2\x91\xa0", b"\xc3\x9f", b"\xcf\x82", b"%25", b"%252e",
        b";", b"..;a", b"*.", b"a.example", b"\xc0\xae", b"1e3", b"-", b"_", b"%2520", b"%E9", b"1_0",
    )  # fmt: skip

    def corpus(self):
        hosts = [case["value"] for case in lines("core/allowlist_cases.jsonl") if case["kind"] == "host"]
        paths = [case["value"] for case in lines("core/allowlist_cases.jsonl") if case["kind"] == "path"]
        more = [
            "https://Api.Example.com:443/v1/%61?x=1",
            "http://[2001:DB8::1]:8080/a//",
            "https://m\u00fcller.example/\u00e9?\u00e9",
        ]
        urls = [case["url"] for case in lines("net/ssrf_urls.jsonl")] + more
        urls += [f"https://{host}/" for host in hosts] + [f"https://a.example{path}" for path in paths]
        return [url.encode("utf-8", "surrogatepass") for url in urls]

    def check(self, data, rng):
        try:
            scheme, authority, target = parse_url(data)
        except KeyholeError as error:
            return refused(error)
        again = f"{scheme}://{authority}{target.decode('ascii')}"
        assert parse_url(again) == (scheme, authority, target), "the canonical form has another one"
        host = authority.host
        self._host(host)
        for reading, name in ((urlsplit(again), "urlsplit"), (yarl.URL(again, encoded=True), "yarl")):
            their_host = reading.hostname if name == "urlsplit" else reading.raw_host
            port = reading.port or {"http": 80, "https": 443}[scheme]
            assert (their_host, port) == (host, authority.port), f"{name} reads another place: {their_host}:{port}"
        self._path(target)
        pattern = HostPattern.parse(str(authority), 443)
        assert pattern.matches(authority)
        return f"{scheme} {'address' if authority.is_ip else 'name'}"

    @staticmethod
    def _host(host):
        assert _HOST.fullmatch(host), f"that is no canonical host: {host!r}"
        assert parse_host(host) == host
        try:
            number = socket.inet_aton(host)
        except OSError:
            number = None
        if number is not None:
            assert str(ipaddress.IPv4Address(number)) == host, "the resolver of this system reads an address"
        if ":" in host:
            assert ipaddress.IPv6Address(host) == ipaddress.IPv6Address(socket.inet_pton(socket.AF_INET6, host))

    @staticmethod
    def _path(target):
        assert canonical_target(target) == target
        path, meant = target.partition(b"?")[0].decode(), readings(target)
        once = unquote(path)
        for decoded in (path, once, unquote(once), *meant):
            merged = re.sub("/+", "/", decoded)
            last = "/" if merged.endswith("/") and merged != "/" else ""
            assert posixpath.normpath(merged) + last == merged, f"others read another path: {decoded!r}"
            assert decoded == path or {decoded, merged} <= {*meant}, f"others read what nobody judged: {decoded!r}"
            assert "\\" not in decoded
            assert all(part.partition(";")[0].strip(". ") for part in decoded.split("/") if part)


def plainly(pattern, path):
    """A rule, read as its documentation says it."""
    return _from(pattern.split("/")[1:], path.split("/")[1:])


def _from(rule, segments):
    if not rule:
        return not segments
    first, *rest = rule
    if first == "**":
        if not rest:
            return bool(segments)
        return any(_from(rest, segments[skip:]) for skip in range(len(segments) + 1))
    if not segments:
        return False
    if "*" in first and not segments[0]:
        return False
    within = re.compile(".*".join(map(re.escape, first.split("*"))), re.DOTALL)
    return within.fullmatch(segments[0]) is not None and _from(rest, segments[1:])


class Paths(Target):
    """Rules on paths: a pattern and, behind a NUL, a path."""

    words = (
        b"*", b"**", b"/**/", b"/*", b"/", b"\0", b"a", b"ab", b"/a", b"b", b"*a*", b"**/", b"/v1", b"\0/",
    )  # fmt: skip

    def corpus(self):
        rules = ["/v1/**", "/v1/*", "/**/x", "/a*b/**/c*", "/**/a/**/b", "/v1/public/*", "/*", "/**", "/", "/a/"]
        paths = ["/v1/a", "/v1/", "/v1/a/b", "/x", "/a/x", "/aab/x/c", "/a/b/a/b", "/v1/public/a", "/", "/a/"]
        return [f"{rule}\0{path}".encode() for rule in rules for path in paths]

    def check(self, data, rng):
        rule, _, path = data.partition(b"\0")
        try:
            glob = PathGlob(rule.decode("utf-8", "replace"))
            target = canonical_target(path)
        except KeyholeError as error:
            return refused(error)
        outcome = ""
        for reading in readings(target):
            if "%" not in glob.pattern and glob.pattern.isascii():
                normal = canonical_target(glob.pattern.encode()).decode()
                if "%" not in normal:
                    expected = plainly(normal, reading)
                    assert glob.matches(reading) is expected, f"the rule means {expected} for {reading!r}"
            if glob.matches(reading):
                assert glob.denies(reading), "what is allowed is not what is denied by the same rule"
            outcome += "yes" if glob.matches(reading) else "no"
        return outcome
