"""Answers that carry a secret in some disguise: tier A must be caught, tier B is counted, controls must survive."""

import base64
import json
from pathlib import Path

import pytest

from keyhole.core.errors import ScrubFailedClosed
from keyhole.scrub import Scrubber, body
from scrub.decoders import once, shows

CASES = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "data/redaction/response_cases.jsonl").read_text().splitlines()
]
BODIES = [case for case in CASES if case["where"] == "body"]
LONG = "runner pads to 10 MB before the secret"


def _pieces(case):
    data = base64.b64decode(case["body_b64"])
    if case["note"] == LONG:
        data = b"x" * (10_000_000 - len(data)) + data
        return [data[at : at + 65536] for at in range(0, len(data), 65536)]
    pieces, at = [], 0
    for size in case["chunks"] or [len(data)]:
        pieces.append(data[at : at + size])
        at += size
    return [*pieces, data[at:]] if at < len(data) else pieces


def _compiled(case):
    return Scrubber.compile([case["secret"].encode()])


def _through(case):
    """What the client gets, and whether the length was kept; None when the answer is withheld."""
    headers = {name.lower(): value.encode() for name, value in case["headers"]}
    try:
        scrubber = body(_compiled(case), headers.get("content-encoding", b""), headers.get("content-type", b""))
        out = b"".join([scrubber.feed(piece) for piece in _pieces(case)]) + scrubber.finish()
    except ScrubFailedClosed:
        return None, True
    return out, scrubber.recoded


def _ids(cases):
    return [case["name"] + "-" + case["id"] for case in cases]


TIER_A = [case for case in BODIES if case["tier"] == "A"]


@pytest.mark.parametrize("case", TIER_A, ids=_ids(TIER_A))
def test_disguised_secret_does_not_reach_the_client(case):
    out, recoded = _through(case)
    if out is None:
        return
    if case["note"] == LONG:
        assert case["secret"].encode() not in out
        out, length = out[-4096:], len(out)
        assert length == 10_000_000
    elif not recoded:
        assert len(out) == sum(map(len, _pieces(case)))
    assert not shows(out, case["secret"].encode())


UNREADABLE = {"gzip-corrupt-tail", "gzip-trailing-plain", "gzip-bomb"}


@pytest.mark.parametrize("case", TIER_A, ids=_ids(TIER_A))
def test_checker_sees_the_secret_in_the_answer_as_sent(case):
    if case["name"] not in UNREADABLE:
        assert shows(base64.b64decode(case["body_b64"]), case["secret"].encode())


ONLY_WITHHELD = {"gzip-mislabelled-identity", "gzip-corrupt-tail", "gzip-trailing-plain"}


@pytest.mark.parametrize("case", TIER_A, ids=_ids(TIER_A))
def test_scrubbed_answer_is_delivered_unless_it_cannot_be_inspected(case):
    out, _ = _through(case)
    assert (out is None) == (case["name"] in ONLY_WITHHELD)


TEXTS = [case for case in CASES if case["where"] in {"header", "status-reason", "proxy-error"} and case["tier"] == "A"]


@pytest.mark.parametrize("case", TEXTS, ids=_ids(TEXTS))
def test_secret_is_masked_in_headers_reason_and_error_text(case):
    texts = [value.encode() for _, value in case["headers"]]
    if case["where"] != "header":
        texts.append(
            b"cannot connect to https://api.test/v1?key=" + case["secret"].encode() + b" (certificate expired)"
        )
    for text in texts:
        clean = _compiled(case).text(text)
        assert len(clean) == len(text)
        assert not shows(clean, case["secret"].encode())


ALLOWED = [case for case in CASES if case["tier"] == "allow"]


@pytest.mark.parametrize("case", ALLOWED, ids=_ids(ALLOWED))
def test_harmless_answer_is_unchanged(case):
    before = b"".join(_pieces(case))
    out, recoded = _through(case)
    assert out is not None
    assert out == before or (recoded and set(once(out)) & set(once(before)))


def test_most_of_the_unusual_disguises_are_caught_too(record_property):
    tier_b = [case for case in BODIES if case["tier"] == "B"]
    caught = [case["name"] for case in tier_b if _changed(case)]
    missed = sorted({case["name"] for case in tier_b} - set(caught))
    record_property("caught", f"{len(caught)} of {len(tier_b)}, missed: {', '.join(missed)}")
    assert len(caught) >= 0.7 * len(tier_b), missed


def _changed(case):
    out, _ = _through(case)
    return out is None or (out != b"".join(_pieces(case)) and out.count(b"*") >= 0.75 * len(case["secret"]))


def test_documentation_names_what_is_not_caught():
    page = (Path(__file__).parents[2] / "docs/scrubbing.md").read_text()
    missed = [case["name"] for case in BODIES if case["tier"] == "C" or (case["tier"] == "B" and not _changed(case))]
    tier_b = [case for case in BODIES if case["tier"] == "B"]
    assert f"Of {len(tier_b)} unusual disguises of bodies in our test corpus, {sum(map(_changed, tier_b))} are" in page
    assert [name for name in missed if f"`{name}`" not in page] == []
