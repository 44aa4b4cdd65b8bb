"""One-time passwords for SSH: for one login, at one host, as one user, and no longer than their lease."""

import asyncio

import pytest

from engines.mounting import mount, storage_of
from engines.transit_world import clear
from keyhole.testing import FrozenClock
from vault.world import Place, child, journal, play, refusal, rows

ROLE = {
    "key_type": "otp",
    "default_user": "ubuntu",
    "cidr_list": "10.0.0.0/8, fd00::/8",
    "exclude_cidr_list": "10.9.0.0/16",
}


def with_ssh(scenario, **options):
    clock = FrozenClock()

    async def wrapped(vault):
        await mount(vault, "ssh", "ssh")
        await ask(vault, "roles/web", **ROLE, allowed_users="ubuntu,deploy")
        await scenario(vault, clock)

    play(wrapped, clock=clock, **options)


async def ask(vault, path, *, token=None, **data):
    return clear((await vault.ask("update", f"ssh/{path}", data, token=token)).data)


def test_a_password_is_good_for_one_login():
    async def scenario(vault, _clock):
        made = await vault.ask("update", "ssh/creds/web", {"ip": "10.0.0.7"})
        data = clear(made.data)
        password = data.pop("key")
        assert data == {"ip": "10.0.0.7", "key_type": "otp", "port": 22, "username": "ubuntu"}
        assert password not in repr(made)
        assert (made.lease.id.startswith("ssh/creds/web/"), made.lease.renewable) == (True, False)
        told = await asyncio.gather(*(ask(vault, "verify", otp=password) for _ in range(10)), return_exceptions=True)
        good = [each for each in told if isinstance(each, dict)]
        assert good == [{"ip": "10.0.0.7", "role_name": "web", "username": "ubuntu"}]
        assert {str(each.reason) for each in told if not isinstance(each, dict)} == {"OTP not found"}
        raw = b"".join(bytes(row.body) for row in await rows(vault))
        assert password.encode() not in raw
        assert not any(password in repr(record) for _, record in await journal(vault))

    with_ssh(scenario)


def test_a_password_ends_with_its_lease_its_token_and_its_time():
    async def scenario(vault, clock):
        made = await vault.ask("update", "ssh/creds/web", {"ip": "10.0.0.7"})
        await vault.ask("update", "sys/leases/revoke", {"lease_id": made.lease.id, "sync": True})
        assert (await refusal(ask(vault, "verify", otp=clear(made.data)["key"]))).reason == "OTP not found"
        token = await child(vault, policies=["root"])
        password = (await ask(vault, "creds/web", ip="10.0.0.7", token=token))["key"]
        await vault.ask("update", "auth/token/revoke", {"token": token})
        await vault.node.sweep()
        await vault.vault.expiry.drain()
        assert (await refusal(ask(vault, "verify", otp=password))).reason == "OTP not found"
        password = (await ask(vault, "creds/web", ip="10.0.0.7"))["key"]
        await ask(vault, "creds/web", ip="10.0.0.8")
        clock.advance(2_764_800)
        assert (await refusal(ask(vault, "verify", otp=password))).reason == "OTP not found"
        storage = await storage_of(vault, "ssh")
        assert await storage.list("o")
        await vault.node.sweep()
        await vault.vault.expiry.drain()
        assert await storage.list("o") == []

    with_ssh(scenario)


@pytest.mark.parametrize(
    ("data", "good"),
    [
        ({"ip": "10.255.255.255"}, True),
        ({"ip": "fd00::7"}, True),
        ({"ip": "10.9.1.1"}, False),
        ({"ip": "11.0.0.1"}, False),
        ({"ip": "::ffff:10.0.0.7"}, False),
        ({"ip": "fd00::1%eth0"}, False),
        ({"ip": "host.example.com"}, False),
        ({"ip": ""}, False),
        ({}, False),
        ({"ip": "10.0.0.7", "username": "deploy"}, True),
        ({"ip": "10.0.0.7", "username": "root"}, False),
        ({"ip": "10.0.0.7", "username": "Deploy"}, False),
    ],
)
def test_addresses_and_users_are_those_of_the_role(data, good):
    async def scenario(vault, _clock):
        error = await refusal(ask(vault, "creds/web", **data))
        assert (error is None) == good
        assert good or error.code == "invalid_request"

    with_ssh(scenario)


