"""One-time passwords: the codes of the standard, a seed that stays inside, and a code that is right once."""

import asyncio
import base64
import json

import pytest

from engines.mounting import mount
from keyhole.core.totp import read_uri
from keyhole.core.value import Secret
from keyhole.testing import FrozenClock
from vault.world import Place, play, policy_token, refusal

SEED = base64.b32encode(b"12345678901234567890").decode()
URL = "otpauth://totp/Google:test@example.com?secret=Y64VEVMBTSXCYIWRSHRNDZW62MPGVU2G&issuer=Google"
# RFC 6238, appendix B: time, SHA-1, SHA-256, SHA-512; eight digits.
VECTORS = [
    (59, "94287082", "46119246", "90693936"),
    (1111111109, "07081804", "68084774", "25091201"),
    (1111111111, "14050471", "67062674", "99943326"),
    (1234567890, "89005924", "91819424", "93441116"),
    (2000000000, "69279037", "90698825", "38618901"),
    (20000000000, "65353130", "77737706", "47863826"),
]


def clear(value):
    return json.loads(value.reveal()) if isinstance(value, Secret) else value


async def code(vault, name="k"):
    return clear((await vault.ask("read", f"totp/code/{name}")).data["code"])


async def valid(vault, given, name="k"):
    return (await vault.ask("update", f"totp/code/{name}", {"code": given})).data["valid"]


def with_totp(scenario, **options):
    async def wrapped(vault):
        await mount(vault, "totp", "totp")
        await scenario(vault)

    play(wrapped, **options)


@pytest.mark.parametrize(("algorithm", "column", "size"), [("SHA1", 1, 20), ("SHA256", 2, 32), ("SHA512", 3, 64)])
def test_codes_are_those_of_the_standard(algorithm, column, size):
    seed = base64.b32encode((b"1234567890" * 7)[:size]).decode()
    totp = read_uri(f"otpauth://totp/x?secret={seed}&digits=8&algorithm={algorithm}").totp
    for row in VECTORS:
        assert totp.code(totp.step(row[0])) == row[column]


def test_a_code_is_right_once_and_within_its_skew():
    clock = FrozenClock()

    async def scenario(vault):
        await vault.ask("update", "totp/keys/k", {"key": SEED, "account_name": "me", "issuer": "us"})
        first = await code(vault)
        wrong = str((int(first) + 1) % 10**6).zfill(6)
        assert not await valid(vault, wrong)
        assert await valid(vault, first)
        error = await refusal(valid(vault, first))
        assert (error.code, error.reason) == (
            "invalid_request",
            "code already used; wait until the next time period",
        )
        assert first not in str(error)
        clock.advance(30)
        late = await code(vault)
        clock.advance(30)
        assert await valid(vault, late), "of the period before"
        clock.advance(60)
        assert not await valid(vault, late)
        for odd in ("", None, 123456, "\ud800", "x" * 1000, f" {late}"):
            assert (error := await refusal(valid(vault, odd))) is None or error.code == "invalid_request"

    with_totp(scenario, clock=clock)


def test_without_skew_only_the_code_of_this_period_is_right():
    clock = FrozenClock()

    async def scenario(vault):
        await vault.ask("update", "totp/keys/k", {"key": SEED, "skew": 0, "period": "60s", "digits": 8})
        given = await code(vault)
        assert len(given) == 8
        clock.advance(60)
        assert not await valid(vault, given)
        assert await valid(vault, await code(vault))

    with_totp(scenario, clock=clock)


def test_of_many_who_show_a_code_at_once_one_is_let_in():
    clock = FrozenClock()

    async def scenario(vault):
        await vault.ask("update", "totp/keys/k", {"key": SEED})
        given = await code(vault)
        results = await asyncio.gather(*(refusal(valid(vault, given)) for _ in range(20)))
        assert sum(error is None for error in results) == 1

    with_totp(scenario, clock=clock)


def test_a_used_code_stays_used_after_a_restart(tmp_path):
    place, clock, given = Place(tmp_path), FrozenClock(), []

    async def before(vault):
        await mount(vault, "totp", "totp")
        await vault.ask("update", "totp/keys/k", {"key": SEED, "period": 3600})
        given.append(await code(vault))
        assert await valid(vault, given[0])

    async def after(vault):
        assert await valid(vault, given[0]) is None

    place.play(before, clock=clock)
    with pytest.raises(Exception, match="code already used"):
        place.play(after, clock=clock)


