"""Shapes of credentials: each is found in its examples and not in its counter-examples, and no text is expensive."""

from __future__ import annotations

import hashlib
import json
import os
import re
import string
import sys
import tarfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from catalog.examples import EXAMPLES
from keyhole.catalog import Catalog
from keyhole.importers.recognise import _telling
from keyhole.scrub.shapes import SHAPES, Finder, finder

_LETTERS = {
    "m": string.ascii_letters + string.digits,
    "a": string.ascii_lowercase + string.digits,
    "A": string.ascii_uppercase + string.digits,
    "b": "qpzry9x8gf2tvdw0s3jn54khce6mua7l",
    "B": "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L",
    "h": string.hexdigits[:16],
    "H": string.hexdigits[:10] + "ABCDEF",
    "d": string.digits,
    "k": string.ascii_lowercase + "234567",
    "K": string.ascii_uppercase + "234567",
    "l": string.ascii_letters,
}


def filled(template: str) -> bytes:
    """The text of a template: every run drawn from a hash, always the same."""

    def drawn(match: re.Match[str]) -> str:
        letters, size = _LETTERS[match[1]], int(match[2])
        seed = f"{template}{match.start()}".encode()
        return "".join(letters[byte % len(letters)] for byte in hashlib.shake_256(seed).digest(size))

    return re.sub(r"<([mabBAhHdkKl])(\d+)>", drawn, template).encode("latin-1")


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_a_shape_is_found_in_its_examples_and_not_in_its_counter_examples(shape):
    assert shape.examples
    for template in shape.examples:
        text = filled(template)
        found = finder().find(b"before\n" + text + b"\nafter\n")
        assert shape.name in {match.shape.name for match in found}, text
        for match in found:
            assert text.find((b"before\n" + text)[match.start : match.end]) >= 0
    for template in shape.counters:
        text = filled(template)
        assert shape.name not in {match.shape.name for match in finder().find(text)}, text


def test_a_name_stands_for_one_kind_of_credential():
    assert len({(shape.name, shape.pattern) for shape in SHAPES}) == len(SHAPES)
    assert all(re.fullmatch(r"[a-z0-9-]+", shape.name) for shape in SHAPES)


