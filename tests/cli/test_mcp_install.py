"""``mcp install``: our server gets into what clients keep, everything else stays, and it comes out again."""

import json
import re
import tomllib

import pytest

from cli_driver import run
from keyhole.cli.mcp.clients import CLIENTS, has_server, with_server, without_server
from keyhole.core.errors import InvalidRequest

ENTRY = {"command": "/usr/bin/keyhole", "args": ["mcp", "serve", "--agent", "coder"]}
BY_NAME = {client.name: client for client in CLIENTS}
JSON, CODE, TOML = BY_NAME["cursor"], BY_NAME["vscode"], BY_NAME["codex"]
COMMENTED = """// of mine
{
  "theme": "dark", /* keep */
  "mcpServers": {
    // the first
    "other": {"command": "npx", "args": ["a", "}{"], "env": {"A\\"B": "1"}},
  },
}
"""


@pytest.mark.parametrize(
    "text",
    [
        COMMENTED,
        '{"mcpServers": {"other": {"command": "x"}}}',
        '{\n    "mcpServers": {\n        "other": {"command": "x"}\n    }\n}\n',
        '{"mcpServers": {}, "z": [1, {"mcpServers": {"keyhole": 1}}]}',
        '{"z": 1}',
        "{}",
    ],
)
def test_what_was_there_is_there_afterwards_and_undoing_undoes(text):
    made = with_server(JSON, text, ENTRY)
    assert has_server(JSON, made)
    again = with_server(JSON, made, {**ENTRY, "command": "/opt/keyhole"})
    assert again.count('"keyhole": {') == 1
    assert "/opt/keyhole" in again
    undone = without_server(JSON, made)
    assert not has_server(JSON, undone)
    for piece in ("// of mine", "/* keep */", "// the first", '"other"', '"z"', 'A\\\\"B'):
        assert (piece in text) == (piece in made) == (piece in undone), piece
    if "other" in text:
        assert undone == text
    if "//" not in text:
        before = json.loads(text)
        servers = {**before.get("mcpServers", {}), "keyhole": ENTRY}
        assert json.loads(made) == {**before, "mcpServers": servers}


def test_a_client_that_wants_more_of_an_entry_gets_it():
    assert json.loads(with_server(CODE, "", ENTRY)) == {"servers": {"keyhole": {"type": "stdio", **ENTRY}}}


@pytest.mark.parametrize(
    "text",
    ["", 'model = "o"\n', 'model = "o"\n\n[mcp_servers.other]\ncommand = "x"\n# mine\n[tail]\na = 1\n', "a = 1"],
)
def test_toml_is_kept_too(text):
    made = with_server(TOML, text, ENTRY)
    assert tomllib.loads(made)["mcp_servers"]["keyhole"] == ENTRY
    assert with_server(TOML, made, ENTRY) == made
    assert tomllib.loads(without_server(TOML, made)) == tomllib.loads(text)
    assert without_server(TOML, made).startswith(text)


@pytest.mark.parametrize("text", ["[]", "{", "{]", '{"a" 1}', '{"mcpServers": []}', "nonsense", "[" * 100_000])
def test_what_is_no_configuration_is_left_alone(text):
    with pytest.raises(InvalidRequest):
        with_server(JSON, text, ENTRY)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_all_clients_that_are_here_get_it_and_lose_it_again(home):
    assert run("mcp", "install").code == 5
    (home / ".cursor").mkdir()
    (home / ".codex").mkdir()
    (home / ".cursor/mcp.json").write_text(COMMENTED)
    (home / ".cursor/mcp.json").chmod(0o640)
    done = run("mcp", "install", "--agent", "coder", "--json")
    assert {each["client"] for each in done.json["clients"]} == {"cursor", "codex"}
    assert (home / ".cursor/mcp.json").stat().st_mode & 0o777 == 0o640
    assert (home / ".codex/config.toml").stat().st_mode & 0o777 == 0o600
    assert tomllib.loads((home / ".codex/config.toml").read_text())["mcp_servers"]["keyhole"]["args"][-1] == "coder"
    assert run("mcp", "uninstall").code == 0
    assert (home / ".cursor/mcp.json").read_text() == COMMENTED
    assert run("mcp", "uninstall").code == 0


@pytest.mark.parametrize(("client", "seal"), [("cursor", "keyfile"), ("codex", "age")])
def test_a_client_is_told_where_a_vault_of_its_own_place_is(home, monkeypatch, client, seal):
    monkeypatch.setenv("KEYHOLE_HOME", "elsewhere")
    monkeypatch.setenv("KEYHOLE_SEAL", f"{seal}:unseal.key")
    (home / f".{client}").mkdir()
    assert run("mcp", "install", client).code == 0
    text = (home / f".{client}" / ("mcp.json" if client == "cursor" else "config.toml")).read_text()
    whole = json.loads(text)["mcpServers"] if client == "cursor" else tomllib.loads(text)["mcp_servers"]
    here = {"KEYHOLE_HOME": str(home / "elsewhere"), "KEYHOLE_SEAL": f"{seal}:{home / 'unseal.key'}"}
    assert whole["keyhole"]["env"] == here
    monkeypatch.setenv("KEYHOLE_SEAL", "transit:https://me:secret@vault.example/key")
    assert "secret" not in run("mcp", "install", "--print").out
    assert run("mcp", "uninstall").code == 0
    assert "keyhole" not in (home / f".{client}" / ("mcp.json" if client == "cursor" else "config.toml")).read_text()


