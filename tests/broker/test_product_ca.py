"""The authority that signs what clients of the proxy see."""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from broker.stack import HOST, Stack
from keyhole.app import assemble
from keyhole.broker import ca
from keyhole.broker.ca import Authorities
from keyhole.config import Config
from keyhole.core.request import LocalOwner, Operation, Request
from keyhole.core.value import Secret
from keyhole.crypto.x509 import CertificateAuthority


@pytest.fixture(scope="module")
def token(module_stack: Stack, runner) -> str:
    async def prepare() -> str:
        stack = module_stack
        await stack.secret("stripe/key")
        await stack.service("tls", hosts=[f"{HOST}:{stack.secure}", f"other.test:{stack.secure}"])
        return await stack.agent("coder", "tls")

    return runner.run(prepare())


async def leaf(stack: Stack, token: str, host: str) -> x509.Certificate:
    _, writer = await stack.tunnel(token, host)
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return x509.load_der_x509_certificate(der)


def test_leaf_lives_days_and_is_for_one_host_and_no_authority(stack: Stack, run, token: str) -> None:
    cert = run(leaf(stack, token, HOST))
    assert cert.not_valid_after_utc - cert.not_valid_before_utc <= timedelta(days=7)
    assert not cert.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [name.value for name in names] == [HOST]
    again = run(leaf(stack, token, HOST))
    assert again == cert


def ask_again(stack: Stack, token: str, session: ssl.SSLSession | None) -> tuple[bool, ssl.SSLSession | None]:
    """A request through a tunnel of its own: whether its TLS session was resumed, and the session for the next one."""
    with socket.create_connection(stack.address, 10) as raw:
        authority = f"{HOST}:{stack.secure}"
        credential = base64.b64encode(f"{token}:".encode()).decode()
        head = f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\nProxy-Authorization: Basic {credential}\r\n\r\n"
        raw.sendall(head.encode())
        assert b" 200 " in raw.recv(4096)
        with stack.client.wrap_socket(raw, server_hostname=HOST, session=session) as tls:
            tls.sendall(f"GET /v1/x HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
            assert b" 200 " in tls.recv(4096)
            return tls.session_reused, tls.session


def test_a_client_can_resume_its_session_in_its_next_tunnel(stack: Stack, run, token: str) -> None:
    """RFC 8446, section 2.2."""

    async def ask() -> tuple[bool, bool]:
        first, session = await asyncio.to_thread(ask_again, stack, token, None)
        second, _ = await asyncio.to_thread(ask_again, stack, token, session)
        return first, second

    assert run(ask()) == (False, True)


def test_leaf_of_one_host_is_not_shown_for_another(stack: Stack, run, token: str) -> None:
    first, second = run(leaf(stack, token, HOST)), run(leaf(stack, token, "other.test"))
    assert first != second
    with pytest.raises((ssl.SSLError, ConnectionError)):
        run(stack.tunnel(token, HOST, sni="other.test"))
    assert stack.upstream.requests == []


def test_leaves_are_kept_for_the_hosts_used_last_only(stack: Stack, run, monkeypatch) -> None:
    monkeypatch.setattr("keyhole.broker.ca._LEAVES", 2)

    async def ask() -> list[bool]:
        vault = stack.keyhole.node.open_vault()
        state, _ = await vault.authenticate(LocalOwner())
        authorities = Authorities(vault)
        first = await authorities.context(state, "a.test")
        again = await asyncio.gather(*(authorities.context(state, "a.test") for _ in range(3)))
        for host in ("b.test", "c.test"):
            await authorities.context(state, host)
        return [*(context is first for context in again), await authorities.context(state, "a.test") is first]

    assert run(ask()) == [True, True, True, False]


def test_a_host_that_many_ask_for_at_once_gets_one_leaf_also_where_the_authority_is_read(
    stack: Stack, run, monkeypatch
) -> None:
    load = ca._load

    async def slowly(*where: Any) -> CertificateAuthority:
        await asyncio.sleep(0)  # as a store does that is elsewhere
        return await load(*where)

    async def ask() -> tuple[int, int]:
        vault = stack.keyhole.node.open_vault()
        state, _ = await vault.authenticate(LocalOwner())
        authorities = Authorities(vault)
        found = await asyncio.gather(*(authorities.context(state, "a.test") for _ in range(5)))
        return authorities.minted, len({id(context) for context in found})

    monkeypatch.setattr(ca, "_load", slowly)
    assert run(ask()) == (1, 1)


def test_root_and_leaf_have_different_keys(stack: Stack, run, token: str) -> None:
    async def ask() -> x509.Certificate:
        return x509.load_pem_x509_certificate((await stack.ask("read", "sys/keyhole"))["ca"].encode())

    root, cert = run(ask()), run(leaf(stack, token, HOST))
    assert root.public_key() != cert.public_key()
    cert.verify_directly_issued_by(root)
    assert root.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0


def test_every_org_has_an_authority_of_its_own(stack: Stack, run) -> None:
    async def ask() -> tuple[str, str]:
        token = (await stack.ask("update", "sys/namespaces/acme", {}))["root_token"]
        return (await stack.ask("read", "sys/keyhole"))["ca"], (await stack.ask("read", "sys/keyhole", token=token))[
            "ca"
        ]

    ours, theirs = run(ask())
    assert ours != theirs


def test_key_of_the_authority_stands_nowhere_in_clear(run, tmp_path: Path) -> None:
    async def make() -> bytes:
        config = Config(vault=f"sqlite:{tmp_path / 'vault.db'}", data=str(tmp_path))
        keyhole = await assemble(config, create=True)
        try:
            await keyhole.node.init("passphrase", passphrase=Secret("a long enough passphrase"))
            await keyhole.node.handle(Request(LocalOwner(), Operation("read"), "sys/keyhole", {}))
            vault = keyhole.node.open_vault()
            state, _ = await vault.authenticate(LocalOwner())
            authority = await keyhole.broker.authorities(vault).get(state)
            return authority._key.private_bytes(
                serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        finally:
            await keyhole.close()

    der = run(make())
    key = serialization.load_der_private_key(der, None)
    scalar = key.private_numbers().private_value.to_bytes(32, "big")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.stat().st_size > 4096 for path in files)
    for path in files:
        content = path.read_bytes()
        assert scalar not in content
        assert b"PRIVATE KEY" not in content
        assert der[40:] not in content
