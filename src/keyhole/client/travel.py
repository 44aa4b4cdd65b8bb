"""A call through the broker: which service it needs, and the way there over the proxy."""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import socket
import ssl
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from keyhole.client import context
from keyhole.client.core import Result, refusal
from keyhole.client.http import unreachable
from keyhole.client.road import Road
from keyhole.core.errors import AmbiguousService, InvalidRequest, KeyholeError, NoService, Unreachable, by_code
from keyhole.core.stated import Stated

Ask = Callable[[str, str, Mapping[str, Any]], Result]
_PORTS = {"http": 80, "https": 443}
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\xa0-\xff]*")
_LIMIT = 256 * 1024 * 1024
_PIECE = 1024 * 1024
_REFUSED = "x-keyhole-error"  # the answer is the broker's own


@dataclass(frozen=True, slots=True)
class Trip:
    """A call as its caller means it. It names secrets, never values.

    Attributes:
        method: HTTP method.
        url: absolute URL.
        bearer: secret that goes into ``Authorization: Bearer``, such as ``stripe/api-key``.
        basic: secret that goes into ``Authorization: Basic``.
        header: header name to secret.
        query: name of a query parameter to secret.
        body_field: path to a field of the JSON body, such as ``auth.key``, to secret.
        form_field: name of a form field to secret.
        service: name of the service to use, where several fit.
        headers: headers of the message itself.
        body: of the message.
        timeout: seconds without a byte.
        keep: bytes of the answer's body that are kept; the rest is read and only counted.
    """

    method: str
    url: str
    bearer: str = ""
    basic: str = ""
    header: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    body_field: Mapping[str, str] = field(default_factory=dict)
    form_field: Mapping[str, str] = field(default_factory=dict)
    service: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | str | None = None
    timeout: float = 300.0
    keep: int = _LIMIT

    def wanted(self) -> list[tuple[str, str]]:
        """``(secret, how it is attached)`` for every secret that the caller named, in the words of ``sys/why``."""
        named = [(self.bearer, "authorization: Bearer"), (self.basic, "authorization: Basic")]
        named += [(secret, f"{name.lower()}:") for name, secret in self.header.items()]
        for place, secrets in (("query", self.query), ("body", self.body_field), ("form", self.form_field)):
            named += [(secret, f"{place} {name}=") for name, secret in secrets.items()]
        return [(_full(secret), how) for secret, how in named if secret]

    def content_type(self) -> dict[str, str]:
        """What the body is, where the place of the secret says so."""
        if self.body_field:
            return {"Content-Type": "application/json"}
        return {"Content-Type": "application/x-www-form-urlencoded"} if self.form_field else {}


