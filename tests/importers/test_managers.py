"""What other managers keep and export: read from bytes made by hand or by their own programs, and hostile ones."""

import base64
import contextlib
import hashlib
import hmac
import io
import json
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256, SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

from keyhole.core.errors import IntegrityError, InvalidRequest, NotFound
from keyhole.core.value import Secret
from keyhole.crypto import age
from keyhole.crypto.importers import agenticmail as envelopes
from keyhole.crypto.importers.bitwarden import ARGON2ID, Stretching
from keyhole.importers import Origin, bitwarden, load, onepassword
from keyhole.importers.found import Item, Opens
from keyhole.importers.ordered import from_yaml, go_float

SOPS = Path(__file__).parents[1] / "data" / "sops"
ANN = age.find_identity((SOPS / "identity.txt").read_text())
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def opened(kind, content, *, label="shop/file", identities=(ANN,), password=None):
    return load(kind).parse(content, Origin(label, "shop", Opens(tuple(identities), password and Secret(password))))


def values(report):
    return {each.name: {name: text.reveal().decode() for name, text in each.fields.items()} for each in report.found}


def why(report):
    return {each.name: each.why for each in report.skipped}


class TestSops:
    def test_a_yaml_file_of_the_real_program_opens_with_all_its_types(self):
        report = opened("sops", (SOPS / "types.yaml").read_bytes())
        assert values(report) == {
            "shop/db": {"user": "shop", "password": "correct horse 1", "port": "5432", "ratio": "1.5", "tls": "True"},
            "shop/db/replica": {"password": "other-pass-2"},
            "shop/tokens": {"0": "alpha-1", "1": "beta-2"},
            "shop/users/0": {"name": "ann", "key": "key-of-ann"},
            "shop/api-key": {"value": "sk_test_51Example"},
        }
        assert why(report)["note_unencrypted"] == "is not encrypted in the file"
        assert why(report)["db.empty"] == "is empty"
        assert report.seen == ""

    @pytest.mark.parametrize(
        ("file", "found"),
        [
            ("rules.json", {"shop/a": {"secret": "s-value-1"}, "shop/a/l/1": {"secret": "s-value-2"}}),
            ("app.env", {"shop/api-key": {"value": "sk_test_1"}, "shop/two-lines": {"value": "a\nb"}}),
            (
                "app.ini",
                {
                    "shop/top": {"value": "t-value"},
                    "shop/db": {"password": "one two"},
                    "shop/api/prod": {"key": "k-value"},
                },
            ),
            ("note.bin", {"shop/note.bin": {"value": "line one\nline two\n"}}),
        ],
    )
    def test_the_other_forms_of_the_real_program_open(self, file, found):
        assert values(opened("sops", (SOPS / file).read_bytes(), label=f"shop/{file}")) == found

    @pytest.mark.parametrize(
        ("file", "old", "new"),
        [
            ("types.yaml", b"note_unencrypted: visible", b"note_unencrypted: changed"),
            ("types.yaml", b"mode_unencrypted: 493", b"mode_unencrypted: 494"),
            ("app.env", b"PLAIN_unencrypted=x", b"PLAIN_unencrypted=y"),
            ("app.ini", b"user_unencrypted = x", b"user_unencrypted = y"),
            ("rules.json", b'"mac_only_encrypted": true', b'"mac_only_encrypted": false'),
            ("types.yaml", b'lastmodified: "2026-', b'lastmodified: "2025-'),
        ],
    )
    def test_what_was_changed_without_the_key_is_refused_whole(self, file, old, new):
        content = (SOPS / file).read_bytes()
        assert old in content
        with pytest.raises(IntegrityError, match=r"MAC of the file|does not open"):
            opened("sops", content.replace(old, new))

    def test_a_value_in_anothers_place_does_not_open(self):
        lines = (SOPS / "types.yaml").read_text().splitlines()
        user = next(n for n, line in enumerate(lines) if line.startswith("    user:"))
        password = next(n for n, line in enumerate(lines) if line.startswith("    password:"))
        one, other = lines[user].split(": ")[1], lines[password].split(": ")[1]
        lines[user], lines[password] = f"    user: {other}", f"    password: {one}"
        with pytest.raises(IntegrityError, match="stands in another's place"):
            opened("sops", "\n".join(lines).encode())

    def test_a_value_that_was_taken_out_is_missed(self):
        lines = [n for n in (SOPS / "types.yaml").read_text().splitlines() if not n.startswith("api_key:")]
        with pytest.raises(IntegrityError, match="MAC of the file"):
            opened("sops", "\n".join(lines).encode())

    def test_items_of_a_list_that_changed_places_are_noticed(self):
        lines = (SOPS / "types.yaml").read_text().splitlines()
        at = lines.index("tokens:")
        lines[at + 1], lines[at + 2] = lines[at + 2], lines[at + 1]
        with pytest.raises(IntegrityError, match="MAC of the file"):
            opened("sops", "\n".join(lines).encode())

    def test_a_file_for_another_key_says_so(self):
        with pytest.raises(NotFound, match="not for any of these age keys"):
            opened("sops", (SOPS / "types.yaml").read_bytes(), identities=[age.generate()])
        with pytest.raises(NotFound, match="no age key"):
            opened("sops", (SOPS / "types.yaml").read_bytes(), identities=[])

    def test_a_pattern_of_a_stranger_is_not_run(self):
        content = (SOPS / "rules.json").read_bytes().replace(b"^secret$", b"(a+)+$(")
        assert values(opened("sops", content))["shop/a"] == {"secret": "s-value-1"}

    @pytest.mark.parametrize("shape", ["yaml", "json", "dotenv", "ini"])
    def test_what_is_written_is_read_again_as_the_same(self, shape):
        sops = load("sops")
        items = [
            Item("stripe/api-key", {"value": "sk 'one' \"two\" #;"}),
            Item("db/prod/main", {"user": "ü", "password": "a\nb"}),
        ]
        content = sops.write(items, [age.generate().recipient, ANN.recipient], NOW, shape)
        assert b"ENC[AES256_GCM" in content
        assert b"'one'" not in content
        found = values(opened("sops", content))
        if shape == "dotenv":  # it has variables only
            assert found["shop/db-prod-main-password"] == {"value": "a\nb"}
            return
        prefix = "shop/" if shape == "dotenv" else ""
        assert found == {f"{prefix}{item.name}": dict(item.fields) for item in items}

    def test_a_key_that_the_usual_rule_would_leave_in_clear_is_sealed(self):
        content = load("sops").write([Item("a/b", {"pin_unencrypted": "1234-visible"})], [ANN.recipient], NOW)
        assert b"1234-visible" not in content
        assert b"encrypted_regex" in content
        assert values(opened("sops", content)) == {"a/b": {"pin_unencrypted": "1234-visible"}}

    def test_two_secrets_that_would_stand_in_one_place_are_refused(self):
        items = [Item("a/b", {"c": "one-value"}), Item("a/b/c", {"value": "two-value"})]
        with pytest.raises(InvalidRequest, match="would stand where"):
            load("sops").write(items, [ANN.recipient], NOW)

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"a: &x [1]\nb: *x\nsops: {}\n", "alias"),
            (b"a: 1\na: 2\nsops: {mac: x, lastmodified: y}\n", "stands twice"),
            (b"a: " + b"[" * 200 + b"]" * 200, "nested too deeply"),
            (b"a: 1\n---\nb: 2\n", "several documents"),
            (b"a: [1\n", "not YAML"),
            (b"\xff\xfe", "UTF-16"),
            (b"a: \xff\n", "not YAML in UTF-8"),
            (b"hello: world\n", "no part 'sops'"),
            (b"[1, 2]", "no part 'sops'"),
            (b"", "empty"),
            (b'{"a": {"a": 1, "a": 2}, "sops": {}}', "error parsing JSON"),
            (b"{" * 5000, "error parsing JSON"),
            (b"a: x\nsops:\n    kms: [{arn: x}]\n    mac: m\n    lastmodified: l\n", "it is for kms"),
            (b"a: x\nsops:\n    shamir_threshold: 2\n    mac: m\n    lastmodified: l\n", "key groups"),
            (b"? [a]\n: 1\n", "no text"),
        ],
    )
    def test_hostile_and_broken_files_are_refused_with_a_reason(self, content, reason):
        with pytest.raises(InvalidRequest, match=reason):
            opened("sops", content)

    def test_numbers_are_written_as_go_writes_them(self):
        assert [go_float(number) for number in (1e20, 1e-6, 1.0, 0.1, 100.5)] == [
            "100000000000000000000",
            "0.000001",
            "1",
            "0.1",
            "100.5",
        ]
        tree = from_yaml(b"[0x1f, 0o17, 017, 1_000, yes, True, ~, 2024-01-02, 1e3, 'x']")
        assert [each.text for each in tree] == [
            "31", "15", "15", "1000", "yes", "True", None, "2024-01-02T00:00:00Z", "1000", "x",
        ]  # fmt: skip


