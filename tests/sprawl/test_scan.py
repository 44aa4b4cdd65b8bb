"""`keyhole scan`: what lies about in files, archives and history, which secret it is, and into the vault with it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile

import pytest

from cli_driver import ok, run

KEY = "ghp_" + "16C7e42F292c6912E7710c838347Ae178B4a"
OTHER = "canary-" + "51H8xKeyhole-9Zq7"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("KEYHOLE_HOME", str(tmp_path / "keyhole"))
    monkeypatch.setenv("KEYHOLE_SEAL", f"keyfile:{tmp_path / 'unseal.key'}")
    (tmp_path / "user").mkdir()
    (tmp_path / "unseal.key").write_bytes(os.urandom(32))
    (tmp_path / "unseal.key").chmod(0o600)
    made = tmp_path / "shop"
    made.mkdir()
    monkeypatch.chdir(made)
    return made


def git(folder, *words):
    settings = ("-c", "user.name=ann", "-c", "user.email=ann@example.com")
    subprocess.run(["git", "-C", str(folder), *settings, *words], capture_output=True, check=True)


def found(*words, code=1):
    ran = run("scan", *words, "--json")
    assert ran.code == code, ran
    assert KEY not in ran.out + ran.err
    return [(each["path"], each["line"], each["rule"]) for each in ran.json["findings"]]


def packed(files):
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return made.getvalue()


def test_a_clean_folder_is_clean(folder):
    (folder / "a.py").write_text("token = os.environ['TOKEN']\n")
    assert found(code=0) == []


def test_files_of_every_kind_are_looked_at_and_no_value_is_shown(folder):
    (folder / "src").mkdir()
    (folder / "src/pay.py").write_text(f"\nKEY = '{KEY}'\n")
    (folder / ".env").write_text("STRIPE_API_KEY=unusual-but-secret-7\n")
    (folder / "Dockerfile").write_text(f"FROM x\nENV GITHUB_TOKEN={KEY}\n")
    (folder / "node_modules").mkdir()
    (folder / "node_modules/x.js").write_text(KEY)
    assert set(found()) == {
        (".env", 1, "stored-dotenv"),
        ("Dockerfile", 2, "github-token"),
        ("src/pay.py", 2, "github-token"),
    }
    assert found("src/pay.py") == [("src/pay.py", 2, "github-token")]


def test_a_layer_of_an_image_gives_away_what_a_later_one_removes(folder):
    layer = packed({"app/.npmrc": f"//npm.example/:_authToken={KEY}\n".encode()})
    later = packed({"app/.wh..npmrc": b""})
    config = json.dumps({"config": {"Env": [f"TOKEN={KEY}"]}}).encode()
    image = packed({"blobs/sha256/1": layer, "blobs/sha256/2": later, "blobs/sha256/3": config, "index.json": b"{}"})
    (folder / "image.tar").write_bytes(image)
    assert found("image.tar") == [
        ("image.tar!blobs/sha256/1!app/.npmrc", 1, "github-token"),
        ("image.tar!blobs/sha256/3", 1, "github-token"),
    ]


def test_a_damaged_archive_is_said_and_ends_nothing(folder):
    (folder / "image.tar").write_bytes(packed({"a": b"x" * 5000})[:2000])
    (folder / "a.py").write_text(KEY)
    ran = run("scan", "--json")
    assert len(ran.json["findings"]) == 1
    assert any("image.tar" in note for note in ran.json["notes"])


def test_what_was_ever_committed_is_found_with_its_commit(folder):
    git(folder, "init", "-q")
    (folder / "a.py").write_text(f"KEY = '{KEY}'\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "one")
    (folder / "a.py").write_text("KEY = None\n")
    git(folder, "commit", "-qam", "two")
    assert found(code=0) == []
    ((path, line, rule),) = found("--history")
    assert path.startswith("a.py@")
    assert (line, rule) == (1, "github-token")


def test_the_usual_places_have_the_histories_of_shells(folder, tmp_path):
    (tmp_path / "user/.bash_history").write_text(f"ls\nexport GITHUB_TOKEN={KEY}\n")
    assert found("--usual") == [(str(tmp_path / "user/.bash_history"), 2, "github-token")]


def test_sarif_names_rule_place_and_fingerprint(folder):
    (folder / "a b.py").write_text(f"KEY = '{KEY}'\n")
    ran = run("scan", "--sarif")
    assert ran.code == 1
    assert KEY not in ran.out
    log = ran.json
    assert log["version"] == "2.1.0"
    (result,) = log["runs"][0]["results"]
    place = result["locations"][0]["physicalLocation"]
    assert place == {"artifactLocation": {"uri": "a%20b.py"}, "region": {"startLine": 1, "startColumn": 8}}
    rules = log["runs"][0]["tool"]["driver"]["rules"]
    assert rules[result["ruleIndex"]]["id"] == result["ruleId"] == "github-token"


def test_a_secret_of_the_vault_is_named(folder):
    ok("init")
    ok("set", "crm/key", stdin=OTHER)
    (folder / "notes.txt").write_text(f"one\nuse {OTHER} here\n")
    assert found(code=0) == []
    ran = run("scan", "--compare", "--json")
    assert [(each["secret"], each["line"]) for each in ran.json["findings"]] == [("crm/key", 2)]
    assert OTHER not in ran.out + ran.err


def test_fix_moves_it_into_the_vault_and_leaves_a_placeholder(folder):
    (folder / "pay.py").write_text(f"import os\nKEY = '{KEY}'\n")
    ran = run("scan", "pay.py", "--fix", "--yes")
    assert ran.code == 0, ran
    text = (folder / "pay.py").read_text()
    assert KEY not in text
    assert "keyhole" in text
    assert text.startswith("import os\nKEY = '")
    (name,) = [each["name"] for each in ok("list", "--json").json if not each["name"].startswith("backup/")]
    assert ok("get", name).out.strip() == KEY
    assert found(code=0) == []


def test_what_cannot_be_a_placeholder_stays_and_counts(folder):
    (folder / "a.txt").write_text("db = postgres://app:s3cretPass77@db.example.net/app\n")
    ran = run("scan", "a.txt", "--fix", "--yes")
    assert ran.code == 1, ran
    assert "s3cretPass77" in (folder / "a.txt").read_text()
    assert "s3cretPass77" not in ran.out + ran.err


def test_accepted_findings_do_not_count(folder):
    (folder / "a.py").write_text(f"KEY = '{KEY}'\n")
    (finding,) = run("scan", "--json").json["findings"]
    (folder / ".keyhole-allow").write_text(f"{finding['fingerprint']}  # of the tests\n")
    assert found(code=0) == []


def test_a_file_that_is_not_there_is_said(folder):
    assert run("scan", "nowhere").code == 5