@dataclass(frozen=True, slots=True)
class Answered:
    """What the upstream said, scrubbed.

    Attributes:
        status: HTTP status.
        headers: pairs in wire order.
        body: all of it, or as much as was to be kept.
        service: through which the call went; empty where the caller left that to the broker.
        left: bytes of the body that came after those.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    service: str = ""
    left: int = 0

    @property
    def text(self) -> str:
        """The body as UTF-8; other bytes are replaced."""
        return self.body.decode(errors="replace")

    def json(self) -> Any:
        """The body as JSON. Raises ``ValueError``."""
        try:
            return json.loads(self.body)
        except RecursionError:
            raise ValueError("the JSON is nested too deeply") from None


def resolve(ask: Ask, trip: Trip) -> str:
    """The service for a call: the one that binds the named secret, this destination and this way of attaching it.

    Raises:
        NoService: the caller may use none that does.
        InvalidRequest: several secrets are named; one service attaches one.
        KeyholeError: why the call would be refused, which is on record then.
    """
    wanted = trip.wanted()
    if not wanted:
        return trip.service
    if len(wanted) > 1:
        raise InvalidRequest("a call names one secret", "make a service for each, and call them one by one")
    [(secret, how)] = wanted
    question = {"method": trip.method, "url": trip.url, "service": trip.service}
    answer = ask("update", "sys/why", question).data
    if _fits(answer, secret, how):
        return str(answer["service"])
    if not trip.service:
        for name in _candidates(ask, str(answer.get("caller", "")), secret):
            if _fits(ask("update", "sys/why", {**question, "service": name}).data, secret, how):
                return name
    if answer.get("error", {}).get("code", AmbiguousService.code) != AmbiguousService.code:
        detail = ask("update", "sys/why", {**question, "given_up": True}).data.get("error")
        if detail:
            raise by_code(detail["code"])(detail["reason"], detail["hint"])
    # Services that do not bind this secret may be as many as they like.
    raise NoService(
        f"no service that you may use sends the secret {secret!r} to this destination as {how.rstrip(':=')!r}",
        f"keyhole why {trip.method} URL shows which service matches",
    )


def _fits(answer: Mapping[str, Any], secret: str, how: str) -> bool:
    described = str(answer.get("inject") or "").split(", ")
    bound = bool(answer.get("allowed")) and _full(str(answer.get("secret") or "")) == secret
    return bound and any(part.startswith(how) for part in described)


def _candidates(ask: Ask, caller: str, secret: str) -> list[str]:
    """Services of the caller that bind the secret, for the case that another one matched better."""
    if caller.startswith("agent/"):
        usable = ask("read", "sys/what-can", {}).data["services"]
        return [str(s["name"]) for s in usable if _full(s["secret"]) == secret]
    return [str(name) for name in ask("read", f"sys/who-can/{secret.partition('#')[0]}", {}).data["services"]]


def _full(reference: str) -> str:
    """A reference with its field written out."""
    return reference if not reference or "#" in reference else f"{reference}#value"


def send(road: Road, trip: Trip, service: str = "", *, stated: Stated | None = None) -> Answered:
    """Send a call through the proxy, and give the whole answer. No redirect is followed.

    Args:
        road: the way there.
        trip: the call.
        service: that it needs.
        stated: of the work that it belongs to; that of this program unless given.

    Raises:
        KeyholeError: what the broker refused.
        Unreachable: the proxy does not answer.
    """
    try:
        parts = urlsplit(trip.url)
        name = parts.hostname or ""
        host = name if name.isascii() else name.encode("idna").decode()
        port = parts.port or _PORTS.get(parts.scheme, 0)
        body = trip.body.encode() if isinstance(trip.body, str) else trip.body
    except ValueError:  # a bracket, a port, a name or a body that cannot be
        raise InvalidRequest(
            "the URL or the body cannot be sent", "write https://HOST/PATH, and text as Unicode"
        ) from None
    if parts.scheme not in _PORTS or not host:
        raise InvalidRequest("the URL is not absolute", "write https://HOST/PATH")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    authority = f"[{host}]" if ":" in host else host
    headers = {"Host": authority if port == _PORTS[parts.scheme] else f"{authority}:{port}", **trip.headers}
    if service:
        headers["X-Keyhole-Service"] = service
    headers |= context.headers(context.current() if stated is None else stated)
    connection = _through(road, parts.scheme, authority, port, trip.timeout)
    if parts.scheme == "http":
        headers["Proxy-Authorization"] = _authorization(road)
        target = f"http://{headers['Host']}{target}"
    _require_sendable(trip.method, target, headers)
    if body is not None and not any(name.lower() == "content-type" for name in trip.headers):
        headers |= trip.content_type()
    try:
        connection.request(trip.method, target, body=body, headers=headers)
        response = connection.getresponse()
        content, left = _content(response, _LIMIT if response.getheader(_REFUSED) else trip.keep)
    except (OSError, http.client.HTTPException) as error:
        raise unreachable(f"the proxy at {road.host}:{road.port}", error) from None
    finally:
        connection.close()
    if len(content) + left > _LIMIT:
        raise Unreachable(f"the answer is larger than {_LIMIT} bytes", "use requests_session() and stream it")
    _raise_refusal(response, content)
    return Answered(response.status, tuple(response.getheaders()), content, service, left)


def _content(response: http.client.HTTPResponse, keep: int) -> tuple[bytes, int]:
    """The beginning of a body, and how many bytes came after it, up to one more than may come."""
    content = response.read(min(keep, _LIMIT) + 1)
    content, left = content[:keep], len(content[keep:])
    while left and len(content) + left <= _LIMIT and (piece := response.read(_PIECE)):
        left += len(piece)
    return content, left


def _require_sendable(method: str, target: str, headers: Mapping[str, str]) -> None:
    """Raises ``InvalidRequest`` for what would be more than one line of a message (RFC 9112)."""
    if not _TOKEN.fullmatch(method) or not target.isascii() or not target.isprintable() or " " in target:
        raise InvalidRequest("the method or the URL has characters that neither has", "percent-encode the URL")
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            raise InvalidRequest("a header has characters that no header has", "write names and texts in one line")


def _through(road: Road, scheme: str, authority: str, port: int, timeout: float) -> http.client.HTTPConnection:
    """A connection that ends at the proxy, or in a tunnel through it."""
    try:
        sock: socket.socket = socket.create_connection((road.host, road.port), timeout)
        if scheme == "https":
            sock = _tunnel(sock, road, authority, port)
    except (OSError, http.client.HTTPException) as error:
        raise unreachable(f"the proxy at {road.host}:{road.port}", error) from None
    connection = http.client.HTTPConnection(road.host, road.port, timeout=timeout)
    connection.sock = sock
    return connection


def _tunnel(sock: socket.socket, road: Road, authority: str, port: int) -> ssl.SSLSocket:
    """CONNECT, then TLS with whatever the broker's CA vouches for."""
    where = f"{authority}:{port}"
    sock.sendall(
        f"CONNECT {where} HTTP/1.1\r\nHost: {where}\r\nProxy-Authorization: {_authorization(road)}\r\n\r\n".encode()
    )
    response = http.client.HTTPResponse(sock, method="CONNECT")
    response.begin()
    if response.status != 200:
        content = response.read(_LIMIT)
        sock.close()
        _raise_refusal(response, content)
        raise Unreachable(f"the proxy answers {response.status} to CONNECT", "is it Keyhole's?")
    context = ssl.create_default_context(cadata=road.ca)
    return context.wrap_socket(sock, server_hostname=authority.strip("[]"))


