"""What a command finds when it looks for the key everywhere, and how `keyhole run` ends."""

import sys

import pytest

from e2e.world import KEY, TOKEN, held
from faces.run_fixtures import namespaces_allowed

# Prints everything that it can read: variables, arguments, files around it, other processes.
SEARCH = r"""
import glob, os, sys
out = sys.stdout.buffer
def show(path):
    try:
        with open(path, "rb") as file:
            out.write(b"\n== " + os.fsencode(path) + b"\n" + file.read(1 << 22))
    except OSError as error:
        out.write(b"\n!! " + os.fsencode(path) + b" " + os.fsencode(error.strerror) + b"\n")
out.write(repr((dict(os.environ), sys.argv)).encode("utf-8", "surrogateescape"))
for folder in (os.environ["HOME"], os.environ["TMPDIR"], os.getcwd(), *sys.argv[1:]):
    for top, _, names in os.walk(folder):
        for name in names:
            show(os.path.join(top, name))
for process in glob.glob("/proc/[0-9]*"):
    for name in ("environ", "cmdline", "maps"):
        show(f"{process}/{name}")
    for link in glob.glob(f"{process}/fd/*"):
        try:
            out.write(os.fsencode(os.readlink(link)) + b"\n")
        except OSError:
            pass
"""


@pytest.fixture
def sandbox():
    if not namespaces_allowed(nobody=False):
        pytest.fail("this system forbids namespaces, so the sandbox cannot be tested: allow them")


def test_the_command_finds_the_key_nowhere(world, sandbox):
    vault = world.folder / "vault"
    places = (str(vault), str(world.folder / "unseal.key"))
    options = ("--sandbox", "require")
    done = world.run(sys.executable, "-c", SEARCH, *places, options=options, real=True)
    text = done.stdout
    assert b"HTTPS_PROXY" in text
    for value in (KEY, TOKEN, str(vault), (world.folder / "unseal.key").read_bytes().hex()):
        if value != str(vault):
            assert not held(value, text)
    assert b"SQLite format 3" not in text
    assert (world.folder / "unseal.key").read_bytes() not in text
    assert b"KEYHOLE_" not in text.split(b"\n==", 1)[0]


def test_the_token_of_the_command_can_do_nothing_but_proxy_and_dies_with_it(world):
    done = world.run("sh", "-c", "echo $HTTPS_PROXY")
    token = done.stdout.decode().rpartition("@")[0].rpartition(":")[2]
    assert token
    for words in (("get", "api/key", "--reveal"), ("list",), ("agent", "list")):
        refused = world.keyhole(*words, code=None, KEYHOLE_TOKEN=token)
        assert refused.returncode == 4, refused
        assert not held(KEY, refused.stdout + refused.stderr)


def test_the_exit_code_is_the_commands_own(world):
    world.run("sh", "-c", "exit 42", code=42, real=True)
    world.run("sh", "-c", "kill -TERM $$", code=143, real=True)
    world.run("no-such-command-anywhere", code=127, real=True)
    (world.folder / "work/plain").write_text("text")
    world.run("./plain", code=126)


def test_failures_of_our_own_are_125(world):
    done = world.keyhole("run", "--agent", "nobody", "--", "true", code=125)
    assert b"nobody" in done.stderr
    world.keyhole("run", "--agent", "coder", "--", "true", code=125, KEYHOLE_HOME=str(world.folder / "nowhere"))


def test_a_variable_is_filled_only_for_who_may_read_and_only_when_it_is_named(world):
    words = ("run", "--agent", "coder", "--env", "KEY=api/key")
    done = world.keyhole(*words, "--no-scrub", "--", "sh", "-c", 'printf %s "$KEY"')
    assert done.stdout == KEY.encode()
    assert world.keyhole(*words, "--", "sh", "-c", 'printf %s "$KEY"').stdout == b"*" * len(KEY)
    said = world.keyhole("audit", "query", "--secret", "api/key", "--json").stdout
    assert b'"read"' in said


def test_the_sandbox_says_what_it_is(world):
    done = world.run("true", options=("--sandbox", "off"))
    assert b"sandbox" in done.stderr
    assert b"the command can read whatever its user can" in done.stderr


def test_nothing_is_left_in_the_temporary_folder(world):
    world.run("true")
    assert list((world.folder / "runtime").iterdir()) == []
    assert list((world.folder / "home").iterdir()) == []
