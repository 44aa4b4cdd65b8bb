"""What a command started by `keyhole run` finds around it, and how it ends."""

import asyncio
import os
import pty
import select
import signal
import ssl
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from children import child
from faces.run_fixtures import Runner, authority, runner_for
from keyhole.core.errors import InvalidRequest
from keyhole.core.value import Secret
from keyhole.faces.run.child import run_child
from keyhole.faces.run.environment import check_names
from keyhole.faces.run.plan import RunPlan


@pytest.fixture(autouse=True)
def _nothing_is_ignored():
    """What a suite ignores that was started by nohup, or behind a shell's back by ``&``, every command would ignore."""
    names = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)
    handlers = (signal.SIG_DFL, signal.default_int_handler, signal.SIG_DFL)
    before = [signal.signal(name, handler) for name, handler in zip(names, handlers, strict=True)]
    yield
    for name, handler in zip(names, before, strict=True):
        signal.signal(name, handler)


BASE = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/nonexistent"}
PROXY = "http://agent:token-of-this-run@127.0.0.1:8210"

NOT_THERE = (
    "no-such-command: No such file or directory: there is no such program in PATH; a shell's own word needs: sh -c '…'"
)


@pytest.fixture(params=["auto", "off"])
def sandbox(request):
    return request.param


@pytest.fixture(scope="module")
def runner():
    with runner_for(nobody=False) as found:
        yield found


def run(*argv, env=None, messages=None, **given) -> int:
    plan = RunPlan(tuple(argv), PROXY, authority(), base_env=BASE | (env or {}), **given)
    quiet = [] if messages is None else messages
    return asyncio.run(run_child(plan, on_message=quiet.append))


def child_env(capfd, **given) -> dict[str, str]:
    assert run("env", "-0", **given) == 0
    return dict(line.split("=", 1) for line in capfd.readouterr().out.split("\0") if line)


# How it ends.


def test_the_commands_code_is_ours(sandbox):
    assert run("sh", "-c", "exit 0", sandbox=sandbox) == 0
    assert run("sh", "-c", "exit 3", sandbox=sandbox) == 3


def test_a_command_ended_by_a_signal_gives_128_and_its_number(sandbox):
    assert run("sh", "-c", "kill -TERM $$", sandbox=sandbox) == 128 + 15
    assert run("sh", "-c", "kill -KILL $$", sandbox=sandbox) == 128 + 9


def test_a_command_that_is_not_there_gives_127(sandbox):
    messages = []
    assert run("no-such-command", sandbox=sandbox, messages=messages) == 127
    assert messages == [NOT_THERE]


def test_a_file_that_is_not_executable_gives_126(sandbox, tmp_path):
    plain = tmp_path / "plain"
    plain.write_text("echo hello\n")
    messages = []
    assert run(str(plain), sandbox=sandbox, messages=messages) == 126
    assert messages == [f"{plain}: Permission denied"]


def test_a_script_without_a_first_line_runs_as_it_would_from_a_shell(capfd, tmp_path):
    script = tmp_path / "script"
    script.write_text("echo ran $1\n")
    script.chmod(0o755)
    assert run("script", "well", env={"PATH": f"{tmp_path}:/usr/bin:/bin"}) == 0
    assert capfd.readouterr().out == "ran well\n"


def test_a_missing_working_directory_is_our_failure(sandbox, tmp_path):
    messages = []
    assert run("true", cwd=tmp_path / "gone", sandbox=sandbox, messages=messages) == 125
    assert "working directory" in messages[0]


def test_input_and_output_are_the_callers(runner):
    command = runner.command(["sh", "-c", "cat; echo err >&2"])
    done = subprocess.run(**command, input=b"\x00\xffhello", capture_output=True, check=False)
    assert (done.stdout, done.stderr) == (b"\x00\xffhello", b"err\n")


