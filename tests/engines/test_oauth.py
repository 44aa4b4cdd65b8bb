"""Connections to providers of OAuth tokens: consent, refreshes that happen once, and what is said when they fail."""

import asyncio
import json
import threading
from urllib.parse import urlencode

import pytest

import oauth_provider
from engines.mounting import storage_of
from engines.oauth_world import REDIRECT, answered, with_provider
from oauth_provider import CLIENT_SECRET
from vault.world import Place, child, journal, policy_token, refusal, rows


def test_consent_in_a_browser_gives_a_token_that_is_refreshed_in_time():
    async def scenario(world):
        await world.connection()
        assert (await world.status())["status"] == "not connected"
        error = await refusal(world.access())
        assert (error.code, error.hint) == ("consent_required", "keyhole oauth connect crm")
        reply = await world.consented()
        assert reply.data["status"] == "connected"
        assert reply.data["scopes_missing"] == []
        first = await world.access()
        assert world.provider.knows(first)
        assert await world.access() == first
        world.clock.advance(3600 - 20)
        second = await world.access()
        assert second != first
        assert world.provider.asked["refresh_token"] == 1
        shown = await world.status()
        assert shown["expires_in"] == 3600
        assert not any(secret in json.dumps(shown) for secret in (first, second, CLIENT_SECRET, "rt-"))

    with_provider(scenario)


def test_a_token_is_refreshed_by_itself_before_it_ends():
    async def scenario(world):
        await world.connection()
        await world.consented()
        first = await world.access()
        world.clock.advance(3600 - 400)
        await world.sweep()
        assert await world.access() == first
        world.clock.advance(101)
        await world.sweep()
        assert world.provider.asked["refresh_token"] == 1
        world.provider.hold, world.provider.held = None, None
        assert await world.access() != first
        assert any(
            record.operation == "due" and record.path == "oauth/token/crm" for _, record in await journal(world.vault)
        )

    with_provider(scenario)


def test_of_many_who_need_a_token_at_its_end_one_asks():
    async def scenario(world):
        await world.connection()
        await world.consented()
        world.clock.advance(3601)
        found = await asyncio.gather(*(world.access() for _ in range(200)))
        assert len(set(found)) == 1
        assert world.provider.knows(found[0])
        assert world.provider.asked["refresh_token"] == 1

    with_provider(scenario)


def test_whoever_hangs_up_does_not_cut_off_the_request_for_the_others():
    async def scenario(world):
        await world.imported()
        world.provider.hold, world.provider.held = threading.Event(), threading.Event()
        first = asyncio.create_task(world.access())
        await asyncio.to_thread(world.provider.held.wait, 20)
        other = asyncio.create_task(world.access())
        first.cancel()
        assert isinstance((await asyncio.gather(first, return_exceptions=True))[0], asyncio.CancelledError)
        world.provider.hold.set()
        assert world.provider.knows(await other)
        assert world.provider.asked["refresh_token"] == 1

    with_provider(scenario)


def test_a_refresh_that_is_under_way_when_the_vault_is_closed_is_not_lost(tmp_path):
    async def scenario(world):
        await world.imported()
        world.provider.hold, world.provider.held = threading.Event(), threading.Event()
        need = asyncio.create_task(world.access())
        await asyncio.to_thread(world.provider.held.wait, 20)
        need.cancel()
        asyncio.get_running_loop().call_later(0.2, world.provider.hold.set)
        await world.vault.node.seal()
        await world.vault.node.unseal(seal=place.seal)
        assert world.provider.knows((await world.stored())["access"])
        assert world.provider.asked["refresh_token"] == 1

    place = Place(tmp_path)
    with_provider(scenario, location=place.location, seal=place.seal)


