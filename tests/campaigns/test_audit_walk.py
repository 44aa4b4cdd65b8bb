"""The short form of the walk; the long one is run by hand."""

import copy

import pytest

from campaigns import audit_walk


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """The figures of a walk, and what it asked and found on the server."""
    found = []
    check = audit_walk.check
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("keyhole.process.harden_process", lambda: ())
        patch.setattr(audit_walk, "check", lambda *args: found.append(args) or check(*args))
        figures = audit_walk.campaign(tmp_path_factory.mktemp("walk"), 75, 7, report=lambda line: None)
    return figures, found[0]


def test_every_request_over_every_face_is_one_record_without_a_value(walked):
    (on_server, on_local), (walk, _) = walked
    assert on_server >= 60
    assert on_local >= 15
    assert {step.caller.partition("/")[0] for step in walk.expected} == {"user", "agent", ""}


def _lose(records, _walk):
    records.remove(next(record for record in records if record["phase"] == "intent"))


def _double(records, _walk):
    records.append(next(record for record in records if record["phase"] == "refused"))


def _blame(records, _walk):
    next(record for record in records if record["phase"] == "outcome")["caller"] = "agent/somebody"


def _leak(records, walk):
    records[10]["target"] = "/" + walk.planted[3].encode().hex()


@pytest.mark.parametrize("spoil", [_lose, _double, _blame, _leak])
def test_the_walk_notices_a_journal_that_is_wrong(walked, spoil):
    walk, records = walked[1]
    spoiled = copy.deepcopy(records)
    spoil(spoiled, walk)
    with pytest.raises(AssertionError):
        audit_walk.check(walk, spoiled)
