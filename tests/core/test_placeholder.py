"""Placeholders of a session: shaped like the service's, bound to whose they are, told from any other text."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from keyhole.core.placeholder import end_of, marked, session_placeholder
from keyhole.core.service import Service
from keyhole.core.session import pairs, service_of_session

KEY = bytes(range(32))
STATIC = "ghp_keyholeabcdefghijklmnopqrstuvwxyz012"


@pytest.mark.parametrize(
    "text", [STATIC, "keyhole_placeholder_0123456789abcdef", "sk-ant-keyhole-0123456789abcdefghij", "x" * 9 + STATIC]
)
def test_it_has_the_length_and_the_beginning_of_the_service_s_own(text: str) -> None:
    own = session_placeholder(text, KEY, "token", "github", "")
    assert len(own) == len(text)
    assert own != text
    begin = text[: len(text) - len(end_of(text))]
    assert own.startswith(begin)
    assert list(marked(own.encode(), KEY)) == [end_of(own)]


@pytest.mark.parametrize("text", ["{{secret}}", "sk-placeholder-1", "keyhole", "keyholeabc", ""])
def test_one_without_room_stays_as_it_is_and_is_no_mark(text: str) -> None:
    assert session_placeholder(text, KEY, "token", "github", "") == text
    assert list(marked(text.encode(), KEY)) == []


def test_every_session_service_and_field_has_its_own() -> None:
    made = {session_placeholder(STATIC, KEY, t, s, f) for t in "ab" for s in "cd" for f in ("", "e")}
    assert len(made) == 8


@given(before=st.binary(max_size=40), after=st.binary(max_size=40))
@example(before=b"keyhole", after=b"")
@example(before=b"keyhole_", after=b"")
@example(before=b"keyhole_abcdefghijklmnopq", after=b"")
def test_it_is_found_anywhere_and_only_with_the_right_key(before: bytes, after: bytes) -> None:
    own = session_placeholder(STATIC, KEY, "token", "github", "").encode()
    text = before + own + b" " + after
    assert end_of(own.decode()) in list(marked(text, KEY))
    assert end_of(own.decode()) not in list(marked(text, b"another key"))


@given(st.binary(max_size=300))
def test_no_other_text_is_taken_for_one(text: bytes) -> None:
    assert list(marked(text, KEY)) == []
    assert list(marked(b"keyhole" + text, KEY)) == []


@given(st.text("abcdefghijklmnopqrstuvwxyz234567", min_size=16, max_size=64), st.sampled_from(["", "_", "-", "abc-"]))
def test_none_can_be_made_up_without_the_key(run: str, between: str) -> None:
    assert list(marked(f"keyhole{between}{run}".encode(), KEY)) == []


def test_one_that_was_changed_is_none() -> None:
    own = session_placeholder(STATIC, KEY, "token", "github", "").encode()
    for at in range(len(own) - len(end_of(own.decode())), len(own)):
        changed = own[:at] + (b"b" if own[at : at + 1] == b"a" else b"a") + own[at + 1 :]
        assert list(marked(changed, KEY)) == []


def test_the_service_s_own_placeholder_is_none_of_a_session() -> None:
    assert list(marked(STATIC.encode(), KEY)) == []


def test_a_service_of_a_session_has_all_its_texts_replaced() -> None:
    service = Service.from_data(
        "github",
        {
            "hosts": ["api.github.com"],
            "secret": "github/token",
            "inject": {"kind": "placeholder", "text": STATIC},
            "placeholder": STATIC,
            "placeholders": {"other": STATIC.replace("abc", "xyz")},
        },
    )
    own = service_of_session(service, KEY, "token")
    assert STATIC not in own.shown()
    assert own.inject.text == own.placeholder
    assert dict(pairs(service, own))[STATIC] == own.inject.text
    assert own.hosts == service.hosts
