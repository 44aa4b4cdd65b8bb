"""A harmless call, and what its answer says of the key."""

import pytest

from keyhole.core.errors import InvalidRequest
from keyhole.core.probe import Probe, Verdict


@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        (200, '{"ok": true}', Verdict.ACCEPTED),
        (200, '{"ok": false}', Verdict.REFUSED),
        (401, '{"ok": true}', Verdict.REFUSED),
        (400, "", Verdict.REFUSED),
        (403, "", Verdict.LIMITED),
        (404, "", Verdict.UNCLEAR),
        (302, "", Verdict.UNCLEAR),
        (500, '{"ok":true}', Verdict.UNCLEAR),
        (401, '{"code": "missing_permissions"}', Verdict.LIMITED),
    ],
)
def test_an_answer_means_accepted_refused_limited_or_neither(status, body, verdict):
    probe = Probe(refused=(400, 401), contains='"ok":true', limited_by='"code":"missing')
    assert probe.verdict(status, body) == verdict


def test_a_probe_comes_back_as_it_was_given():
    data = {
        "method": "POST",
        "path": "/v1/me?x=1",
        "headers": {"accept": "application/json"},
        "body": '{"query":\n"{ me { id } }"}',
        "statuses": [200, 400],
        "refused": [401, 403],
        "limited": [],
        "contains": '"id"',
        "limited_by": "scope",
    }
    assert Probe.from_data(data).as_data() == data
    assert Probe.from_data({}).as_data() == {"method": "GET", "path": "/"}


@pytest.mark.parametrize(
    "data",
    [
        "GET /",
        {"methods": "GET"},
        {"method": "DELETE"},
        {"path": "v1"},
        {"path": "/v1\r\nX: y"},
        {"headers": ["a"]},
        {"headers": {"a": "b\r\nc: d"}},
        {"headers": {"a": 1}},
        {"body": {}},
        {"body": "x" * 5000},
        {"statuses": []},
        {"statuses": [True]},
        {"refused": [99]},
        {"limited": "403"},
        {"contains": 1},
        {"limited_by": ["a"]},
    ],
)
def test_what_is_no_probe_is_refused(data):
    with pytest.raises(InvalidRequest, match="test"):
        Probe.from_data(data)