def envelope(value, password, iterations=1000):
    """By its description: nothing of ours."""
    salt, iv = b"s" * 16, b"i" * 12
    key = PBKDF2HMAC(algorithm=SHA512(), length=32, salt=salt, iterations=iterations).derive(password)
    sealed = AESGCM(key).encrypt(iv, value, None)
    parts = (("salt", salt), ("iv", iv), ("tag", sealed[-16:]), ("data", sealed[:-16]))
    return {"v": 1, "alg": "aes-256-gcm"} | {name: base64.b64encode(part).decode() for name, part in parts}


class TestAgenticMail:
    @pytest.fixture(autouse=True)
    def fast(self, monkeypatch):
        monkeypatch.setattr(envelopes, "ITERATIONS", 1000)

    def test_rows_a_configuration_and_a_single_envelope_are_taken(self):
        text = json.dumps(envelope(b"value-one", b"key"))
        rows = [{"id": 1, "org_id": "acme", "name": "smtp/password", "encrypted_value": text}]
        assert values(opened("agenticmail", json.dumps(rows).encode(), password="key")) == {
            "acme/smtp/password": {"value": "value-one"}
        }
        config = {"mail": {"password": {"_encrypted": text}, "host": "example.com"}}
        assert values(opened("agenticmail", json.dumps(config).encode(), password="key")) == {
            "mail/password": {"value": "value-one"}
        }
        assert values(opened("agenticmail", text.encode(), password="key")) == {"shop/secret": {"value": "value-one"}}

    def test_parts_that_javascript_wrote_as_buffers_are_taken(self):
        made = envelope(b"value-one", b"key")
        for name in ("salt", "iv", "tag", "data"):
            made[name] = {"type": "Buffer", "data": list(base64.b64decode(made[name]))}
        assert values(opened("agenticmail", json.dumps(made).encode(), password="key"))

    def test_the_password_that_everybody_knows_is_tried_and_said(self):
        made = json.dumps(envelope(b"value-one", envelopes.FALLBACK)).encode()
        (found,) = opened("agenticmail", made, password="mine").found
        assert "everybody knows" in found.seen

    def test_what_does_not_open_is_left_and_the_rest_is_taken(self):
        rows = [
            {"name": "a", "encrypted_value": json.dumps(envelope(b"value-one", b"key"))},
            {"name": "b", "encrypted_value": json.dumps(envelope(b"value-two", b"other"))},
            {"name": "c", "encrypted_value": json.dumps(envelope(b"\xff\xfe", b"key"))},
            {"name": "d", "encrypted_value": json.dumps(envelope(b"x", b"key") | {"tag": "AAAA"})},
        ]
        report = opened("agenticmail", json.dumps(rows).encode(), password="key")
        assert values(report) == {"shop/a": {"value": "value-one"}}
        assert set(why(report)) == {"b", "c", "d"}
        assert any("every agent" in note for note in report.notes)

    def test_envelopes_of_another_version_are_none(self):
        for change in ({"v": 2}, {"alg": "aes-128-gcm"}):
            with pytest.raises(InvalidRequest, match="no envelope"):
                opened("agenticmail", json.dumps(envelope(b"x", b"k") | change).encode(), password="k")

    def test_what_is_written_opens_by_the_description(self):
        content = load("agenticmail").write([Item("a/b", {"value": "value-one"})], Secret("key"))
        (row,) = json.loads(content)
        made = json.loads(row["encrypted_value"])
        assert list(made) == ["v", "alg", "salt", "iv", "tag", "data"]
        salt, iv, tag, data = (base64.b64decode(made[name]) for name in ("salt", "iv", "tag", "data"))
        key = PBKDF2HMAC(algorithm=SHA512(), length=32, salt=salt, iterations=1000).derive(b"key")
        assert AESGCM(key).decrypt(iv, data + tag, None) == b"value-one"


