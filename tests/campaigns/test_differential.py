"""The short form of the campaign; the long one is run by hand."""

import shutil

import pytest

from campaigns import differential


def test_everybody_reads_what_is_sent_on_and_handed_back_in_the_same_way():
    try:
        requests, answers = differential.campaign(8, 60, start=1000, node=False)
    except FileNotFoundError:
        pytest.skip("nginx is not installed: it did not read what the proxy sends on")
    assert requests.read > 10
    assert requests.outcomes.total() == answers.outcomes.total() == 60


def test_a_request_that_nginx_reads_and_nobody_sent_is_noticed():
    raw = bytearray(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
    row = {"status": 200, "method": "GET", "target": "/a", "body": ""}
    assert differential.compare({1: raw}, {1: [row]}) == {b"GET": 1}
    for rows in ([row, row], [{**row, "target": "/b"}], [{**row, "body": "x"}], []):
        with pytest.raises(differential.Disagreement):
            differential.compare({1: raw}, {1: rows})


def test_an_answer_that_is_another_than_the_upstreams_is_noticed():
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    answers = differential.Answers(1)
    answers._judge(raw, raw, 0)
    for received in (raw.replace(b"ok", b"no"), raw + raw, raw.replace(b"200", b"201"), b""):
        with pytest.raises(differential.Disagreement):
            answers._judge(raw, received, 0)


def test_node_reads_the_same_requests():
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed: it did not read what the proxy sends on")
    raw = bytearray(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nxGET /b HTTP/1.1\r\nHost: a\r\n\r\n")
    assert differential.compare_node(node, {1: raw, 2: raw + raw}) == 6
