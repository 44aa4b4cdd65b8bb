"""``server``: the API and the proxy."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from keyhole.cli.base import Session, command, pass_session
from keyhole.config import SETTINGS, TABLES, Config
from keyhole.core.errors import IntegrityError, InvalidRequest, NotFound, Sealed

if TYPE_CHECKING:
    from keyhole.app import Started


def _further(function: Callable[..., None]) -> Callable[..., None]:
    """Options for the settings that have none of their own. There are too many for a page of help: a table has them."""
    said = {parameter.name for parameter in getattr(function, "__click_params__", ())}
    for name in SETTINGS:
        if name in said or name == "vault":
            continue
        option = f"--{name.replace('_', '-')}"
        default = Config._field_defaults.get(name)
        if isinstance(default, bool):
            function = click.option(option, is_flag=True, default=None, hidden=True)(function)
        else:
            function = click.option(option, metavar="VALUE", multiple=name in TABLES, hidden=True)(function)
    return function


@command(
    "server",
    examples="""
    keyhole server --dev --dev-root-token-id root
    keyhole server --vault sqlite:/var/lib/keyhole/vault.db --seal keyfile:/etc/keyhole/key
    keyhole server --config /etc/keyhole/keyhole.toml --listen 0.0.0.0:8200 --tls-cert cert.pem --tls-key key.pem
    """,
)
@_further
@click.option("--config", "config_file", metavar="FILE", help="Settings in TOML; KEYHOLE_… and options win.")
@click.option("--dev", is_flag=True, help="A vault in memory, open, with a root token. Nothing is kept.")
@click.option("--dev-root-token-id", metavar="TOKEN", default="", help="That root token. For development only.")
@click.option("--await-init", is_flag=True, help="Without a vault in the store, wait for PUT /v1/sys/init to make one.")
@click.option("--listen", metavar="HOST:PORT", help="The API; 127.0.0.1:8200 unless said. Port 0 picks a free one.")
@click.option("--proxy-listen", metavar="HOST:PORT", help="The proxy; 127.0.0.1:8210 unless said.")
@click.option("--proxy-socket", metavar="PATH", help="A Unix socket on which the proxy listens too.")
@click.option(
    "--sql-listen",
    metavar="SCHEME://HOST:PORT",
    multiple=True,
    help="Clients of databases (postgres, mysql), who show their token as password.",
)
@click.option("--seal", metavar="SEAL", help="How the vault is opened, where it is not as the vault says.")
@click.option("--data", metavar="DIR", help="Where the CA's certificate is written.")
@click.option("--egress", metavar="MODE", help="For new orgs: deny, allow or log calls to hosts without a service.")
@click.option("--upstream-ca", metavar="FILE", help="CAs that upstreams may use besides the system's.")
@click.option("--upstream-crl", metavar="FILE", help="Revocation lists for every CA that upstreams use.")
@click.option("--upstream-proxy", metavar="ADDRESS", help="A corporate proxy: HOST:PORT or socks5://HOST:PORT.")
@click.option("--upstream-proxy-names", is_flag=True, default=None, help="Let that proxy resolve names.")
@click.option("--upstream-proxy-credentials", metavar="FILE", help="A file with USER:PASSWORD for that proxy.")
@click.option("--upstream-no-proxy", metavar="HOST", multiple=True, help="Reached without it: HOST, .DOMAIN or CIDR.")
@click.option("--resolver", metavar="HOST:PORT", help="A DNS server for upstreams, instead of the system's.")
@click.option("--resolve", metavar="HOST:ADDRESS", multiple=True, help="Answer for one host; may be repeated.")
@click.option("--tls-cert", metavar="FILE", help="Certificate chain for both listeners.")
@click.option("--tls-key", metavar="FILE", help="Its private key.")
@click.option("--tls-client-ca", metavar="FILE", help="CAs of certificates that clients of the API may prove.")
@click.option("--tls-require-client-cert", is_flag=True, default=None, help="Refuse clients of the API without one.")
@click.option(
    "--trusted-proxy",
    "--trusted-proxies",
    "trusted_proxies",
    metavar="CIDR",
    multiple=True,
    help="Believe its X-Forwarded-For.",
)
@click.option("--require-request-header", is_flag=True, default=None, help="Refuse without X-Vault-Request: true.")
@click.option("--insecure-listen", is_flag=True, default=None, help="Listen off loopback without TLS.")
@click.option("--workers", metavar="N", help="Processes that serve together (Linux), or auto; 1 unless said.")
@click.option("--drain", metavar="DURATION", help="What running requests get at SIGTERM; 10s unless said.")
@pass_session
def server_command(
    session: Session,
    /,
    *,
    config_file: str | None,
    dev: bool,
    dev_root_token_id: str,
    await_init: bool,
    **flags: Any,
) -> None:
    """Run a server until SIGTERM or Ctrl-C.

    With --json the first line of stdout, once it is ready, is an object with api, proxy, ca_file, pid and, with --dev,
    root_token. A vault with a passphrase starts sealed unless --passphrase-file or --passphrase-fd opens it; one with
    shares always does. With --await-init whoever reaches the API first makes the vault and gets its root token.

    Every other setting of docs/settings.md is an option too, such as --connect-timeout 5s or --org-shares acme=0.25.
    """
    from keyhole.app import Started, serve  # noqa: PLC0415  # the whole house: help and clients do without
    from keyhole.config import load  # noqa: PLC0415
    from keyhole.workers import parent  # noqa: PLC0415
    from keyhole.workers.worker import loop_factory  # noqa: PLC0415

    if dev_root_token_id and not dev:
        raise InvalidRequest("--dev-root-token-id goes with --dev", "a real root token is made by keyhole init")
    if dev and await_init:
        raise InvalidRequest("--dev makes a vault itself", "leave --await-init out")
    config = load(config_file, {**flags, "vault": session.vault or None})
    if config.vault.startswith(("http://", "https://")):
        raise InvalidRequest(
            "a server needs a store, not another server", "write --vault sqlite:PATH or postgres://USER@HOST/DB"
        )
    if config.workers != 1:
        parent.require_possible(config, dev=dev)
    passphrase = session.passphrase.get() if session.passphrase.given and not dev else None

    def ready(started: Started) -> None:
        session.pin_code()  # commands of this user may change its files, and what is loaded later has the keys
        _announce(session, started, dev=dev)

    if parent.count(config) > 1:
        crew = parent.Parent(config, passphrase=passphrase, await_init=await_init)
        server = crew.run(lambda said: ready(Started(**said)))
    else:
        server = serve(
            config,
            dev=dev,
            dev_token=dev_root_token_id,
            passphrase=passphrase,
            await_init=await_init,
            on_ready=ready,
        )
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(server)
    except (IntegrityError, NotFound) as error:
        # A server that cannot open its vault is as good as sealed, whatever the reason.
        raise Sealed(error.reason, error.hint) from None


def _announce(session: Session, started: Started, *, dev: bool) -> None:
    data: dict[str, Any] = {"api": started.api, "proxy": started.proxy}
    if started.sql:
        data["sql"] = list(started.sql)
    if dev:
        data["root_token"] = started.root_token
    lines = [
        f"API:        {started.api}",
        f"proxy:      {started.proxy}",
        *(f"databases:  {url}" for url in started.sql),
        *([f"root token: {started.root_token}"] if dev else []),
        f"CA:         {started.ca_file}",
    ]
    session.out.result({**data, "ca_file": started.ca_file, "pid": os.getpid()}, lines)
    if dev:
        session.out.warn("development mode: everything is kept in memory and gone at the end")