# Made once by ``envelope`` above, with the iterations that AgenticMail has.
REAL = json.dumps(
    {
        "v": 1,
        "alg": "aes-256-gcm",
        "salt": "c3Nzc3Nzc3Nzc3Nzc3Nzcw==",
        "iv": "aWlpaWlpaWlpaWlp",
        "tag": "RuzJVSss4TvfCWfN/v+Qiw==",
        "data": "WUdXf4uUV8NQ",
    }
)


def test_the_iterations_of_agenticmail_are_those_of_its_program():
    assert values(opened("agenticmail", REAL.encode(), password="key")) == {"shop/secret": {"value": "value-one"}}


BITWARDEN = {
    "encrypted": False,
    "folders": [{"id": "f1", "name": "Work/Shop"}],
    "items": [
        {
            "id": "1",
            "folderId": "f1",
            "type": 1,
            "name": "GitHub",
            "notes": "a note",
            "fields": [{"name": "API token", "value": "tok-1", "type": 1}, {"name": "l", "value": None, "type": 3}],
            "login": {
                "username": "ann",
                "password": "pass-1",
                "totp": "otpauth://totp/x?secret=ABC",
                "uris": [{"uri": "https://github.com"}],
                "fido2Credentials": [{"credentialId": "x"}],
            },
            "passwordHistory": [{"password": "older-1"}],
        },
        {"id": "2", "type": 2, "name": "note only", "notes": "secret words"},
        {"id": "3", "type": 5, "name": "key", "sshKey": {"privateKey": "-----BEGIN", "publicKey": "ssh-ed25519 A"}},
        {"id": "4", "type": 1, "name": "gone", "deletedDate": "2025-01-01", "login": {"password": "x-gone"}},
        {"id": "5", "type": 9, "name": "odd"},
    ],
}


