"""Transit: what was encrypted opens again, under the rules of its key's versions, and nothing else opens."""

import asyncio
import base64
import json

import pytest

from engines.transit_world import Transit, b64, mounted
from keyhole.core.errors import InvalidRequest, NotFound, PolicyDenied
from keyhole.crypto.message import CIPHERS
from vault.world import CANARY, Place, journal, play, policy_token, refusal

ENCRYPTING = [*CIPHERS, "rsa-2048"]


def scene(scenario):
    async def run(vault):
        await scenario(await mounted(vault))

    play(run)


@pytest.mark.parametrize("kind", ENCRYPTING)
def test_what_was_encrypted_opens_with_its_key_and_not_when_it_was_changed(kind):
    async def scenario(transit):
        await transit("keys/k", type=kind)
        await transit("keys/other", type=kind)
        sealed = await transit.encrypt("k", "hello")
        assert sealed.startswith("vault:v1:")
        assert await transit.decrypt("k", sealed) == b"hello"
        assert await transit.decrypt("k", await transit.encrypt("k", b"")) == b""
        assert await transit.encrypt("k", "hello") != sealed
        changed = sealed[:20] + ("A" if sealed[20] != "A" else "B") + sealed[21:]
        for name, text in (("k", changed), ("other", sealed)):
            error = await refusal(transit.decrypt(name, text))
            assert (error.status, error.reason) == (400, "cipher: message authentication failed")

    scene(scenario)


def test_a_version_is_part_of_what_is_checked():
    async def scenario(transit):
        await transit("keys/k")
        sealed = await transit.encrypt("k", "x")
        await transit("keys/k/rotate")
        error = await refusal(transit.decrypt("k", sealed.replace("v1", "v2")))
        assert error.reason == "cipher: message authentication failed"
        for text, reason in {
            sealed.replace("v1", "v3"): "invalid ciphertext: version is too new",
            sealed.replace("v1", "v0"): "ciphertext or signature version is disallowed by policy (too old)",
            sealed.replace("v1", "vx"): "invalid ciphertext: version number could not be decoded",
            sealed.replace("v1:", "v1"): "invalid ciphertext: wrong number of fields",
            "vault:v1:****": "invalid ciphertext: could not decode base64",
        }.items():
            assert (await refusal(transit.decrypt("k", text))).reason == reason

    scene(scenario)


def test_rotation_keeps_older_ciphertexts_until_they_are_disallowed_and_trimming_removes_them():
    async def scenario(transit):
        await transit("keys/k")
        first = await transit.encrypt("k", "one")
        await transit("keys/k/rotate")
        second = await transit.encrypt("k", "two")
        assert second.startswith("vault:v2:")
        assert (await transit.encrypt("k", "old", key_version=1)).startswith("vault:v1:")
        assert await transit.decrypt("k", first) == b"one"
        rewrapped = (await transit("rewrap/k", ciphertext=first))["ciphertext"]
        assert rewrapped.startswith("vault:v2:")
        assert await transit.decrypt("k", rewrapped) == b"one"

        await transit("keys/k/config", min_decryption_version=2)
        assert "too old" in (await refusal(transit.decrypt("k", first))).reason
        await transit("keys/k/config", min_decryption_version=1)
        assert await transit.decrypt("k", first) == b"one"

        await transit("keys/k/config", min_decryption_version=2, min_encryption_version=2)
        assert isinstance(await refusal(transit.encrypt("k", "x", key_version=1)), InvalidRequest)
        await transit("keys/k/trim", min_available_version=2)
        assert isinstance(await refusal(transit("keys/k/config", min_decryption_version=1)), InvalidRequest)
        assert await transit.decrypt("k", second) == b"two"
        assert list((await transit.read("keys/k"))["keys"]) == ["2"]

    scene(scenario)


@pytest.mark.parametrize(
    "settings",
    [
        {"min_decryption_version": 3},
        {"min_encryption_version": 3},
        {"min_decryption_version": 2, "min_encryption_version": 1},
        {"min_decryption_version": -1},
        {"auto_rotate_period": "59m"},
    ],
)
def test_settings_that_contradict_the_versions_are_refused_and_change_nothing(settings):
    async def scenario(transit):
        await transit("keys/k")
        await transit("keys/k/rotate")
        before = await transit.read("keys/k")
        assert isinstance(await refusal(transit("keys/k/config", deletion_allowed=True, **settings)), InvalidRequest)
        assert await transit.read("keys/k") == before

    scene(scenario)


def test_rotations_at_once_make_a_version_each():
    async def scenario(transit):
        await transit("keys/k")
        sealed = await transit.encrypt("k", "x")
        await asyncio.gather(*(transit("keys/k/rotate") for _ in range(8)))
        assert (await transit.read("keys/k"))["latest_version"] == 9
        texts = [await transit.encrypt("k", str(n), key_version=n) for n in range(1, 10)]
        assert [await transit.decrypt("k", text) for text in texts] == [str(n).encode() for n in range(1, 10)]
        assert await transit.decrypt("k", sealed) == b"x"

    scene(scenario)