def tampered(good, other):
    """What a browser may bring back that is not what was asked for, by what is wrong with it."""
    base, state = good["redirect_uri"], good["state"]
    yield "no state", {**good, "state": ""}
    yield "another state", {**good, "state": other}
    yield "part of the state", {**good, "state": state[:-1]}
    yield "more than the state", {**good, "state": state + "A"}
    yield "the state in another case", {**good, "state": state.swapcase()}
    yield "a very long state", {**good, "state": "A" * 8000}
    yield "no code", {**good, "code": ""}
    yield "a code of nobody", {**good, "code": "code-forged"}
    yield "no issuer, which was promised", {**good, "iss": ""}
    yield "another issuer", {**good, "iss": "https://attacker.example"}
    yield "the issuer with a slash", {**good, "iss": good["iss"] + "/"}
    yield "an error beside the code", {**good, "error": "access_denied"}
    yield "an error", {**good, "code": "", "error": "access_denied"}
    yield "no address", {**good, "redirect_uri": ""}
    yield "another port", {**good, "redirect_uri": base.replace(":1/", ":2/")}
    yield "another path", {**good, "redirect_uri": base + "/x"}
    yield "a slash at the end", {**good, "redirect_uri": base + "/"}
    yield "another name of the host", {**good, "redirect_uri": base.replace("127.0.0.1", "localhost")}
    yield "another scheme", {**good, "redirect_uri": base.replace("http:", "https:")}
    yield "somebody in front of the host", {**good, "redirect_uri": base.replace("//", "//user@")}
    yield "a URL that says the code twice", {"url": f"{base}?{urlencode(good)}&code=second"}
    yield "a URL that says the state twice", {"url": f"{base}?state=x&{urlencode(good)}"}
    yield "a URL of another address", {"url": f"{base}/x?{urlencode(good)}"}
    yield "a URL with a fragment", {"url": f"{base}?{urlencode(good)}#x"}
    yield "no text", {**good, "code": ["code-1"]}


def test_no_tampered_answer_of_a_browser_is_taken():
    async def scenario(world):
        url = world.provider.url
        await world.write(
            "connections/crm",
            **world.provider.settings(issuer=url, authorize_url="", token_url="", revoke_url="", device_url=""),
        )
        shown = await world.status()
        assert (shown["token_url"], shown["issuer"]) == (f"{url}/token", url)
        wrongs = [name for name, _ in tampered({"redirect_uri": REDIRECT, "state": "s", "code": "c", "iss": "i"}, "o")]
        assert len(wrongs) >= 20
        for number, name in enumerate(wrongs):
            begun, other = await world.begin(), await world.begin()
            good = {**answered(world.provider.agree(begun["authorization_url"])), "redirect_uri": REDIRECT}
            data = dict(list(tampered(good, other["state"]))[number][1])
            error = await refusal(world.write("callback", **data))
            assert error is not None, name
            assert good["code"] not in str(error), name
            assert (await world.status())["status"] == "not connected", name
        token = await child(world.vault)
        begun = await world.begin()
        good = {**answered(world.provider.agree(begun["authorization_url"])), "redirect_uri": REDIRECT}
        assert await refusal(world.write("callback", token=token, **good)), "by somebody else"
        assert (await world.write("callback", **good)).data["status"] == "connected"
        assert await refusal(world.write("callback", **good)), "a second time"
        begun = await world.begin()
        good = {**answered(world.provider.agree(begun["authorization_url"])), "redirect_uri": REDIRECT}
        world.clock.advance(601)
        assert await refusal(world.write("callback", **good)), "too late"

    with_provider(scenario)


def test_a_code_of_another_flow_is_worth_nothing():
    """Somebody brings a code that was made for another verifier under a state of their own."""

    async def scenario(world):
        await world.connection()
        theirs, mine = await world.begin(), await world.begin()
        stolen = answered(world.provider.agree(theirs["authorization_url"]))["code"]
        error = await refusal(world.write("callback", state=mine["state"], code=stolen, redirect_uri=REDIRECT))
        assert error.reason.endswith("invalid_grant")
        assert (await world.status())["status"] == "not connected"

    with_provider(scenario)