def sealed_export(document, password, iterations=5000, **change):
    """By Bitwarden's description: nothing of ours."""
    salt = base64.b64encode(b"0123456789abcdef").decode()
    master = hashlib.pbkdf2_hmac("sha256", password, salt.encode(), iterations)
    enc, mac = (HKDFExpand(algorithm=SHA256(), length=32, info=info).derive(master) for info in (b"enc", b"mac"))

    def seal(content):
        pad = 16 - len(content) % 16
        sealing = Cipher(algorithms.AES(enc), modes.CBC(b"v" * 16)).encryptor()
        data = sealing.update(content + bytes([pad]) * pad) + sealing.finalize()
        parts = (b"v" * 16, data, hmac.digest(mac, b"v" * 16 + data, "sha256"))
        return "2." + "|".join(base64.b64encode(part).decode() for part in parts)

    return json.dumps(
        {
            "encrypted": True,
            "passwordProtected": True,
            "salt": salt,
            "kdfType": 0,
            "kdfIterations": iterations,
            "kdfMemory": None,
            "kdfParallelism": None,
            "encKeyValidation_DO_NOT_EDIT": seal(b"6f1e7b5e-0000-4000-8000-000000000000"),
            "data": seal(json.dumps(document).encode()),
        }
        | change
    ).encode()


