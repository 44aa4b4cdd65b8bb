"""Keyhole with its listeners for databases, on a thread of its own, so that blocking clients can be used beside it."""

import asyncio
import contextlib
import tempfile
import threading
import time
from pathlib import Path

import psycopg
import pymysql

from keyhole.app import open_ephemeral, start_proxy, start_sql
from keyhole.config import Config
from keyhole.core.request import Operation, Request
from keyhole.core.sql import SCHEMES

ROOT = "root"
LOOPBACK = ["127.0.0.1/32"]


class World:
    """Use it as a context manager.

    Attributes:
        keyhole: the node with its road.
        postgres, mysql: ports of the listeners.
        proxy: port of the proxy.
        token: of an agent, where a test has made one.
    """

    def __init__(self, ca_pem, hosts, **settings):
        self._ca_pem = ca_pem
        self._config = Config(resolve=tuple(f"{host}:127.0.0.1" for host in hosts))._replace(**settings)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self):
        self._exit = contextlib.AsyncExitStack()
        self._thread.start()
        self.run(self._start())
        return self

    def __exit__(self, *details):
        self.run(self._exit.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def call_soon(self, act, *about):
        """Have the loop do something, without waiting for it."""
        self._loop.call_soon_threadsafe(act, *about)

    async def _start(self):
        folder = Path(self._exit.enter_context(tempfile.TemporaryDirectory()))
        (folder / "ca.pem").write_bytes(self._ca_pem)
        config = self._config._replace(upstream_ca=str(folder / "ca.pem"))
        self.keyhole, _ = await open_ephemeral(config, token=ROOT)
        self._exit.push_async_callback(self.keyhole.close)
        proxy = await start_proxy(self.keyhole, "127.0.0.1:0")
        self._exit.push_async_callback(proxy.close, 1.0)
        self.proxy = int(self.keyhole.proxy_url.rpartition(":")[2])
        for scheme in SCHEMES:
            server = await start_sql(self.keyhole, f"{scheme}://127.0.0.1:0")
            self._exit.push_async_callback(server.close, 1.0)
            setattr(self, scheme, int(self.keyhole.sql_urls[-1].rpartition(":")[2]))
        self.keyhole.node.start_sweeper()

    def ask(self, operation, path, data=None, token=ROOT):
        request = Request(token.encode(), Operation(operation), path, data or {})
        reply = self.run(self.keyhole.node.handle(request))
        return dict(reply.data or reply.auth or {})

    def secret(self, name, **fields):
        self.ask("update", f"secret/data/{name}", {"data": fields})

    def service(self, name, scheme, host, port, secret, **how):
        data = {
            "schemes": [scheme],
            "hosts": [f"{host}:{port}"],
            "secret": secret,
            "inject": {"kind": "sql", **how},
            "allow_addresses": LOOPBACK,
        }
        self.ask("update", f"services/{name}", data)

    def agent(self, name, *services):
        """Its token, which can do nothing but use these services."""
        self.ask("update", f"agents/{name}", {})
        for service in services:
            self.ask("update", f"agents/{name}/services/{service}", {})
        return self.ask("update", f"agents/{name}/token", {"scope": "proxy"})["token"]

    def connect(self, service="shop", token="", database="shop", **options):
        """A session of PostgreSQL through the listener."""
        return psycopg.connect(
            host="127.0.0.1",
            port=self.postgres,
            user=service,
            password=token or self.token,
            dbname=database,
            autocommit=True,
            **options,
        )

    def connect_mysql(self, service="maria", token="", **options):
        """A session of MySQL through the listener."""
        return pymysql.connect(
            host="127.0.0.1", port=self.mysql, user=service, password=token or self.token, autocommit=True, **options
        )

    def records(self, service, count=0):
        """The records of the uses of a service, the oldest first; at least ``count``, as outcomes are written soon."""
        until = time.monotonic() + 60
        while True:
            found = self.ask("read", "sys/audit-log", {"limit": 1000, "service": service})["records"]
            uses = sorted((r for r in found if r.get("operation") == "use"), key=lambda record: record["time"])
            if len(uses) >= count:
                return uses
            assert time.monotonic() < until, uses
            time.sleep(0.05)