def test_a_browser_can_only_come_back_to_where_it_may():
    async def scenario(world):
        await world.connection(redirect_uris=["https://keyhole.example/callback"])
        for uri in ("https://keyhole.example/callback", "http://127.0.0.1:8400/x", "http://[::1]:8400/x"):
            assert (await world.begin(redirect=uri))["redirect_uri"] == uri
        for uri in (
            "",
            "https://keyhole.example/callback/",
            "https://keyhole.example/callback?x=1",
            "https://attacker.example/callback",
            "http://127.0.0.1.attacker.example:80/x",
            "http://localhost:8400/x",
            "http://127.0.0.1/x",
            "http://user@127.0.0.1:8400/x",
            "http://127.0.0.1:8400/x#y",
            "ftp://127.0.0.1:8400/x",
            "http://10.0.0.1:8400/x",
        ):
            assert await refusal(world.begin(redirect=uri)), uri

    with_provider(scenario)


def test_a_refresh_token_that_is_taken_no_more_stops_everything_and_is_told():
    async def scenario(world):
        await world.imported()
        first = await world.access()
        world.provider.dead.update(family for family, _ in world.provider.refresh.values())
        world.clock.advance(3400)
        await world.sweep()
        shown = await world.status()
        assert (shown["status"], shown["next_step"]) == (
            "needs consent",
            "keyhole oauth add crm with a new refresh token",
        )
        assert "invalid_grant" in shown["why"]
        assert await world.access() == first, "it is good for a while yet"
        world.clock.advance(300)
        asked = world.provider.asked["refresh_token"]
        for _ in range(5):
            error = await refusal(world.access())
            assert error.code == "consent_required"
            await world.sweep()
        assert world.provider.asked["refresh_token"] == asked
        alarms = [record for _, record in await journal(world.vault) if record.operation == "alarm"]
        assert len(alarms) == 1
        assert "crm" in alarms[0].result
        world.clock.advance(86_401)
        await world.sweep()
        await world.sweep()
        alarms = [record for _, record in await journal(world.vault) if record.operation == "alarm"]
        assert len(alarms) == 2, "once a day"
        text = await world.vault.vault.meters.prometheus()
        assert 'keyhole_due_total{engine="oauth",result="consent_required"} 2' in text
        await world.imported()
        assert world.provider.knows(await world.access())

    with_provider(scenario)


HTML = (200, {"Content-Type": "text/html"}, b"<html>log in</html>")
TROUBLE = {
    "a fault": (500, {}, b'{"error": "invalid_grant"}'),
    "too many requests": (429, {"Retry-After": "120"}, b""),
    "a page": HTML,
    "nothing": (200, {}, b""),
    "no object": (200, {}, b"[1]"),
    "twice the same key": (200, {}, b'{"access_token": "a", "access_token": "b"}'),
    "a token that no header carries": (200, {}, b'{"access_token": "a\\nb: c", "token_type": "Bearer"}'),
    "another type of token": (200, {}, b'{"access_token": "a", "token_type": "mac"}'),
    "a redirect": (302, {"Location": "https://attacker.example/"}, b""),
    "too much": (200, {}, b"x" * (1 << 21)),
    "what is encoded": (200, {"Content-Encoding": "gzip"}, b"x"),
    "another status": (418, {}, b'{"error": "TEAPOT <script>"}'),
}


def test_in_trouble_the_old_token_is_lent_while_it_is_good_and_the_provider_is_asked_ever_more_rarely():
    async def scenario(world):
        for number, (kind, answer) in enumerate(TROUBLE.items()):
            await in_trouble(world, f"c{number}", kind, answer)

    with_provider(scenario)


async def in_trouble(world, name, kind, answer):
    await world.imported(name)
    first = await world.access(name)
    world.clock.advance(3590)
    asked = world.provider.asked["/token"]
    world.provider.say = [answer] * 10
    for _ in range(10):
        assert await world.access(name) == first, kind
    assert world.provider.asked["/token"] == asked + 1, kind
    assert (await world.status(name))["failures"] == 1, kind
    world.clock.advance(11)
    pauses = []
    for _ in range(3):
        before = world.provider.asked["/token"]
        assert (await refusal(world.access(name))).code == "upstream_unreachable", kind
        pauses.append((await world.status(name))["tried_again_in"])
        assert (await refusal(world.access(name))).retry_after > 0, kind
        assert world.provider.asked["/token"] <= before + 1, kind
        world.clock.advance(pauses[-1] + 1)
    if kind == "too many requests":
        assert pauses[0] > 100
    else:
        assert pauses[0] < pauses[1] < pauses[2], kind
    world.provider.say = []
    assert world.provider.knows(await world.access(name)), kind
    assert (await world.status(name))["failures"] == 0, kind