def test_first_encryptions_at_once_make_one_key():
    async def scenario(transit):
        sealed = await asyncio.gather(*(transit.encrypt("new", str(n)) for n in range(8)))
        assert [await transit.decrypt("new", text) for text in sealed] == [str(n).encode() for n in range(8)]
        assert (await transit.read("keys/new"))["latest_version"] == 1

    scene(scenario)


@pytest.mark.parametrize("kind", CIPHERS)
def test_a_derived_key_opens_with_its_context_only(kind):
    async def scenario(transit):
        await transit("keys/k", type=kind, derived=True)
        sealed = await transit.encrypt("k", "x", context=b64("a"))
        assert await transit.decrypt("k", sealed, context=b64("a")) == b"x"
        assert await transit.encrypt("k", "x", context=b64("a")) != sealed
        assert "authentication" in (await refusal(transit.decrypt("k", sealed, context=b64("b")))).reason
        assert (await refusal(transit.decrypt("k", sealed))).reason.startswith("missing 'context'")

    scene(scenario)


@pytest.mark.parametrize("kind", CIPHERS)
def test_convergent_encryption_repeats_itself_for_the_same_message_only(kind):
    async def scenario(transit):
        await transit("keys/k", type=kind, derived=True, convergent_encryption=True)
        asked = [("x", "a", ""), ("y", "a", ""), ("x", "b", ""), ("x", "a", "more"), ("x", "a", "less")]
        made = []
        for plaintext, context, associated in asked * 2:
            fields = {"context": b64(context), "associated_data": b64(associated)}
            made.append(await transit.encrypt("k", plaintext, **fields))
            assert await transit.decrypt("k", made[-1], **fields) == plaintext.encode()
        assert made[:5] == made[5:]
        # The nonce is what begins a ciphertext: none serves two messages, nor two tags.
        assert len({text[: len("vault:v1:") + 16] for text in made}) == 5

    scene(scenario)


def test_associated_data_must_be_the_same():
    async def scenario(transit):
        await transit("keys/k")
        sealed = await transit.encrypt("k", "x", associated_data=b64("row 7"))
        assert await transit.decrypt("k", sealed, associated_data=b64("row 7")) == b"x"
        for other in ({}, {"associated_data": b64("row 8")}):
            assert "authentication" in (await refusal(transit.decrypt("k", sealed, **other))).reason

    scene(scenario)


def test_a_batch_answers_item_by_item_and_says_when_one_failed():
    async def scenario(transit):
        await transit("keys/k")
        items = [{"plaintext": b64("a"), "reference": "r1"}, {"plaintext": "!!"}, {"plaintext": b64("b")}]
        reply = await transit.vault.ask("update", "transit/encrypt/k", {"batch_input": items})
        first, second, third = reply.data["batch_results"]
        assert (reply.status, first["reference"]) == (400, "r1")
        assert second == {"error": "illegal base64 data at input byte 0"}
        opened = await transit("decrypt/k", batch_input=[{"ciphertext": r["ciphertext"]} for r in (first, third)])
        assert [item["plaintext"] for item in opened["batch_results"]] == [b64("a"), b64("b")]
        given = {"batch_input": items, "partial_failure_response_code": 207}
        assert (await transit.vault.ask("update", "transit/encrypt/k", given)).status == 207
        for wrong in ([], {}, [1], [{"plaintext": ""}] * 1001):
            assert isinstance(await refusal(transit("encrypt/k", batch_input=wrong)), InvalidRequest)

    scene(scenario)


def test_a_data_key_is_shown_in_clear_only_where_the_path_says_so():
    async def scenario(transit):
        await transit("keys/k")
        for bits in (128, 256, 512):
            made = await transit("datakey/plaintext/k", bits=bits)
            opened = await transit.decrypt("k", made["ciphertext"])
            assert (b64(opened), len(opened) * 8) == (made["plaintext"], bits)
            assert "plaintext" not in await transit("datakey/wrapped/k", bits=bits)
        assert isinstance(await refusal(transit("datakey/wrapped/k", bits=192)), InvalidRequest)
        assert isinstance(await refusal(transit("datakey/clear/k")), InvalidRequest)

    scene(scenario)


@pytest.mark.parametrize("kind", ["aes256-gcm96", "ed25519", "ecdsa-p256", "rsa-2048", "hmac"])
def test_a_key_leaves_only_when_that_was_allowed_and_comes_back_whole(kind):
    async def scenario(transit):
        await transit("keys/k", type=kind)
        assert (await refusal(transit.read("export/hmac-key/k"))).reason == "key is not exportable"
        assert isinstance(await refusal(transit.read("backup/k")), InvalidRequest)
        await transit("keys/k/rotate")
        await transit("keys/k/config", exportable=True, allow_plaintext_backup=True, deletion_allowed=True)
        await transit("keys/other", type=kind, exportable=True)
        error = await refusal(transit.read("backup/other"))
        assert (error.status, error.reason) == (500, "plaintext backup is disallowed on the policy")  # as Vault
        await transit("keys/k/config", exportable=False, allow_plaintext_backup=False)
        assert (await transit.read("keys/k"))["exportable"] is True
        what = "encryption-key" if kind == "aes256-gcm96" else "hmac-key" if kind == "hmac" else "signing-key"
        exported = await transit.read(f"export/{what}/k")
        assert list(exported["keys"]) == ["1", "2"]
        assert list((await transit.read(f"export/{what}/k/latest"))["keys"]) == ["2"]
        backup = (await transit.read("backup/k"))["backup"]
        error = await refusal(transit("restore", backup=backup))
        assert (error.status, "already exists" in error.reason) == (500, True)  # as Vault
        await transit("restore/copy", backup=backup)
        assert (await transit.read(f"export/{what}/copy"))["keys"] == exported["keys"]
        await transit("restore", backup=backup, force=True)
        await transit.delete("keys/k")
        assert isinstance(await refusal(transit.read("keys/k")), NotFound)
        await transit("restore", backup=backup)
        assert (await transit.read(f"export/{what}/k"))["keys"] == exported["keys"]

    scene(scenario)