# Signals.


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "QUIT", "USR1", "USR2", "WINCH"])
def test_a_signal_sent_to_keyhole_reaches_the_command_once(runner, sandbox, name):
    script = f"trap 'echo {name}; [ -z $seen ] && seen=1' {name}; trap 'echo end; exit 5' ALRM; echo ready; "
    script += "n=0; all=0; while [ $n -lt 15 ] && [ $all -lt 3000 ]; do "
    script += 'sleep 0.02; all=$((all+1)); [ -n "$seen" ] && n=$((n+1)); done; echo end; exit 5'
    with child(
        **runner.command(["sh", "-c", script], sandbox=sandbox),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as driver:
        assert driver.stdout.readline() == "ready\n"
        driver.send_signal(getattr(signal, f"SIG{name}"))
        assert driver.stdout.read() == f"{name}\nend\n"
    assert driver.returncode == 5


def test_keyhole_waits_for_a_command_that_takes_its_time_to_end(runner):
    script = "trap 'sleep 0.2; echo cleaned; exit 7' TERM; echo ready; while :; do sleep 0.02; done"
    with child(**runner.command(["sh", "-c", script]), stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout.readline() == "ready\n"
        driver.terminate()
        assert driver.stdout.read() == "cleaned\n"
    assert driver.returncode == 7


def test_a_signal_that_was_ignored_stays_ignored_for_the_command(runner):
    script = "trap '' HUP INT; exec \"$@\""
    command = runner.command(["sh", "-c", "echo ready; kill -HUP $$; kill -INT $$; echo alive"])
    command["args"] = ["sh", "-c", script, "sh", *command["args"]]
    done = subprocess.run(**command, capture_output=True, text=True, check=False)
    assert done.stdout == "ready\nalive\n"


def test_a_cancelled_run_ends_the_command(tmp_path):
    mark = tmp_path / "mark"

    async def cancelled() -> None:
        plan = RunPlan(("sh", "-c", f"echo $$ > {mark}; exec sleep 60"), PROXY, authority(), base_env=BASE)
        task = asyncio.create_task(run_child(plan))
        while not mark.exists():  # noqa: ASYNC110  # the event happens in another process
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    begin = time.monotonic()
    asyncio.run(cancelled())
    assert time.monotonic() - begin < 30


# The terminal.


def on_a_terminal(runner: Runner, script: str, sandbox: str) -> tuple[int, int]:
    """A driver that leads the foreground of a new terminal: its pid and our end of the terminal."""
    command = runner.command(["sh", "-c", script], sandbox=sandbox)
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(command["cwd"])
        os.execve(command["args"][0], command["args"], command["env"])
    return pid, terminal


def read_until(terminal: int, text: str) -> str:
    seen = ""
    while text not in seen:
        ready, _, _ = select.select([terminal], [], [], 30)
        assert ready, f"waited for {text!r}, saw {seen!r}"
        try:
            seen += os.read(terminal, 1000).decode().replace("\r\n", "\n")
        except OSError:
            break
    assert text in seen
    return seen


def test_control_c_reaches_the_command_once(runner, sandbox):
    script = "trap 'echo got; seen=1' INT; echo ready; n=0; "
    script += 'while [ $n -lt 15 ]; do sleep 0.02; [ -n "$seen" ] && n=$((n+1)); done; echo end'
    pid, terminal = on_a_terminal(runner, script, sandbox)
    read_until(terminal, "ready")
    os.write(terminal, b"\x03")
    assert read_until(terminal, "end").count("got") == 1
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(terminal)


SHELL = """
import os, signal, subprocess, sys
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
command = __import__("json").loads(sys.argv[1])
job = subprocess.Popen(command["args"], env=command["env"], cwd=command["cwd"], process_group=0)
os.tcsetpgrp(0, job.pid)
_, status = os.waitpid(job.pid, os.WUNTRACED)
os.tcsetpgrp(0, os.getpgrp())
print("stopped" if os.WIFSTOPPED(status) else f"not stopped {status}", flush=True)
os.tcsetpgrp(0, job.pid)
os.killpg(job.pid, signal.SIGCONT)
_, status = os.waitpid(job.pid, os.WUNTRACED)
print("ended", os.waitstatus_to_exitcode(status), flush=True)
"""


def test_control_z_stops_the_job_and_fg_goes_on_with_it(runner, sandbox):
    import json

    command = runner.command(["sh", "-c", "echo ready; read line; echo line $line; exit 4"], sandbox=sandbox)
    given = json.dumps({name: command[name] for name in ("args", "env", "cwd")})
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(sys.executable, [sys.executable, "-c", SHELL, given], command["env"])
    read_until(terminal, "ready")
    os.write(terminal, b"\x1a")
    read_until(terminal, "stopped")
    os.write(terminal, b"hello\n")
    assert "line hello" in read_until(terminal, "ended 4")
    os.waitpid(pid, 0)
    os.close(terminal)


# The environment.


def test_placeholders_replace_the_callers_own_values(capfd, sandbox):
    env = child_env(
        capfd, env={"OPENAI_API_KEY": "sk-real"}, placeholders={"OPENAI_API_KEY": "sk-keyhole"}, sandbox=sandbox
    )
    assert env["OPENAI_API_KEY"] == "sk-keyhole"


def test_all_https_goes_through_the_proxy_and_nothing_around_it(capfd):
    given = {"NO_PROXY": "*", "no_proxy": "example.com", "https_proxy": "http://corporate:1", "AGENTSECRETS_PORT": "1"}
    env = child_env(capfd, env=given)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        assert env[name] == env[name.upper()] == PROXY
    assert "NO_PROXY" not in env
    assert "AGENTSECRETS_PORT" not in env
    assert "no_proxy" not in env
    assert env["NODE_USE_ENV_PROXY"] == "1"


def test_what_is_ours_and_agent_sockets_are_not_in_it(capfd, sandbox):
    ours = dict.fromkeys(("KEYHOLE_TOKEN", "KEYHOLE_HOME", "KEYHOLE_VAULT", "VAULT_TOKEN", "VAULT_ADDR"), "secret")
    agents = dict.fromkeys(("SSH_AUTH_SOCK", "GPG_AGENT_INFO", "GIT_ASKPASS"), "/tmp/agent")
    env = child_env(capfd, env=ours | agents | {"MY_OWN": "kept"}, sandbox=sandbox)
    assert env["MY_OWN"] == "kept"
    assert not {name for name, value in env.items() if value in {"secret", "/tmp/agent"}}


def test_variables_that_open_the_vaults_own_database_are_withheld(capfd, sandbox):
    mine = {"PGPASSWORD": "secret", "PGPASSFILE": "secret", "MY_OWN": "kept"}
    assert child_env(capfd, env=mine, sandbox=sandbox)["PGPASSWORD"] == "secret"
    env = child_env(capfd, env=mine, sandbox=sandbox, withheld=("PGPASSWORD", "PGPASSFILE"))
    assert env["MY_OWN"] == "kept"
    assert "secret" not in env.values()


def test_a_revealed_value_is_in_the_childs_environment_and_nowhere_else(capfd, tmp_path):
    value = "s3cr3t-\N{SNOWMAN}"
    script = (
        'printf %s "$KEY"; for f in /proc/[0-9]*/cmdline "$(dirname "$SSL_CERT_FILE")"/*; do '
        'case $f in /proc/self*) ;; *) grep -l s3cr3t "$f" >&2;; esac; done; true'
    )
    assert run("sh", "-c", script, reveal={"KEY": Secret(value)}, env={"XDG_RUNTIME_DIR": str(tmp_path)}) == 0
    out, err = capfd.readouterr()
    assert out == value
    assert "truststore" not in err
    assert "ca" not in err
    assert value not in "".join(os.environ.values())


def test_a_value_with_a_nul_byte_is_refused_without_showing_it():
    messages = []
    assert run("true", reveal={"KEY": Secret(b"abc\0def")}, messages=messages) == 125
    assert "KEY" in messages[0]
    assert "abc" not in messages[0]


@pytest.mark.parametrize("name", ["PATH", "LD_PRELOAD", "HTTPS_PROXY", "SSL_CERT_FILE", "A=B", "", "GIT_CONFIG_COUNT"])
def test_a_secret_cannot_stand_in_a_variable_that_steers_the_command(name):
    with pytest.raises(InvalidRequest):
        check_names(RunPlan(("true",), PROXY, b"", placeholders={name: "x"}))
    with pytest.raises(InvalidRequest):
        check_names(RunPlan(("true",), PROXY, b"", files={name: b"x"}))


def test_bytes_that_are_no_text_pass_unchanged(capfd):
    odd = os.fsdecode(b"\xff\xfe")
    assert run("printenv", "ODD", env={"ODD": odd}) == 0
    assert capfd.readouterr().out == "\ufffd\ufffd\n"
    assert run("sh", "-c", 'test "$1" = "$(printf "\\377\\376")"', "sh", odd) == 0


def test_git_asks_nobody_for_credentials_and_keeps_what_its_user_configured(capfd):
    given = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "user.name", "GIT_CONFIG_VALUE_0": "Ann"}
    script = "git config user.name; git config http.proxy; git config --get-all credential.helper | tail -1"
    assert run("sh", "-c", script, env=given) == 0
    assert capfd.readouterr().out == f"Ann\n{PROXY}\n\n"


# Trust.


def test_bundles_hold_the_systems_certificates_and_ours(capfd, tmp_path):
    files = tmp_path / "files"
    script = f'cp "$SSL_CERT_FILE" {files}-all; cp "$NODE_EXTRA_CA_CERTS" {files}-extra; '
    script += 'stat -c %a "$(dirname "$SSL_CERT_FILE")"'
    assert run("sh", "-c", script) == 0
    assert capfd.readouterr().out == "700\n"
    system = ssl.create_default_context().get_ca_certs(binary_form=True)
    combined, extra = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    combined.load_verify_locations(f"{files}-all")
    extra.load_verify_locations(f"{files}-extra")
    ours = ssl.PEM_cert_to_DER_cert(authority().decode())
    assert {*system, ours} <= set(combined.get_ca_certs(binary_form=True))
    assert extra.get_ca_certs(binary_form=True) == [ours]


def test_certificates_that_the_user_added_stay_trusted(capfd, tmp_path):
    import trustme

    corporate = tmp_path / "corporate.pem"
    corporate.write_bytes(trustme.CA().cert_pem.bytes())
    env = {"REQUESTS_CA_BUNDLE": str(corporate), "NODE_EXTRA_CA_CERTS": str(corporate)}
    assert run("sh", "-c", 'cat "$SSL_CERT_FILE"; echo =====; cat "$NODE_EXTRA_CA_CERTS"', env=env) == 0
    combined, extra = capfd.readouterr().out.split("=====")
    assert corporate.read_text().strip() in combined
    assert corporate.read_text().strip() in extra


def test_every_runtime_is_told(capfd):
    env = child_env(capfd)
    bundle = env["SSL_CERT_FILE"]
    names = "CURL_CA_BUNDLE REQUESTS_CA_BUNDLE GIT_SSL_CAINFO CARGO_HTTP_CAINFO PIP_CERT DENO_CERT AWS_CA_BUNDLE"
    for name in names.split():
        assert env[name] == bundle


def test_the_files_are_gone_afterwards(capfd, sandbox, tmp_path):
    env = child_env(capfd, env={"XDG_RUNTIME_DIR": str(tmp_path)}, sandbox=sandbox)
    assert Path(env["SSL_CERT_FILE"]).is_relative_to(tmp_path)
    assert list(tmp_path.iterdir()) == []
    run("no-such-command", env={"XDG_RUNTIME_DIR": str(tmp_path)}, sandbox=sandbox)
    assert list(tmp_path.iterdir()) == []


def test_files_of_services_are_private_and_end_with_the_command(capfd):
    script = 'cat "$ACME_FILE"; stat -c " %a" "$(dirname "$ACME_FILE")"; echo "$ACME_FILE"'
    assert run("sh", "-c", script, files={"ACME_FILE": b"{}"}) == 0
    shown, path = capfd.readouterr().out.splitlines()
    assert shown == "{} 700"
    assert not Path(path).exists()


def test_java_can_read_its_trust_store(capfd, tmp_path):
    import shutil

    if not shutil.which("keytool"):
        pytest.skip("there is no keytool here, so the Java trust store was not read")
    store = tmp_path / "store.jks"
    script = 'echo "$JAVA_TOOL_OPTIONS"; cp "$(dirname "$SSL_CERT_FILE")/truststore.jks" ' + str(store)
    assert run("sh", "-c", script) == 0
    options = capfd.readouterr().out
    assert "-Dhttps.proxyHost=127.0.0.1" in options
    assert "token-of-this-run" not in options
    listed = subprocess.run(
        [
            "keytool",
            "-J-Xshare:auto",
            "-J-XX:TieredStopAtLevel=1",
            "-list",
            "-keystore",
            store,
            "-storepass",
            "changeit",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    bundle = len(ssl.create_default_context().get_ca_certs()) + 1
    assert f"contains {bundle} entries" in listed.stdout


# Other loops and systems.


def test_it_runs_under_uvloop_too(capfd):
    uvloop = pytest.importorskip("uvloop")
    plan = RunPlan(("sh", "-c", "echo ran; exit 6"), PROXY, authority(), base_env=BASE)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        assert loop.run(run_child(plan)) == 6
    assert capfd.readouterr().out == "ran\n"


def test_without_linux_commands_run_without_a_sandbox_and_that_is_said(capfd, monkeypatch):
    monkeypatch.setattr("keyhole.faces.run.child.sys", SimpleNamespace(platform="darwin", stderr=sys.stderr))
    reports, messages = [], []

    def plainly(*argv, sandbox="auto") -> int:
        plan = RunPlan(argv, PROXY, authority(), base_env=BASE, sandbox=sandbox)
        return asyncio.run(run_child(plan, on_sandbox=reports.append, on_message=messages.append))

    assert plainly("sh", "-c", "echo $HTTPS_PROXY; exit 3") == 3
    assert plainly("sh", "-c", "kill -TERM $$") == 143
    assert plainly("no-such-command") == 127
    assert plainly("/etc/passwd") == 126
    assert plainly("true", sandbox="require") == 125
    assert capfd.readouterr().out == f"{PROXY}\n"
    assert {report.level for report in reports} == {"none"}
    assert messages == [
        NOT_THERE,
        "/etc/passwd: Permission denied",
        "the sandbox that was required needs Linux",
    ]


def test_terminated_keyhole_lets_the_command_end_first(runner):
    script = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.02; done"
    command = runner.command(["sh", "-c", script])
    with child(**command, stdout=subprocess.PIPE, text=True) as driver:
        driver.stdout.readline()
        driver.terminate()
        driver.terminate()
        assert driver.stdout.read() == "bye\n"
    assert driver.returncode == 0
