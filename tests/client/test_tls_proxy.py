"""A server whose listeners speak TLS: its proxy is of use to clients that know plain proxies only."""

import socket
import ssl
import sys

import pytest
import trustme

import keyhole
from cli_driver import environment, serving, spawn
from client.test_calls import VALUE, answering
from keyhole.core.errors import Unreachable

HOST = "localhost"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A server with TLS, an upstream with TLS, and the environment of a client that trusts the server."""
    folder = tmp_path_factory.mktemp("tls")
    ours, theirs = trustme.CA(), trustme.CA()
    ours.cert_pem.write_to_path(folder / "server-ca.pem")
    theirs.cert_pem.write_to_path(folder / "upstream-ca.pem")
    leaf = ours.issue_cert("127.0.0.1")
    leaf.private_key_pem.write_to_path(folder / "key.pem")
    (folder / "cert.pem").write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.issue_cert(HOST).configure_cert(context)
    env = environment(KEYHOLE_HOME=str(folder / "home"), KEYHOLE_CACERT=str(folder / "server-ca.pem"))
    options = ("--tls-cert", folder / "cert.pem", "--tls-key", folder / "key.pem")
    options += ("--upstream-ca", folder / "upstream-ca.pem")
    with (
        answering(context) as upstream,
        serving("--dev", "--dev-root-token-id", "root", *options, env=env) as (_, started),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("KEYHOLE_CACERT", env["KEYHOLE_CACERT"])
        with keyhole.Client(started["api"], token="root") as client:
            client.write("secret/data/tls", {"data": {"value": VALUE}})
            binding = {"hosts": [f"{HOST}:{upstream.server_port}"], "secret": "tls", "inject": {"kind": "bearer"}}
            client.write("services/tls", {**binding, "allow_addresses": ["127.0.0.1/32", "::1/128"]})
            client.write("agents/coder", {})
            client.write("agents/coder/services/tls")
        yield started, upstream, env


def test_calls_and_sessions_go_through_it_until_the_client_is_closed(place):
    started, upstream, _ = place
    url = f"https://{HOST}:{upstream.server_port}/v1/things"
    with keyhole.Client(started["api"], token="root") as client:
        for _ in range(2):
            assert client.call("GET", url, bearer="tls").status == 200
        with client.requests_session() as session:
            assert session.get(url, timeout=10).status_code == 200
        near = client.road().port
    assert {seen[1] for seen in upstream.seen} == {f"Bearer {VALUE}"}
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", near), 5)


def test_a_command_of_run_goes_through_it(place):
    started, upstream, env = place
    script = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).status)"
    url = f"https://{HOST}:{upstream.server_port}/v1/run"
    env = {**env, "KEYHOLE_ADDR": started["api"], "KEYHOLE_TOKEN": "root"}
    for command in ((sys.executable, "-c", script), ("curl", "-sSf", "-o", "/dev/null", "-w", "%{http_code}")):
        ran = spawn("run", "--agent", "coder", "--", *command, url, env=env)
        assert (ran.code, ran.out.strip()) == (0, "200"), ran
    assert upstream.seen[-1][:2] == ("/v1/run", f"Bearer {VALUE}")


def test_a_proxy_that_is_not_trusted_is_named_and_sent_nothing(place):
    started, upstream, _ = place
    with keyhole.Client(started["api"], token="root") as client:
        client.read("sys/keyhole")  # the connection to the API stays
        before = len(upstream.seen)
        client._transport._context = ssl.create_default_context()
        with pytest.raises(Unreachable) as raised:
            client.call("GET", f"https://{HOST}:{upstream.server_port}/", bearer="tls")
    assert "KEYHOLE_CACERT" in raised.value.hint
    assert len(upstream.seen) == before
