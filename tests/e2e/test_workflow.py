"""A workflow over five services on HTTPS stand-ins: it runs, is killed, resumes, and a key is rotated on the way."""

import json
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from children import child
from cli_driver import ok, run
from e2e.world import KEYHOLE, Said, Upstream, held, make_world
from keyhole import Client

HOSTS = {name: f"{name}.example.test" for name in ("crm", "docs", "pay", "intern")}
KEYS = {name: f"key_{name}_Zm9x7Q{number}8e7d6c5b4a3f2e1d" for number, name in enumerate((*HOSTS, "mail"))}
ROTATED = "key_docs_after_9x7Q8e7d6c5b4a3f2e1d"
DOCUMENT = """
workflow: invoice
description: Looks a customer up, charges, files the invoice and sends it.
inputs:
  customer: {{default: c-17}}
  amount: {{type: number, must: {{max: 5000}}}}
steps:
  - id: customer
    call: {{url: "https://{crm}/crm/${{input/customer}}"}}
    keep: {{id: /id, name: /name, mail: /contact/mail}}
  - parallel:
      paper:
        - id: draft
          call: {{method: POST, url: "https://{docs}/docs", json: {{for: "${{customer/body/name}}"}}}}
      money:
        - id: charge
          call:
            service: pay
            method: POST
            url: https://{pay}/charges
            json: {{amount: "${{input/amount}}", customer: "${{customer/body/id}}"}}
            expect: [201]
          idempotency_key: Idempotency-Key
          retry: {{attempts: 3, wait: 0.01}}
  - id: file
    call: {{method: PUT, url: "https://{docs}/docs/${{draft/body/id}}", json: {{paid: "${{charge/body/id}}"}}}}
  - id: report
    call: {{method: POST, url: "https://{intern}/reports", form: {{amount: "${{input/amount}}", run: "${{run/id}}"}}}}
    when: [{{at: /charge/status, in: [201]}}, {{at: /customer/body/mail, like: "*@*"}}]
  - id: mail
    tool: mail/send
    arguments: {{to: "${{customer/body/mail}}", text: "Paid: ${{charge/body/id}}"}}
  - id: never
    tool: mail/send
    when: [{{not: {{at: /file/result, in: [ok]}}}}]
outputs: {{charge: "${{charge/body/id}}", mail: "${{mail/body/sent}}"}}
"""


def header(seen, name):
    return next((value for key, value in seen.headers.items() if key.lower() == name), None)


class Office:
    """The five stand-ins. What was done is counted; charges are known by their key."""

    def __init__(self):
        self.used = []
        self.charges = {}
        self.kill = None
        self.both = threading.Barrier(2, timeout=30)
        self.killed = threading.Event()
        self.keys = dict(KEYS)

    def pages(self):
        return {
            "/crm/c-17": self._of(
                "crm", lambda _: ({"id": "c/17", "name": "Acme", "contact": {"mail": "a@acme.test"}}, 200)
            ),
            "/docs": self._of("docs", self._draft),
            "/docs/d%201": self._of("docs", lambda seen: ({"got": json.loads(seen.body)}, 200)),
            "/charges": self._of("pay", self._charge),
            "/reports": self._of(
                "intern", lambda seen: ({"token": "not-for-you", "echo": header(seen, "authorization")}, 200)
            ),
            "/mail": self._of("mail", lambda seen: ({"sent": json.loads(seen.body)["to"]}, 200)),
        }

    def _of(self, service, answer):
        def page(seen):
            if header(seen, "authorization") != f"Bearer {self.keys[service]}":
                return Said(b'{"error": "unknown key"}', 401)
            body, status = answer(seen)
            self.used.append((service, seen.method))
            return Said(json.dumps(body).encode(), status)

        return page

    def _charge(self, seen):
        key = header(seen, "idempotency-key")
        number = self.charges.setdefault(key, {"id": f"ch-{len(self.charges) + 1}", **json.loads(seen.body)})
        if self.kill is not None:
            self.both.wait()
            kill, self.kill = self.kill, None
            kill()
            self.killed.set()
        return {"id": number["id"]}, 201

    def _draft(self, _seen):
        if self.kill is not None:
            self.both.wait()
            assert self.killed.wait(30)
        return {"id": "d 1"}, 201


@pytest.fixture(scope="module")
def office():
    return Office()


@pytest.fixture(scope="module")
def world(office, tmp_path_factory):
    """A vault with five bindings, and the agent `clerk` who may use them."""
    made = make_world(tmp_path_factory.mktemp("workflow"), furnished=False)
    made.upstream.close()
    made.upstream = Upstream(made.authority, *HOSTS.values(), "127.0.0.1")
    made.upstream.pages = office.pages()
    made.env["KEYHOLE_RESOLVE"] = ",".join(f"{host}:127.0.0.1" for host in HOSTS.values())
    made.values = [*KEYS.values(), ROTATED]
    yield made
    made.upstream.close()
    made.stranger.close()


@pytest.fixture
def here(world, monkeypatch):
    """The command line in this process, in that world."""
    for name in list(os.environ):
        if name.startswith(("KEYHOLE_", "VAULT_")):
            monkeypatch.delenv(name)
    for name, value in world.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(world.folder / "work")
    monkeypatch.setattr("keyhole.cli.base.has_terminal", lambda: False)
    monkeypatch.setattr("keyhole.process.harden_process", lambda: ())
    return world


