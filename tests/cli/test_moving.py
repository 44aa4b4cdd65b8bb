"""`import FORMAT`, `export FORMAT`, and the same with `repo`: between Keyhole and other managers of secrets."""

import base64
import json
import os
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import hvac
import pytest

from cli_driver import ok, run
from keyhole.crypto import age

SOPS = Path(__file__).parents[1] / "data" / "sops"
IDENTITY = SOPS / "identity.txt"
PASSWORD = "correct-horse-1"  # of the files, nobody's
DOPPLER = {"STRIPE_KEY": "sk-0123456789", "DB_URL": "postgres://u:pass-1@h/d"}


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A home without keys, a folder `shop` to work in, and a key file that only its owner reads."""
    monkeypatch.setattr("keyhole.crypto.importers.agenticmail.ITERATIONS", 1000)
    for name in ("XDG_CONFIG_HOME", "SOPS_AGE_KEY", "SOPS_AGE_KEY_FILE", "AGENT_VAULT_KEY", "AGENTICMAIL_VAULT_KEY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "user").mkdir()
    (tmp_path / "shop").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.chdir(tmp_path / "shop")
    write("identity", IDENTITY.read_bytes())
    write("secrets.yaml", (SOPS / "types.yaml").read_bytes())
    write("password", PASSWORD + "\n")
    return tmp_path / "shop"


def write(name, content, mode=0o600):
    path = Path(name)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(mode)
    return path


def git(*words):
    settings = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    return subprocess.run(["git", *settings, *words], capture_output=True, check=True).stdout.decode()


@pytest.fixture
def team(place):
    git("init", "-q")
    ok("repo", "init")
    return place


def states(ran):
    return {each["name"]: each["state"] for each in ran.json["taken"]}


class TestIntoAVault:
    def test_a_sops_file_moves_in_and_again_changes_nothing(self, vault):
        command = ("import", "sops", "secrets.yaml", "--identity", "identity", "--json")
        ran = ok(*command, "--dry-run")
        assert set(states(ran).values()) == {"would be stored"}
        ran = ok(*command)
        assert states(ran)["shop/db"] == "stored"
        assert {each["name"] for each in ran.json["skipped"]} >= {"note_unencrypted", "db.empty"}
        assert "correct horse 1" not in ran.out + ran.err
        assert run("get", "shop/db#password", "--json").json["value"] == "correct horse 1"
        assert set(states(ok(*command)).values()) == {"already there"}

    def test_another_value_is_a_conflict_until_it_is_said(self, local):
        write("d.json", json.dumps(DOPPLER))
        ok("import", "doppler", "d.json")
        write("d.json", json.dumps(DOPPLER | {"STRIPE_KEY": "sk-another-1"}))
        ran = run("import", "doppler", "d.json", "--json")
        assert ran.code == 2
        assert states(ran) == {"shop/stripe-key": "conflict", "shop/db-url": "already there"}
        assert states(ok("import", "doppler", "d.json", "--replace", "--json"))["shop/stripe-key"] == "replaced"

    def test_values_that_lay_in_clear_or_were_readable_are_named(self, local):
        write("d.json", json.dumps(DOPPLER), 0o644)
        ran = ok("import", "doppler", "d.json")
        assert "make a new value at the source" in ran.err
        assert "without encryption" in ran.err
        assert "others on this machine can read" in ran.err
        assert not [value for value in DOPPLER.values() if value in ran.out + ran.err]

    def test_two_entries_of_one_name_are_no_silent_loss(self, local):
        table = "Title,Url,Username,Password\nGitHub,,ann,pass-one\ngithub,,bob,pass-two\nGit Hub,,x,pass-3\n"
        write("e.csv", table)
        ran = run("import", "1password", "e.csv", "--json")
        assert ran.code == 2
        assert [(each["name"], each["state"]) for each in ran.json["taken"]] == [
            ("shop/github", "stored"),
            ("shop/github", "conflict"),
            ("shop/git-hub", "stored"),
        ]

    def test_names_can_be_chosen_left_and_put_below_another(self, local):
        write("d.json", json.dumps(DOPPLER))
        assert "--placeholders is for files" in run("import", "--placeholders", "doppler", "d.json").err
        ran = ok("import", "--under", "old", "doppler", "d.json", "--skip", "DB_*", "--json")
        assert states(ran) == {"old/stripe-key": "stored"}
        assert ran.json["skipped"][0]["why"] == "is to be left, as you said"

    def test_a_sealed_export_asks_for_its_password_or_a_file(self, local):
        write("d.json", json.dumps(DOPPLER))
        ok("import", "doppler", "d.json")
        ok("export", "bitwarden", "--to", "b.json", "--password-file", "password", "--reveal")
        assert run("import", "bitwarden", "b.json").code == 5
        ran = ok("import", "bitwarden", "b.json", "--password-file", "password", "--under", "again", "--json")
        assert states(ran)["again/shop/stripe-key"] == "stored"
        assert not any(each["exposed"] for each in ran.json["taken"])

    def test_the_key_that_sops_would_use_is_used_and_refused_where_others_read_it(self, place, monkeypatch):
        monkeypatch.setenv("SOPS_AGE_KEY_FILE", str(Path("identity").absolute()))
        assert states(ok("import", "sops", "secrets.yaml", "--dry-run", "--json"))
        write("identity", IDENTITY.read_bytes(), 0o644)
        ran = run("import", "sops", "secrets.yaml", "--identity", "identity")
        assert "can be read by others" in ran.err

    def test_a_value_that_was_committed_in_clear_is_named(self, place):
        git("init", "-q")
        sealed = Path("secrets.yaml").read_bytes()
        write("secrets.yaml", 'db:\n    password: "correct horse 1"\n')
        git("add", "secrets.yaml")
        git("commit", "-qm", "plain")
        write("secrets.yaml", sealed)
        ran = ok("import", "sops", "secrets.yaml", "--identity", "identity", "--dry-run", "--json")
        seen = {each["name"] for each in ran.json["taken"] if "history of a git repository" in each["exposed"]}
        assert seen == {"shop/db"}


class TestIntoARepoVault:
    def test_fields_are_secrets_of_their_own_in_one_commit_and_exposed_ones_are_due(self, team):
        write("d.json", json.dumps(DOPPLER))
        ran = ok("repo", "import", "doppler", "d.json", "--json")
        assert set(ran.json["due"]) == {"shop/stripe-key", "shop/db-url"}
        ok("repo", "import", "sops", "secrets.yaml", "--identity", "identity")
        assert ok("repo", "get", "shop/db.replica.password").out == "other-pass-2"
        assert git("log", "--format=%s").splitlines()[:2] == [
            "agent-vault: import 11 secrets",
            "agent-vault: import 2 secrets",
        ]
        red = run("repo", "check")
        assert red.code == 1
        assert "shop/stripe-key is due" in red.out + red.err
        assert "shop/db.replica.password is due" not in red.out + red.err
        assert b"other-pass-2" not in b"".join(p.read_bytes() for p in Path(".agent-vault").rglob("*") if p.is_file())

    def test_again_is_no_commit_and_another_value_is_a_conflict(self, team):
        write("d.json", json.dumps(DOPPLER))
        ok("repo", "import", "doppler", "d.json", "--note-only")
        head = git("rev-parse", "HEAD")
        assert set(states(ok("repo", "import", "doppler", "d.json", "--json")).values()) == {"already there"}
        write("d.json", json.dumps(DOPPLER | {"STRIPE_KEY": "sk-another-1"}))
        ran = run("repo", "import", "doppler", "d.json", "--json")
        assert (ran.code, states(ran)["shop/stripe-key"]) == (2, "conflict")
        assert git("rev-parse", "HEAD") == head
        ok("repo", "import", "doppler", "d.json", "--dry-run", "--replace")
        assert git("rev-parse", "HEAD") == head
        ok("repo", "import", "doppler", "d.json", "--replace")
        assert ok("repo", "get", "shop/stripe-key").out == "sk-another-1"

    def test_an_environment_file_is_read_as_by_the_other_import(self, team):
        write(".env", "ACME_TOKEN=acme-0123456789\nPORT=3000\n")
        ran = ok("repo", "import", "dotenv", ".env", "--json")
        assert states(ran) == {"shop/acme-token": "stored"}
        assert ran.json["due"] == ["shop/acme-token"]
        assert [each["name"] for each in ran.json["skipped"]] == ["PORT"]

    def test_names_that_are_hidden_stay_so_and_mean_the_same(self, place, local):
        git("init", "-q")
        ok("repo", "init", "--opaque-names")
        write("d.json", json.dumps(DOPPLER))
        for state in ("stored", "already there"):
            assert states(ok("repo", "import", "doppler", "d.json", "--json"))["shop/stripe-key"] == state
        assert b"stripe-key" not in b"".join(p.read_bytes() for p in Path(".agent-vault").rglob("*") if p.is_file())
        assert states(ok("import", "agent-vault", ".", "--json"))["shop/stripe-key"] == "stored"
        ok("repo", "export", "doppler", "shop/stripe-key", "--to", "o.json", "--plain", "--reveal")
        assert json.loads(Path("o.json").read_text()) == {"SHOP_STRIPE_KEY": DOPPLER["STRIPE_KEY"]}

    def test_a_repo_vault_moves_into_another_and_into_a_vault_with_services(self, team, tmp_path, local):
        write("d.json", json.dumps(DOPPLER))
        ok("repo", "import", "doppler", "d.json")
        ok("repo", "export", "agent-vault", "--to", tmp_path / "other", "--reveal")
        assert "shop/stripe-key" in ok("repo", "list", "--dir", tmp_path / "other").out
        ran = ok("import", "agent-vault", ".", "--json")
        assert states(ran) == {"shop/stripe-key": "stored", "shop/db-url": "stored"}
        assert "was due already" in ran.json["taken"][0]["exposed"]
        assert "import" in ok("repo", "reads").out
        stranger = age.generate()
        write("stranger.key", stranger.to_text())
        ran = ok("import", "agent-vault", ".", "--from-key", "stranger.key", "--json")
        assert ran.json["taken"] == []
        assert len(ran.json["skipped"]) == 2


class TestOut:
    @pytest.fixture
    def full(self, local):
        ok("set", "shop/db", "--json-in", stdin=json.dumps({"username": "u-1", "password": "pass-12345"}))
        ok("set", "stripe/api-key", stdin="sk-0123456789")

    def test_a_sops_file_is_private_sealed_and_never_written_over(self, full):
        recipient = age.find_identity(IDENTITY.read_text()).recipient.text
        command = ("export", "sops", "--to", "out.yaml", "--recipient", recipient, "--reveal")
        os.umask(os.umask(0) or 0o022)
        ran = ok(*command)
        assert Path("out.yaml").stat().st_mode & 0o777 == 0o600
        content = Path("out.yaml").read_bytes()
        assert b"pass-12345" not in content
        assert "pass-12345" not in ran.out + ran.err
        again = run(*command)
        assert again.code != 0
        assert "not written over" in again.err
        assert Path("out.yaml").read_bytes() == content
        Path("link.yaml").symlink_to("target.yaml")
        assert run("export", "sops", "--to", "link.yaml", "--recipient", recipient, "--reveal").code != 0
        assert not Path("target.yaml").exists()

    @pytest.mark.skipif(shutil.which("sops") is None, reason="there is no sops")
    def test_the_real_program_opens_what_is_written(self, full, monkeypatch):
        monkeypatch.setenv("SOPS_AGE_KEY_FILE", str(Path("identity").absolute()))
        recipient = age.find_identity(IDENTITY.read_text()).recipient.text
        for name in ("out.yaml", "out.json", "out.env", "out.ini"):
            ok("export", "sops", "--to", name, "--recipient", recipient, "--reveal")
            done = subprocess.run(["sops", "--decrypt", name], capture_output=True, check=True)
            assert b"pass-12345" in done.stdout

    def test_nothing_leaves_without_a_word_and_in_clear_not_without_two(self, full):
        ran = run("export", "agenticmail", "--to", "o.json", "--password-file", "password")
        assert "--reveal" in ran.err
        for kind in ("1password", "doppler"):
            assert "--plain" in run("export", kind, "--to", "o.json", "--reveal").err
        assert run("export", "doppler", "--to", "o.json", "--reveal", "--plain", "nothing/*").code == 5
        assert not Path("o.json").exists()
        for kind in ("1password", "doppler"):
            ran = ok("export", kind, "--to", kind, "--reveal", "--plain", "stripe/*")
            assert "IN CLEAR" in ran.err
            assert "sk-0123456789" in Path(kind).read_text()
            assert "pass-12345" not in Path(kind).read_text()
            assert Path(kind).stat().st_mode & 0o777 == 0o600
        assert "secret/data/stripe/api-key" in ok("audit", "query", "--json").out

    def test_an_envelope_that_does_not_open_is_left_and_is_no_success(self, full):
        ok("export", "agenticmail", "--to", "rows.json", "--password-file", "password", "--reveal", "stripe/*")
        write("wrong", "another password\n")
        ran = run("import", "agenticmail", "rows.json", "--password-file", "wrong", "--under", "new")
        assert (ran.code, "does not open" in ran.err) == (2, True)

    def test_reads_of_a_repo_vault_are_recorded_before_the_values_leave(self, team):
        ok("repo", "set", "stripe/api-key", stdin="sk-0123456789")
        ok("repo", "export", "agenticmail", "--to", "rows.json", "--password-file", "password", "--reveal")
        assert "export" in ok("repo", "reads").out
        (row,) = json.loads(Path("rows.json").read_text())
        assert base64.b64decode(json.loads(row["encrypted_value"])["salt"])


class TestARunningVault:
    """Keyhole's own server speaks Vault's wire format."""

    @pytest.fixture
    def there(self, root_of_server, monkeypatch, tmp_path):
        """An org of its own on a server, filled by Vault's client for Python; its address, token and client."""
        made = ok(
            "org", "add", f"moving-{os.getpid()}-{tmp_path.name[-24:].strip('_').replace('_', '-')}", "--json"
        ).json
        for name in ("KEYHOLE_ADDR", "KEYHOLE_TOKEN"):
            monkeypatch.delenv(name)
        address, token = root_of_server["api"], made["root_token"]
        kv = hvac.Client(url=address, token=token).secrets.kv.v2
        kv.create_or_update_secret("shop/db", {"user": "u-1", "password": "pass-1234", "port": 5432})
        kv.update_metadata("shop/db", custom_metadata={"owner": "ann"})
        kv.create_or_update_secret("shop/deep/key", {"value": "key-12345"})
        kv.create_or_update_secret("gone", {"value": "gone-1"})
        kv.delete_latest_version_of_secret("gone")
        write("token", token + "\n")
        return address, token, kv

    def test_it_is_walked_from_its_root_with_what_it_says_of_each(self, there, local):
        address, token, _ = there
        ran = ok("import", "vault", "--address", address, "--token-file", "token", "--json")
        assert states(ran) == {"shop/db": "stored", "shop/deep/key": "stored"}
        assert {each["name"]: each["why"] for each in ran.json["skipped"]}["gone"].startswith("its current version")
        assert run("get", "shop/db", "--json").json["data"] == {"user": "u-1", "password": "pass-1234", "port": "5432"}
        assert "ann" in ok("show", "shop/db", "--json").out
        assert token not in ran.out + ran.err
        ran = ok("import", "vault", "shop/deep", "--address", address, "--token-file", "token", "--json")
        assert states(ran) == {"shop/deep/key": "already there"}

    def test_settings_of_vault_count_only_when_it_is_said(self, there, local, monkeypatch):
        address, token, _ = there
        monkeypatch.setenv("VAULT_ADDR", address)
        monkeypatch.setenv("VAULT_TOKEN", token)
        assert "--from-env" in run("import", "vault").err
        assert states(ok("import", "vault", "--from-env", "--json"))

    def test_secrets_are_written_there_once(self, there, local):
        address, _, theirs = there
        ok("set", "new/one", stdin="value-1234")
        ok("set", "gone", stdin="here-again-1")
        ok("set", "shop/deep/key", stdin="another-5678")
        to = ("export", "vault", "--address", address, "--token-file", "token", "--reveal", "--json")
        ran = run(*to)
        assert ran.code == 2
        assert {each["name"]: each["state"] for each in ran.json} == {
            "new/one": "stored",
            "gone": "stored",
            "shop/deep/key": "conflict",
        }
        assert theirs.read_secret_version("new/one", raise_on_deleted_version=True)["data"]["data"] == {
            "value": "value-1234"
        }
        ran = ok(*to, "--replace")
        assert {each["name"]: each["state"] for each in ran.json} == {
            "new/one": "already there",
            "gone": "already there",
            "shop/deep/key": "replaced",
        }

    def test_another_address_or_token_is_refused_with_a_reason(self, local, there):
        address, _, _ = there
        write("token", "no-token")
        assert "refuses" in run("import", "vault", "--address", address, "--token-file", "token").err
        for bad in ("http://example.com", "ftp://x", "https://user:pw@example.com", "x"):
            assert run("import", "vault", "--address", bad, "--token-file", "token", "--kv", "2").code in {2, 3, 6}