def test_a_provider_that_does_not_answer_keeps_nobody_waiting_who_has_a_good_token(monkeypatch):
    async def scenario(world):
        from keyhole.engines.oauth import refreshing

        monkeypatch.setattr(refreshing, "_PATIENCE", 0.1)
        await world.imported()
        first = await world.access()
        world.clock.advance(3590)
        world.provider.hold, world.provider.held = threading.Event(), threading.Event()
        assert await world.access() == first
        assert await asyncio.to_thread(world.provider.held.wait, 60)
        world.provider.hold.set()
        while (await world.stored())["claimed"]:  # noqa: ASYNC110 - the store has no event for it
            await asyncio.sleep(0.01)
        assert world.provider.knows(await world.access())
        assert world.provider.asked["refresh_token"] == 2

    with_provider(scenario)


def test_what_a_provider_leaves_out_or_changes_is_kept_or_flagged():
    async def scenario(world):
        refresh = await world.imported()
        world.provider.rotates = False
        await world.access()
        assert (await world.stored())["refresh"] == refresh
        world.provider.scope = "read"
        world.clock.advance(3590)
        await world.access()
        assert (await world.status())["scopes_missing"] == ["write"]
        world.provider.rotates, world.provider.scope, world.provider.life = True, None, None
        reply = await world.write("connections/crm/refresh")
        assert (reply.data["expires_in"], reply.data["scopes_missing"]) == (0, [])
        world.provider.extra = {"token_type": "mac"}
        before = await world.stored()
        assert (await refusal(world.write("connections/crm/refresh"))).code == "upstream_unreachable"
        after = await world.stored()
        assert after["access"] == before["access"]
        assert after["refresh"] != before["refresh"], "the old one is used up"
        world.provider.extra = {}
        assert (await world.write("connections/crm/refresh")).data["status"] == "connected"

    with_provider(scenario)


def test_a_client_that_is_refused_is_not_tried_until_it_is_corrected():
    async def scenario(world):
        await world.imported()
        first = await world.access()
        await world.write("connections/crm", client_secret="wrong")
        world.clock.advance(3590)
        assert await world.access() == first
        assert (await world.status())["status"] == "refused"
        world.clock.advance(20)
        for _ in range(5):
            error = await refusal(world.access())
            assert (error.code, "invalid_client" in error.reason) == ("target_failed", True)
        assert world.provider.asked["/token"] == 2
        await world.sweep()
        assert [record.operation for _, record in await journal(world.vault)].count("alarm") == 1
        await world.write("connections/crm", client_secret=CLIENT_SECRET)
        assert world.provider.knows(await world.access())

    with_provider(scenario)


def test_an_answer_that_is_lost_is_asked_for_again_and_the_grace_of_a_provider_is_used():
    async def scenario(world):
        world.provider.grace = True
        await world.imported()
        await world.access()
        world.clock.advance(3610)
        world.provider.lose = True
        assert (await refusal(world.access())).code == "upstream_unreachable"
        world.provider.lose = False
        world.clock.advance(10)
        assert world.provider.knows(await world.access())
        assert (await world.status())["status"] == "connected"

    with_provider(scenario)


def test_without_a_grace_a_lost_answer_takes_consent_and_it_says_so():
    async def scenario(world):
        await world.imported()
        await world.access()
        world.clock.advance(3610)
        world.provider.lose = True
        await refusal(world.access())
        world.provider.lose = False
        world.clock.advance(10)
        error = await refusal(world.access())
        assert error.code == "consent_required"
        assert "after an answer of it was lost" in error.reason
        asked = world.provider.asked["refresh_token"]
        world.clock.advance(10_000)
        assert (await refusal(world.access())).code == "consent_required"
        assert world.provider.asked["refresh_token"] == asked

    with_provider(scenario)