class TestBitwarden:
    def test_items_become_secrets_with_fields_and_what_is_left_is_named(self):
        report = opened("bitwarden", json.dumps(BITWARDEN).encode())
        assert values(report) == {
            "work/shop/github": {
                "username": "ann",
                "password": "pass-1",
                "totp": "otpauth://totp/x?secret=ABC",
                "notes": "a note",
                "API token": "tok-1",
            },
            "shop/note-only": {"notes": "secret words"},
            "shop/key": {"privateKey": "-----BEGIN", "publicKey": "ssh-ed25519 A"},
        }
        assert set(why(report)) == {"GitHub#passwordHistory", "GitHub#passkey", "GitHub#l", "gone", "odd"}
        assert report.found[0].labels == {"url": "https://github.com"}
        assert "without encryption" in report.seen

    def test_a_sealed_export_opens_with_its_password_only(self):
        content = sealed_export(BITWARDEN, b"the password")
        report = opened("bitwarden", content, password="the password")
        assert set(values(report)) == {"work/shop/github", "shop/note-only", "shop/key"}
        assert "stretched too little" in report.seen
        with pytest.raises(IntegrityError, match="the password is another"):
            opened("bitwarden", content, password="another")
        with pytest.raises(NotFound, match="no password"):
            opened("bitwarden", content)

    @pytest.mark.parametrize(
        "change",
        [
            {"kdfIterations": 10**9},
            {"kdfIterations": 0},
            {"kdfType": 7},
            {"kdfType": 1, "kdfIterations": 3, "kdfMemory": 10**6, "kdfParallelism": 4},
            {"kdfType": 1, "kdfIterations": 3, "kdfMemory": 64, "kdfParallelism": 900},
            {"salt": ""},
        ],
    )
    def test_a_file_that_asks_for_more_work_than_bitwarden_allows_is_refused_before_it_costs_any(self, change):
        with pytest.raises(InvalidRequest, match="export"):
            opened("bitwarden", sealed_export({"items": []}, b"p", 1, **change), password="p")

    def test_an_export_for_the_account_alone_is_refused_with_the_way_out(self):
        with pytest.raises(InvalidRequest, match="the account's key") as caught:
            opened("bitwarden", b'{"encrypted": true, "items": []}')
        assert "password" in caught.value.hint

    def test_what_is_written_is_read_again_as_the_same(self):
        items = [
            Item("shop/github", {"username": "ann", "password": "pass-1", "pin": "9876"}),
            Item("a/b/c", {"value": "v-1"}),
        ]
        content = load("bitwarden").write(items, Secret("the password"))
        assert b"pass-1" not in content
        report = opened("bitwarden", content, password="the password")
        assert values(report) == {item.name: dict(item.fields) for item in items}
        assert report.seen == ""
        plain = load("bitwarden").write_table(items)
        assert values(opened("bitwarden", plain)) == {item.name: dict(item.fields) for item in items}

    def test_argon2id_opens(self):
        stretching = Stretching("c2FsdHNhbHRzYWx0c2FsdA==", ARGON2ID, 1, 1, 1)
        key = stretching.key(b"p")
        document = {
            "encrypted": True,
            "passwordProtected": True,
            "salt": stretching.salt,
            "kdfType": 1,
            "kdfIterations": 1,
            "kdfMemory": 1,
            "kdfParallelism": 1,
            "encKeyValidation_DO_NOT_EDIT": key.seal(b"x"),
            "data": key.seal(json.dumps(BITWARDEN).encode()),
        }
        assert stretching.weak
        assert len(opened("bitwarden", json.dumps(document).encode(), password="p").found) == 3

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"name,name,login_password\n", "a column twice"),
            (b"title\n", "no table with a column"),
            (b'name,login_password\n"a', "not CSV"),
            (b"name,login_password\n\xff,x\n", "not UTF-8"),
            (b'{"items": 1}', "no items"),
            (b"name,login_password\n" + b"a,b\n" * 3000, "more than 2000 entries"),
            (b"name,login_password\na," + b"x" * 200_000, "cell is too long"),
        ],
    )
    def test_hostile_and_broken_files_are_refused_with_a_reason(self, content, reason):
        with pytest.raises(InvalidRequest, match=reason):
            opened("bitwarden", content)


