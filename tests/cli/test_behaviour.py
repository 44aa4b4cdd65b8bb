"""What holds for every command: exit codes, errors in one line, no value in a command line, help with examples."""

import json
import os
import stat
import subprocess
import sys

import click
import pytest

from cli_driver import environment, ok, run, spawn
from keyhole.cli.root import root

VALUE = "sk_live_0123456789"


def commands(group=root, path=()):
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        yield (*path, name)
        if isinstance(found, click.Group):
            yield from commands(found, (*path, name))


@pytest.mark.parametrize("path", list(commands()), ids=" ".join)
def test_every_command_has_help_with_an_example(path):
    ran = ok(*path, "--help")
    assert "Examples:" in ran.out
    assert "keyhole" in ran.out.partition("Examples:")[2]
    assert "--json" in ran.out


def test_help_imports_neither_the_vault_nor_cryptography():
    program = (
        "import sys; from keyhole.cli import main; main(['--help']);"
        "print([m for m in sys.modules if m.split('.')[0] in {'asyncio', 'cryptography', 'rich'}"
        " or m.startswith(('keyhole.vault', 'keyhole.app', 'keyhole.client'))], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment()
    )
    assert done.stderr.strip() == "[]"
    assert "Commands" in done.stdout or "Everyday" in done.stdout


# Each of these costs the start of every command on a local vault: it belongs to who asks for it.
NOT_FOR_A_LISTING = (
    "dataclasses",  # each one that is frozen takes as long as loading two modules
    "email",
    "glob",
    "http",
    "httptools",
    "importlib.metadata",
    "jeepney",
    "jsonschema",
    "keyhole.app",
    "keyhole.auth",
    "keyhole.broker",
    "keyhole.client.http",
    "keyhole.client.road",
    "keyhole.core.checks",
    "keyhole.core.service",
    "keyhole.core.sql",
    "keyhole.core.stated",
    "keyhole.core.templates",
    "keyhole.core.tool_server",
    "keyhole.core.trace",
    "keyhole.core.url",
    "keyhole.crypto.foreign_jwt",
    "keyhole.crypto.passwords",
    "keyhole.crypto.shamir",
    "keyhole.engines.database",
    "keyhole.engines.kv.upgrade",
    "keyhole.engines.kv.v1",
    "keyhole.engines.pki",
    "keyhole.faces",
    "keyhole.net",
    "keyhole.rotators",
    "keyhole.vault.alarms",
    "keyhole.vault.attempt",
    "keyhole.vault.desk",
    "keyhole.vault.devices.kinds",
    "keyhole.vault.devices.lane",
    "keyhole.vault.exposition",
    "keyhole.vault.figures",
    "keyhole.vault.hcl",
    "keyhole.vault.history",
    "keyhole.vault.identity.book",
    "keyhole.vault.identity.oidc",
    "keyhole.vault.identity.records",
    "keyhole.vault.lease_places",
    "keyhole.vault.leases",
    "keyhole.vault.limiting",
    "keyhole.vault.logins",
    "keyhole.vault.migration",
    "keyhole.vault.notices",
    "keyhole.vault.policies",
    "keyhole.vault.rekey",
    "keyhole.vault.reported",
    "keyhole.vault.root_generation",
    "keyhole.vault.rotat",
    "keyhole.vault.sources",
    "keyhole.vault.sys.",
    "keyhole.vault.tool_",
    "keyring",
    "mcp",
    "multiprocessing",
    "pydantic",
    "random",
    "rich",
    "tomllib",
    "urllib.request",
    "uvloop",
    "xml",
    "yaml",
)