def test_a_device_flow_is_polled_at_its_pace():
    async def scenario(world):
        await world.connection(grant="device_code")
        begun = (await world.write("connections/crm/device")).data
        assert begun["user_code"] == "BDSD-HQMK"
        assert "device_code" not in begun
        [code] = world.provider.devices
        poll = lambda: world.write("connections/crm/device/poll")  # noqa: E731 - said often
        for _ in range(5):
            assert (await poll()).data["status"] == "pending"
        assert world.provider.polls == [], "nobody asks before the interval is over"
        world.clock.advance(1)
        for _ in range(3):
            assert (await poll()).data == {"status": "pending", "retry_in": 1}
        assert len(world.provider.polls) == 1
        world.clock.advance(1)
        world.provider.say = [(400, {}, b'{"error": "slow_down"}')]
        assert (await poll()).data["retry_in"] == 6
        world.clock.advance(5)
        assert (await poll()).data["retry_in"] == 1
        assert len(world.provider.polls) == 1
        assert await refusal(world.write("connections/crm/device/poll", token=await child(world.vault)))
        world.provider.agreed.add(code)
        world.clock.advance(1)
        assert (await poll()).data["status"] == "connected"
        assert world.provider.knows(await world.access())
        assert await refusal(poll())

    with_provider(scenario)


@pytest.mark.parametrize("how", ["cancelled", "removed", "disconnected", "denied", "late"])
def test_a_device_flow_that_has_ended_is_polled_no_more(how):
    async def scenario(world):
        await world.connection(grant="device_code")
        await world.write("connections/crm/device")
        [code] = world.provider.devices
        world.clock.advance(2)
        if how == "cancelled":
            await world.vault.ask("delete", "oauth/connections/crm/device")
        elif how == "removed":
            await world.vault.ask("delete", "oauth/connections/crm")
        elif how == "disconnected":
            await world.write("connections/crm/disconnect")
        elif how == "denied":
            world.provider.say = [(400, {}, b'{"error": "access_denied"}')]
            assert "access_denied" in (await refusal(world.write("connections/crm/device/poll"))).reason
        else:
            world.clock.advance(301)
        world.provider.agreed.add(code)
        assert await refusal(world.write("connections/crm/device/poll"))
        assert world.provider.polls == []

    with_provider(scenario)


def test_a_client_without_a_person_gets_tokens_when_they_are_needed():
    async def scenario(world):
        await world.connection(grant="client_credentials")
        first = await world.access()
        assert (world.provider.knows(first), await world.access() == first) == (True, True)
        world.clock.advance(3590)
        assert await world.access() != first
        assert world.provider.asked["client_credentials"] == 2
        world.clock.advance(3400)
        await world.sweep()
        assert world.provider.asked["client_credentials"] == 3
        await world.vault.ask("delete", "oauth/connections/crm")
        world.clock.advance(10_000)
        await world.sweep()
        assert (await refusal(world.access())).code == "not_found"
        assert world.provider.asked["client_credentials"] == 3

    with_provider(scenario)


def test_a_signed_assertion_is_changed_for_a_token():
    from joserfc import jwt
    from joserfc.jwk import RSAKey

    key = RSAKey.generate_key(2048)
    pem = key.as_pem(private=True).decode()

    async def scenario(world):
        await world.connection(
            grant="jwt_bearer", private_key=pem, subject="ann@example.com", client_secret="", client_auth=""
        )
        assert world.provider.knows(await world.access())
        form = dict(world.provider.forms)["/token"]
        claims = jwt.decode(form["assertion"], key, algorithms=["RS256"]).claims
        assert (claims["iss"], claims["sub"]) == (oauth_provider.CLIENT, "ann@example.com")
        assert claims["aud"] == f"{world.provider.url}/token"
        assert "BEGIN" not in json.dumps(await world.status())
        await world.connection("signed", grant="client_credentials", private_key=pem, client_secret="", client_auth="")
        assert (await world.status("signed"))["client_auth"] == "private_key_jwt"
        assert world.provider.knows(await world.access("signed"))
        assert "client_assertion" in dict(world.provider.forms)["/token"]

    with_provider(scenario)


