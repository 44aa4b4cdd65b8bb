"""The sandbox of macOS, as far as it can be tested elsewhere: its profile, and how a command is put into it."""

import asyncio
import re

import pytest

from faces.run_fixtures import authority
from keyhole.faces.run import plainly
from keyhole.faces.run.plan import RunPlan
from keyhole.faces.run.trust import trust_files
from keyhole.process import seatbelt

# Takes `-p PROFILE`, as sandbox-exec does, writes it down, and becomes the command.
PRETENDER = '#!/bin/sh\ntest "$1" = -p || exit 70\nprintf %s "$2" > "$0.profile"\nshift 2\nexec "$@"\n'


def rules(text: str) -> list[str]:
    """The rules; a string with a bracket or quote in it counts as one word."""
    found = re.findall(r'\((?:[^()"]|"(?:[^"\\]|\\.)*"|\((?:[^()"]|"(?:[^"\\]|\\.)*")*\))*\)', text)
    assert "".join(found) == text.replace("\n", ""), "something is not closed"
    return found


def test_the_network_is_denied_but_for_the_ports_that_are_named():
    found = rules(seatbelt.profile([], {}, [8210, 5432]))
    allowed = [rule for rule in found if rule.startswith("(allow network-outbound")]
    assert allowed == [f'(allow network-outbound (remote ip "localhost:{port}"))' for port in (5432, 8210)]
    assert found.index("(deny network*)") < found.index(allowed[0])
    assert "(deny network*)" not in rules(seatbelt.profile([], {}, None))


def test_the_vault_and_keychains_are_denied_wherever_their_links_lead(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    found = rules(seatbelt.profile([str(tmp_path / "link")], {"HOME": "/Users/ada"}, []))
    for path in (tmp_path / "link", tmp_path / "real", "/Users/ada/Library/Keychains"):
        assert f'(deny file-read* file-write* (subpath "{path}"))' in found
    assert '(deny mach-lookup (global-name "com.apple.SecurityServer"))' in found


def test_a_path_cannot_end_its_rule():
    found = rules(seatbelt.profile(['/a") (allow network*) ("\\'], {}, []))
    assert not [rule for rule in found if rule.startswith("(allow network*")]


@pytest.fixture
def pretender(tmp_path, monkeypatch):
    program = tmp_path / "sandbox-exec"
    program.write_text(PRETENDER)
    program.chmod(0o755)
    monkeypatch.setattr(seatbelt, "PROGRAM", str(program))
    monkeypatch.setattr(plainly.sys, "platform", "darwin")
    return tmp_path / "sandbox-exec.profile"


def run(*argv, **given):
    plan = RunPlan(argv, "http://agent:t0k3n@127.0.0.1:9", authority(), base_env={"PATH": "/usr/bin:/bin"}, **given)
    reports, messages = [], []

    async def work():
        with trust_files(b"", {}, java=False) as files:
            return await plainly.run_plainly(plan, files, None, reports.append, messages.append)

    return asyncio.run(work()), reports, messages


def test_a_command_is_put_into_the_profile_and_reaches_the_proxy_through_a_port_of_its_own(pretender, tmp_path):
    out = tmp_path / "out"
    code, [report], _ = run("/bin/sh", "-c", f"echo $HTTPS_PROXY > {out}; exit 7", hidden=[tmp_path / "vault"])
    assert (code, report.level, report.network) == (7, "partial", "broker")
    port = out.read_text().strip().rpartition(":")[2]
    text = pretender.read_text()
    assert f'(allow network-outbound (remote ip "localhost:{port}"))' in text
    assert str(tmp_path / "vault") in text
    assert "t0k3n" not in text


def test_what_is_not_there_is_told_from_what_fails(pretender):
    assert run("no-such-command")[0] == 127
    assert not pretender.exists()


def test_a_whole_sandbox_is_more_than_it_gives(pretender):
    code, reports, [message] = run("true", sandbox="require")
    assert (code, reports) == (125, [])
    assert "Linux" in message


def test_without_the_program_a_network_of_its_own_is_refused(pretender, monkeypatch):
    monkeypatch.setattr(seatbelt, "PROGRAM", "/nonexistent/sandbox-exec")
    assert run("true", network="broker")[0] == 125
    code, [report], _ = run("true")
    assert (code, report.level, report.network) == (0, "none", "open")