def test_a_listing_reads_no_part_of_the_vault_that_it_does_not_ask(local):
    ok("set", "stripe/api-key", stdin=VALUE)
    program = (
        "import sys; from keyhole.cli import main; main(['list']);"
        f"print([name for name in sys.modules if name.startswith({NOT_FOR_A_LISTING!r})], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.strip().splitlines()[-1] == "[]"
    assert "stripe/api-key" in done.stdout


LOOKS = """
import gc, os, sys
from keyhole import __main__ as entrance

def ended(code):
    print(sum(each["collections"] for each in gc.get_stats()) - before, file=sys.stderr, flush=True)
    gc.collect()
    print(gc.get_threshold()[0], len(gc.callbacks), file=sys.stderr, flush=True)
    leave(code)

leave, os._exit = os._exit, ended
sys.argv = ["keyhole", "list"]
before = sum(each["collections"] for each in gc.get_stats())
entrance.program()
"""


def test_python_looks_for_no_garbage_in_a_short_command_and_as_often_as_ever_in_a_long_one(local):
    done = subprocess.run([sys.executable, "-c", LOOKS], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-2:] == ["0", "10000 0"]


@pytest.mark.parametrize(
    "words",
    [
        ["set", "a/b", VALUE],
        ["set", f"a/b={VALUE}"],
        ["set", "a/b", "--field", f"password={VALUE}"],
        ["login", VALUE],
        ["get", "a/b", VALUE],
        ["agent", "add", "coder", VALUE],
    ],
)
def test_a_value_in_the_command_line_is_refused_and_not_repeated(local, words):
    for extra in ([], ["--json"]):
        ran = run(*words, *extra, stdin="from-stdin-0123")
        assert ran.code == 3
        assert VALUE not in ran.out + ran.err
    assert ok("list", "--json").json == []
    records = ok("audit", "query", "--json").out
    assert VALUE not in records


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["nonsense"], 3),
        (["set"], 3),
        (["list", "--nope"], 3),
        (["get", "not/there"], 5),
        (["get", "bad//path"], 3),
        (["get", "a#"], 3),
        (["service", "add", "x"], 3),
        (["--vault", "ftp://x", "list"], 3),
        (["--vault", "http://example.com", "list"], 3),
        (["--vault", "http://127.0.0.1:1", "list"], 6),
        (["init"], 2),
    ],
)
def test_a_mistake_gets_one_line_and_its_exit_code(local, words, code):
    ran = run(*words)
    assert ran.code == code
    assert ran.out == ""
    lines = ran.err.splitlines()
    assert lines[0].startswith("error: ")
    assert len(lines) <= 2
    assert all(line.startswith("  next: ") for line in lines[1:])
    detail = run("--json", *words).error
    assert set(detail) == {"code", "reason", "hint", "request_id"}


@pytest.mark.parametrize(("typed", "perhaps"), [("rnu", "run"), ("agnet", "agent"), ("docter", "doctor")])
def test_a_mistyped_command_gets_the_one_that_is_near(typed, perhaps):
    ran = run(typed, "--json")
    assert ran.code == 3
    assert f"perhaps {perhaps}" in ran.error["reason"]
    assert typed not in ran.err


def test_a_word_that_is_no_command_is_not_repeated():
    ran = run(VALUE)
    assert (ran.code, VALUE in ran.err) == (3, False)


@pytest.mark.parametrize(
    ("words", "step"),
    [
        (("agent", "add", "Coder"), "keyhole agent add coder"),
        (("org", "add", "root"), "keyhole org list"),
        (("policy", "rm", "default"), "keyhole policy list"),
    ],
)
def test_a_refusal_names_the_next_step(local, words, step):
    ran = run(*words, "--json")
    assert ran.code != 0
    assert step in ran.error["hint"]


def test_without_a_vault_every_command_says_how_to_make_one():
    for words in (
        ["list"],
        ["get", "a"],
        ["audit", "tail"],
        ["why", "GET", "https://a.example"],
        ["operator", "status"],
    ):
        ran = run(*words)
        assert ran.code == 5
        assert "keyhole init" in ran.err


def test_an_unexpected_fault_shows_no_traceback_and_no_detail(local, monkeypatch):
    monkeypatch.setattr("keyhole.cli.local.open_store", lambda *_, **__: 1 / len(VALUE[:0]))
    ran = run("list")
    assert ran.code == 2
    assert "ZeroDivisionError" in ran.err
    assert "Traceback" not in ran.err
    monkeypatch.setenv("KEYHOLE_DEBUG", "1")
    assert "Traceback" in run("list").err


def shell(line):
    """A command line of sh in which ``keyhole`` is the program."""
    program = f'keyhole() {{ "{sys.executable}" -m keyhole "$@"; }}; {line}'
    return subprocess.run(["sh", "-c", program], check=False, capture_output=True, text=True, env=environment())