def test_removing_a_connection_ends_its_tokens_at_the_provider_also_when_it_is_away():
    async def scenario(world):
        await world.imported()
        access = await world.access()
        reply = await world.vault.ask("delete", "oauth/connections/crm")
        assert reply.data["ended_at_provider"]
        assert not world.provider.knows(access)
        await world.imported()
        access = await world.access()
        revoke, world.provider.revoke = world.provider.revoke, lambda _form: (503, {})
        reply = await world.write("connections/crm/disconnect")
        assert "tried again" in reply.warnings[0]
        assert world.provider.knows(access)
        assert (await refusal(world.access())).code == "consent_required", "it is out of use at once"
        world.provider.revoke = revoke
        world.clock.advance(120)
        await world.sweep()
        assert not world.provider.knows(access)

    with_provider(scenario)


def test_a_secret_goes_to_the_place_for_which_it_was_given():
    async def scenario(world):
        await world.imported()
        access = await world.access()
        error = await refusal(world.write("connections/crm", token_url="https://attacker.example/token"))
        assert "client_secret" in error.hint
        assert await world.access() == access
        await world.write("connections/crm", scopes="read")
        assert await world.access() == access
        error = await refusal(
            world.write("connections/crm", token_url=f"{world.provider.url}/other", client_secret=CLIENT_SECRET)
        )
        assert "refresh token" in error.reason, "tokens of one place are not shown to another"

    with_provider(scenario)


def test_a_setting_that_is_changed_during_a_refresh_loses_no_token():
    async def scenario(world):
        await world.imported()
        world.provider.hold, world.provider.held = threading.Event(), threading.Event()
        need = asyncio.create_task(world.access())
        await asyncio.to_thread(world.provider.held.wait, 20)
        await world.write("connections/crm", scopes="read write more")
        world.provider.hold.set()
        assert world.provider.knows(await need)
        world.clock.advance(3600)
        assert world.provider.knows(await world.access())
        assert world.provider.asked["refresh_token"] == 2

    with_provider(scenario)


def test_tokens_that_come_after_the_connection_was_removed_are_ended():
    async def scenario(world):
        await world.imported()
        world.provider.hold, world.provider.held = threading.Event(), threading.Event()
        need = asyncio.create_task(world.access())
        await asyncio.to_thread(world.provider.held.wait, 20)
        await world.vault.ask("delete", "oauth/connections/crm")
        world.provider.hold.set()
        assert (await refusal(need)) is not None
        assert not any(map(world.provider.knows, world.provider.access))

    with_provider(scenario)


def test_who_may_read_a_token_and_nobody_else():
    async def scenario(world):
        await world.imported()
        reader = await policy_token(world.vault, 'path "oauth/token/crm" { capabilities = ["read"] }')
        assert world.provider.knows(await world.access(token=reader))
        other = await policy_token(world.vault, 'path "oauth/connections/*" { capabilities = ["read", "update"] }')
        assert (await refusal(world.access(token=other))).code == "policy_denied"
        assert (await world.read("connections/crm", token=other))["client_secret_set"]
        error = await refusal(
            world.write(
                "connections/crm", token=other, token_url="http://127.0.0.1:1/t", client_secret="x", client_id="y"
            )
        )
        assert error.code == "invalid_request", "addresses of this machine need sudo"

    with_provider(scenario)


def test_no_value_lies_in_clear_or_in_the_journal():
    async def scenario(world):
        refresh = await world.imported()
        access = await world.access()
        world.provider.dead.update(family for family, _ in world.provider.refresh.values())
        world.clock.advance(3700)
        error = await refusal(world.access())
        raw = b"".join(bytes(row.body) for row in await rows(world.vault))
        told = repr([record for _, record in await journal(world.vault)]) + str(error) + repr(await world.status())
        for value in (refresh, access, (await world.stored())["refresh"], CLIENT_SECRET):
            assert value not in told
            assert value.encode() not in raw

    with_provider(scenario)


