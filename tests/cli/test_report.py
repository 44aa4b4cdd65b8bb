"""Reports as people and spreadsheets get them."""

import csv
import io

import pytest

from cli_driver import ok, run
from keyhole.cli.report import as_csv

KEY = "sk_test_" + "c4" * 12


@pytest.fixture
def used(vault):
    """A secret that its owner has read, and an agent who may use it."""
    ok("add", "stripe", stdin=KEY)
    ok("agent", "add", "coder")
    ok("grant", "coder", "stripe")
    ok("get", "stripe/api-key", "--reveal")
    return vault


def test_access_is_a_table_json_or_csv_with_the_same_rows_and_no_value(used):
    table, data = ok("report", "access"), ok("report", "access", "--format", "json")
    text = ok("report", "access", "--format", "csv")
    assert data.json == {**ok("--json", "report", "access").json, "records": data.json["records"], **times(data.json)}
    assert KEY not in table.out + data.out + text.out
    rows = list(csv.DictReader(io.StringIO(text.out)))
    assert [(row["secret"], row["caller"]) for row in rows] == [
        (row["secret"], row["caller"]) for row in data.json["rows"]
    ]
    [coder] = [row for row in rows if row["caller"] == "agent/coder"]
    assert (coder["secret"], coder["uses_through"], coder["reads"]) == ("stripe/api-key", "stripe", "0")
    assert [row["reads"] for row in rows if row["caller"].startswith("user/")] == ["1"]
    assert "agent/coder" in table.out


def times(data):
    return {name: data[name] for name in ("from", "to")}


def test_who_leaves_is_told_apart_by_what_they_have_read(used):
    [who] = {row["caller"] for row in ok("--json", "report", "access").json["rows"] if row["reads"]}
    ran = ok("report", "access", "--agent", who)
    assert "has read 1, and knows what they were: stripe/api-key" in ran.err
    assert "has read" not in ok("report", "access", "--agent", "coder").err
    assert ok("report", "access", "--between", "2001-01-01", "2001-01-02", "--agent", who).out == ""


def test_stale_says_why(used):
    ran = ok("report", "stale")
    assert "stripe/api-key" in ran.out
    assert "no_expiry" in ran.out
    assert ok("report", "stale", "--why", "expired", "--format", "csv").out.count("\n") == 1
    assert ok("report", "stale", "--why", "expired").out == ""
    assert run("report", "stale", "--why", "boredom").code == 3


def test_a_window_says_both_ends_and_narrows_what_was_used(used):
    found = ok("--json", "audit", "query", "--secret", "stripe/api-key", "--between", "2001-01-01", "2101-01-01").json
    assert {record["operation"] for record in found} == {"create", "read"}
    assert ok("--json", "audit", "query", "--between", "2001-01-01", "2001-01-02").json == []
    ran = run("audit", "query", "--between", "2001-01-01", "2001-01-02", "--after", "2001-01-01", "--json")
    assert (ran.code, ran.error["code"]) == (3, "invalid_request")
    assert run("audit", "query", "--between", "yesterday", "2001-01-02").code == 3


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t=", "\r", "\n", " =", "\uff1d"])
def test_no_cell_is_a_formula_to_a_spreadsheet(begin):
    name = f'{begin}cmd|" /C calc"!A0'
    [head, row] = csv.reader(io.StringIO(as_csv(["secret", "why"], [{"secret": name, "why": ["=a", "b"]}])))
    assert head == ["secret", "why"]
    assert row[0].startswith(("'", "\\"))
    assert row[1] == "'=a b"
    assert not any(ord(char) < 32 for char in row[0])
