"""Every setting, in one tree of dataclasses, with one loader: defaults, a TOML file, ``KEYHOLE_…``, flags.

Every limit against a hostile peer is a setting too and stands here or in a dataclass that is a field here.
"""

import ipaddress
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

from keyhole.core import EMPTY
from keyhole.core.cidr import parse_cidrs
from keyhole.core.errors import InvalidRequest
from keyhole.core.lease import parse_duration

EGRESS = ("deny", "allow", "log")
MOST_WORKERS = 64


class ApiLimits(NamedTuple):
    """Bounds on clients of the HTTP API.

    Attributes:
        body: bytes of a request body.
        depth: nesting of JSON.
        string: characters of one JSON string.
        items: members of all JSON objects and arrays together.
        concurrency: requests at once.
    """

    body: int = 32 * 1024 * 1024
    depth: int = 64
    string: int = 16 * 1024 * 1024
    items: int = 100_000
    concurrency: int = 2_000


class Config(NamedTuple):
    """Settings of a server, or of a command on a local vault.

    Attributes:
        vault: location of the store: ``sqlite:PATH``, ``postgres://USER@HOST/DB`` or ``memory:``.
        seal: how the vault is opened: ``passphrase``, ``keychain``, ``keyfile:PATH``, ``age:IDENTITY``; empty for what
            the vault says.
        listen: ``HOST:PORT`` of the API.
        proxy_listen: ``HOST:PORT`` of the proxy.
        proxy_socket: path of a Unix socket where the proxy listens too, for its owner alone; empty for none.
        sql_listen: ``SCHEME://HOST:PORT`` of listeners for clients of databases, who show their token as the password.
        data: directory of files that are not secret (the CA's certificate); empty for the home.
        egress: for new orgs: ``deny``, ``allow`` or ``log`` calls to hosts without a service.
        upstream_ca: PEM file of CAs that upstreams may use besides the system's.
        upstream_crl: PEM file of revocation lists, which then must cover all upstreams; empty for no check.
        upstream_proxy: ``HOST:PORT`` of a corporate HTTP proxy through which upstreams are reached, or
            ``socks5://HOST:PORT``.
        upstream_proxy_names: let that proxy resolve names, also those that do not resolve here. What resolves here is
            judged all the same.
        upstream_proxy_credentials: file with ``USER:PASSWORD`` for that proxy.
        upstream_no_proxy: what is reached without it: ``HOST``, ``.DOMAIN`` for all below it, or a CIDR block in which
            every address of the host lies.
        resolver: ``HOST:PORT`` of a DNS server; empty for the system's resolver.
        resolve: ``HOST:ADDRESS`` entries that answer before any resolver.
        tls_cert, tls_key: PEM files; with them both listeners speak TLS.
        tls_client_ca: PEM file of CAs whose certificates clients of the API may prove themselves with.
        tls_require_client_cert: refuse clients of the API without such a certificate.
        trusted_proxies: CIDR blocks of proxies before the API; what they say in X-Forwarded-For is believed.
        require_request_header: refuse requests to the API without ``X-Vault-Request: true``.
        insecure_listen: allow a listener off loopback without TLS.
        workers: processes that serve together; 0, or ``auto``, for one a core.
        drain: seconds that running requests get at SIGTERM.
        connect_timeout: seconds for name resolution, TCP and TLS to an upstream.
        answer_timeout: seconds for the head of an upstream's answer; language models think for minutes.
        stream_timeout: seconds of silence within an upstream's body; event streams are silent for minutes.
        stream_rate: bytes a second that an upstream's body must have on average, unless it is an event stream; 0: none.
        head_timeout: seconds for a whole request head of a client.
        idle_timeout: seconds a client may be silent between requests.
        body_timeout: seconds of silence within a client's body.
        body_rate: bytes a second that a client's body must have on average; 0: none.
        rate_window: seconds of waiting over which these averages are taken.
        write_timeout: seconds for a peer that does not read.
        tunnel_timeout: seconds from the answer to CONNECT to the end of the TLS handshake.
        websocket_idle_timeout: seconds that a WebSocket may be silent in both directions; pings count.
        tunnel_idle_timeout: seconds that a tunnel which is passed on may be silent in both directions; nobody can ask
            it for a sign of life, and a login by SSH is silent for long.
        websocket_frame, websocket_message: bytes of one frame and of one message of a WebSocket. Neither is held.
        sql_sessions: sessions with databases at once.
        sql_idle_timeout: seconds that a session with a database may be silent in both directions.
        sql_session_timeout: seconds that one may last; 0 for as long as its lease.
        connections: open client connections of the proxy, and requests of HTTP/2 on all of them together.
        http2_streams: requests at once on one connection of HTTP/2, of a client or to an upstream.
        http2_header_bytes: a header section of HTTP/2, decoded, with 32 bytes for each field.
        http2_ping: seconds of silence after which an upstream of HTTP/2 that owes an answer is asked for a sign of
            life; 0 for never. Servers of gRPC end connections that are asked more often than once in 5 minutes.
        http2_ping_timeout: seconds that it has for that sign.
        strangers: of those, and of the API's, how many of one address may have shown no valid token and send nothing;
            the oldest makes room for a new one.
        org_share, agent_share: part of all of this that one org, and one agent of it, may take: connections, calls
            under way, memory for bodies, sessions with databases, new certificates.
        org_shares: the part of single orgs, by name.
        calls: calls of the proxy and requests of the API under way.
        held_bytes: bytes of bodies that are held whole because they have to be judged or signed.
        certificates: new certificates for tunnels, a minute.
        starting: calls and requests of one org that are judged at the same time; further ones wait in turn.
        org_rate, agent_rate: calls and requests a second of one org, and of one agent, on average; 0 for any number.
        refusal_rate: refusals a second of one address without a valid token that are recorded one by one.
        refusal_burst: such refusals of one address at once; further ones are counted, and the count is recorded.
        lease_making: seconds that something leased may take to be made; what was not given out by then is taken back.
        lease_attempt: seconds that one try to take leases back may take.
        max_uses: values that one key term may seal.
        forbid_commands: run no program of this machine that a rotation or an external source names.
        api: bounds on clients of the API.
    """

    vault: str = ""
    seal: str = ""
    listen: str = "127.0.0.1:8200"
    proxy_listen: str = "127.0.0.1:8210"
    proxy_socket: str = ""
    sql_listen: tuple[str, ...] = ()
    data: str = ""
    egress: str = "deny"
    upstream_ca: str = ""
    upstream_crl: str = ""
    upstream_proxy: str = ""
    upstream_proxy_names: bool = False
    upstream_proxy_credentials: str = ""
    upstream_no_proxy: tuple[str, ...] = ()
    resolver: str = ""
    resolve: tuple[str, ...] = ()
    tls_cert: str = ""
    tls_key: str = ""
    tls_client_ca: str = ""
    tls_require_client_cert: bool = False
    trusted_proxies: tuple[str, ...] = ()
    require_request_header: bool = False
    insecure_listen: bool = False
    workers: int = 1
    drain: float = 10.0
    connect_timeout: float = 10.0
    answer_timeout: float = 300.0
    stream_timeout: float = 600.0
    stream_rate: float = 1.0
    head_timeout: float = 10.0
    idle_timeout: float = 75.0
    body_timeout: float = 60.0
    body_rate: float = 1.0
    rate_window: float = 60.0
    write_timeout: float = 60.0
    tunnel_timeout: float = 10.0
    websocket_idle_timeout: float = 900.0
    tunnel_idle_timeout: float = 3_600.0
    websocket_frame: int = 256 * 1024 * 1024
    websocket_message: int = 1024 * 1024 * 1024
    sql_sessions: int = 1_000
    sql_idle_timeout: float = 3_600.0
    sql_session_timeout: float = 0.0
    connections: int = 12_000
    http2_streams: int = 100
    http2_header_bytes: int = 64 * 1024
    http2_ping: float = 300.0
    http2_ping_timeout: float = 20.0
    strangers: int = 512
    org_share: float = 0.75
    agent_share: float = 0.5
    org_shares: Mapping[str, float] = EMPTY
    calls: int = 10_000
    held_bytes: int = 512 * 1024 * 1024
    certificates: int = 400
    starting: int = 64
    org_rate: float = 0.0
    agent_rate: float = 0.0
    refusal_rate: float = 1.0
    refusal_burst: int = 100
    lease_making: float = 30.0
    lease_attempt: float = 30.0
    max_uses: int = 2**32
    forbid_commands: bool = False
    api: ApiLimits = ApiLimits()

    def checked(self) -> Self:
        """This configuration, when it makes sense. Raises ``InvalidRequest`` that names the setting."""
        for name, value in self._asdict().items():
            if isinstance(value, (int, float)) and not 0 <= value < math.inf:
                raise InvalidRequest(f"{name}: {value} is not a number from 0 on", "leave it out for the usual")
        if self.egress not in EGRESS:
            raise InvalidRequest(f"egress is one of {', '.join(EGRESS)}", "deny is what an org has unless told")
        listeners = [("listen", self.listen), ("proxy_listen", self.proxy_listen)]
        listeners += [("sql_listen", sql_address(text)[1]) for text in self.sql_listen]
        for name, address in listeners:
            host, _ = split_address(address, name)
            if not (is_loopback(host) or self.insecure_listen or self.tls_cert):
                raise InvalidRequest(
                    f"{name}: {host} is not loopback and the listener has no TLS",
                    "give --tls-cert and --tls-key, or say --insecure-listen",
                )
        if not 0 <= self.workers <= MOST_WORKERS:
            raise InvalidRequest(f"workers is a number from 1 to {MOST_WORKERS}, or auto", "auto is one a core")
        if bool(self.tls_cert) != bool(self.tls_key):
            raise InvalidRequest("tls_cert and tls_key belong together", "give both, or neither")
        if self.tls_client_ca and not self.tls_cert:
            raise InvalidRequest("tls_client_ca needs a listener with TLS", "give --tls-cert and --tls-key too")
        if self.tls_require_client_cert and not self.tls_client_ca:
            raise InvalidRequest("tls_require_client_cert needs CAs of clients", "name them with --tls-client-ca")
        for name, value, least, most in (
            ("http2_ping_timeout", self.http2_ping_timeout, 1, 3600),
            ("http2_streams", self.http2_streams, 1, 10_000),
            ("http2_header_bytes", self.http2_header_bytes, 4096, 256 * 1024),
        ):
            if not least <= value <= most:
                raise InvalidRequest(f"{name} is not from {least} to {most}", "leave it out for the usual one")
        for name, part in (("org_share", self.org_share), ("agent_share", self.agent_share), *self.org_shares.items()):
            if not 0 < part <= 1:
                raise InvalidRequest(f"{name}: a share is a part of the whole: above 0, at most 1", "for example 0.25")
        for name in ("connections", "strangers", "calls", "held_bytes", "certificates", "starting"):
            if getattr(self, name) < 1:
                raise InvalidRequest(f"{name} is at least 1", "there is no setting for none at all")
        return self._replace(trusted_proxies=tuple(parse_cidrs(list(self.trusted_proxies), "trusted_proxies")))


