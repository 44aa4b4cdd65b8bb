"""The kinds of devices and their options."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keyhole.core.cidr import parse_cidrs
from keyhole.core.errors import InvalidRequest
from keyhole.core.lease import parse_duration
from keyhole.core.numbers import parse_flag

if TYPE_CHECKING:
    from keyhole.net.delivery import Outgoing, Way

_COMMON = {"format", "prefix", "log_raw", "hmac_accessor", "elide_list_responses", "write_timeout"}
_PREFIX = re.compile(r"(?:[@A-Za-z0-9_.-]{1,31}: ?)?")
_TAG = re.compile(r"[A-Za-z0-9_.-]{1,32}")
_MODE = re.compile(r"0?[0-7]{3}")
_LONGEST = 30
_USUAL_SECONDS = 2
_SYSLOG = "/dev/log"
_INFO = 6
# RFC 5424, section 6.2.1
_NAMED = ("KERN", "USER", "MAIL", "DAEMON", "AUTH", "SYSLOG", "LPR", "NEWS", "UUCP", "CRON", "AUTHPRIV", "FTP", "NTP")
_FACILITIES = (*_NAMED, "AUDIT", "ALERT", "CLOCK", *(f"LOCAL{number}" for number in range(8)))


@dataclass(frozen=True, slots=True)
class Made:
    """A device that is made but not used.

    Attributes:
        way: where its lines go.
        prefix: what each line begins with.
        seconds: how long it may take.
        hash_accessors, elide_lists: see ``entries.Style``.
    """

    way: Way
    prefix: bytes
    seconds: float
    hash_accessors: bool
    elide_lists: bool


def make(kind: str, options: Mapping[str, Any], outgoing: Callable[[], Outgoing]) -> Made:
    """A device of this kind. Nothing is opened.

    Raises:
        InvalidRequest: an option is unknown, missing or wrong.
    """
    if kind not in _KINDS:
        raise InvalidRequest(f'unknown backend type: "{kind[:40]}"', f"use one of {', '.join(_KINDS)}")
    known, build = _KINDS[kind]
    unknown = options.keys() - known - _COMMON
    if unknown:
        raise InvalidRequest(f"unknown option {min(unknown)[:40]!r}", f"known: {', '.join(sorted(known | _COMMON))}")
    if any(not isinstance(value, str | int) for value in options.values()):
        raise InvalidRequest("an option is a text, a number, or true or false")
    if str(options.get("format") or "json") != "json":
        raise InvalidRequest("the only format is json", "leave format out")
    if _flag(options, "log_raw", usual=False):
        raise InvalidRequest(
            "log_raw would write secrets in clear, and nothing in Keyhole does", "look values up by sys/audit-hash"
        )
    prefix = _text(options, "prefix")
    if _PREFIX.fullmatch(prefix) is None:
        raise InvalidRequest("a prefix is a word and a colon", "for example @cee:")
    seconds = parse_duration(options.get("write_timeout", _USUAL_SECONDS), name="write_timeout")
    if not 1 <= seconds <= _LONGEST:
        raise InvalidRequest(f"write_timeout is from 1s to {_LONGEST}s")
    way, head = build(options, prefix.encode(), outgoing)
    hash_accessors = _flag(options, "hmac_accessor", usual=True)
    return Made(way, head, float(seconds), hash_accessors, _flag(options, "elide_list_responses", usual=False))


def _file(options: Mapping[str, Any], prefix: bytes, _outgoing: Callable[[], Outgoing]) -> tuple[Way, bytes]:
    from keyhole.vault.devices.file import STDOUT, File  # noqa: PLC0415 - as below

    path = _text(options, "file_path") or _text(options, "path")
    if path != STDOUT and not Path(path).is_absolute():
        wrong = "not absolute" if path else "required"
        raise InvalidRequest(f"file_path is {wrong}", "send the absolute path of the file, or stdout")
    mode = _text(options, "mode") or "0600"
    if _MODE.fullmatch(mode) is None or int(mode, 8) & 0o113:
        raise InvalidRequest("mode is octal, and lets nobody execute the file and not everybody write it", "send 0600")
    return File(path, int(mode, 8), prefix), prefix


def _socket(options: Mapping[str, Any], prefix: bytes, outgoing: Callable[[], Outgoing]) -> tuple[Way, bytes]:
    # A command on a vault without devices loads no network code.
    from keyhole.net import delivery  # noqa: PLC0415
    from keyhole.net.guard import Guard  # noqa: PLC0415

    address, kind = _text(options, "address"), _text(options, "socket_type") or "tcp"
    guard = Guard(_allowed(options))
    if not address:
        raise InvalidRequest("address is required", "send HOST:PORT, or the path of a Unix socket")
    match kind:
        case "tcp":
            return delivery.stream_to(address, guard, outgoing()), prefix
        case "udp":
            return delivery.datagrams_to(address, guard, outgoing()), prefix
        case "unix" if Path(address).is_absolute():
            return delivery.local_to(address, stream=True), prefix
    raise InvalidRequest("socket_type is tcp, udp, or unix with the path of a socket", "leave it out for tcp")


def _syslog(options: Mapping[str, Any], prefix: bytes, _outgoing: Callable[[], Outgoing]) -> tuple[Way, bytes]:
    from keyhole.net import delivery  # noqa: PLC0415 - as above

    facility, tag = (_text(options, "facility") or "AUTH").upper(), _text(options, "tag") or "keyhole"
    if facility not in _FACILITIES or _TAG.fullmatch(tag) is None:
        raise InvalidRequest("facility is one of syslog's, and tag a word", "leave both out")
    address = _text(options, "address") or _SYSLOG
    if not Path(address).is_absolute():
        raise InvalidRequest("address is the path of syslog's socket", "leave it out")
    head = f"<{_FACILITIES.index(facility) * 8 + _INFO}>{tag}[{os.getpid()}]: "
    return delivery.local_to(address, stream=False), head.encode() + prefix


def _http(options: Mapping[str, Any], prefix: bytes, outgoing: Callable[[], Outgoing]) -> tuple[Way, bytes]:
    from keyhole.config import is_loopback  # noqa: PLC0415 - as above
    from keyhole.net import delivery  # noqa: PLC0415
    from keyhole.net.guard import Guard  # noqa: PLC0415

    uri = _text(options, "uri") or _text(options, "address")
    secure, authority, _ = delivery.parse_uri(uri)
    if not secure and not is_loopback(authority.host):
        raise InvalidRequest("entries say who used what, and go to other machines by https only", "write https://…")
    return delivery.Post(uri, Guard(_allowed(options)), outgoing()), prefix


def _allowed(options: Mapping[str, Any]) -> tuple[str, ...]:
    given = _text(options, "allow_addresses")
    return tuple(parse_cidrs([part.strip() for part in given.split(",") if part.strip()], "allow_addresses"))


def _text(options: Mapping[str, Any], name: str) -> str:
    value = options.get(name, "")
    return value if isinstance(value, str) else str(value)


def _flag(options: Mapping[str, Any], name: str, *, usual: bool) -> bool:
    value = options.get(name)
    return usual if value is None or value == "" else parse_flag(value, name)


_Build = Callable[[Mapping[str, Any], bytes, Callable[[], "Outgoing"]], tuple["Way", bytes]]
_KINDS: dict[str, tuple[set[str], _Build]] = {
    "file": ({"file_path", "path", "mode"}, _file),
    "socket": ({"address", "socket_type", "allow_addresses"}, _socket),
    "syslog": ({"facility", "tag", "address"}, _syslog),
    "http": ({"uri", "address", "allow_addresses"}, _http),
}
