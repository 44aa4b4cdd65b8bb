"""`import`: credentials out of files, the environment and commands, on a local vault and on a server."""

import base64
import json
import os
import stat

import pytest

from cli_driver import ok, run
from keyhole import Client

KEY = "sk_live_51Sample0000000000000000"
TOKEN = "ghp_" + "S" * 36
SAUCE = "secret-sauce-0123"


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """An empty home, and a folder `shop` to work in."""
    for name in ("XDG_CONFIG_HOME", "APPDATA", "VIRTUAL_ENV", "NETRC", "DOCKER_CONFIG", "PIP_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "user").mkdir()
    (tmp_path / "shop").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.chdir(tmp_path / "shop")
    return tmp_path / "shop"


def write(path, text, mode=0o600):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return path


def taken(ran):
    return {item["name"]: item["state"] for item in ran.json["taken"]}


def value(name):
    return run("get", name, "--json").json["value"]


ENV = f"# mine\nSTRIPE_SECRET_KEY='{KEY}'\nACME_TOKEN={SAUCE}  # sauce\nPORT=3000\nLATER=${{ACME_TOKEN}}\n"


def test_a_known_key_is_stored_bound_and_granted_and_an_unknown_one_only_stored(vault, place):
    write(place / ".env", ENV)
    ran = run("import", ".env", "--json")
    assert ran.code == 0, ran
    assert taken(ran) == {"stripe/api-key": "stored", "shop/acme-token": "stored"}
    stripe, acme = ran.json["taken"]
    assert (stripe["known_as"], stripe["services"], stripe["variable"]) == ("stripe", ["stripe"], "STRIPE_SECRET_KEY")
    assert acme["services"] == []
    assert acme["next"].startswith("keyhole service add shop-acme-token --host HOST --secret shop/acme-token --bearer")
    assert {(item["name"], item["where"]) for item in ran.json["skipped"]} == {("PORT", "line 4"), ("LATER", "line 5")}
    assert (value("stripe/api-key"), value("shop/acme-token")) == (KEY, SAUCE)
    assert run("why", "GET", "https://api.stripe.com/v1/balance", "--agent", "default").code == 0
    assert KEY not in ran.out + ran.err
    assert SAUCE not in ran.out + ran.err


def test_what_a_person_sees_names_the_next_steps_and_no_value(vault, place):
    write(place / ".env", ENV)
    ran = ok("import", ".env")
    assert "stripe/api-key" in ran.out
    assert "next: keyhole service add shop-acme-token" in ran.err
    assert "left: PORT (.env, line 4) is a number or a switch" in ran.err
    assert "now: keyhole run -- COMMAND" in ran.err
    assert not [each for each in (KEY, SAUCE) if each in ran.out + ran.err]


def test_a_dry_run_changes_nothing_and_needs_no_vault(place, tmp_path):
    write(place / ".env", ENV)
    ran = run("import", ".env", "--dry-run", "--placeholders", "--json")
    assert ran.code == 0
    assert set(taken(ran).values()) == {"would be stored"}
    assert ran.json["taken"][0]["services"] == ["stripe"]
    assert (place / ".env").read_text() == ENV
    assert not (tmp_path / "home/vault.db").exists()


def test_a_dry_run_says_what_is_there_already(vault, place):
    write(place / ".env", ENV)
    ok("import", ".env")
    write(place / ".env", ENV.replace(SAUCE, "another-sauce-4567"))
    assert taken(run("import", ".env", "--dry-run", "--json")) == {
        "stripe/api-key": "already there",
        "shop/acme-token": "conflict",
    }


def test_the_first_import_makes_the_local_vault(place, tmp_path, monkeypatch):
    ok("init", "--vault", f"sqlite:{tmp_path / 'other.db'}", "--seal", f"keyfile:{tmp_path / 'key'}", "--make-keyfile")
    monkeypatch.setenv("KEYHOLE_SEAL", f"keyfile:{tmp_path / 'key'}")
    write(place / ".env", ENV)
    assert "made your vault" in ok("import", ".env").err
    assert value("stripe/api-key") == KEY


def test_another_value_is_not_overwritten_unless_it_is_said(vault, place):
    write(place / ".env", ENV)
    ok("import", ".env")
    assert set(taken(ok("import", ".env", "--json")).values()) == {"already there"}
    write(place / ".env", ENV.replace(SAUCE, "another-sauce-4567"))
    ran = run("import", ".env", "--json")
    assert ran.code == 2
    assert taken(ran)["shop/acme-token"] == "conflict"
    assert value("shop/acme-token") == SAUCE
    ran = ok("import", ".env", "--replace", "--json")
    assert taken(ran) == {"stripe/api-key": "already there", "shop/acme-token": "replaced"}
    assert value("shop/acme-token") == "another-sauce-4567"


def test_a_deleted_secret_may_be_written_again(vault, place):
    write(place / ".env", ENV)
    ok("import", ".env")
    ok("rm", "shop/acme-token")
    assert taken(ok("import", ".env", "--json"))["shop/acme-token"] == "stored"


def test_two_values_for_one_known_name_are_both_kept_apart(vault, place):
    write(place / ".env", f"STRIPE_API_KEY={KEY}\nSTRIPE_SECRET_KEY={KEY[:-1]}1\nSTRIPE_KEY={KEY}\n")
    ran = ok("import", ".env", "--json")
    assert [(item["name"], item["state"]) for item in ran.json["taken"]] == [
        ("stripe/api-key", "stored"),
        ("shop/stripe-secret-key", "stored"),
        ("stripe/api-key", "already there"),
    ]
    assert value("shop/stripe-secret-key") == KEY[:-1] + "1"


def test_a_service_of_the_users_own_is_left_as_it_is(vault, place):
    ok("set", "mine/key", stdin=KEY)
    ok("service", "add", "stripe", "--host", "api.stripe.com", "--path", "/v1/x", "--secret", "mine/key", "--bearer")
    write(place / ".env", ENV)
    ran = ok("import", ".env", "--json")
    stripe = ran.json["taken"][0]
    assert (stripe["state"], stripe["services"]) == ("stored", [])
    assert "lends mine/key" in stripe["why"]
    assert run("service", "show", "stripe", "--json").json["paths"] == ["/v1/x"]


def test_options_say_who_may_use_it_and_what_is_taken_and_left(vault, place):
    write(place / ".env", ENV)
    ran = ok("import", ".env", "--agent", "coder", "--name", "PORT", "--skip", "ACME_*", "--under", "web", "--json")
    assert taken(ran) == {"stripe/api-key": "stored", "web/port": "stored"}
    assert [s["name"] for s in run("what-can", "coder", "--json").json["services"]] == ["stripe"]
    assert run("agent", "show", "default").code == 5
    ran = ok("import", "--no-services", ".env", "--replace", "--json")
    assert all(not item["services"] for item in ran.json["taken"])


def test_the_environment_is_never_taken_as_a_whole(vault, monkeypatch):
    monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
    monkeypatch.setenv("ACME_TOKEN", SAUCE)
    monkeypatch.setenv("KEYHOLE_NOT_MINE_TOKEN", SAUCE)
    ran = ok("import", "env", "--json")
    assert taken(ran) == {"github/api-key": "stored"}
    assert ran.json["skipped"] == []
    ran = ok("import", "env", "--name", "ACME_*", "--name", "KEYHOLE_*", "--json")
    assert taken(ran) == {"github/api-key": "already there", "env/acme-token": "stored"}


def program(folder, name, script):
    return write(folder / name, f"#!/bin/sh\n{script}\n", 0o700)


@pytest.fixture
def programs(tmp_path, monkeypatch):
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def test_a_command_that_prints_a_token(vault, programs):
    program(programs, "gh", f'[ "$*" = "auth token" ] && echo {TOKEN} && echo {KEY} >&2')
    for name, words in (
        ("github/api-key", ("gh", "--json")),
        ("mine/token", ("--json", "--as", "mine/token", "--", "gh", "auth", "token")),
    ):
        ran = ok("import", "command", *words)
        assert taken(ran) == {name: "stored"}
        assert value(name) == TOKEN
        assert not [each for each in (TOKEN, KEY) if each in ran.out + ran.err]


def test_a_token_that_lives_for_an_hour_expires(vault, programs):
    program(programs, "gcloud", f"echo {SAUCE}")
    ok("import", "command", "gcloud")
    assert run("show", "gcloud/access-token", "--json").json["expires_at"]


@pytest.mark.parametrize(
    ("script", "said", "code"),
    [
        ("exit 3", "exit code 3", 2),
        ("true", "printed nothing", 3),
        (f"echo {SAUCE}; echo {SAUCE}", "more than one word", 3),
        (f"echo {SAUCE} {SAUCE}", "more than one word", 3),
        (f"while echo {SAUCE}; do :; done", "more than a token", 3),
        ("printf '\\377\\376\\375\\374\\373\\372\\371\\370'", "not text", 3),
    ],
)
def test_a_command_that_prints_something_else(local, programs, script, said, code):
    program(programs, "odd", script)
    ran = run("import", "command", "--", "odd", SAUCE)
    assert ran.code == code
    assert said in ran.err
    assert SAUCE not in ran.out + ran.err
    assert run("list", "--json").json == []


def test_a_command_that_does_not_end_is_stopped(local, programs, monkeypatch):
    monkeypatch.setattr("keyhole.cli.import_sources.LIMITS", type(_limits())(seconds=0.2))
    program(programs, "slow", "exec sleep 60")
    ran = run("import", "command", "--", "slow")
    assert ran.code == 6
    assert "did not end within 0.2 seconds" in ran.err


def _limits():
    from keyhole.importers import LIMITS

    return LIMITS


def test_a_command_that_is_not_there_and_the_known_ones(local):
    assert run("import", "command", "--", "no-such-program-here").code == 5
    assert "gh auth token" in ok("import", "command").out
    assert run("import", "command", "--placeholders", "gh").code == 3


def test_registries_mail_and_clouds(vault, tmp_path):
    home = tmp_path / "user"
    write(home / ".npmrc", f"//npm.acme.example/:_authToken={SAUCE}\n")
    write(home / ".netrc", "machine api.acme.example login me password hunter22-hunter22\n")
    write(home / ".git-credentials", f"https://me:{TOKEN}@github.com\n")
    write(home / ".aws/credentials", f"[default]\naws_access_key_id=AKIA1\naws_secret_access_key={'s' * 40}\n")
    write(home / ".config/pip/pip.conf", "[global]\nindex-url=http://me:hunter23-23@pip.acme.example/simple\n")
    ran = ok("import", "--yes", "--json")
    found = {item["name"]: item for item in ran.json["taken"]}
    assert found["npm/npm.acme.example"]["services"] == ["npm-npm.acme.example"]
    assert found["netrc/api.acme.example"]["fields"] == ["password", "username"]
    assert found["netrc/api.acme.example"]["services"] == ["netrc-api.acme.example"]
    assert found["github/api-key"]["services"] == ["github", "github-git"]
    assert found["aws/credentials"]["fields"] == ["access_key_id", "secret_access_key"]
    assert found["aws/credentials"]["services"] == ["aws"]
    assert run("why", "GET", "https://sts.us-east-1.amazonaws.com/", "--agent", "default").code == 0
    assert found["pip/pip.acme.example"]["services"] == []
    assert "without encryption" in found["pip/pip.acme.example"]["why"]
    assert "--scheme http" in found["pip/pip.acme.example"]["next"]
    service = run("service", "show", "npm-npm.acme.example", "--json").json
    assert (service["hosts"], service["inject"]) == (["npm.acme.example:443"], {"kind": "bearer"})
    assert run("why", "GET", "https://api.acme.example/", "--agent", "default").code == 0
    assert taken(ok("import", "npmrc", "--json")) == {"npm/npm.acme.example": "already there"}
    assert "nothing in the usual places" in ok("import", "docker").err


def test_without_a_source_it_asks_first_and_takes_nothing_where_nobody_answers(local, place, tmp_path):
    write(place / ".env", ENV)
    write(tmp_path / "user/.claude.json", "{")
    ran = run("import")
    assert ran.code == 3
    assert "2 credentials could be taken" in ran.err
    assert run("list", "--json").json == []
    ran = ok("import", "--dry-run")
    assert "shop/acme-token" in ran.out
    assert ".claude.json: it is not JSON: line 1" in ran.err


@pytest.mark.parametrize(("answer", "code"), [(True, 0), (False, 4)])
def test_without_a_source_the_answer_counts(local, place, monkeypatch, answer, code):
    questions = []
    monkeypatch.setattr("keyhole.cli.import_work.has_terminal", lambda: True)
    monkeypatch.setattr("keyhole.cli.import_work.ask_yes", lambda text: questions.append(text) or answer)
    write(place / ".env", ENV)
    ran = run("import")
    assert ran.code == code
    assert questions == ["Move these 2 into the vault?"]
    assert len(run("list", "--json").json) == (2 if answer else 0)


def test_nothing_to_take_is_no_fault(local):
    assert "nothing to take" in ok("import").err


def test_what_differs_from_account_to_account_is_asked_for_as_the_next_step(vault, place):
    write(place / ".env", f"GH_ENTERPRISE_TOKEN={TOKEN}\n")
    [item] = ok("import", ".env", "--json").json["taken"]
    assert (item["state"], item["services"]) == ("stored", [])
    assert item["next"] == "keyhole get github-enterprise/api-key | keyhole add github-enterprise --host HOST"
    write(place / ".env", f"GH_ENTERPRISE_TOKEN={TOKEN}\nGH_HOST=git.acme.example\n")
    [item] = ok("import", ".env", "--json").json["taken"]
    assert (item["state"], item["services"]) == ("already there", ["github-enterprise", "github-enterprise-git"])
    assert run("why", "GET", "https://git.acme.example/api/v3/user", "--agent", "default").code == 0


def test_placeholders_of_several_fields_are_those_of_the_environment_of_run(vault, place):
    key = "AWS_ACCESS_KEY_ID=AKIA0123456789ABCDEF\nAWS_SECRET_ACCESS_KEY=" + "aB3/" * 10 + "\n"
    path = write(place / ".env", key)
    ok("import", ".env", "--placeholders")
    shown = {row["variable"]: row["placeholder"] for row in run("env", "--json").json}
    lines = dict(line.split("=") for line in path.read_text().splitlines())
    assert lines == {name: shown[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}


def test_a_file_that_others_can_read_is_taken_with_a_warning(local, place):
    write(place / ".env", ENV, 0o644)
    assert "chmod 600 .env" in ok("import", ".env").err
    assert run("import", ".env", "--json").json["exposed"] == [".env"]


def test_helpers_of_docker_are_asked_only_when_that_is_said(vault, programs, tmp_path):
    config = {"auths": {"r.acme.example": {}, "other.example": {}}, "credHelpers": {"r.acme.example": "acme"}}
    config["credsStore"] = "missing"
    write(tmp_path / "user/.docker/config.json", json.dumps(config))
    answer = f'[ "$1" = get ] && [ "$(cat)" = r.acme.example ] && echo \'{{"Username":"me","Secret":"{SAUCE}"}}\''
    program(programs, "docker-credential-acme", answer)
    ran = ok("import", "docker", "--json")
    assert ran.json["taken"] == []
    assert "add --helpers" in ran.json["skipped"][0]["why"]
    ran = ok("import", "docker", "--helpers", "--json")
    assert taken(ran) == {"docker/r.acme.example": "stored"}
    assert any("docker-credential-missing" in note for note in ran.json["notes"])
    assert run("get", "docker/r.acme.example#password", "--json").json["value"] == SAUCE


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ((f"ACME={SAUCE}",), 5),
        ((SAUCE,), 5),
        (("file",), 3),
        (("file", ".env", "--kind", "nothing"), 3),
        ((".",), 3),
        (("restore", "nothing-here"), 5),
        (("--under", "a//b", ".env"), 3),
    ],
)
def test_mistakes_are_told_without_repeating_what_was_typed(local, place, words, code):
    write(place / ".env", ENV)
    ran = run("import", *words)
    assert ran.code == code
    assert SAUCE not in ran.out + ran.err
    assert "Traceback" not in ran.err


