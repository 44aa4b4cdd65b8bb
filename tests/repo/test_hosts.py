"""The hosts of a group count where its secrets are lent: for who binds a service, at each use, and in `why`."""

from __future__ import annotations

import pytest

from keyhole.core.errors import InvalidRequest, PolicyDenied
from keyhole.core.inject import KINDS
from keyhole.core.minted import ENDPOINTS
from keyhole.core.service import Service
from keyhole.repo import changes
from keyhole.repo.ruling import limit_hosts
from repo.mounted import play, with_key
from repo.test_opaque import Opaque
from repo.world import CANARY, Folder
from vault.world import SERVICE, agent, refusal, use

PATH = "/team/data/stripe/key"


@pytest.fixture(params=[Folder, Opaque])
def world(tmp_path, monkeypatch, request):
    return with_key(request.param, tmp_path, monkeypatch)


def service(*hosts, **more):
    return {**SERVICE, "hosts": list(hosts), "secret": PATH, **more}


def test_a_service_for_another_host_is_refused_when_it_is_made_and_names_the_hosts(world):
    world.do(limit_hosts, "stripe", ["api.stripe.com"])

    async def scenario(vault):
        for hosts in (["evil.example"], ["api.stripe.com", "evil.example"], ["*.stripe.com"], ["api.stripe.com:8443"]):
            error = await refusal(vault.ask("update", "services/pay", service(*hosts)))
            assert isinstance(error, PolicyDenied)
            assert "api.stripe.com alone" in error.reason
            assert CANARY not in str(error)
        await vault.ask("update", "services/pay", service("api.stripe.com"))
        token = await agent(vault, services=["pay"])
        assert (await use(vault, "services/pay", token)).lent["value"].reveal().decode() == CANARY

    play(world, scenario)


def test_a_limit_that_comes_later_counts_from_the_next_use_and_why_says_so(world):
    async def scenario(vault):
        await vault.ask("update", "services/pay", service("evil.example"))
        token = await agent(vault, services=["pay"])
        assert (await use(vault, "services/pay", token)).lent
        world.do(limit_hosts, "stripe", ["*.stripe.com"])
        error = await refusal(use(vault, "services/pay", token))
        assert isinstance(error, PolicyDenied)
        assert "sends it to evil.example" in error.reason
        world.do(limit_hosts, "stripe", [])
        assert (await use(vault, "services/pay", token)).lent

    play(world, scenario)


def test_a_token_endpoint_is_a_host_to_which_the_secret_goes(world):
    world.do(limit_hosts, "stripe", ["api.stripe.com"])
    inject = {"kind": "client-credentials", "token_url": "https://evil.example/token", "client_id": "me"}

    async def scenario(vault):
        error = await refusal(vault.ask("update", "services/pay", service("api.stripe.com", inject=inject)))
        assert isinstance(error, PolicyDenied)
        assert "evil.example" in error.reason

    play(world, scenario)


def takes(option, text):
    try:
        option.read(text)
    except InvalidRequest:
        return False
    return True


def test_every_option_of_an_injection_that_is_a_url_is_judged_as_a_destination():
    urls = {
        option.name
        for kind in KINDS.values()
        for option in kind.options
        if takes(option, "https://login.example/token") and not takes(option, "http://login.example/token")
    }
    assert urls == set(ENDPOINTS)


def test_a_secret_of_two_groups_may_go_where_both_let_it(world):
    world.set("stripe/key", groups=("stripe", "other"))
    world.do(limit_hosts, "stripe", ["api.stripe.com", "hooks.example"])
    world.do(limit_hosts, "other", ["api.stripe.com"])

    async def scenario(vault):
        assert isinstance(await refusal(vault.ask("update", "services/pay", service("hooks.example"))), PolicyDenied)
        await vault.ask("update", "services/pay", service("api.stripe.com"))

    play(world, scenario)


def test_a_mount_with_the_key_of_nobody_lends_nothing_of_a_vault_that_hides_names(world):
    world.do(limit_hosts, "stripe", ["api.stripe.com"])
    member = world.add("ann", "stripe")

    async def scenario(vault):
        await vault.ask("update", "services/pay", service("api.stripe.com"))
        token = await agent(vault, services=["pay"])
        world.do(changes.take_out, "ann")
        config = {"path": str(world.root), "key": member.to_text()}
        await vault.ask("update", "team/config", config)
        assert (await refusal(use(vault, "services/pay", token))) is not None

    play(world, scenario)


@pytest.mark.parametrize(
    ("hosts", "limits", "beyond"),
    [
        (["a.example"], (), ""),
        (["a.example"], (("a.example",),), ""),
        (["a.example:444"], (("a.example",),), "a.example:444"),
        (["a.example:444"], (("a.example:444",),), ""),
        (["x.a.example"], (("*.a.example",),), ""),
        (["*.a.example"], (("*.a.example",),), ""),
        (["*.a.example"], (("x.a.example",),), "*.a.example:443"),
        (["a.example"], (("*.a.example",),), "a.example:443"),
        (["a.example"], ((),), "a.example:443"),
        (["a.example"], (("not a host",),), "a.example:443"),
        (["a.example"], (("a.example",), ("b.example",)), "a.example:443"),
    ],
)
def test_what_lies_beyond_the_limits(hosts, limits, beyond):
    found = Service.from_data("x", {**SERVICE, "hosts": hosts}).beyond(limits)
    assert found == beyond