def furnish(world):
    """Five bindings, by one client; a person looks at the tools."""
    port, program = world.upstream.port, str(Path(__file__).with_name("mail_mcp.py"))
    set_ = {"MAIL_CA": world.env["KEYHOLE_UPSTREAM_CA"], "MAIL_URL": f"https://127.0.0.1:{port}/mail"}
    server = {"command": sys.executable, "args": ["-S", program], "env": {"MAIL_TOKEN": "mail/key"}, "settings": set_}
    with Client() as vault:
        for name, value in KEYS.items():
            vault.write(f"secret/data/{name}/key", {"data": {"value": value}})
        for name, host in HOSTS.items():
            service = {"hosts": [f"{host}:{port}"], "secret": f"{name}/key#value", "inject": {"kind": "bearer"}}
            vault.write(f"services/{name}", {**service, "allow_addresses": ["127.0.0.1/32"]})
        vault.write("tools/servers/mail", server)
        vault.write("agents/clerk", {})
        may = [f"services/{name}" for name in HOSTS] + ["tools/mail/*"]
        policy = "".join(f'path "{path}" {{ capabilities = ["use"] }}\n' for path in may)
        vault.write("sys/policies/acl/agent/clerk", {"policy": policy})
    ok("mcp", "server", "approve", "mail", "--yes")
    text = DOCUMENT.format(**{name: f"{host}:{port}" for name, host in HOSTS.items()})
    (world.folder / "work" / "invoice.yaml").write_text(text)
    return text


def killed_while_two_branches_act(world, office):
    """The process that runs the workflow is killed when both branches have sent something and heard nothing."""
    words = [KEYHOLE, "workflow", "run", "invoice.yaml", "--agent", "clerk", "--input", "amount=120.50"]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with child(words, env=world.env, cwd=world.folder / "work", start_new_session=True, **pipes) as process:
        office.kill = lambda: process.send_signal(signal.SIGKILL)
        said = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    return b"".join(said)


def test_five_services_a_kill_a_rotation_and_one_question(here, office):
    text = furnish(here)
    ok("workflow", "lint", "invoice.yaml")
    said = killed_while_two_branches_act(here, office)
    [file] = (here.folder / "vault" / "workflows").iterdir()
    name = file.stem
    [listed] = ok("workflow", "list", "--json").json
    assert (listed["run"], listed["agent"], listed["state"], listed["ended"]) == (name, "clerk", "cut off", 1)

    ok("set", "docs/key", stdin=ROTATED)
    office.keys["docs"] = ROTATED

    stopped = run("workflow", "resume", name)
    assert stopped.code == 2
    assert "charge  was begun and cut off; made again, because it may be repeated" in stopped.err
    assert "draft  in doubt: it was sent, and what it gave is lost" in stopped.err
    assert run("workflow", "resume", name, "--repeat", "customer").code == 3

    resumed = ok("workflow", "resume", name, "--repeat", "draft", "--json")
    assert resumed.json["ending"] == "done"
    assert resumed.json["outputs"] == {"charge": "ch-1", "mail": "a@acme.test"}
    [charge] = office.charges.values()
    assert charge == {"id": "ch-1", "amount": 120.5, "customer": "c/17"}
    done = {each: office.used.count(each) for each in office.used}
    assert done.pop(("pay", "POST")) == done.pop(("docs", "POST")) == 2
    assert set(done.values()) == {1}

    uses = ok("audit", "uses", "--run", name, "--json").json
    told = [(each["step"], each["secrets"], each["agent"], each["result"], each["status"]) for each in uses]
    assert sorted({each for each in map(repr, told) if "'ok'" in each}) == [
        repr((step, [f"{key}/key"], "agent/clerk", "ok", status))
        for step, key, status in (
            ("charge", "pay", 201),
            ("customer", "crm", 200),
            ("draft", "docs", 201),
            ("file", "docs", 200),
            ("mail", "mail", 0),
            ("report", "intern", 200),
        )
    ]
    assert {each["workflow"] for each in uses} == {"invoice"}
    assert [each[3] for each in told if each[0] in {"charge", "draft"}] == ["", "", "ok", "ok"]
    assert ok("workflow", "show", name, "--uses", "--json").json == uses

    shown = ok("workflow", "show", name, "--json")
    steps = shown.json["steps"]
    assert {step: facts["attempts"] for step, facts in steps.items()} == {
        "customer": 1,
        "charge": 2,
        "draft": 2,
        "file": 1,
        "report": 1,
        "mail": 1,
        "never": 0,
    }
    assert steps["never"]["result"] == "skipped"
    assert steps["report"]["body"] == {"token": "*" * 11, "echo": "Bearer " + "*" * len(KEYS["intern"])}
    assert steps["mail"]["body"]["sent_with"].strip("*") == ""
    assert (stat.S_IMODE(file.stat().st_mode), stat.S_IMODE(file.parent.stat().st_mode)) == (0o600, 0o700)
    journal = ok("audit", "query", "--run", name, "--limit", "1000", "--json").out
    assert journal.count('"invoice"') > 10
    texts = [
        text,
        resumed.out,
        resumed.err,
        stopped.out,
        stopped.err,
        journal,
        shown.out,
        ok("workflow", "show", name).out,
    ]
    everything = "".join(texts).encode() + said + file.read_bytes()
    for value in here.values:
        assert not held(value, everything)
    assert b"hvs." not in everything  # nor a token of Keyhole's own
    assert run("workflow", "resume", name).code == 2
