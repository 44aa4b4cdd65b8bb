"""Whether a role allows what a certificate is asked to say of its owner. Pure: every name is judged alone."""

from __future__ import annotations

import fnmatch
import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any

from keyhole.core.errors import InvalidRequest
from keyhole.core.fields import parse_switch, parse_text, parse_texts
from keyhole.crypto.pki import SUBJECT_FIELDS, AltNames, Subject

_HOSTNAME = re.compile(
    r"(?=.{1,253}\Z)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.?",
    re.IGNORECASE,
)
_MOST_NAMES = 1000


def asked_names(data: Mapping[str, Any]) -> AltNames:
    """The alternative names in request data. Raises ``InvalidRequest`` for what is not one of its type."""
    found = parse_texts(data.get("alt_names"), "alt_names", most=_MOST_NAMES)
    ips = parse_texts(data.get("ip_sans"), "ip_sans", most=_MOST_NAMES)
    try:
        addresses = tuple(str(ipaddress.ip_address(ip)) for ip in ips)
    except ValueError:
        raise InvalidRequest("ip_sans has something that is no address", "write like 10.0.0.7") from None
    return AltNames(
        tuple(name for name in found if "@" not in name),
        tuple(name for name in found if "@" in name),
        addresses,
        tuple(parse_texts(data.get("uri_sans"), "uri_sans", most=_MOST_NAMES)),
        tuple(_other(text) for text in parse_texts(data.get("other_sans"), "other_sans", most=_MOST_NAMES)),
    )


def _other(text: str) -> tuple[str, str]:
    oid, semicolon, rest = text.partition(";")
    kind, colon, value = rest.partition(":")
    if not semicolon or not colon or kind.lower() not in {"utf8", "utf-8"}:
        raise InvalidRequest("other_sans are written OID;UTF8:TEXT")
    return oid.strip(), value


def with_common_name(names: AltNames, common_name: str) -> AltNames:
    """The names, and the common name among them where it is a mail address or a host name."""
    if "@" in common_name:
        return _replace(names, emails=_once((*names.emails, common_name)))
    if _HOSTNAME.fullmatch(common_name.removeprefix("*.")):
        return _replace(names, dns=_once((*names.dns, common_name)))
    return names


def _replace(names: AltNames, **fields: tuple[str, ...]) -> AltNames:
    kept = {"dns": names.dns, "emails": names.emails, "ips": names.ips, "uris": names.uris}
    return AltNames(**{**kept, **fields}, others=names.others)


def _once(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def subject_of(data: Mapping[str, Any], common_name: str) -> Subject:
    """A subject from the fields of a role or a request."""
    fields = tuple((name, tuple(parse_texts(data.get(name), name))) for name in SUBJECT_FIELDS if data.get(name))
    return Subject(common_name, "", fields)


def excluded(data: Mapping[str, Any]) -> bool:
    """Whether the common name is kept out of the alternative names."""
    return parse_switch(data.get("exclude_cn_from_sans"), "exclude_cn_from_sans")


def common_name_of(data: Mapping[str, Any]) -> str:
    """The common name that is asked for."""
    return parse_text(data.get("common_name"), "common_name").strip()


def check(role: Mapping[str, Any], subject: Subject, names: AltNames, display: str) -> None:
    """Raises ``InvalidRequest`` for the first name that the role does not allow.

    Args:
        role: its settings.
        subject: that is asked for.
        names: alternative names that are asked for.
        display: name of who asks.
    """
    if subject.common_name:
        _check_common_name(role, subject.common_name, display)
    for name in (*names.dns, *names.emails):
        if not _allowed(role, name, display):
            raise InvalidRequest(f"subject alternate name {name[:200]} not allowed by this role")
    if names.ips and not role["allow_ip_sans"]:
        raise InvalidRequest(
            f"IP Subject Alternative Names are not allowed in this role, but was provided {names.ips[0]}"
        )
    for uri in names.uris:
        if not any(_glob(pattern, uri) for pattern in role["allowed_uri_sans"]):
            raise InvalidRequest(
                "URI Subject Alternative Names were provided via 'uri_sans' which are not valid for role"
            )
    for oid, value in names.others:
        if not any(_other_fits(pattern, oid, value) for pattern in role["allowed_other_sans"]):
            raise InvalidRequest(f"other SAN OID {oid} not allowed by this role")
    if subject.serial_number and not any(_glob(p, subject.serial_number) for p in role["allowed_serial_numbers"]):
        raise InvalidRequest("serial_number of the subject not allowed by this role")


def _check_common_name(role: Mapping[str, Any], name: str, display: str) -> None:
    checks = role["cn_validations"]
    if "disabled" in checks:
        if _HOSTNAME.fullmatch(name.removeprefix("*.")) or "@" in name:
            fits = _allowed(role, name, display)
        else:
            fits = role["allow_any_name"]
    else:
        fits = ("email" if "@" in name else "hostname") in checks and _allowed(role, name, display)
    if not fits:
        raise InvalidRequest(f"common name {name[:200]} not allowed by this role")


def _allowed(role: Mapping[str, Any], name: str, display: str) -> bool:
    """Is a host name or a mail address one that the role allows?"""
    local, at, host = name.rpartition("@")
    host = host.lower()
    is_mail = bool(at)
    if (is_mail and (not local or "@" in local)) or not name.isascii() or not name.isprintable() or " " in host:
        return False
    wildcard = "*" in host
    if wildcard:
        # One star that is the whole first label; clients take no other form (RFC 9525, section 6.3).
        if is_mail or not role["allow_wildcard_certificates"] or not host.startswith("*.") or "*" in host[1:]:
            return False
        if "." not in host[2:] and not role["allow_any_name"]:
            return False
    plain = host.removeprefix("*.")
    if (role["enforce_hostnames"] or is_mail) and not _HOSTNAME.fullmatch(plain):
        return False
    if role["allow_any_name"]:
        return True
    if role["allow_localhost"] and not wildcard and plain in {"localhost", "localdomain"}:
        return True
    if role["allow_token_displayname"] and display and _below(role, display.lower(), host, plain, is_mail=is_mail):
        return True
    return any(_fits(role, domain.lower(), host, plain, is_mail=is_mail) for domain in role["allowed_domains"])


def _fits(role: Mapping[str, Any], domain: str, host: str, plain: str, *, is_mail: bool) -> bool:
    if _below(role, domain, host, plain, is_mail=is_mail):
        return True
    return bool(role["allow_glob_domains"]) and "*" in domain and _glob(domain, host)


def _below(role: Mapping[str, Any], domain: str, host: str, plain: str, *, is_mail: bool) -> bool:
    """The domain itself, or what is below it; ``*.example.com`` is below ``example.com``."""
    if role["allow_bare_domains"] and host == domain:
        return True
    if not role["allow_subdomains"]:
        return False
    return plain.endswith(f".{domain}") or (plain == domain and host != plain and not is_mail)


def _glob(pattern: str, text: str) -> bool:
    """``*`` stands for any characters, and nothing else has a meaning."""
    escaped = re.sub(r"([\[?])", r"[\1]", pattern)
    return fnmatch.fnmatchcase(text, escaped)


def _other_fits(pattern: str, oid: str, value: str) -> bool:
    if pattern == "*":
        return True
    try:
        allowed, text = _other(pattern)
    except InvalidRequest:
        return False
    return allowed == oid and _glob(text, value)
