import os

import pytest

from cli_driver import environment, ok, run, serving


@pytest.fixture(autouse=True)
def nobody_at_home(monkeypatch, tmp_path):
    """No settings of whoever runs the tests, no terminal to ask on, and this process stays as it is."""
    for name in list(os.environ):
        if name.startswith(("KEYHOLE_", "VAULT_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("KEYHOLE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr("keyhole.cli.base.has_terminal", lambda: False)
    monkeypatch.setattr("keyhole.cli.consent.has_terminal", lambda: False)
    monkeypatch.setattr("keyhole.process.harden_process", lambda: ())


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """One development server for all tests; each of them works in an org of its own."""
    env = environment(KEYHOLE_HOME=str(tmp_path_factory.mktemp("server")))
    with serving("--dev", "--dev-root-token-id", "root", env=env) as (_, started):
        yield started


@pytest.fixture
def local(tmp_path):
    """A local vault that opens with a key file."""
    ok("init", "--seal", f"keyfile:{tmp_path / 'key'}", "--make-keyfile", "-q")
    return tmp_path / "home"


@pytest.fixture
def root_of_server(server, monkeypatch):
    monkeypatch.setenv("KEYHOLE_ADDR", server["api"])
    monkeypatch.setenv("KEYHOLE_TOKEN", "root")
    return server


_ORGS = iter(range(1_000_000))


@pytest.fixture(params=["local", "server"])
def vault(request, monkeypatch):
    """The same commands have to work on a local vault and on a server."""
    if request.param == "local":
        return request.getfixturevalue("local")
    request.getfixturevalue("root_of_server")
    org = run("org", "add", f"org{next(_ORGS)}", "--json").json
    monkeypatch.setenv("KEYHOLE_TOKEN", org["root_token"])
    return org["name"]