class _Old(BaseHTTPRequestHandler):
    """KV of version 1, by Vault's documentation, with names that no honest server has."""

    data = {"/v1/old/a": {"k": "v-123456"}, "/v1/old/d/b": {"value": "v-654321", "n": 1}}  # noqa: RUF012
    lists = {  # noqa: RUF012
        "/v1/old/": ["a", "d/", "e/", "..", "x%2fy", "a//b", 7, ""],
        "/v1/old": ["a", "d/", "e/", "..", "x%2fy", "a//b", 7, ""],
        "/v1/old/d": ["b"],
    }

    def do_GET(self):
        path, _, query = self.path.partition("?")
        if path.startswith("/v1/loop"):
            answer = {"keys": ["again/"]}
        elif path == "/v1/text":
            return self._answer(200, b"<html>")
        elif path == "/v1/moved":
            self.send_response(302)
            self.send_header("Location", "/v1/old/a")
            self.end_headers()
            return None
        else:
            answer = {"keys": self.lists[path]} if query and path in self.lists else self.data.get(path)
        return self._answer(200 if answer else 404, json.dumps({"data": answer}).encode())

    def _answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Say nothing."""


class TestAnOldOrHostileServer:
    @pytest.fixture
    def address(self):
        server = ThreadingHTTPServer(("127.0.0.1", 0), _Old)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        write("token", "t-1")
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()
        server.server_close()

    def asked(self, address, mount):
        return run(
            "import", "vault", "--address", address, "--token-file", "token", "--mount", mount, "--kv", "1", "--json"
        )

    def test_version_1_is_read_and_names_that_are_none_are_left(self, address, local):
        ran = self.asked(address, "old")
        assert states(ran) == {"a": "stored", "d/b": "stored"}
        assert {each["name"] for each in ran.json["skipped"]} == {"..", "x%2fy", "a//b"}

    def test_folders_without_end_have_one(self, address, local):
        ran = self.asked(address, "loop")
        assert ran.code != 0
        assert "more secrets or folders" in ran.err

    def test_what_is_no_vault_says_so(self, address, local):
        assert "no JSON" in self.asked(address, "text").err
        assert "answers 302" in self.asked(address, "moved").err
