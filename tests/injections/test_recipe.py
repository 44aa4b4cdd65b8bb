"""Signatures with HMAC by recipes: those of the makers' own examples, and what a recipe may be."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyhole.core.errors import InvalidRequest
from keyhole.core.inject import Inject
from keyhole.core.message import Message
from keyhole.core.recipe import FUNCTIONS, NAMES, RECIPES, parse
from keyhole.injections import Terms, inject, needs_content

NOW = 1531420618.123
FORM = (b"content-type", b"application/x-www-form-urlencoded")


def signed(
    options: dict,
    key: bytes,
    *,
    target: bytes = b"/v1/x?b=2&a=1",
    method: str = "POST",
    body: bytes | None = None,
    headers: tuple[tuple[bytes, bytes], ...] = (),
    now: float = NOW,
    **fields: bytes,
) -> Message:
    how = Inject.from_data({"kind": "hmac", **options})
    message = Message(method, "https", "api.test", 443, target, list(headers))
    if needs_content(message, how):
        message.content = body
    values = {"key": key, **fields} if fields else {"value": key}
    return next(inject(message, how, Terms(values, now, nonce=bytes(range(16)))))


def sha256(key: bytes, text: bytes) -> str:
    return hmac.new(key, text, hashlib.sha256).hexdigest()


def test_slack_webhook_is_signed_as_in_its_documentation():
    body = (
        b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V"
        b"&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url="
        b"https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN"
        b"&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
    )
    sent = signed({"recipe": "slack-webhook"}, b"8f742231b10e8888abcd99yyyzzz85a5", body=body)
    assert sent.get(b"x-slack-signature") == b"v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"
    assert sent.get(b"x-slack-request-timestamp") == b"1531420618"
    assert sent.content == body


def test_github_webhook_is_signed_as_in_its_documentation():
    sent = signed({"recipe": "github-webhook"}, b"It's a Secret to Everybody", body=b"Hello, World!")
    digest = b"757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    assert sent.get(b"x-hub-signature-256") == b"sha256=" + digest


def test_stripe_webhook_carries_time_and_signature_in_one_header():
    sent = signed({"recipe": "stripe-webhook"}, b"whsec_test", body=b'{"a": 1}')
    expected = sha256(b"whsec_test", b'1531420618.{"a": 1}')
    assert sent.get(b"stripe-signature") == f"t=1531420618,v1={expected}".encode()


def test_standard_webhook_is_signed_as_in_its_documentation():
    message = "msg_p5jXN8AQM9LWM0D4loKWxJek.{timestamp}.{body}"
    key = b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    options = {"recipe": "standard-webhook", "message": message}
    sent = signed(options, key, body=b'{"test": 2432232314}', now=1614265330)
    assert sent.get(b"webhook-signature") == b"v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert sent.get(b"webhook-id") == b"msg_000102030405060708090a0b0c0d0e0f"


BINANCE = b"NhqPtmdSJYdKjVHjA7PZj4Mge3R5YNiP1e3UZjInClVN65XAbvqqM6A7H5fATj0j"
ORDER = b"quantity=1&price=0.1&recvWindow=5000&timestamp=1499827319559"


@pytest.mark.parametrize(
    ("query", "body", "expected"),
    [
        (
            b"symbol=LTCBTC&side=BUY&type=LIMIT&timeInForce=GTC&" + ORDER,
            b"",
            b"c8db56825ae71d6d79447849e617115f4a920fa2acdcab2b053c4b2838bd6b71",
        ),
        (
            b"symbol=LTCBTC&side=BUY&type=LIMIT&timeInForce=GTC",
            ORDER,
            b"0fd168b8ddb4876a0358a8d14d0c9f3da0e9b20c5d52b2a00fcf7d1c602f9a77",
        ),
    ],
)
def test_binance_is_signed_as_in_its_documentation_without_what_the_client_signed(query, body, expected):
    sent = signed(
        {"recipe": "binance"},
        BINANCE,
        key_id=b"the-id",
        target=b"/api/v3/order?" + query + b"&signature=fake",
        body=body + b"&signature=fake" if body else b"",
        headers=(FORM, (b"x-mbx-apikey", b"placeholder")),
    )
    assert sent.target == b"/api/v3/order?" + query + b"&signature=" + expected
    assert (sent.content or b"") == body
    assert [value for name, value in sent.headers if name == b"x-mbx-apikey"] == [b"the-id"]


def test_kraken_is_signed_as_in_its_documentation():
    sent = signed(
        {"recipe": "kraken"},
        b"kQH5HW/8p1uGOVjbgWA7FunAmGO8lsSUXNsu3eow76sz84Q18fWxnyRzBHCd3pd5nE9qa99HAZtuZuj6F1huXg==",
        key_id=b"the-id",
        target=b"/0/private/AddOrder",
        body=b"nonce=1616492376594&ordertype=limit&pair=XBTUSD&price=37500&type=buy&volume=1.25",
        headers=(FORM, (b"api-sign", b"fake")),
    )
    expected = b"4/dpxb3iT4tp/ZCVEwSnEsLxx0bqyhLpdfOpc6fn7OR8+UClSV5n9E6aSS8MPtnRfp32bAb0nmbRn6H8ndwLUQ=="
    assert sent.get(b"api-sign") == expected
    assert [name for name, _ in sent.headers].count(b"api-sign") == 1


@pytest.mark.parametrize(
    ("recipe", "sign", "text"),
    [
        ("coinbase-exchange", b"cb-access-sign", b'1531420618POST/v1/x?b=2&a=1{"a": 1}'),
        ("okx", b"ok-access-sign", b'2018-07-12T18:36:58.123ZPOST/v1/x?b=2&a=1{"a": 1}'),
        ("bybit", b"x-bapi-sign", b'1531420618123the-id5000b=2&a=1{"a": 1}'),
    ],
)
def test_exchanges_get_time_path_and_body_signed(recipe, sign, text):
    raw = b"\x00key bytes\xff"
    key = base64.b64encode(raw) if recipe == "coinbase-exchange" else b"plain-key"
    sent = signed({"recipe": recipe}, key, body=b'{"a": 1}', key_id=b"the-id", passphrase=b"the-phrase")
    used = raw if recipe == "coinbase-exchange" else key
    digest = hmac.new(used, text, hashlib.sha256)
    expected = digest.hexdigest().encode() if recipe == "bybit" else base64.b64encode(digest.digest())
    assert sent.get(sign) == expected
    assert b"the-id" in [value for _, value in sent.headers]
    assert raw in sent.forms or recipe != "coinbase-exchange"


def test_a_recipe_of_ones_own():
    options = {
        "message": r"{method}\n{host}\n{path}\n{sorted_query}\n{header:X-Kind}\n{sha256_hex:{body}}\n{query:a}\n\{\}",
        "algorithm": "sha512",
        "key_encoding": "hex",
        "encoding": "base64url",
        "header": "X-Signature",
        "template": "keyId={key_id} sig={signature} n={nonce}",
        "headers": "X-Date={date}\nX-Method={lower:{method}}",
    }
    headers = ((b"x-kind", b"k"), (b"x-date", b"old"))
    sent = signed(options, b"00ff10", body=b"abc", headers=headers, key_id=b"me")
    text = f"POST\napi.test\n/v1/x\na=1&b=2\nk\n{hashlib.sha256(b'abc').hexdigest()}\n1\n{{}}"
    raw = hmac.new(b"\x00\xff\x10", text.encode(), hashlib.sha512).digest()
    signature = base64.urlsafe_b64encode(raw).rstrip(b"=")
    assert sent.get(b"x-signature") == b"keyId=me sig=" + signature + b" n=000102030405060708090a0b0c0d0e0f"
    assert sent.get(b"x-date") == b"Thu, 12 Jul 2018 18:36:58 GMT"
    assert sent.get(b"x-method") == b"post"


def test_each_call_has_a_nonce_of_its_own_and_the_same_wherever_it_stands():
    how = Inject.from_data(
        {"kind": "hmac", "message": "{nonce}", "header": "X-S", "headers": "X-N={nonce}\nX-M={nonce}"}
    )
    found = set()
    for _ in range(2):
        sent = next(inject(Message("GET", "https", "api.test", 443, b"/", []), how, Terms({"value": b"key"}, NOW)))
        nonce = sent.get(b"x-n")
        assert nonce == sent.get(b"x-m")
        assert len(bytes.fromhex(nonce.decode())) == 16
        assert sent.get(b"x-s").decode() == sha256(b"key", nonce)
        found.add(nonce)
    assert len(found) == 2


@pytest.mark.parametrize("target", [b"/x", b"/x?", b"/x?a=1", b"/x?sig=old", b"/x?sig=old&a=1&s%69g=older"])
def test_a_parameter_with_the_signature_comes_last_and_once(target):
    sent = signed({"message": "{target}", "query": "sig", "encoding": "base64"}, b"key", target=target)
    bare, _, value = sent.target.rpartition(b"sig=")
    assert b"sig=" not in bare
    assert b"s%69g" not in bare
    assert bare[-1:] in {b"?", b"&"}
    assert b"+" not in value
    assert b"/" not in value


def test_a_body_that_is_not_signed_is_not_held():
    assert signed({"message": "{timestamp}", "header": "x-s"}, b"key", body=b"abc").content is None


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_every_known_recipe_can_be_bound_and_described(recipe):
    how = Inject.from_data({"kind": "hmac", "recipe": recipe})
    assert how.describe().startswith("signed with HMAC-SHA")
    assert Inject.from_data(how.as_data()) == how
    assert how.as_data() == {"kind": "hmac", "recipe": recipe}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"recipe": "no-such"},
        {"message": "{body}"},
        {"header": "x-s"},
        {"message": "{bod}", "header": "x-s"},
        {"message": "{body", "header": "x-s"},
        {"message": "body}", "header": "x-s"},
        {"message": "{header:}", "header": "x-s"},
        {"message": "{body:x}", "header": "x-s"},
        {"message": "{sha256:{body}", "header": "x-s"},
        {"message": "{eval:{body}}", "header": "x-s"},
        {"message": r"\x", "header": "x-s"},
        {"message": "x" * 1025, "header": "x-s"},
        {"message": "{hex:" * 5 + "x" + "}" * 5, "header": "x-s"},
        {"message": "{signature}", "header": "x-s"},
        {"message": "{body}", "header": "x-s", "template": "no signature"},
        {"message": "{body}", "header": "host"},
        {"message": "{body}", "header": "x-s", "headers": ["Content-Length=1"]},
        {"message": "{body}", "header": "x-s", "headers": ["no template"]},
        {"message": "{body}", "query": "a b"},
        {"message": "{body}", "header": "x-s", "algorithm": "md5"},
        {"message": "{body}", "header": "x-s", "encoding": "rot13"},
        {"message": "{body}", "header": "x-s", "key_encoding": "rot13"},
    ],
)
def test_a_recipe_that_makes_no_sense_cannot_be_bound(options):
    with pytest.raises(InvalidRequest):
        Inject.from_data({"kind": "hmac", **options})


@pytest.mark.parametrize(
    ("options", "key", "fields"),
    [
        ({"recipe": "kraken"}, b"not base64!", {"key_id": b"i"}),
        ({"recipe": "coinbase-exchange"}, b"c2VjcmV0", {"key_id": b"i"}),
        ({"message": "{body}", "header": "x-s", "key_encoding": "hex"}, b"not-hex", {}),
        ({"message": "{body}", "header": "x-s"}, b"", {}),
        (
            {"message": "{body}", "header": "x-s", "template": "{key_id}{signature}"},
            b"the-value",
            {"key_id": b"a\r\nX: 1"},
        ),
        ({"message": "{body}", "header": "x-s", "template": "{sha256:{body}}{signature}"}, b"the-value", {}),
    ],
)
def test_a_key_or_a_header_that_cannot_be_is_refused_without_being_shown(options, key, fields):
    with pytest.raises(InvalidRequest) as caught:
        signed(options, key, body=b"{}", **fields)
    assert not key or key.decode() not in str(caught.value)


@given(st.text(st.sampled_from("{}:\\n abody_sha256"), max_size=40) | st.text(max_size=40))
def test_any_text_is_a_template_or_refused(text):
    try:
        template = parse(text)
    except InvalidRequest:
        return
    assert all(part for part in template)


@given(
    st.recursive(
        st.sampled_from([f"{{{name}}}" for name in NAMES if name != "signature"]) | st.just("text "),
        lambda inner: st.tuples(st.sampled_from(FUNCTIONS), inner).map(lambda p: f"{{{p[0]}:{p[1]}}}"),
        max_leaves=3,
    )
)
def test_every_part_and_function_gives_bytes(text):
    if text.count(":") > 4:
        return
    sent = signed({"message": text, "header": "x-s"}, b"key", body=b"b", key_id=b"i", passphrase=b"p")
    assert len(sent.get(b"x-s") or b"") == 64