def test_no_pattern_repeats_without_a_bound():
    for shape in SHAPES:
        plain = re.sub(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", "x", shape.pattern)
        assert not re.search(r"[*+]|\{\d*,\}", plain), shape.name


@pytest.mark.parametrize(
    "piece",
    [
        b"a",
        b"\"'`",
        b'{"a":[',
        b"password=",
        b"password= \n",
        b"eyJhbGciOiJIUzI1NiJ9.",
        b"-----BEGIN PRIVATE KEY-----",
        b"://a:b",
        b"otpauth://totp/?secret=",
        b"curl -u a",
        b"glpat-",
        b'"d":"aaaa',
    ],
)
def test_no_text_takes_for_ever_or_reports_without_a_bound(piece):
    assert len(finder().find(piece * (40_000 // len(piece)))) <= 10_000


_LITERALS = sorted({literal.encode("latin-1") for shape in SHAPES for literal in shape.literals})
_JOINTS = [b"", b"-", b":", b"=", b" ", b" : ", b"\n", b"a1-", b'"', b"://a:", b"aB3", b"curl -u "]


def calls_for(data):
    """Calls that are made to look for shapes: what is done, whatever the machine is doing besides."""
    count = 0

    def called(_frame, event, _argument):
        nonlocal count
        count += event in {"call", "c_call"}

    sys.setprofile(called)
    try:
        finder().find(data)
    finally:
        sys.setprofile(None)
    return count


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(_JOINTS), st.sampled_from(_LITERALS)), min_size=1, max_size=4), st.booleans())
@example([(b"", b"pwd=")], False)
@example([(b"\n", b"password=")], False)
@example([(b"-", b"eyj"), (b":", b"sk-")], True)
def test_work_grows_with_the_text_however_it_is_written(parts, upper):
    piece = b"".join(joint + literal for joint, literal in parts)
    piece = piece.upper() if upper else piece
    finder().find(piece)  # patterns are compiled when they are first needed
    assert calls_for(piece * (3000 // len(piece))) < 8 * 3000


def test_the_end_of_a_run_is_looked_for_once_and_not_for_each_beginning_in_it():
    jwt = next(shape for shape in SHAPES if shape.name == "jwt")
    patterns = 0

    def called(_frame, event, argument):
        nonlocal patterns
        patterns += event == "c_call" and argument.__qualname__ == "Pattern.match"

    for piece in (b"-eyJ", b"-eyJ" * 500 + b".", b"-eyJ" * 500 + b"." + b"a-" * 4000):
        data = piece * (40_000 // len(piece))
        Finder([jwt]).find(piece)
        sys.setprofile(called)
        try:
            assert Finder([jwt]).find(data) == []
        finally:
            sys.setprofile(None)
    assert patterns < 500
    token = filled(jwt.examples[0])
    for before in (b"", b"x." * 5, b"-eyJ" * 500 + b".", token + b" ", b"a-"):
        found = Finder([jwt]).find(before + token)
        assert before + token == before + (before + token)[found[-1].start :], before


def test_who_takes_credentials_out_gets_all_of_them_however_many_there_are():
    text = filled("ghp_<m36>") + b" "
    assert len(finder().find(text * 10_050)) == 10_000
    assert len(finder().find(text * 10_050, None)) == 10_050


def test_what_stands_in_a_value_is_found_behind_one_that_counts_for_nothing():
    text = filled("password=password='<m12>'")
    assert [match.shape.name for match in finder().find(text)] == ["assigned-secret"]


def test_our_own_placeholders_are_found_by_no_shape():
    for text in (b"ghp_keyhole%s" % (b"a1" * 15), b"sk_test_keyhole%s" % (b"b2" * 40), b"AKIAKEYHOLEAAAAAAAAA"):
        assert finder().find(b'api_key = "%s"' % text) == []


def test_a_finding_is_known_by_a_digest_of_shape_and_value():
    one, other = filled("ghp_<m36>"), filled("x = ghp_<m36>")[4:]
    here, there = finder().find(b"a " + one)[0], finder().find(b"quite elsewhere: " + one)[0]
    assert here.fingerprint(b"a " + one) == there.fingerprint(b"quite elsewhere: " + one)
    assert here.fingerprint(b"a " + one) != finder().find(other)[0].fingerprint(other)
    assert re.fullmatch("[0-9a-f]{16}", here.fingerprint(b"a " + one))


# Forms of the catalog that are too common for a text: only the name of a variable says whose they are.
_BY_NAME_ONLY = {"asana", "plaid"}


def test_every_key_that_the_catalog_can_tell_by_its_form_has_a_shape():
    entries, _ = Catalog.load().entries()
    missing = set()
    for entry in entries:
        known = EXAMPLES[entry.name]
        for field, key in entry.keys.items():
            text = known if isinstance(known, str) else known[field]
            if _telling(key.pattern) and not any(shape.regex.search(text.encode()) for shape in SHAPES):
                missing.add(f"{entry.name} {field} {text[:60]}")
    assert {name.partition(" ")[0] for name in missing} <= _BY_NAME_ONLY, missing
    assert {shape.entry for shape in SHAPES} - {""} <= {entry.name for entry in entries}


def test_samples_of_another_scanner():
    """At least 92 of 100 of what it calls secrets are found, and at most 4 of 100 of what it calls none."""
    folder = os.environ.get("KEYHOLE_VECTORS")
    archive = Path(folder or "/nonexistent", "third-party", "gitleaks.tar.gz")
    if not archive.exists():
        pytest.skip("KEYHOLE_VECTORS is unset: the samples of gitleaks did not run")
    with tarfile.open(archive) as packed:
        member = packed.extractfile("gitleaks/samples.jsonl")
        assert member is not None
        samples = [json.loads(line) for line in member]
    found = {"true_positive": 0, "false_positive": 0}
    total = dict.fromkeys(found, 0)
    for sample in samples:
        total[sample["kind"]] += 1
        found[sample["kind"]] += bool(finder().find(sample["text"].encode("utf-8", "surrogatepass")))
    assert total == {"true_positive": 95, "false_positive": 274}
    assert found["true_positive"] / total["true_positive"] >= 0.92
    assert found["false_positive"] / total["false_positive"] <= 0.04
