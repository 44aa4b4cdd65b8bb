"""Streams without what looks like a credential: whatever the pieces, and no text is lost."""

import json
import os
import random
import subprocess
import sys
import time

import pytest

from children import child
from cli_driver import environment, run
from keyhole.scrub import Scrubber
from keyhole.scrub.lines import JsonLines
from keyhole.scrub.shaped import ShapeStream

KEY = "sk_live_" + "4eC39HqLyjWDarjtT1zdp7dc"
PEM = (
    "-----BEGIN RSA PRIVATE KEY-----\n"
    + "\n".join(["MIIEpAIBAAKCAQEA7Zq2Xk" + "bQ9vR3sT" * 5] * 12)
    + "\n-----END RSA PRIVATE KEY-----"
)
TEXT = f'begin {KEY} middle\nplain line\n{PEM}\n{{"key": "{KEY}"}}\nend without a line\'s end {KEY}'


def scrubbed(text, sizes):
    stream, out, at, data = ShapeStream(), b"", 0, text.encode()
    for size in sizes:
        out += stream.feed(data[at : at + size])
        at += size
    return (out + stream.feed(data[at:]) + stream.finish()).decode(), stream


def test_what_looks_like_a_credential_is_masked_and_nothing_else_changes():
    out, stream = scrubbed(TEXT, [])
    assert len(out) == len(TEXT)
    assert KEY not in out
    assert "MIIEpAIBAAKCAQEA" not in out
    assert all(b in {a, "*"} for a, b in zip(TEXT, out, strict=True))
    assert "plain line" in out
    assert json.loads(out.splitlines()[-2]) == {"key": "*" * len(KEY)}
    assert sum(stream.found.values()) == 4


def test_the_pieces_do_not_matter():
    chance = random.Random(1)
    whole, _ = scrubbed(TEXT, [])
    for most in (1, 2, 7, 64, 300):
        sizes = [chance.randint(1, most) for _ in range(len(TEXT))]
        assert scrubbed(TEXT, sizes)[0] == whole, most