def _authorization(road: Road) -> str:
    return "Basic " + base64.b64encode(f"agent:{road.token}".encode()).decode()


def _raise_refusal(response: http.client.HTTPResponse, content: bytes) -> None:
    headers = {name.lower(): value for name, value in response.getheaders()}
    if _REFUSED not in headers:
        return
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        data = {}
    error: KeyholeError = refusal(response.status, headers, data if isinstance(data, dict) else {})
    raise error


def requests_session(road: Road, ca: Path) -> Any:
    """A ``requests.Session`` whose calls go through the broker. It ignores proxy variables of the environment.

    Args:
        road: the way to the broker.
        ca: file with the broker's CA; the caller removes it after the session's last call.
    """
    try:
        import requests  # noqa: PLC0415  # the library is the caller's, not a dependency of ours
    except ImportError:
        raise InvalidRequest("the library requests is not installed", "pip install requests") from None

    class Wired(requests.Session):
        """Says with each request what work it belongs to; the header goes no further than the broker."""

        def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
            prepared = super().prepare_request(request)
            prepared.headers.update(context.headers(context.current()))
            return prepared

    session = Wired()
    session.trust_env = False
    session.proxies = {"http": road.url, "https": road.url}
    session.verify = str(ca)
    return session


def ca_file(road: Road) -> Path:
    """A file with the broker's CA, which is public; for libraries that take a path only."""
    descriptor, name = tempfile.mkstemp(prefix="keyhole-ca-", suffix=".pem")
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(road.ca)
    return Path(name)
