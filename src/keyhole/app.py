"""The composition root: the only file that sees everyone. It puts stores, seals, door, road and faces together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from keyhole import bounds, upkeep
from keyhole.broker import capturing, explain, reach, replaying
from keyhole.broker.broker import Broker
from keyhole.broker.sql.upstream import Databases
from keyhole.broker.upstream import Pool
from keyhole.config import Config, is_loopback, local_vault, split_address, sql_address
from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.core.value import Secret
from keyhole.crypto.aead import AeadKey
from keyhole.engines import Route
from keyhole.faces.api.app import Api
from keyhole.faces.api.server import ApiServer
from keyhole.faces.mcp.inside import beside
from keyhole.faces.proxy import ProxyServer
from keyhole.faces.sql import SqlServer
from keyhole.guests import proxy_face, sql_face
from keyhole.net.ask import Asker, AskLimits
from keyhole.net.delivery import Outgoing
from keyhole.net.dial import Dialer
from keyhole.net.resolve import Resolver
from keyhole.net.served import ServedTls
from keyhole.net.trust import Trust
from keyhole.net.via import Via
from keyhole.process import harden_process, raise_file_limit
from keyhole.process.threads import FairThreads
from keyhole.seals import asks_for
from keyhole.stores import open_store
from keyhole.vault.lease_lines import LeaseLimits
from keyhole.vault.node import Node
from keyhole.vault.strangers import RefusalLimits
from keyhole.vault.sys import sanitized
from keyhole.vault.vault import Vault

if TYPE_CHECKING:
    from keyhole.telemetry import Spans
    from keyhole.workers.crew import Crew

MEMORY = "memory:"
_TRACED = ("OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_log = logging.getLogger("keyhole")


class MemorySeal:
    """A seal whose key is this object: whoever holds it opens the store again, and nobody once the process ends.

    Args:
        key: 32 bytes, for a seal that another process has too.
    """

    name = "memory"
    unattended = True

    def __init__(self, key: bytes | None = None) -> None:
        self._key = AeadKey(key or os.urandom(32))

    def wrap(self, key: bytes) -> bytes:
        """Seal the root key."""
        return self._key.seal(key, b"")

    def unwrap(self, blob: bytes) -> bytes:
        """Open the root key."""
        return self._key.open(blob, b"")

    def needs_rewrap(self, _blob: bytes) -> bool:
        """Never."""
        return False


@dataclass(slots=True)
class Keyhole:
    """A node with its road, ready for faces.

    Attributes:
        config: the settings.
        node: the door's entrance.
        broker: the road.
        pool: its connections.
        trust: what upstreams prove themselves by.
        dialer: knows our own listeners, so that no call comes back to us.
        spans: what is watched of it; ``None`` for nothing.
        crew: the other workers of this server; ``None`` where one process is all of it.
        proxy_url: where the proxy listens, once it does.
        sql_urls: where clients of databases are listened for.
        opened: set once the vault has been open.
    """

    config: Config
    node: Node
    broker: Broker
    pool: Pool
    dialer: Dialer
    trust: Trust
    spans: Spans | None = None
    proxy_url: str = ""
    sql_urls: list[str] = field(default_factory=list)
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    crew: Crew | None = None

    async def close(self) -> None:
        """Let go of everything."""
        await self.pool.close()
        await self.broker.sessions.settle()
        await self.broker.notings.settle()
        await self.node.close()
        if self.spans is not None:
            await self.spans.close()


def _ways_out(config: Config) -> tuple[Resolver, Via | None, Trust]:
    """How names are resolved, the proxy of the company, and what servers prove themselves by."""
    via = Via.of(config)
    trust = Trust(config.upstream_ca, config.upstream_crl, ["http/1.1"])
    return Resolver(config.resolver, config.resolve), via, trust


def asker(config: Config, limits: AskLimits | None = None) -> Asker:
    """What asks the servers that mounts were told of, for a vault without a road."""
    resolver, via, trust = _ways_out(config)
    return Asker(Dialer(resolver, via=via), trust.context, limits, programs=not config.forbid_commands)


async def assemble(config: Config, *, create: bool = False, crew: Crew | None = None) -> Keyhole:
    """Open the store and put a node and its road over it; the vault is still sealed.

    Args:
        config: the settings.
        create: make the store where there is none.
        crew: the other workers of this server.

    Raises:
        NotFound: there is no store and ``create`` is false.
        StoreUnavailable, IntegrityError: it is there and cannot be used.
    """
    store = await open_store(config.vault or local_vault(), create=create)
    keyhole: Keyhole
    spans = _spans(os.environ)

    def extend(vault: Vault) -> tuple[Route, ...]:
        keyhole.opened.set()
        vault.meters.readings.append(partial(keyhole.broker.readings, vault))
        if crew is not None:
            crew.count_together(vault)
        vault.devices.outgoing = Outgoing(dialer, trust.context)
        vault.shares.limits = bounds.shares(config)
        vault.rotations.steps.commands = not config.forbid_commands
        # A login may believe the identity tokens of this very server, so its listeners are none of the guard's concern.
        vault.net = Asker(Dialer(resolver, via=via), trust.context, programs=not config.forbid_commands)
        return _routes(keyhole, vault)

    node = Node(
        store,
        extend=extend,
        max_uses=config.max_uses,
        egress=config.egress,
        refusals=_refusals(config, crew),
        leases=LeaseLimits(making=config.lease_making, attempt=config.lease_attempt),
        make=spans.vault if spans is not None else Vault,
    )
    node.configured = config.seal
    if crew is not None:
        node.tell, node.close_others = crew.tell_root, crew.close_others
    resolver, via, trust = _ways_out(config)
    dialer = Dialer(resolver, via=via)
    pool = Pool(dialer, lambda _: trust.context(), bounds.upstreams(config))
    # A database that is offered HTTP in the handshake may end it.
    bare = Trust(config.upstream_ca, config.upstream_crl)
    databases = Databases(dialer, bare.context, bounds.sql(config))
    make = spans.broker if spans is not None else Broker
    broker = make(node, pool, bounds.streams(config), trust.fresh, databases=databases)
    if crew is not None:
        crew.join_sessions(broker.sessions)
    trust.changed += [pool.distrust, broker.distrust]
    return (keyhole := Keyhole(config, node, broker, pool, dialer, trust, spans, crew=crew))


def _refusals(config: Config, crew: Crew | None) -> RefusalLimits:
    """Bounds on records of strangers: this process's part of them."""
    share = crew.count if crew is not None else 1
    return RefusalLimits(config.refusal_rate / share, max(1, config.refusal_burst // share))


def _routes(keyhole: Keyhole, vault: Vault) -> tuple[Route, ...]:
    """What the door answers of the road."""
    return (
        *explain.routes(keyhole.broker, vault, lambda: keyhole.proxy_url),
        *sanitized.routes(lambda: upkeep.settings(keyhole)),
        *reach.routes(keyhole.pool, vault),
        *capturing.routes(keyhole.broker, vault, keyhole.crew.captures if keyhole.crew is not None else None),
        *replaying.routes(keyhole.broker, vault),
    )


def _spans(environ: Mapping[str, str]) -> Spans | None:
    """Spans, where an environment asks for them by OpenTelemetry's own variables and the library is there."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or not any(map(environ.get, _TRACED)):
        return None
    try:
        from keyhole.telemetry import open_spans  # noqa: PLC0415  # slow to import, and few ask for it
    except ImportError:
        _log.warning("no spans are sent: OpenTelemetry is not installed: pip install 'keyhole[otel]'")
        return None
    return open_spans(environ)


async def open_ephemeral(config: Config, *, token: str = "") -> tuple[Keyhole, str]:
    """A vault in memory, open, and its root token. Whatever store the settings name is left alone."""
    keyhole = await assemble(config._replace(vault=MEMORY), create=True)
    clear = await keyhole.node.init("memory", seal=MemorySeal(), token=token)
    return keyhole, clear


async def start_proxy(keyhole: Keyhole, address: str, *, tls: ssl.SSLContext | None = None) -> ProxyServer:
    """Listen for agents at ``HOST:PORT``."""
    together = keyhole.crew is not None
    server, keyhole.proxy_url = await listen_for_calls(keyhole, address, tls=tls, together=together)
    return server


async def listen_for_calls(
    keyhole: Keyhole, address: str, *, tls: ssl.SSLContext | None = None, together: bool = False
) -> tuple[ProxyServer, str]:
    """A proxy and its URL, which nobody is told of; its port may belong to all workers ``together``."""
    host, port = split_address(address, "proxy_listen")
    # Nodes over one store answer for one another, so they know each other's requests by one name.
    header = await keyhole.node.header()
    limits = bounds.listener(keyhole.config, keyhole.config.connections)
    name = header.vault_id if header else ""
    server = proxy_face(keyhole, limits, name)
    try:
        bound = await server.listen(host, port, tls=tls, reuse_port=together)
    except OSError as error:
        raise InvalidRequest(f"cannot listen on {address}: {error.strerror}", "choose another --proxy-listen") from None
    keyhole.dialer.own.add(bound)
    keyhole.broker.clients.append(lambda: server.connections)
    return server, f"{'https' if tls else 'http'}://{_bracketed(bound[0])}:{bound[1]}"


async def start_sql(keyhole: Keyhole, listener: str, *, tls: ssl.SSLContext | None = None) -> SqlServer:
    """Listen for clients of databases at ``SCHEME://HOST:PORT``."""
    scheme, address = sql_address(listener)
    host, port = split_address(address, "sql_listen")
    server = SqlServer(sql_face(keyhole), scheme, tls)
    try:
        bound = await server.listen(host, port, reuse_port=keyhole.crew is not None)
    except OSError as error:
        raise InvalidRequest(f"cannot listen on {address}: {error.strerror}", "choose another --sql-listen") from None
    keyhole.dialer.own.add(bound)
    keyhole.sql_urls.append(f"{scheme}://{_bracketed(bound[0])}:{bound[1]}")
    return server


@dataclass(frozen=True, slots=True)
class Started:
    """What a server says of itself once it is ready.

    Attributes:
        api: URL of the API.
        proxy: URL of the proxy.
        sql: URLs of the listeners for clients of databases.
        ca_file: PEM file of the CA of the org root; it is written when the vault is unsealed.
        root_token: of a development server.
    """

    api: str
    proxy: str
    ca_file: str
    root_token: str = ""
    sql: tuple[str, ...] = ()


async def serve(
    config: Config,
    *,
    dev: bool = False,
    dev_token: str = "",
    passphrase: Secret | None = None,
    await_init: bool = False,
    on_ready: Callable[[Started], None],
) -> None:
    """Run a server until SIGTERM or SIGINT, then drain.

    Args:
        config: the settings.
        dev: keep the vault in memory, open it, and make a root token.
        dev_token: that root token, when somebody chose it.
        passphrase: opens the vault; without one it starts sealed, unless its seal needs nobody. With shares it always
            does.
        await_init: where there is no vault, serve all the same, so that ``sys/init`` can make one.
        on_ready: called when both listeners accept connections.

    Raises:
        NotFound: the store was never initialised.
        IntegrityError: the key is wrong.
    """
    harden_process()
    async with contextlib.AsyncExitStack() as stack:
        root_token = ""
        if dev:
            keyhole, root_token = await open_ephemeral(config, token=dev_token)
        else:
            keyhole = await assemble(config, create=await_init)
        stack.push_async_callback(keyhole.close)
        if not dev and not (await_init and await keyhole.node.header() is None):
            await unseal_at_start(keyhole, passphrase)
        started, read_again = await listening(keyhole, stack, dev=dev)
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        if hasattr(signal, "SIGHUP"):
            loop.add_signal_handler(signal.SIGHUP, read_again)
        on_ready(replace(started, root_token=root_token))
        await stop.wait()
        keyhole.node.leave()


async def listening(
    keyhole: Keyhole, stack: contextlib.AsyncExitStack, *, dev: bool = False
) -> tuple[Started, Callable[[], None]]:
    """Open all listeners of the settings; what it says of itself, and what reads files again that have changed.

    Args:
        keyhole: the vault is open or sealed.
        stack: takes what drains and ends all of it.
        dev: nothing is kept, also no certificate.
    """
    raise_file_limit()
    asyncio.get_running_loop().set_default_executor(FairThreads())
    config, crew = keyhole.config, keyhole.crew
    tls = ServedTls(config.tls_cert, config.tls_key) if config.tls_cert else None
    proxy = await start_proxy(keyhole, config.proxy_listen, tls=tls.context() if tls else None)
    stack.push_async_callback(proxy.close, config.drain)
    if config.proxy_socket:
        await proxy.listen_at(Path(config.proxy_socket), crew.sock if crew is not None else None)
    for listener in config.sql_listen:
        sql = await start_sql(keyhole, listener, tls=tls.context() if tls else None)
        stack.push_async_callback(sql.close, config.drain)
    api = await stack.enter_async_context(serving_api(keyhole, config, tls))
    keyhole.node.start_sweeper()
    watching = asyncio.create_task(upkeep.watch(keyhole.trust, tls))
    stack.callback(watching.cancel)
    ca_file = upkeep.data_dir(config, stack, dev=dev) / "ca.pem"
    if crew is None or not crew.index:
        written = asyncio.create_task(upkeep.write_ca(keyhole, ca_file))
        stack.callback(written.cancel)
        if keyhole.opened.is_set():
            await written
    said = Started(api, keyhole.proxy_url, str(ca_file), sql=tuple(keyhole.sql_urls))
    return said, partial(upkeep.begin_again, keyhole, tls)


async def unseal_at_start(keyhole: Keyhole, passphrase: Secret | None) -> None:
    """Open the vault, if that needs nobody or its passphrase is given. Raises ``NotFound`` and what ``unseal`` does."""
    header = await keyhole.node.header()
    if header is None:
        raise NotFound("there is no vault in this store", "make one: keyhole init --vault … --seal …")
    spec = keyhole.config.seal or header.seal
    if keyhole.node.migration.wanted(header):
        _log.warning("the vault has another seal: unseal it with that one, and say that it shall migrate")
    elif spec.partition(":")[0] != "shares" and (passphrase is not None or not asks_for(spec)):
        await keyhole.node.unseal(passphrase, spec=keyhole.config.seal)


@contextlib.asynccontextmanager
async def serving_api(keyhole: Keyhole, config: Config, served: ServedTls | None = None) -> AsyncIterator[str]:
    """The API on its socket, with TLS where that is given; gives its URL, and drains at the end."""
    host, port = split_address(config.listen, "listen")
    tls = served.context(config.tls_client_ca, require=config.tls_require_client_cert) if served else None
    hosts = frozenset({host, "127.0.0.1", "localhost", "::1"}) if is_loopback(host) else frozenset()
    api = Api(
        keyhole.node,
        config.api,
        hosts=hosts,
        trusted=config.trusted_proxies,
        needs_header=config.require_request_header,
    )
    if keyhole.crew is not None:
        keyhole.crew.join(api, keyhole.node)
    limits = bounds.listener(config, config.api.concurrency)
    tools = beside(api, keyhole.node, hosts, partial(listen_for_calls, keyhole, "127.0.0.1:0"))
    server = ApiServer(tools, limits, on_refusal=keyhole.node.note_refusal, noted=bounds.shortage(keyhole.node))
    try:
        bound = await server.listen(host, port, tls=tls, reuse_port=keyhole.crew is not None)
    except OSError as error:
        raise InvalidRequest(f"cannot listen on {config.listen}: {error.strerror}", "choose another --listen") from None
    keyhole.dialer.own.add(bound)
    keyhole.node.address = f"{'https' if tls else 'http'}://{_bracketed(bound[0])}:{bound[1]}"
    try:
        yield keyhole.node.address
    finally:
        await server.close(config.drain)
        await tools.close()


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