def test_no_credential_gets_into_a_configuration(home, monkeypatch):
    (home / ".cursor").mkdir()
    monkeypatch.setenv("KEYHOLE_TOKEN", "hvs.secret")
    monkeypatch.setenv("KEYHOLE_ADDR", "https://vault.internal:8200")
    assert run("mcp", "install", "cursor").code == 0
    text = (home / ".cursor/mcp.json").read_text()
    assert "hvs" not in text
    assert json.loads(text)["mcpServers"]["keyhole"]["args"][:2] == ["--vault", "https://vault.internal:8200"]
    monkeypatch.setenv("KEYHOLE_VAULT", "postgres://me:secret@db/keyhole")
    refused = run("mcp", "install", "cursor")
    assert refused.code == 3
    assert "secret" not in refused.err
    assert run("mcp", "install", "zed").code == 3


PLACES = {
    "claude-desktop": ".config/Claude/claude_desktop_config.json",
    "claude-code": ".claude.json",
    "cursor": ".cursor/mcp.json",
    "vscode": ".config/Code/User/mcp.json",
    "codex": ".codex/config.toml",
}
OWN = {
    "claude-code": '{"numStartups": 3, "mcpServers": {"mine": {"command": "x"}}, "projects": {"/a": {"b": {}}}}',
    "vscode": '{\n\t// mine\n\t"inputs": [],\n\t"servers": {\n\t\t"mine": {"type": "http", "url": "https://x"},\n\t}\n}\n',
    "codex": 'model = "o"\n\n[mcp_servers.mine]\ncommand = "x"\n[mcp_servers.mine.env]\nA = "1"\n\n[tui]\nb = 1\n',
}


@pytest.mark.parametrize("client", PLACES)
def test_the_gateway_is_installed_beside_what_is_there_and_taken_out_alone_or_with_it(home, monkeypatch, client):
    monkeypatch.setenv("KEYHOLE_TOKEN", "hvs.secret")
    path = home / PLACES[client]
    path.parent.mkdir(parents=True, exist_ok=True)
    before = OWN.get(client, COMMENTED)
    path.write_text(before)
    assert run("mcp", "install", client, "--agent", "coder").code == 0
    with_serve = path.read_text()
    for _ in range(2):  # again is the same
        assert run("mcp", "install", client, "--gateway", "--agent", "coder").code == 0
    text = path.read_text()
    assert "hvs.secret" not in text
    form, key = BY_NAME[client].form, BY_NAME[client].key
    if form == "toml":
        servers = tomllib.loads(text)[key]
    else:
        plain = re.sub(r"//[^\n\"]*\n|/\*.*?\*/", "", text) if "//" in before else text
        servers = json.loads(re.sub(r",(\s*[}\]])", r"\1", plain))[key]
    assert set(servers) == {"keyhole", "keyhole-gateway", "mine" if client in OWN else "other"}
    assert servers["keyhole"]["args"] == ["mcp", "serve", "--agent", "coder"]
    assert servers["keyhole-gateway"]["args"] == ["mcp", "gateway", "--agent", "coder"]
    assert ("type" in servers["keyhole-gateway"]) == (client == "vscode")
    assert run("mcp", "uninstall", client, "--gateway").code == 0
    assert path.read_text().rstrip() == with_serve.rstrip()
    assert run("mcp", "install", client, "--gateway").code == 0
    assert run("mcp", "uninstall", client).code == 0
    assert path.read_text().rstrip() == before.rstrip()


@pytest.mark.usefixtures("local")
def test_the_gateway_is_installed_for_servers_that_there_are(home):
    (home / ".cursor").mkdir()
    refused = run("mcp", "install", "cursor", "--server", "git")
    assert (refused.code, "--gateway" in refused.err) == (3, True)
    missing = run("mcp", "install", "cursor", "--gateway", "--server", "git")
    assert (missing.code, "no server 'git'" in missing.err) == (5, True)
    assert not (home / ".cursor/mcp.json").exists()
    assert run("mcp", "server", "add", "git", "--url", "https://git.example/mcp").code == 0
    assert run("mcp", "install", "cursor", "--gateway", "--server", "git").code == 0
    [(name, entry)] = json.loads((home / ".cursor/mcp.json").read_text())["mcpServers"].items()
    assert (name, entry["args"][-2:]) == ("keyhole-gateway", ["--server", "git"])


def test_line_ends_stay_what_they_were(home):
    (home / ".cursor").mkdir()
    config = home / ".cursor/mcp.json"
    config.write_bytes(COMMENTED.replace("\n", "\r\n").encode())
    assert run("mcp", "install", "cursor").code == 0
    assert b"// of mine\r\n" in config.read_bytes()
    assert run("mcp", "uninstall").code == 0
    assert config.read_bytes() == COMMENTED.replace("\n", "\r\n").encode()


def test_a_link_stays_a_link_and_one_that_leads_nowhere_is_said(home):
    (home / ".cursor").mkdir()
    (home / "dotfiles").mkdir()
    config = home / ".cursor/mcp.json"
    config.symlink_to(home / "dotfiles/mcp.json")
    assert run("mcp", "install", "cursor").code == 0
    assert config.is_symlink()
    assert "keyhole" in (home / "dotfiles/mcp.json").read_text()
    for target in (home / "no/such/folder.json", config):
        config.unlink()
        config.symlink_to(target)
        done = run("mcp", "install", "cursor")
        assert done.code == 3, done
        assert "cannot be" in done.err
        assert "Traceback" not in done.err


def test_none_is_changed_when_one_cannot_be_read(home):
    (home / ".cursor").mkdir()
    (home / ".codex").mkdir()
    (home / ".cursor/mcp.json").write_text(COMMENTED)
    (home / ".codex/config.toml").write_text("= damaged")
    done = run("mcp", "install")
    assert done.code == 3
    assert "Codex" in done.err
    assert (home / ".cursor/mcp.json").read_text() == COMMENTED