@pytest.mark.parametrize("redirect", [">&-", "> /dev/full"])
def test_output_that_cannot_be_written_is_said_in_one_line(redirect):
    done = shell(f"keyhole version {redirect}")
    assert done.returncode == 2
    assert done.stderr.startswith("error: the output cannot be written: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("redirect", ["2>&-", "2> /dev/full"])
def test_where_nobody_can_be_told_the_exit_code_is_right(redirect):
    assert shell(f"keyhole nonsense {redirect}").returncode == 3
    assert shell(f"keyhole version {redirect}").stdout.startswith("keyhole ")


def test_a_closed_stdin_is_no_value(local):
    done = shell("keyhole set a/b <&-")
    assert done.returncode == 2
    assert done.stderr == "error: stdin cannot be read\n  next: pipe the value in, or give it with --from-file FILE\n"


def test_a_noun_alone_shows_its_verbs_and_no_error():
    done = shell("keyhole service")
    assert done.returncode == 3
    assert done.stderr.startswith("Usage: keyhole service ")


def test_columns_stay_under_their_heads_where_letters_are_wide(local):
    for name in ("plain/key", "日本/鍵"):
        ok("set", name, stdin=VALUE)
    head, plain, wide = ok("list").out.splitlines()
    assert plain.index("never") == head.index("EXPIRES")
    assert wide.index("never") == head.index("EXPIRES") - len("日本鍵")


def test_vaults_own_variables_do_not_count_unless_asked(local, monkeypatch):
    monkeypatch.setenv("VAULT_ADDR", "http://127.0.0.1:1")
    monkeypatch.setenv("VAULT_TOKEN", "hvs.elsewhere")
    assert ok("list", "--json").json == []
    assert run("list", "--vault-env").code == 6


def test_what_strangers_wrote_into_the_journal_cannot_drive_the_terminal(local):
    from keyhole.core.path import parse_path

    name = "odd/\u200b\x1b[31mred"
    with pytest.raises(Exception, match="seen"):
        parse_path(name)
    run("get", name)
    assert "\x1b" not in ok("audit", "tail").out


def test_the_files_of_a_vault_are_their_owners_alone_whatever_the_umask(tmp_path):
    home = tmp_path / "home"
    (tmp_path / "pass").write_text("correct horse battery staple\n")
    env = environment(KEYHOLE_HOME=str(home))
    made = spawn("init", "--passphrase-file", tmp_path / "pass", "--json", env=env, umask=0)
    assert made.code == 0, made
    assert set(made.json) == {"root_token"}
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    for path in home.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    again = spawn("init", "--passphrase-file", tmp_path / "pass", env=env)
    assert again.code == 2
    wrong = tmp_path / "wrong"
    wrong.write_text("not the passphrase\n")
    refused = spawn("list", "--json", "--passphrase-file", wrong, env=env)
    assert refused.code == 6
    assert refused.error["code"] == "sealed"
    nobody = spawn("list", env=env)
    assert nobody.code == 6
    assert "--passphrase-file" in nobody.err
    # The passphrase's line and the value can come on one stdin.
    both = spawn(
        "set", "a/b", "--passphrase-fd", "0", stdin=f"correct horse battery staple\n{VALUE}\n".encode(), env=env
    )
    assert both.code == 0, both
    shown = spawn("get", "a/b", "--passphrase-file", tmp_path / "pass", env=env)
    assert shown.out == f"{VALUE}\n"


def test_a_short_passphrase_makes_no_vault(tmp_path):
    (tmp_path / "pass").write_text("short\n")
    assert run("init", "--passphrase-file", tmp_path / "pass", "--seal", "passphrase").code == 3
    (tmp_path / "pass").write_text("long enough now\n")
    assert ok("init", "--passphrase-file", tmp_path / "pass", "--seal", "passphrase", "--json").json["root_token"]


def test_a_key_file_that_others_can_read_is_refused(tmp_path):
    (tmp_path / "key").write_bytes(os.urandom(32))
    (tmp_path / "key").chmod(0o644)
    ran = run("init", "--seal", f"keyfile:{tmp_path / 'key'}")
    assert ran.code == 3
    assert "chmod 600" in ran.err
    assert run("operator", "status").code == 5
    missing = run("init", "--seal", f"keyfile:{tmp_path / 'missing'}")
    assert (missing.code, "--make-keyfile" in missing.err) == (6, True)


def test_nobody_reading_the_output_is_no_error(local, tmp_path):
    for number in range(3):
        ok("set", f"a{number}", stdin=VALUE)
    command = f"{sys.executable} -m keyhole list | true"
    env = environment(KEYHOLE_HOME=str(local))
    done = subprocess.run(["sh", "-c", command], env=env, capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_completion_is_printed_for_each_shell_and_completes():
    for shell in ("bash", "zsh", "fish"):
        assert "_KEYHOLE_COMPLETE" in ok("completion", shell).out
    env = environment(_KEYHOLE_COMPLETE="bash_complete", COMP_WORDS="keyhole aud", COMP_CWORD="1")
    assert "audit" in spawn(env=env).out


def test_python_programs_find_the_same_vault(local):
    ok("set", "a/b", stdin=VALUE)
    from keyhole import Client

    with Client() as client:
        assert client.read("secret/data/a/b").data["data"] == {"value": VALUE}
        assert client.list("secret/metadata").data["keys"] == ["a/"]


def test_version_is_one_line():
    assert ok("version").out.startswith("keyhole ")
    assert json.loads(ok("version", "--json").out)["version"]
    assert ok("--version").out == ok("version").out


def test_a_folder_that_is_gone_is_said_in_words(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    ran = run("repo", "list")
    assert ran.code == 2
    assert "the folder where this was started is gone" in ran.err


def test_a_command_without_a_name_is_not_run():
    ran = run("run", "--", "")
    assert (ran.code, "the command is empty" in ran.err) == (125, True)


def test_a_wrong_command_line_names_the_help_of_its_own_command():
    for words in (["service", "add", "a", "--host"], ["service", "add", "a", "--nosuch"], ["service", "add"]):
        assert "next: keyhole service add --help" in run(*words).err