def test_a_seed_made_here_is_shown_once_and_only_if_asked():
    async def scenario(vault):
        made = {"generate": True, "issuer": "Keyhole & Co", "account_name": "ann@example.com"}
        reply = await vault.ask("update", "totp/keys/k", {**made, "digits": 8, "algorithm": "SHA256", "key_size": 32})
        url = clear(reply.data["url"])
        assert reply.data["barcode"] == ""
        found = read_uri(url)
        assert (found.issuer, found.account, found.totp.digits, len(found.totp.key)) == (
            "Keyhole & Co",
            "ann@example.com",
            8,
            32,
        )
        assert url not in repr(reply)
        data = (await vault.ask("read", "totp/keys/k")).data
        assert data == {
            "account_name": "ann@example.com",
            "algorithm": "SHA256",
            "digits": 8,
            "issuer": "Keyhole & Co",
            "period": 30,
        }
        assert await valid(vault, found.totp.code(found.totp.step(vault.vault.clock.now())))
        reply = await vault.ask("update", "totp/keys/quiet", {**made, "exported": False})
        assert reply.data is None
        reply = await vault.ask("update", "totp/keys/plain", {**made, "qr_size": 0})
        assert list(reply.data) == ["url"]

    with_totp(scenario)


def test_a_seed_brought_by_url_has_the_settings_of_the_url():
    async def scenario(vault):
        # Clients send their defaults along; the URL counts.
        reply = await vault.ask("update", "totp/keys/k", {"url": URL, "generate": False, "digits": 6, "key": ""})
        assert reply.data is None
        data = (await vault.ask("read", "totp/keys/k")).data
        assert (data["issuer"], data["account_name"]) == ("Google", "test@example.com")
        await vault.ask("update", "totp/keys/short", {"url": "otpauth://totp/x?secret=dGVzdAo="})
        assert len(await code(vault, "short")) == 6
        assert (await vault.ask("list", "totp/keys/")).data["keys"] == ["k", "short"]
        await vault.ask("delete", "totp/keys/k")
        await vault.ask("delete", "totp/keys/k")
        assert (await refusal(vault.ask("read", "totp/keys/k"))).code == "not_found"
        for error in (await refusal(code(vault)), await refusal(valid(vault, "123456"))):
            assert (error.status, error.reason) == (400, "unknown key: k")

    with_totp(scenario)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"key": "not base32!"},
        {"key": 5},
        {"key": ""},
        {"url": "otpauth://hotp/x?secret=" + SEED},
        {"url": "https://totp/x?secret=" + SEED},
        {"url": "otpauth://totp/x?secret=" + SEED + "&digits=7"},
        {"url": "otpauth://totp/x?secret=" + SEED + "&period=0"},
        {"url": "otpauth://totp/x?secret=" + SEED + "&algorithm=MD5"},
        {"url": "otpauth://totp/x?secret=" + SEED + "&digits=" + "9" * 5000},
        {"url": "otpauth://totp/x"},
        {"url": "otpauth://[totp/x?secret=" + SEED},
        {"key": SEED, "digits": 7},
        {"key": SEED, "digits": "9" * 5000},
        {"key": SEED, "skew": 2},
        {"key": SEED, "period": 0},
        {"key": SEED, "period": "soon"},
        {"key": SEED, "algorithm": "MD5"},
        {"key": SEED, "algorithm": [1]},
        {"key": SEED, "issuer": "a\x1b[31m"},
        {"generate": True},
        {"generate": True, "issuer": "a"},
        {"generate": True, "account_name": "a"},
        {"generate": True, "issuer": "a", "account_name": "b", "key": SEED},
        {"generate": True, "issuer": "a", "account_name": "b", "url": URL},
        {"generate": True, "issuer": "a", "account_name": "b", "key_size": 0},
        {"generate": True, "issuer": "a", "account_name": "b", "key_size": 10**9},
        {"generate": "perhaps"},
    ],
)
def test_an_odd_seed_is_a_bad_request_that_does_not_repeat_it(data):
    async def scenario(vault):
        error = await refusal(vault.ask("update", "totp/keys/k", data))
        assert error.code == "invalid_request"
        assert SEED not in str(error)
        assert (await refusal(vault.ask("list", "totp/keys"))).code == "not_found"

    with_totp(scenario)


def test_who_may_judge_codes_cannot_make_them_nor_see_the_seed():
    async def scenario(vault):
        await vault.ask("update", "totp/keys/k", {"key": SEED})
        token = await policy_token(vault, 'path "totp/code/k" { capabilities = ["update"] }')
        await vault.ask("update", "totp/code/k", {"code": "000000"}, token=token)
        for operation, path in (("read", "code/k"), ("read", "keys/k"), ("list", "keys")):
            assert (await refusal(vault.ask(operation, f"totp/{path}", token=token))).code == "policy_denied"

    with_totp(scenario)
