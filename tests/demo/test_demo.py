"""The demonstration shows what it says, in a terminal's words, and leaves nothing behind."""

import asyncio
import io
import json
import tempfile

import pytest
from rich.console import Console

from keyhole import cli, demo
from keyhole.cli.demo import show


@pytest.fixture(scope="module")
def outcome():
    return asyncio.run(demo.perform())


def test_the_key_arrives_only_where_it_may_and_never_comes_back(outcome):
    assert [scene.true for scene in outcome.scenes] == [True] * 4
    use, elsewhere, echo, read = outcome.scenes
    assert "Authorization: Bearer sk_demo_…(32 characters, correct)" in use.received[0]
    assert demo.PLACEHOLDER in use.saw
    assert elsewhere.received == ()
    assert "no_service" in elsewhere.saw or "403" in elsewhere.saw
    assert "Bearer ********" in echo.saw
    assert "permission denied" in read.saw


def test_every_attempt_is_in_the_audit_trail_and_the_trail_verifies(outcome):
    refused = [record["result"] for record in outcome.records if record["phase"] == "refused"]
    assert refused == ["no_service", "policy_denied"]
    assert [record["scrubbed"] for record in outcome.records if "scrubbed" in record] == [1]
    assert outcome.verified["valid"] is True
    json.dumps(outcome.as_data())


def test_a_terminal_gets_both_sides_and_no_colour_when_it_wants_none(outcome, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    out = io.StringIO()
    show(outcome, Console(file=out, width=100, force_terminal=True))
    text = out.getvalue()
    assert "what the agent saw" in text
    assert "what the API received" in text
    assert "The API got the right key twice. The agent never had it." in text
    assert "\x1b[3" not in text


def test_what_does_not_go_as_it_should_is_said_and_ends_with_1(monkeypatch, capsys):
    monkeypatch.setattr(demo.SampleApi, "describe", lambda _self, sent: sent.upper())
    assert cli.main(["demo"]) == 1
    assert "did not go as it has to" in capsys.readouterr().out


def test_it_needs_no_curl_and_leaves_nothing_behind(tmp_path, monkeypatch, capsys):
    programs, home, temporary = (tmp_path / name for name in ("bin", "home", "tmp"))
    for folder in (programs, home, temporary):
        folder.mkdir()
    (programs / "sh").symlink_to("/bin/sh")
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    code = cli.main(["demo", "--json"])
    said = capsys.readouterr()
    assert code == 0, said
    assert json.loads(said.out)["true"] is True
    assert list(home.iterdir()) == list(temporary.iterdir()) == []