@pytest.mark.parametrize("filler", ["a", " ", "=", '"', "x "])
def test_a_line_without_an_end_is_bounded_and_still_looked_at(filler):
    text = filler * (1_300_000 // len(filler)) + f" {KEY} " + filler * 100_000 + f" {KEY}"
    stream, out, held = ShapeStream(), b"", 0
    for at in range(0, len(text), 65536):
        out += stream.feed(text[at : at + 65536].encode())
        held = max(held, min(at + 65536, len(text)) - len(out))
    out += stream.finish()
    assert len(out) == len(text)
    assert KEY.encode() not in out
    assert held <= 2 << 20


def test_what_waits_leaves_when_nothing_comes_but_not_half_a_key():
    stream = ShapeStream()
    assert stream.feed(b"Password for me: sk_live_4eC39HqLy") == b""
    assert stream.idle() == b"Password for me: "
    assert stream.feed(b"jWDarjtT1zdp7dc\n") == b"*" * len(KEY) + b"\n"


@pytest.mark.parametrize(
    "line",
    [
        '{"msg": "-----BEGIN RSA PRIVATE KEY-----\\nMIIEpAIBAAKCAQEA7Zq2XkbQ9vR3sT\\ncut off", "level": "info"}',
        '{"a": "-----BEGIN PRIVATE KEY-----\\nMIIEpAIBAAKCAQEA7Zq2XkbQ9vR3sT", "next": "word"}',
        '["-----BEGIN PRIVATE KEY-----", "MIIEpAIBAAKCAQEA7Zq2XkbQ9vR3sT", "MIIEpAIBAAKCAQEA"]',
    ],
)
def test_a_private_key_that_was_cut_off_takes_no_other_line_along(line):
    out, _ = scrubbed(f"{line}\n" + '{"n": 1}\nplain - text\n', [])
    first, *rest = out.splitlines()
    assert "MIIE" not in first
    assert json.loads(first).keys() == json.loads(line).keys() if line[0] == "{" else json.loads(first)
    assert rest == ['{"n": 1}', "plain - text"]


NUMBERS = [
    ('{"pin": 8675309420017, "n": 1, "t": "8675309420017"}', '{"pin": "***********", "n": 1, "t": "*************"}'),
    ('  "pin": 8675309420017,', '  "pin": "***********",'),
    ("[8675309420017, -8675309420017.5, 2]", '["***********", "**************", 2]'),
    ("[info] pin=8675309420017 ok", "[info] pin=************* ok"),
    ('{"a": 1} 8675309420017', '{"a": 1} *************'),
    ('"said": 8675309420017 and more', '"said": ************* and more'),
    ("pin 8675309420017", "pin *************"),
]


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_number_that_is_masked_in_a_line_of_json_becomes_a_text(size):
    text = "".join(f"{given}\n" for given, _ in NUMBERS) + NUMBERS[0][0]
    known, lines, out = Scrubber.compile([b"8675309420017"]).stream(), JsonLines(), b""
    for at in range(0, len(text), size):
        out += lines.feed(known.feed(text[at : at + size].encode()))
    out += lines.feed(known.finish()) + lines.finish()
    assert out.decode().splitlines() == [*(wanted for _, wanted in NUMBERS), NUMBERS[0][1]]
    for line in out.splitlines()[:3:2]:
        json.loads(line)


def test_a_question_leaves_and_an_object_of_json_waits_for_its_end():
    lines = JsonLines()
    assert lines.feed(b"[y/N] ") + lines.idle() == b"[y/N] "
    assert lines.feed(b"*** ") == b"*** "
    assert lines.feed(b'y\n{"pin": ***') + lines.idle() == b"y\n"
    assert lines.feed(b"*****}\nx") == b'{"pin": "******"}\nx'
    assert lines.feed(b"[" * (2 << 20)) == b"[" * (2 << 20)


def test_the_command_copies_a_stream_and_says_what_it_masked():
    command = [sys.executable, "-m", "keyhole", "scrub"]
    done = subprocess.run(command, input=TEXT.encode(), env=environment(), capture_output=True, timeout=60, check=True)
    assert done.stdout.decode() == scrubbed(TEXT, [])[0]
    assert b"private-key 1" in done.stderr
    assert KEY.encode() not in done.stderr


def test_a_compressed_stream_passes_and_the_command_says_so():
    data = b"\x1f\x8b\x08" + KEY.encode()
    command = [sys.executable, "-m", "keyhole", "scrub"]
    done = subprocess.run(command, input=data, env=environment(), capture_output=True, timeout=60, check=True)
    assert b"decompress it" in done.stderr


def test_lines_leave_at_once_and_prompts_soon():
    with child(
        [sys.executable, "-m", "keyhole", "scrub"], env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdin.write(b"one\nName: ")
        process.stdin.flush()
        found = b""
        deadline = time.monotonic() + 60
        while found != b"one\nName: " and time.monotonic() < deadline:
            piece = os.read(process.stdout.fileno(), 100)
            assert piece, found
            found += piece
        process.stdin.write(b"me\n")
        process.stdin.close()
        assert found + process.stdout.read() == b"one\nName: me\n"
        assert process.wait(60) == 0


def test_values_of_the_vault_are_masked_in_every_encoding(tmp_path, monkeypatch):
    monkeypatch.setenv("KEYHOLE_HOME", str(tmp_path))
    key = tmp_path / "key"
    key.write_bytes(bytes(range(32)))
    key.chmod(0o600)
    seal = f"keyfile:{key}"
    value = "plain-looking words 17"
    assert run("init", "--seal", seal).code == 0
    assert run("set", "a/b", stdin=value.encode()).code == 0
    env = environment(KEYHOLE_HOME=str(tmp_path), KEYHOLE_SEAL=seal)
    text = f"x {value} y {value.encode().hex()} {json.dumps(value)}\n"
    command = [sys.executable, "-m", "keyhole", "scrub", "--compare", "--no-shapes"]
    done = subprocess.run(command, input=text.encode(), env=env, capture_output=True, timeout=60, check=True)
    assert len(done.stdout) == len(text)
    for form in (value, value.encode().hex(), value[:15]):
        assert form.encode() not in done.stdout
    assert run("scrub", "--no-shapes").code == 3