def test_a_role_without_blocks_is_for_no_address_unless_it_is_for_every():
    async def scenario(vault, _clock):
        await ask(vault, "roles/open", key_type="otp", default_user="root", cidr_list="", allowed_users="")
        assert (await refusal(ask(vault, "creds/open", ip="1.2.3.4"))).reason.endswith("IP does not belong to role")
        assert (await refusal(vault.ask("read", "ssh/config/zeroaddress"))).code == "not_found"
        await ask(vault, "config/zeroaddress", roles="open")
        assert (await vault.ask("read", "ssh/config/zeroaddress")).data == {"roles": ["open"]}
        assert (await ask(vault, "creds/open", ip="1.2.3.4", username="root"))["ip"] == "1.2.3.4"
        assert await ask(vault, "lookup", ip="10.0.0.7") == {"roles": ["open", "web"]}
        assert await ask(vault, "lookup", ip="1.2.3.4") == {"roles": ["open"]}
        await ask(
            vault, "roles/all", key_type="otp", default_user="root", cidr_list="::/0", exclude_cidr_list="10.9.0.0/16"
        )
        assert await refusal(ask(vault, "creds/all", ip="::ffff:10.9.0.1"))
        await vault.ask("delete", "ssh/roles/open")
        await ask(vault, "roles/open", key_type="otp", default_user="root", cidr_list="", allowed_users="")
        assert await refusal(ask(vault, "creds/open", ip="1.2.3.4")), "the role is another one"
        await ask(vault, "config/zeroaddress", roles="open")
        for odd in ("none", "", ["web", "none"]):
            assert (await refusal(ask(vault, "config/zeroaddress", roles=odd))).code == "invalid_request"
        await vault.ask("delete", "ssh/config/zeroaddress")
        assert (await refusal(ask(vault, "creds/open", ip="1.2.3.4"))).code == "invalid_request"
        assert (await vault.ask("read", "ssh/roles/open")).data == {
            "allowed_users": "",
            "cidr_list": "",
            "default_user": "root",
            "exclude_cidr_list": "",
            "key_type": "otp",
            "port": 22,
        }

    with_ssh(scenario)


def test_a_helper_at_a_host_can_try_its_way_here():
    async def scenario(vault, _clock):
        assert await ask(vault, "verify", otp="verify-echo-request") == {"message": "verify-echo-response"}
        for odd in ("", None, 5, "x" * 5000, "\x00", "é"):
            assert (await refusal(ask(vault, "verify", otp=odd))).code == "invalid_request"

    with_ssh(scenario)


@pytest.mark.parametrize(
    "change",
    [{"default_user": ""}, {"cidr_list": "10.0.0.300/8"}, {"port": 70000}, {"port": "x"}],
)
def test_an_odd_role_is_a_bad_request(change):
    async def scenario(vault, _clock):
        assert (await refusal(ask(vault, "roles/new", **{**ROLE, **change}))).code == "invalid_request"

    with_ssh(scenario)


def test_a_role_of_the_other_kind_gives_nothing():
    async def scenario(vault, _clock):
        await ask(vault, "roles/ca", key_type="ca", allow_user_certificates=True)
        assert (await refusal(ask(vault, "creds/ca", ip="10.0.0.7"))).code == "invalid_request"
        assert (await refusal(ask(vault, "creds/none", ip="10.0.0.7"))).code == "invalid_request"
        assert (await refusal(ask(vault, "sign/web", public_key="x"))).code == "invalid_request"

    with_ssh(scenario)


def test_a_password_that_was_used_stays_used_after_a_restart(tmp_path):
    place, made = Place(tmp_path), []

    async def before(vault):
        await mount(vault, "ssh", "ssh")
        await ask(vault, "roles/web", **ROLE)
        made.extend([(await ask(vault, "creds/web", ip="10.0.0.7"))["key"] for _ in range(2)])
        await ask(vault, "verify", otp=made[0])

    async def after(vault):
        assert (await refusal(ask(vault, "verify", otp=made[0]))).reason == "OTP not found"
        assert (await ask(vault, "verify", otp=made[1]))["username"] == "ubuntu"

    place.play(before)
    place.play(after)