SETTINGS = (*(name for name in Config._fields if name != "api"), "api_limits")
"""What a file, a variable or an option may say."""
TABLES = ("org_shares", "api_limits")
"""Those of them that are names with a value each."""


def sql_address(text: str) -> tuple[str, str]:
    """Scheme and ``HOST:PORT`` of a listener for clients of databases. Raises ``InvalidRequest``."""
    from keyhole.core.sql import SCHEMES as DATABASES  # noqa: PLC0415  # for who serves databases alone

    scheme, mark, address = text.partition("://")
    if not mark or scheme not in DATABASES:
        raise InvalidRequest(
            f"sql_listen: {text!r} is not SCHEME://HOST:PORT", f"for example {DATABASES[0]}://127.0.0.1:6432"
        )
    return scheme, address


def split_address(text: str, name: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT``; an IPv6 address stands in brackets. Raises ``InvalidRequest``."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or not port.isascii() or int(port) > 65535:
        raise InvalidRequest(
            f"{name}: {text!r} is not HOST:PORT", "for example 127.0.0.1:8200; port 0 picks a free one"
        )
    return host.strip("[]"), int(port)


def is_loopback(host: str) -> bool:
    """Does the host name this machine only?"""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def home() -> Path:
    """The directory of the local vault: ``KEYHOLE_HOME``, else the platform's.

    Of XDG's it is ``XDG_DATA_HOME``, which counts only when it is absolute (XDG Base Directory 0.8).

    Raises:
        InvalidRequest: nobody knows where the user's home is.
    """
    named = os.environ.get("KEYHOLE_HOME")
    if named:
        return Path(named)
    if sys.platform in {"darwin", "win32"}:
        import platformdirs  # noqa: PLC0415  # slow to load, and on other systems two lines say the same

        return Path(platformdirs.user_data_dir("keyhole", appauthor=False))
    data = Path(os.environ.get("XDG_DATA_HOME", ""))
    return (data if data.is_absolute() else _user_home() / ".local" / "share") / "keyhole"


def _user_home() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        raise InvalidRequest("your home directory is not known here", "say where: KEYHOLE_HOME=DIRECTORY") from None


def local_vault() -> str:
    """Location of the local vault's store."""
    return f"sqlite:{home() / 'vault.db'}"


def load(path: str | None = None, flags: Mapping[str, Any] | None = None) -> Config:
    """The configuration: defaults, file, environment and flags, the later one winning.

    Args:
        path: a TOML file.
        flags: settings from the command line; ``None`` values and empty tuples do not count.

    Raises:
        InvalidRequest: an unknown setting, a wrong type, or a file that cannot be read.
    """
    values: dict[str, Any] = {}
    if path:
        data = _read(path)
        unknown = data.keys() - set(SETTINGS)
        if unknown:
            raise InvalidRequest(f"{path}: unknown setting {min(unknown)!r}", f"known: {', '.join(sorted(SETTINGS))}")
        values.update(data)
    for name in SETTINGS:
        text = os.environ.get(f"KEYHOLE_{name.upper()}")
        if text is not None:
            values[name] = text
    values.update({name: value for name, value in (flags or {}).items() if value not in (None, ())})
    shares = _shares(values.pop("org_shares", {}))
    limits = _limits(values.pop("api_limits", {}))
    typed = {name: _typed(name, value) for name, value in values.items()}
    return Config(**typed, org_shares=shares, api=limits).checked()


def _shares(said: Any) -> dict[str, float]:
    try:
        return {str(name): float(part) for name, part in _table(said).items()}
    except (TypeError, ValueError):
        raise InvalidRequest("org_shares: each is ORG = PART", "for example acme = 0.25, or acme=0.25,b=0.5") from None


def _limits(said: Any) -> ApiLimits:
    try:
        return ApiLimits(**{name: _whole(value, least=1) for name, value in _table(said).items()})
    except (TypeError, ValueError):
        names = ", ".join(ApiLimits._fields)
        raise InvalidRequest(
            f"api_limits: each is NAME = NUMBER, NAME one of {names}", "see docs/settings.md"
        ) from None


def _table(said: Any) -> dict[str, Any]:
    """A table as the file has it, or ``NAME=VALUE`` as variables (with commas between) and options say it."""
    if isinstance(said, Mapping):
        return dict(said)
    parts = said.split(",") if isinstance(said, str) else list(said)
    return {name.strip(): value.strip() for name, _, value in (part.partition("=") for part in parts)}


def _read(path: str) -> dict[str, Any]:
    import tomllib  # noqa: PLC0415  # only servers have a file

    try:
        with Path(path).open("rb") as file:
            content = file.read(_LARGEST + 1)
        if len(content) > _LARGEST:
            raise InvalidRequest(f"{path}: longer than {_LARGEST} bytes", "check --config")
        return tomllib.loads(content.decode())
    except OSError as error:
        raise InvalidRequest(f"{path}: {error.strerror}", "check --config") from None
    except UnicodeDecodeError:
        raise InvalidRequest(f"{path}: not TOML: it is not UTF-8", "write the file again in UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(
            f"{path}: not TOML: {error}", 'a setting is a line like: listen = "127.0.0.1:8200"'
        ) from None


_LARGEST = 1 << 20  # bytes of a file of settings
_NO_TIMES = ("_share", "_rate")
_KINDS = {bool: "true or false", float: "a number, or a time such as 30s", int: "a whole number", tuple: "a list"}


def _typed(name: str, value: Any) -> Any:
    default = Config._field_defaults[name]
    if name == "workers" and value == "auto":
        return 0
    try:
        if isinstance(default, bool):
            return value if isinstance(value, bool) else {"true": True, "1": True, "false": False, "0": False}[value]
        if isinstance(default, float):
            return (
                float(parse_duration(value, name=name))
                if isinstance(value, str) and not _plain(value) and not name.endswith(_NO_TIMES)
                else float("" if isinstance(value, bool) else value)
            )
        if isinstance(default, int):
            return _whole(value, least=1 if name == "workers" else None)
        if isinstance(default, tuple):
            return tuple(value.split(",")) if isinstance(value, str) else tuple(value)
    except (KeyError, TypeError, ValueError):
        wanted = "a whole number from 1, or auto" if name == "workers" else _KINDS[type(default)]
        wanted = "a number" if name.endswith(_NO_TIMES) else wanted
        raise InvalidRequest(f"{name}: {value!r} is not {wanted}", "keyhole server --help") from None
    if not isinstance(value, str):
        raise InvalidRequest(f"{name}: {value!r} is not a text", "write it in quotes")
    return value


def _whole(value: Any, least: int | None) -> int:
    """A whole number. Raises ``ValueError`` for what Python only takes for one."""
    number = int(value)
    if isinstance(value, bool) or (isinstance(value, float) and value != number):
        raise ValueError
    if least is not None and number < least:
        raise ValueError
    return number


def _plain(text: str) -> bool:
    return text.replace(".", "", 1).isdecimal()