def test_pipes_folders_and_wrong_content_are_refused(local, place):
    os.mkfifo(place / "pipe.env")
    assert "not a regular file" in run("import", "pipe.env").err
    write(place / "settings.txt", ENV)
    assert "add --kind" in run("import", "settings.txt").err
    assert taken(ok("import", "settings.txt", "--kind", "dotenv", "--json"))
    write(place / ".env", ENV.encode("utf-16"))
    assert "UTF-16" in run("import", ".env").err


def test_who_may_not_read_does_not_overwrite_blindly(root_of_server, place, monkeypatch):
    org = run("org", "add", "blind-import", "--json").json
    monkeypatch.setenv("KEYHOLE_TOKEN", org["root_token"])
    ok("set", "shop/acme-token", stdin="what-was-there-before")
    rules = 'path "secret/data/*" { capabilities = ["create", "update"] }\n'
    rules += 'path "secret/metadata/*" { capabilities = ["read", "list"] }\n'
    ok("policy", "write", "writer", "-", stdin=rules)
    with Client() as client:
        token = client.write("auth/token/create", {"policies": ["writer"], "ttl": "5m"}).auth["client_token"]
    monkeypatch.setenv("KEYHOLE_TOKEN", token)
    write(place / ".env", ENV)
    ran = run("import", ".env", "--json")
    assert taken(ran) == {"stripe/api-key": "stored", "shop/acme-token": "conflict"}
    assert "may not read" in ran.json["taken"][1]["why"]
    assert ran.json["taken"][0]["services"] == []


def test_no_value_gets_into_the_journal(vault, place):
    write(place / ".env", ENV)
    ok("import", ".env", "--placeholders")
    records = ok("audit", "query", "--json").out
    forms = [KEY, SAUCE, base64.b64encode(ENV.encode()).decode()[:24]]
    assert not [each for each in forms if each in records]


def test_the_file_keeps_its_mode(local, place):
    write(place / ".env", ENV, 0o640)
    ok("import", ".env", "--placeholders")
    assert stat.S_IMODE((place / ".env").stat().st_mode) == 0o640
