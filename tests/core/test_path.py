"""Paths and names have one spelling, or are refused."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyhole.core.errors import InvalidRequest
from keyhole.core.path import parse_field, parse_name, parse_path, parse_policy_name, parse_secret_ref

DATA = Path(__file__).parent.parent / "data" / "core"
CASES = [json.loads(line) for line in (DATA / "secret_paths.jsonl").read_text().splitlines()]
KEPT = {"é", "A", "a;b", "CON", "~", "$HOME", "ﬁ", "ß", "\u0131", "\u0130"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_a_path_is_kept_as_it_is_or_refused(case):
    if case["path"] in KEPT:
        assert parse_path(case["path"]) == case["path"]
    else:
        with pytest.raises(InvalidRequest):
            parse_path(case["path"])


@pytest.mark.parametrize(
    "path",
    ["secret/data/stripe/api-key", "a b/c", "database/creds/readonly", "pki/cert/39:dd:2e", "a+b@x.test", "日本/鍵"],
)
def test_an_ordinary_path_is_accepted(path):
    assert parse_path(path) == path


@pytest.mark.parametrize(
    "path",
    ["a/./b", "a/ b", " a", "a\\b", "a\x7f", "a\u200db", "a\u2028b", "a\u00a0b", "e\u0301", "a/+/b", "x" * 256,
     "é" * 128, "a/" * 256 + "b", "\ud800", "a\u3164", "a{{b"],
)  # fmt: skip
def test_a_path_with_a_second_spelling_is_refused(path):
    with pytest.raises(InvalidRequest):
        parse_path(path)


def test_a_folder_is_listed_with_or_without_its_slash():
    assert parse_path("a/b/", listing=True) == "a/b/"
    assert parse_path("a/b", listing=True) == "a/b/"
    assert parse_path("", listing=True) == ""
    for text in ("/", "a//", "/a", "../"):
        with pytest.raises(InvalidRequest):
            parse_path(text, listing=True)


@given(st.text(max_size=30))
def test_no_two_accepted_paths_look_alike_to_a_normalising_file_system(text):
    try:
        path = parse_path(text)
    except InvalidRequest:
        return
    assert path == text
    assert unicodedata.normalize("NFC", path) == path
    assert not path.startswith("/")
    assert not {"", ".", ".."} & set(path.split("/"))


def test_names_keep_their_case_and_policies_do_not():
    assert parse_name("Billing-Bot.2") == "Billing-Bot.2"
    assert parse_policy_name("Billing-Bot.2") == "billing-bot.2"
    assert parse_policy_name("agent/Bot") == "agent/bot"
    for text in ("", "-a", ".a", "a/b", "a b", "é", "a" * 64, "a\n", "\u212a"):
        with pytest.raises(InvalidRequest):
            parse_name(text)
    for text in ("", "a/b/c", "a/", "/a", "\u212a"):
        with pytest.raises(InvalidRequest):
            parse_policy_name(text)


def test_a_reference_names_a_path_and_a_field():
    assert parse_secret_ref("stripe/api-key") == ("stripe/api-key", "value")
    assert parse_secret_ref("stripe/api-key#user name") == ("stripe/api-key", "user name")
    assert parse_secret_ref("/database/creds/readonly") == ("/database/creds/readonly", "value")
    assert parse_field("a#b") == "a#b"
    for text in ("", "#a", "a#", "a# b", "//a", "a/#b", "a#\u200b", "a#" + "x" * 256):
        with pytest.raises(InvalidRequest):
            parse_secret_ref(text)
