"""People who log in with a password: the token, the lock, and what a guesser can learn."""

import asyncio
import functools

import pytest

from faces.api_client import enable, play
from keyhole.crypto import kdf
from vault.world import journal

PASSWORD = "canary-password-1b7c"

scene = functools.partial(play, enabled=("sys/auth/userpass",))


async def user(ask, name="ann", **fields):
    made = await ask("POST", f"auth/userpass/users/{name}", {"password": PASSWORD, "token_policies": "app", **fields})
    assert made.status == 204, made.body


async def login(ask, name="ann", password=PASSWORD):
    return await ask("POST", f"auth/userpass/login/{name}", {"password": password}, token=None)


@pytest.fixture
def derived(monkeypatch):
    """The profiles by which passwords were stretched; the work itself is left out."""
    done = []

    def derive(profile, password, salt):
        done.append(profile.name)
        return kdf.hkdf(password, b"test", 32, salt)

    monkeypatch.setattr("keyhole.auth.userpass.kdf.derive", derive)
    return done


def test_a_person_gets_a_token_for_the_password():
    async def scenario(ask, _vault):
        await user(ask, token_ttl="10m")
        auth = (await login(ask, "Ann")).json["auth"]
        assert (auth["policies"], auth["metadata"]) == (["app", "default"], {"username": "ann"})
        assert (auth["lease_duration"], auth["orphan"]) == (600, True)
        assert (await login(ask, password="wrong")).status == 400
        data = (await ask("GET", "auth/userpass/users/ann")).json["data"]
        assert not {"password", "salt", "hash"} & set(data)

    scene(scenario)


def test_an_unknown_name_costs_the_same_work_and_gets_the_same_answer(derived):
    async def scenario(ask, _vault):
        await user(ask)
        answers = []
        for name in ("ann", "nobody", "ann", "Not.A.Name!"):
            derived.clear()
            answer = await login(ask, name, "wrong")
            answers.append((answer.status, answer.body, tuple(derived)))
        assert set(answers) == {(400, b'{"errors":["invalid username or password"]}', (kdf.DEFAULT.name,))}

    scene(scenario)


@pytest.mark.parametrize("name", ["ann", "nobody"])
def test_five_wrong_passwords_lock_a_name_whether_it_exists_or_not(derived, name):
    async def scenario(ask, vault):
        await user(ask)
        now, passed = vault.vault.clock.now, [0]
        vault.vault.clock.now = lambda: now() + passed[0]
        guesses = await asyncio.gather(*(login(ask, name, f"guess {n}") for n in range(12)))
        assert sorted(g.status for g in guesses) == [400] * 5 + [403] * 7
        derived.clear()
        assert ((await login(ask, name)).status, derived) == (403, [])
        passed[0] = 901
        assert (await login(ask, name)).status == (200 if name == "ann" else 400)

    scene(scenario)


def test_a_good_login_and_a_new_password_open_the_lock_again(derived):
    async def scenario(ask, _vault):
        await user(ask)
        for _ in range(3):
            for _ in range(4):
                assert (await login(ask, password="wrong")).status == 400
            assert (await login(ask)).status == 200
        for _ in range(6):
            last = await login(ask, password="wrong")
        assert last.status == 403
        assert (await ask("POST", "auth/userpass/users/ann/password", {"password": "new"})).status == 204
        assert (await login(ask, password="new")).status == 200
        assert derived

    scene(scenario)


def test_too_many_waiting_logins_are_turned_away(derived):
    async def scenario(ask, _vault):
        answers = await asyncio.gather(*(login(ask, f"user{n}") for n in range(60)))
        statuses = [a.status for a in answers]
        assert set(statuses) == {400, 429}
        assert statuses.count(400) == len(derived)

    scene(scenario)


def test_users_are_listed_changed_and_deleted(derived):
    async def scenario(ask, _vault):
        assert (await ask("LIST", "auth/userpass/users")).status == 404
        assert (await ask("POST", "auth/userpass/users/ann", {})).status == 400
        await user(ask)
        assert (await ask("POST", "auth/userpass/users/ann", {"token_ttl": 60})).status == 204
        assert (await login(ask)).json["auth"]["lease_duration"] == 60
        assert (await ask("POST", "auth/userpass/users/ann/policies", {"token_policies": "b"})).status == 204
        assert (await login(ask)).json["auth"]["policies"] == ["b", "default"]
        assert (await ask("POST", "auth/userpass/users/none/password", {"password": "x"})).status == 400
        assert (await ask("POST", "auth/userpass/users/owner", {"password": "x"})).status == 400
        assert (await ask("LIST", "auth/userpass/users")).json["data"]["keys"] == ["ann"]
        assert (await ask("DELETE", "auth/userpass/users/ann")).status == 204
        assert (await login(ask)).status == 400
        assert derived

    scene(scenario)


def test_settings_under_their_older_names_are_read_under_both(derived):
    async def scenario(ask, _vault):
        async def read():
            return (await ask("GET", "auth/userpass/users/ann")).json["data"]

        await ask("POST", "auth/userpass/users/ann", {"password": PASSWORD, "policies": "app", "ttl": "10s"})
        shown = await read()
        assert (shown["policies"], shown["token_policies"]) == (["app"], ["app"])
        assert (shown["ttl"], shown["token_ttl"], "max_ttl" in shown) == (10, 10, False)
        await ask("POST", "auth/userpass/users/ann", {"token_policies": "other"})
        shown = await read()
        assert (shown["token_policies"], shown["ttl"], "policies" in shown) == (["other"], 10, False)

    scene(scenario)


def test_an_org_that_is_not_there_answers_as_one_that_is(derived):
    async def scenario(ask, _vault):
        made = await ask("POST", "sys/namespaces/acme", {})
        await enable(ask, "sys/auth/userpass", token=made.json["data"]["root_token"])
        await ask("POST", "sys/namespaces/bare", {})
        seen = []
        for org in (b"acme", b"bare", b"nowhere"):
            derived.clear()
            headers = [(b"x-vault-namespace", org)]
            body = {"password": "wrong"}
            tries = [await ask("POST", "auth/userpass/login/ann", body, token=None, headers=headers) for _ in range(7)]
            seen.append(([(t.status, t.body) for t in tries], len(derived)))
        assert seen[0] == seen[1] == seen[2]
        assert seen[0][0][-1][0] == 403

    scene(scenario)


def test_passwords_are_in_no_record():
    async def scenario(ask, vault):
        await user(ask)
        await login(ask)
        await login(ask, password="canary-wrong-22")
        records = [record for _, record in await journal(vault)]
        logins = [r for r in records if r.path == "auth/userpass/login/ann"]
        assert [r.caller for r in logins] == ["user/ann", "user/ann", ""]
        assert "canary" not in repr(records)

    scene(scenario)