def test_the_catalog_is_sound():
    from keyhole.engines.oauth.asking import _DEFINITE
    from keyhole.engines.oauth.connection import CLIENT_AUTH
    from keyhole.engines.oauth.providers import known
    from keyhole.net.ask import parse_https

    assert len(known()) >= 25
    for name, provider in known().items():
        urls = provider.urls(dict.fromkeys(provider.parameters, "a.example"))
        assert {"authorize", "token"} <= urls.keys(), name
        for url in (*urls.values(), provider.docs.partition("#")[0]):
            assert parse_https(url).scheme == "https", name
        assert provider.client_auth in CLIENT_AUTH, name
        assert set(provider.errors.values()) <= {"invalid_grant", *_DEFINITE}, name


def test_a_provider_of_the_catalog_is_filled_in_with_its_parameters():
    async def scenario(world):
        keys = (await world.vault.ask("list", "oauth/providers")).data["keys"]
        assert {"google", "microsoft", "github", "slack", "xero"} <= set(keys)
        client = {"client_id": "c", "client_secret": "s"}
        await world.write("connections/ms", provider="microsoft", parameters="tenant=contoso.example", **client)
        shown = await world.status("ms")
        assert shown["token_url"] == "https://login.microsoftonline.com/contoso.example/oauth2/v2.0/token"
        assert shown["client_auth"] == "post"
        await world.write("connections/g", provider="google", scopes="email", **client)
        begun = await world.begin("g")
        assert begun["authorization_url"].startswith(
            "https://accounts.google.com/o/oauth2/v2/auth?access_type=offline&"
        )
        for wrong in (
            {"provider": "nobody"},
            {"provider": "okta"},
            {"provider": "microsoft", "parameters": "tenant=a/../b"},
            {"provider": "google", "parameters": "x=y"},
            {"provider": "google", "client_id": ""},
            {"provider": "google", "grant": "password"},
            {"provider": "google", "grant": "device_code", "client_auth": "private_key_jwt"},
            {},
            {"token_url": "ftp://x"},
            {"authorize_url": "javascript:alert(1)", "token_url": "https://x.example/t"},
        ):
            error = await refusal(world.write("connections/x", **{**client, **wrong}))
            assert (error.code, bool(error.reason)) == ("invalid_request", True), wrong

    with_provider(scenario)


def test_a_due_time_that_is_past_is_moved_on_and_does_not_stay():
    """A process died between noting that somebody wants new tokens now and asking for them."""

    async def scenario(world):
        await world.imported()
        await world.access()
        storage = await storage_of(world.vault, "oauth")
        item = await storage.get_one("t/crm")
        await storage.change([("t/crm", item.data, item.revision, 1.0)])
        await world.sweep()
        store, now = world.vault.node.store, world.vault.vault.clock.now()
        assert not await store.due(now, 10)
        assert world.provider.asked["refresh_token"] == 1

    with_provider(scenario)


ODD = [None, True, 0, -1, 1.5, 10**30, "", "\x00", "\ud800", "a\r\nb: c", "x" * 70_000, [], [[]], ["", 1], {}, {"a": 1}]


def test_odd_fields_are_mistakes_of_whoever_sends_them():
    async def scenario(world):
        await world.connection()
        fields = [*world.provider.settings(), "provider", "parameters", "grant", "private_key", "key_id", "algorithm"]
        fields += ["subject", "audience", "claims", "lifetime", "authorize_params", "token_params", "redirect_uris"]
        fields += ["refresh_token"]
        asked = [("connections/odd", world.provider.settings(), name) for name in fields]
        begin = {"redirect_uri": REDIRECT}
        asked += [("connections/crm/authorize", begin, name) for name in ("redirect_uri", "params")]
        asked += [("callback", {"redirect_uri": REDIRECT}, name) for name in ("url", "state", "code", "iss", "error")]
        for path, sound, name in asked:
            for odd in ODD:
                error = await refusal(world.write(path, **{**sound, name: odd}))
                assert error is None or error.code in {"invalid_request", "target_failed"}, (path, name, repr(odd)[:40])
                assert error is None or (len(str(error)) < 600 and "\ud800" not in str(error)), (path, name)

    with_provider(scenario)