def test_a_backup_that_is_none_is_refused():
    async def scenario(transit):
        await transit("keys/k", exportable=True, allow_plaintext_backup=True)
        whole = json.loads(base64.b64decode((await transit.read("backup/k"))["backup"]))
        wrong = [{}, {**whole, "format": "other"}, {**whole, "materials": {}}]
        wrong += [{**whole, "policy": {**whole["policy"], "type": kind}} for kind in ("zz", "ed25519", "aes128-gcm96")]
        wrong += [{**whole, "policy": {**whole["policy"], field: 7}} for field in ("latest", "min_decryption")]
        wrong += [{**whole, "policy": {**whole["policy"], "convergent": True}}]
        for document in wrong:
            error = await refusal(transit("restore/other", backup=b64(json.dumps(document))))
            assert isinstance(error, InvalidRequest), document
        moved = b64(json.dumps({**whole, "name": "../x"}))
        assert isinstance(await refusal(transit("restore", backup=moved)), InvalidRequest)
        for text in ("", "!!", b64("[]"), b64("{"), b64(b"\xff")):
            assert isinstance(await refusal(transit("restore/other", backup=text)), InvalidRequest)
        assert await transit.names() == {"keys": ["k"]}

    scene(scenario)


@pytest.mark.parametrize("name", ["keys/k", "encrypt/k"])
def test_a_key_that_cannot_be_is_not_made(name):
    async def scenario(transit):
        fields = {"plaintext": b64("x")}
        for wrong in ({"type": "zz"}, {"type": 7}):
            assert isinstance(await refusal(transit(name, **fields, **wrong)), InvalidRequest)
        if name == "keys/k":
            for wrong in (
                {"derived": True, "type": "rsa-2048"},
                {"convergent_encryption": True},
                {"derived": True, "convergent_encryption": True, "type": "ed25519"},
                {"type": "hmac", "key_size": 31},
            ):
                assert isinstance(await refusal(transit(name, **wrong)), InvalidRequest)
        assert isinstance(await refusal(transit.read("keys/k")), NotFound)

    scene(scenario)


def test_who_may_only_decrypt_can_do_nothing_else_and_who_may_only_update_makes_no_key():
    async def scenario(vault):
        root = await mounted(vault)
        sealed = await root.encrypt("k", "x")
        rules = [f'path "transit/{path}" {{ capabilities = ["update"] }}' for path in ("decrypt/k", "encrypt/*")]
        held = Transit(vault, token=await policy_token(vault, "\n".join(rules)))
        assert await held.decrypt("k", sealed) == b"x"
        assert await held.encrypt("k", "y")
        for refused in (
            held.encrypt("made-by-the-way", "x"),
            held("rewrap/k", ciphertext=sealed),
            held("keys/k/rotate"),
            held.read("keys/k"),
            held.read("export/encryption-key/k"),
        ):
            assert isinstance(await refusal(refused), PolicyDenied)

    play(scenario)


def test_records_name_the_key_and_nothing_that_was_sent():
    async def scenario(vault):
        transit = await mounted(vault)
        await transit("keys/k", derived=True)
        sealed = await transit.encrypt("k", CANARY, context=b64(CANARY))
        await transit.decrypt("k", sealed, context=b64(CANARY))
        await refusal(transit.decrypt("k", sealed, context=b64("other")))
        records = [record for _, record in await journal(vault)]
        assert {"transit/encrypt/k", "transit/decrypt/k"} <= {record.path for record in records}
        written = repr(records)
        assert not any(text in written for text in (CANARY, b64(CANARY), sealed))

    play(scenario)


def test_keys_survive_a_restart_and_lie_in_no_file(tmp_path):
    place = Place(tmp_path)

    async def fill(vault):
        transit = await mounted(vault)
        await transit("keys/k", exportable=True)
        exported = await transit.read("export/encryption-key/k")
        return vault.token, exported["keys"]["1"], await transit.encrypt("k", "x")

    token, exported, sealed = place.play(fill)

    async def again(vault):
        assert await Transit(vault, token=token).decrypt("k", sealed) == b"x"

    place.play(again)
    files = [path for path in place.file.parent.rglob("*") if path.is_file()]
    assert files
    assert not any(exported.encode() in path.read_bytes() for path in files)