def pux(document, name="export.data"):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("export.attributes", "{}")
        archive.writestr(name, document if isinstance(document, bytes) else json.dumps(document))
        archive.writestr("files/a__scan.pdf", b"...")
    return out.getvalue()


def item(title, category="001", **more):
    return {
        "uuid": title,
        "state": "active",
        "categoryUuid": category,
        "overview": {"title": title},
        "details": {},
    } | more


LOGIN = {
    "loginFields": [
        {"value": "ann", "designation": "username", "fieldType": "T"},
        {"value": "pass-1", "designation": "password", "fieldType": "P"},
        {"value": "Sign in", "name": "commit", "fieldType": "B"},
    ],
    "notesPlain": "a note",
    "sections": [
        {
            "title": "more",
            "fields": [
                {"title": "one-time password", "id": "TOTP_1", "value": {"totp": "otpauth://x"}},
                {"title": "pin", "id": "p", "value": {"concealed": "9876"}},
                {"title": "mail", "id": "m", "value": {"email": {"email_address": "a@b.c", "provider": None}}},
                {"title": "scan", "id": "s", "value": {"file": {"fileName": "scan.pdf", "documentId": "a"}}},
                {"title": "none", "id": "n", "value": {"string": ""}},
            ],
        }
    ],
    "passwordHistory": [{"value": "older-1", "time": 1}],
}
KEY = {"sections": [{"fields": [{"title": "credential", "id": "credential", "value": {"concealed": "key-123"}}]}]}
SSH = {"sections": [{"fields": [{"title": "private key", "value": {"sshKey": {"privateKey": "-----BEGIN P"}}}]}]}


def account(*items, vault="Team Vault"):
    return {"accounts": [{"attrs": {}, "vaults": [{"attrs": {"name": vault}, "items": list(items)}]}]}


class TestOnePassword:
    def test_items_of_an_archive_become_secrets_and_what_is_left_is_named(self):
        report = opened(
            "onepassword",
            pux(
                account(
                    item("GitHub", details=LOGIN),
                    item("Stripe", "112", details=KEY),
                    item("laptop", "114", details=SSH),
                    item("old", state="archived"),
                    {"item": item("wrapped", details={"password": "pass-2"})},
                )
            ),
        )
        assert values(report) == {
            "team-vault/github": {
                "username": "ann",
                "password": "pass-1",
                "notes": "a note",
                "one-time password": "otpauth://x",
                "pin": "9876",
                "mail": "a@b.c",
            },
            "team-vault/stripe": {"value": "key-123"},
            "team-vault/laptop": {"private key": "-----BEGIN P"},
            "team-vault/wrapped": {"password": "pass-2"},
        }
        assert set(why(report)) == {"GitHub#scan", "GitHub#passwordHistory", "old"}
        assert [each.kind for each in report.found] == ["password", "api-key", "ssh-key", "password"]

    def test_a_table_is_read_and_written(self):
        items = [Item("shop/github", {"username": "ann", "password": "pass-1", "pin": "9876"})]
        report = opened("onepassword", load("onepassword").write(items))
        assert values(report) == {
            "shop/github": {"username": "ann", "password": "pass-1"},
            "shop/github/pin": {"password": "9876"},
        }
        table = b"Title,Url,Username,Password,OTPAuth,Favorite,Archived,Tags,Notes\nold,,a,b-gone,,,true,,\n"
        assert values(opened("onepassword", table)) == {}

    def test_a_bomb_is_read_no_further_than_the_bound(self):
        bomb = pux(b'{"accounts": "' + b" " * (17 << 20) + b'"}')
        assert len(bomb) < 100_000
        with pytest.raises(InvalidRequest, match="larger than 16 MiB"):
            opened("onepassword", bomb)

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (pux(account(), name="other"), "no export.data"),
            (b"PK\x03\x04 not really", "cannot be read"),
            (pux(b'{"a": ' + b"[" * 500 + b"]" * 500 + b"}"), "error parsing JSON"),
            (pux(b"\xff"), "error parsing JSON"),
            (pux({"accounts": 1}), "no accounts"),
        ],
    )
    def test_hostile_and_broken_archives_are_refused_with_a_reason(self, content, reason):
        with pytest.raises(InvalidRequest, match=reason):
            opened("onepassword", content)

    def test_titles_that_cannot_be_names_are_mapped_and_odd_ones_harm_nothing(self):
        titles = ["../../etc/passwd", "a/../b", "\u202eevil", "  ", "Ünïcode Näme", "x" * 300]
        report = opened("onepassword", pux(account(*(item(t, details={"password": "pass-1"}) for t in titles))))
        names = [each.name for each in report.found]
        assert all(name.startswith("team-vault/") for name in names)
        assert not [name for name in names if {"", ".", ".."} & set(name.split("/"))]
        assert "team-vault/unicode-name" in names
        assert max(map(len, names)) < 90


