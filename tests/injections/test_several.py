"""Several fields of a secret in one message, and one-time passwords."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import parse_qs

import pytest

from keyhole.core.errors import InvalidRequest
from keyhole.core.inject import Inject
from keyhole.core.message import Message
from keyhole.core.service import Service
from keyhole.injections import Terms, inject, needs_content
from keyhole.injections.totp import code

SEED = b"12345678901234567890"
FORM = (b"content-type", b"application/x-www-form-urlencoded")


@pytest.mark.parametrize(
    ("now", "algorithm", "expected"),
    [  # RFC 6238, appendix B
        (59, "SHA1", b"94287082"),
        (59, "SHA256", b"46119246"),
        (59, "SHA512", b"90693936"),
        (1111111109, "SHA1", b"07081804"),
        (1234567890, "SHA256", b"91819424"),
        (2000000000, "SHA512", b"38618901"),
        (20000000000, "SHA1", b"65353130"),
    ],
)
def test_codes_are_those_of_the_standard(now: int, algorithm: str, expected: bytes) -> None:
    seed = {"SHA1": SEED, "SHA256": (SEED * 2)[:32], "SHA512": (SEED * 4)[:64]}[algorithm]
    uri = f"otpauth://totp/a:b?secret={base64.b32encode(seed).decode()}&digits=8&algorithm={algorithm}&issuer=a"
    assert code(uri.encode(), now) == expected


def test_seed_may_be_written_as_people_copy_it() -> None:
    plain = base64.b32encode(SEED)
    assert code(plain, 59) == b"287082"
    spaced = b" ".join(plain.lower()[at : at + 4] for at in range(0, len(plain), 4))
    assert code(spaced + b"\n", 59) == b"287082"


@pytest.mark.parametrize(
    "seed",
    [
        b"",
        b"1234",
        b"not base32!",
        b"ABCD",
        b"otpauth://hotp/a?secret=" + base64.b32encode(SEED),
        b"otpauth://totp/a",
        b"otpauth://totp/a?secret=" + base64.b32encode(SEED) + b"&digits=99",
        b"otpauth://totp/a?secret=%zz",
        b"\xff" * 20,
    ],
)
def test_what_is_no_seed_is_refused_without_showing_it(seed: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        code(seed, 59)
    assert "one-time passwords" in caught.value.reason


LOGIN: dict[str, Any] = {
    "kind": "several",
    "each": [
        {"kind": "form", "field": "user", "from": "username"},
        {"kind": "form", "field": "pass", "from": "password"},
        {"kind": "form", "field": "otp", "from": "seed", "as": "totp"},
        {"kind": "header", "name": "X-Client", "from": "client"},
    ],
}


def test_a_login_gets_all_that_it_asks_for() -> None:
    how = Inject.from_data(LOGIN)
    message = Message("POST", "https", "a.test", 443, b"/login", [FORM], content=b"user=placeholder&keep=%7e&pass=x")
    assert needs_content(message, how)
    values = {
        "username": b"ann",
        "password": b"p&w=",
        "seed": base64.b32encode(SEED),
        "client": b"client-id-1",
    }
    sent = next(inject(message, how, Terms(values, 59.0)))
    assert parse_qs((sent.content or b"").decode()) == {
        "keep": ["~"],
        "user": ["ann"],
        "pass": ["p&w="],
        "otp": ["287082"],
    }
    assert b"keep=%7e" in (sent.content or b"")
    assert sent.get(b"x-client") == b"client-id-1"


def test_a_service_opens_the_fields_that_are_named() -> None:
    service = Service.from_data("login", {"hosts": ["a.test"], "secret": "a/login", "inject": LOGIN})
    assert [field for _, field in service.secret_refs()] == ["username", "password", "seed", "client"]
    again = Service.from_data("login", service.as_data())
    assert again == service
    assert hash(again.inject) == hash(service.inject)
    assert "one-time password" in service.inject.describe()


def test_a_lone_one_needs_no_name_of_its_field() -> None:
    how = {"kind": "several", "each": [{"kind": "header", "name": "X-Otp", "as": "totp"}]}
    message = Message("GET", "https", "a.test", 443, b"/", [])
    sent = next(inject(message, Inject.from_data(how), Terms({"value": base64.b32encode(SEED)}, 59.0)))
    assert sent.get(b"x-otp") == b"287082"


@pytest.mark.parametrize(
    "each",
    [
        None,
        [],
        "x",
        [1],
        [{"kind": "bearer"}, {"kind": "form", "field": "a"}],
        [{"kind": "several", "each": []}],
        [{"kind": "jwt", "from": "a"}],
        [{"kind": "query", "params": {"a": "b"}, "from": "a"}],
        [{"kind": "form", "field": "a", "as": "hotp"}],
        [{"kind": "form", "field": "a", "form": "x"}],
        [{"kind": "bearer", "from": "a"}] * 17,
    ],
)
def test_binding_that_makes_no_sense_is_refused(each: Any) -> None:
    with pytest.raises(InvalidRequest):
        Inject.from_data({"kind": "several", "each": each})
