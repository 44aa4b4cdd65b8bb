"""``sys/tools`` over HTTP."""

import base64
import hashlib

import pytest

from faces.api_client import play


@pytest.mark.parametrize(
    ("path", "body", "size"),
    [
        ("sys/tools/random", {}, 32),
        ("sys/tools/random", {"bytes": 7}, 7),
        ("sys/tools/random/platform", {"bytes": "9"}, 9),
        ("sys/tools/random/all/11", {"bytes": 5}, 11),
        ("sys/tools/random/131072", {}, 131072),
    ],
)
def test_as_many_random_bytes_come_as_were_asked_for(path, body, size):
    async def scenario(ask, _vault):
        answers = [(await ask("POST", path, {**body, "format": "hex"})).json["data"]["random_bytes"] for _ in range(2)]
        assert [len(bytes.fromhex(text)) for text in answers] == [size, size]
        assert answers[0] != answers[1]

    play(scenario)


@pytest.mark.parametrize(
    ("path", "body", "error"),
    [
        ("sys/tools/random/0", {}, "cannot be less than 1"),
        ("sys/tools/random/131073", {}, "should be less than"),
        ("sys/tools/random", {"bytes": True}, "byte count"),
        ("sys/tools/random/seal", {}, "no random bytes"),
        ("sys/tools/random/dice", {}, "unsupported entropy source"),
        ("sys/tools/random", {"format": "words"}, "unsupported encoding format"),
        ("sys/tools/hash", {"input": "not base64"}, "unable to decode"),
        ("sys/tools/hash/md5", {"input": ""}, "unsupported algorithm"),
    ],
)
def test_what_cannot_be_done_is_said(path, body, error):
    async def scenario(ask, _vault):
        answer = await ask("POST", path, body)
        assert answer.status == 400
        assert error in answer.json["errors"][0]

    play(scenario)


def test_hashes_are_those_of_the_standards():
    async def scenario(ask, _vault):
        data = base64.b64encode(b"abc").decode()
        for name, python in (("sha2-512", "sha512"), ("sha3-256", "sha3_256")):
            answer = await ask("POST", f"sys/tools/hash/{name}", {"input": data})
            assert answer.json["data"]["sum"] == hashlib.new(python, b"abc").hexdigest()
        answer = await ask("POST", "sys/tools/hash", {"input": data, "algorithm": "sha2-224", "format": "base64"})
        assert base64.b64decode(answer.json["data"]["sum"]) == hashlib.sha224(b"abc").digest()

    play(scenario)
