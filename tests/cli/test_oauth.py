"""``keyhole oauth``: a person connects an account from the command line, in a browser or on another device."""

import contextlib
import http.client
import json
import re
import sys
import threading
from urllib.parse import urlsplit

import pytest

import oauth_provider
from cli_driver import ok, run
from keyhole.cli import oauth_connect
from keyhole.core.errors import InvalidRequest, UpstreamTimeout
from keyhole.net.loopback import Landing
from oauth_provider import CLIENT, CLIENT_SECRET


@pytest.fixture
def provider():
    with oauth_provider.running() as provider:
        yield provider


@pytest.fixture
def crm(vault, provider, tmp_path):
    """The connection ``crm``, and the file of the provider's CA."""
    ca = tmp_path / "ca.pem"
    ca.write_text(oauth_provider.ca_pem())
    said = ok(
        *("oauth", "add", "crm", "--issuer", provider.url, "--client-id", CLIENT, "--scopes", "read write"),
        *("--ca-file", ca),
        stdin=CLIENT_SECRET,
    )
    assert "mounted the engine oauth at oauth/" in said.err
    assert "keyhole oauth connect crm" in said.err
    return ca


def get(url):
    """Status of what a browser gets at an address of this machine."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=10)
    connection.request("GET", f"{parts.path}?{parts.query}")
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status


def browser(provider, monkeypatch, *before):
    """Opens what it is told, agrees, and comes back; first it goes to other addresses."""
    threads, seen = [], []

    def visit(url):
        back = provider.agree(url)
        seen.extend([get(back.replace("/callback", path)) for path in before])
        seen.append(get(back))

    def opened(url):
        threads.append(threading.Thread(target=visit, args=(url,)))
        threads[-1].start()

    monkeypatch.setattr("webbrowser.open", opened)
    return threads, seen


def test_an_account_is_connected_in_a_browser(crm, provider, monkeypatch):
    assert ok("oauth", "list", "--json").json[0]["status"] == "not connected"
    threads, seen = browser(provider, monkeypatch, "/favicon.ico", "/callback/x")
    said = ok("oauth", "connect", "crm")
    threads[0].join()
    assert seen == [404, 404, 200]
    assert said.err.endswith("connected crm; scopes: read write\n")
    row = ok("oauth", "list").out.splitlines()[1].split()
    assert row[:4] == ["crm", "127.0.0.1", "authorization_code", "connected"]
    shown = ok("oauth", "show", "crm")
    assert "connected" in shown.out
    assert ok("oauth", "refresh", "crm").err.startswith("refreshed crm; the token ends in ")
    text = "".join(each.out + each.err for each in (said, shown, ok("oauth", "show", "crm", "--json")))
    assert not any(value in text for value in (CLIENT_SECRET, *provider.refresh, *provider.access))
    added = ok("service", "add", "crm", "--host", "api.crm.example", "--secret", "/oauth/crm", "--oauth2")
    assert added.err == "service crm: /oauth/crm#value goes to api.crm.example:443 as oauth2\n"
    assert ok("oauth", "rm", "crm", "--yes").err == "removed crm\n"
    assert not any(map(provider.knows, provider.access))
    assert run("oauth", "show", "crm").code == 5


def test_an_account_is_connected_by_pasting(crm, provider, monkeypatch):
    def agree(prompt):
        assert prompt
        sys.stderr.flush()
        shown = sys.stderr.buffer.getvalue().decode()
        return provider.agree(re.search(r"https://\S+", shown)[0])

    monkeypatch.setattr(oauth_connect, "ask_text", agree)
    assert "connected crm" in ok("oauth", "connect", "crm", "--paste").err


def test_an_account_is_connected_on_another_device(crm, provider, monkeypatch):
    pauses = []

    def sleep(seconds):
        pauses.append(seconds)
        provider.agreed.update(provider.devices)
        threading.Event().wait(seconds)  # the server keeps the pace by its own clock

    monkeypatch.setattr(oauth_connect.time, "sleep", sleep)
    said = ok("oauth", "connect", "crm", "--device")
    assert "type the code BDSD-HQMK" in said.err
    assert said.err.endswith("connected crm; scopes: read write\n")
    assert len(provider.polls) == 1


def test_hanging_up_cancels_the_device_flow(crm, provider, monkeypatch):
    def interrupted(_seconds):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(oauth_connect.time, "sleep", interrupted)
        assert run("oauth", "connect", "crm", "--device").code != 0
    provider.agreed.update(provider.devices)
    session = oauth_connect.Session()
    session.asks = False
    with contextlib.closing(session), pytest.raises(InvalidRequest, match="cancelled"):
        session.client.write("oauth/connections/crm/device/poll")
    assert provider.polls == []


def test_what_is_wrong_is_said_with_the_next_step(crm, provider):
    for args, code, words in (
        (["show", "other"], 5, "keyhole oauth list"),
        (["connect", "crm", "--device", "--paste"], 3, "leave --paste"),
        (["connect", "crm", "--redirect-uri", "https://app.example/x"], 3, "--paste"),
        (["refresh", "crm"], 3, "keyhole oauth connect crm"),
        (["add", "x", "--provider", "nobody", "--client-id", "c", "--no-secret"], 3, "in the catalog"),
        (["add", "x", "--provider", "xero", "--client-id", "c", "--grant", "refresh_token"], 3, "--json-in"),
        (["add", "x", "--provider", "okta", "--client-id", "c", "--parameter", "domain"], 3, "NAME=TEXT"),
    ):
        ran = run("oauth", *args, stdin="{}")
        assert ran.code == code, ran
        assert words in ran.err, ran


def test_a_refresh_token_from_elsewhere_is_taken_from_stdin(crm, provider):
    both = {"client_secret": CLIENT_SECRET, "refresh_token": provider.consent()}
    args = ("--issuer", provider.url, "--client-id", CLIENT, "--ca-file", crm, "--grant", "refresh_token", "--json-in")
    ok("oauth", "add", "old", *args, stdin=json.dumps(both))
    assert ok("oauth", "refresh", "old", "--json").json["status"] == "connected"


def test_the_providers_are_listed_without_a_vault():
    names = [each["name"] for each in ok("oauth", "providers", "--json").json]
    assert {"google", "github", "microsoft"} <= set(names)
    assert "accounts.google.com" in ok("oauth", "providers", "google").out
    assert run("oauth", "providers", "nobody").code == 5


def test_only_what_is_wanted_lands():
    """Other programs and pages on this machine can send anything."""
    with Landing() as here:
        parts = urlsplit(here.url)
        heads = [
            f"GET /callback?state=wrong HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n",
            "GET /callback?state=right HTTP/1.1\r\nHost: attacker.example\r\n\r\n",
            f"POST /callback?state=right HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n",
            f"GET /callback?state=right HTTP/1.1\r\nHost: {parts.netloc}\r\nHost: {parts.netloc}\r\n\r\n",
            f"GET http://{parts.netloc}/callback?state=right HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n",
            "\r\n\r\n",
            "x" * 20_000,
            f"GET /callback?state=right&code=1 HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n",
        ]
        answers = []

        def send():
            import socket

            for head in heads:
                with socket.create_connection((parts.hostname, parts.port), timeout=10) as connection:
                    connection.sendall(head.encode())
                    try:
                        answers.append(connection.recv(64).split(b" ")[1])
                    except (OSError, IndexError):
                        answers.append(b"")

        thread = threading.Thread(target=send)
        thread.start()
        target = here.wait(60, lambda target: "state=right" in target)
        thread.join()
        assert target == "/callback?state=right&code=1"
        assert answers[-1] == b"200"
        assert not {b"200"} & set(answers[:-1])
        with pytest.raises(UpstreamTimeout):
            here.wait(0.05, lambda _: True)