class TestDoppler:
    def test_json_of_both_kinds_and_dotenv_are_read(self):
        plain = {"STRIPE_KEY": "sk-1", "DOPPLER_PROJECT": "shop", "DOPPLER_CONFIG": "dev", "N": None}
        report = opened("doppler", json.dumps(plain).encode())
        assert values(report) == {"shop.dev/stripe-key": {"value": "sk-1"}}
        assert set(why(report)) == {"N", "DOPPLER_PROJECT", "DOPPLER_CONFIG"}
        nested = {"A_KEY": {"computed": "val-1", "raw": "${B}"}, "HIDDEN": {"computed": None}}
        assert values(opened("doppler", json.dumps(nested).encode())) == {"shop/a-key": {"value": "val-1"}}
        lines = b'A_KEY="va\\"l $x\\\\ \\n2"\nB_KEY=bare-1\n# c\nodd line\n'
        report = opened("doppler", lines)
        assert values(report) == {"shop/a-key": {"value": 'va"l $x\\ \n2'}, "shop/b-key": {"value": "bare-1"}}
        assert [(each.where, each.why) for each in report.skipped] == [("line 4", 'is not NAME="value"')]

    def test_what_is_written_is_read_again(self):
        content = load("doppler").write([Item("shop/api-key", {"value": "v-1"}), Item("db/x", {"user": "u-1"})])
        assert json.loads(content) == {"SHOP_API_KEY": "v-1", "DB_X_USER": "u-1"}
        with pytest.raises(InvalidRequest, match="two values"):
            load("doppler").write([Item("a/b", {"value": "1"}), Item("a-b", {"value": "2"})])


@pytest.mark.parametrize("kind", ["sops", "agenticmail", "onepassword", "bitwarden", "doppler"])
@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b"null", b"\x00", b"PK", b"sops:\n", b'{"sops": {}}', b"\xef\xbb\xbf{}"]
)
def test_no_reader_fails_with_anything_but_a_reason(kind, content):
    with contextlib.suppress(InvalidRequest, NotFound, IntegrityError):
        assert opened(kind, content, password="p").found == ()


@pytest.mark.parametrize(
    ("item", "skipped"), [({"type": {}, "name": "x"}, ["x"]), ({"type": 1, "collectionIds": 1.5, "name": "x"}, [])]
)
def test_an_item_of_bitwarden_with_parts_of_another_kind_is_no_trouble(item, skipped):
    good = {"type": 1, "name": "good", "login": {"password": "v"}}
    read = bitwarden.parse(json.dumps({"encrypted": False, "items": [item, good]}).encode(), Origin("file"))
    assert [each.name for each in read.skipped] == skipped
    assert len(read.found) == 1


def test_a_damaged_archive_in_any_compression_is_refused():
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("export.data", "x" * 500)
    data = bytearray(packed.getvalue())
    start = data.index(b"export.data") + len("export.data")
    for place in range(start, start + 20):
        broken = bytes([*data[:place], data[place] ^ 0xFF, *data[place + 1 :]])
        with pytest.raises(InvalidRequest):
            onepassword.parse(broken, Origin("file"))
