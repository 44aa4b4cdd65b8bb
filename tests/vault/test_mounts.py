"""Mounts: made, tuned, moved and removed in one org, at once everywhere, with what they held."""

import asyncio

import pytest

from keyhole.core.errors import InvalidRequest, NotFound, PolicyDenied, Unauthenticated
from keyhole.core.path import OWN
from keyhole.vault.sys import unmounting
from vault.world import Place, agent, org, play, policy_token, refusal, stripe, use


async def enable(vault, path, kind, token=None, **fields):
    await vault.ask("update", path, {"type": kind, **fields}, token=token)


async def table(vault, token=None):
    data = (await vault.ask("read", "sys/mounts", token=token)).data
    data |= {f"auth/{path}": each for path, each in (await vault.ask("read", "sys/auth", token=token)).data.items()}
    return data


async def login(vault, path="auth/people", **options):
    return (await vault.ask("update", f"{path}/login/ann", {"password": "x"}, token=b"", **options)).auth


async def people(vault, path="people", token=None, **config):
    """A user, and the id of the mount."""
    await enable(vault, f"sys/auth/{path}", "userpass", token, config=config)
    await vault.ask("update", f"auth/{path}/users/ann", {"password": "x"}, token=token)
    return (await table(vault, token))[f"auth/{path}/"]["uuid"]


def test_a_new_org_has_the_standard_mounts_and_no_other():
    async def scenario(vault):
        other = await org(vault, "acme")
        mine, theirs = await table(vault), await table(vault, other)
        standard = {"sys/", "secret/", "services/", "cubbyhole/", "agents/", "approvals/", "auth/token/", "tools/"}
        assert standard <= mine.keys() == theirs.keys()
        assert mine["secret/"]["options"] == {"version": "2"}
        for path in mine:  # nothing that one org is told names a thing of the other
            assert mine[path]["accessor"] != theirs[path]["accessor"]
            assert mine[path]["uuid"] != theirs[path]["uuid"]

    play(scenario)


def test_what_keyhole_answers_by_itself_is_known_by_its_paths():
    async def scenario(vault):
        assert {mount.path.partition("/")[0] for mount in vault.vault.tables.fixed} == OWN

    play(scenario)


def test_a_mount_answers_in_its_org_only():
    async def scenario(vault):
        acme = await org(vault, "acme")
        await enable(vault, "sys/mounts/team/keys", "transit", acme)
        await vault.ask("update", "team/keys/keys/k", token=acme)
        assert (await vault.ask("list", "team/keys/keys", token=acme)).data == {"keys": ["k"]}
        assert isinstance(await refusal(vault.ask("list", "team/keys/keys")), NotFound)
        assert "team/keys/" not in await table(vault)
        assert isinstance(await refusal(vault.ask("read", "sys/mounts/team/keys")), InvalidRequest)

    play(scenario)


def test_a_change_holds_for_the_next_request_on_another_node(tmp_path):
    place = Place(tmp_path)

    async def main():
        async with place.open() as here, place.open() as there:
            await enable(here, "sys/mounts/a", "transit")
            await there.ask("update", "a/keys/k")
            await there.ask("update", "sys/remount", {"from": "a", "to": "b"})
            assert (await here.ask("list", "b/keys")).data["keys"] == ["k"]
            await there.ask("delete", "sys/mounts/b")
            assert isinstance(await refusal(here.ask("list", "b/keys")), NotFound)
        async with place.open() as again:
            assert "b/" not in await table(again)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("path", "kind", "words"),
    [
        ("sys/mounts/secret", "kv", "path is already in use at secret/"),
        ("sys/mounts/secret/below", "kv", "path is already in use at secret/"),
        ("sys/mounts/team", "kv", "path is already in use at team/keys/"),
        ("sys/mounts/services", "kv", "path is already in use at services/"),
        ("sys/mounts/sys/x", "kv", 'cannot mount "sys/x/"'),
        ("sys/mounts/auth/x", "kv", 'cannot mount "auth/x/"'),
        ("sys/mounts/x", "nosuch", "plugin not found in the catalog: nosuch"),
        ("sys/mounts/x", "approle", "plugin not found in the catalog: approle"),
        ("sys/mounts/x", "cubbyhole", 'mount type of "cubbyhole" is not mountable'),
        ("sys/mounts/x", "", "backend type must be specified as a string"),
        ("sys/auth/token", "userpass", "path is already in use at token/"),
        ("sys/auth/x", "token", "token credential backend cannot be instantiated"),
        ("sys/auth/x", "kv", "plugin not found in the catalog: kv"),
    ],
)
def test_what_cannot_be_mounted_is_refused_in_vaults_words(path, kind, words):
    async def scenario(vault):
        await enable(vault, "sys/mounts/team/keys", "transit")
        before = await table(vault)
        error = await refusal(enable(vault, path, kind))
        assert (error.status, error.reason) == (400, words)
        assert await table(vault) == before

    play(scenario)


@pytest.mark.parametrize(
    "fields",
    [
        {"config": "x"},
        {"config": {"default_lease_ttl": "2h", "max_lease_ttl": "1h"}},
        {"config": {"default_lease_ttl": "9999h"}},
        {"config": {"listing_visibility": "all"}},
        {"config": {"audit_non_hmac_request_keys": [1]}},
        {"options": ["version"]},
        {"options": {"version": {}}},
        {"description": 7},
        {"description": "x" * 1025},
    ],
)
def test_a_setting_that_is_wrong_makes_no_mount(fields):
    async def scenario(vault):
        assert isinstance(await refusal(enable(vault, "sys/mounts/x", "kv", **fields)), InvalidRequest)
        assert "x/" not in await table(vault)

    play(scenario)


def test_two_that_would_lie_within_each_other_are_not_made_at_once():
    async def scenario(vault):
        paths = ("a/b", "a", "a/b/c", "a")
        done = await asyncio.gather(*(refusal(enable(vault, f"sys/mounts/{p}", "transit")) for p in paths))
        assert done.count(None) == 1
        assert sum(path.startswith("a/") for path in await table(vault)) == 1

    play(scenario)


def test_a_move_keeps_what_the_mount_holds_and_its_accessor():
    async def scenario(vault):
        await enable(vault, "sys/mounts/a", "transit")
        await vault.ask("update", "a/keys/k")
        before = (await table(vault))["a/"]
        moved = await vault.ask("update", "sys/remount", {"from": "a/", "to": "deep/b"})
        status = await vault.ask("read", f"sys/remount/status/{moved.data['migration_id']}")
        info = {"source_mount": "a/", "target_mount": "deep/b/", "status": "success"}
        assert status.data["migration_info"] == info
        after = await table(vault)
        assert (after["deep/b/"], "a/" in after) == (before, False)
        assert (await vault.ask("list", "deep/b/keys")).data["keys"] == ["k"]
        await vault.ask("update", "sys/remount", {"from": "deep/b", "to": "deep"})
        assert (await vault.ask("list", "deep/keys")).data["keys"] == ["k"]

    play(scenario)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("none", "b"),
        ("sys", "b"),
        ("auth/token", "auth/b"),
        ("services", "b"),
        ("a", "secret"),
        ("a", "secret/x"),
        ("a", "sys/x"),
        ("a", "auth/x"),
        ("auth/people", "x"),
        ("auth/people", "auth"),
        ("auth/people", "auth/token"),
        ("a", ""),
        ("a", None),
    ],
)
def test_a_move_to_where_nothing_can_be_is_refused(source, target):
    async def scenario(vault):
        await enable(vault, "sys/mounts/a", "transit")
        await people(vault)
        before = await table(vault)
        assert isinstance(
            await refusal(vault.ask("update", "sys/remount", {"from": source, "to": target})), InvalidRequest
        )
        assert await table(vault) == before

    play(scenario)


def test_a_removed_mount_leaves_nothing_and_a_new_one_begins_empty():
    async def scenario(vault):
        await enable(vault, "sys/mounts/a", "transit")
        await vault.ask("update", "a/keys/k")
        mount = (await table(vault))["a/"]["uuid"]
        below = f"{vault.vault.root_org}/{mount}/"
        assert await vault.node.store.list(below)
        await vault.ask("delete", "sys/mounts/a")
        await vault.ask("delete", "sys/mounts/a")
        assert not await vault.node.store.list(below)
        await enable(vault, "sys/mounts/a", "transit")
        assert isinstance(await refusal(vault.ask("list", "a/keys")), NotFound)

    play(scenario)


@pytest.mark.parametrize("path", ["sys/mounts/sys", "sys/mounts/cubbyhole", "sys/mounts/services", "sys/auth/token"])
def test_what_every_org_has_cannot_be_removed(path):
    async def scenario(vault):
        assert isinstance(await refusal(vault.ask("delete", path)), InvalidRequest)

    play(scenario)


def test_a_removal_that_was_cut_off_is_ended_by_the_sweep(monkeypatch):
    async def scenario(vault):
        mount = await people(vault)
        token = (await login(vault))["client_token"]

        async def cut(*_):
            raise RuntimeError("the process dies here")

        with monkeypatch.context() as patched:
            patched.setattr(unmounting, "end_tokens_where", cut)
            assert (await refusal(vault.ask("delete", "sys/auth/people"))).code == "internal"
        assert "auth/people/" not in await table(vault)
        assert isinstance(await refusal(vault.ask("list", "auth/people/users")), NotFound)
        await vault.node.sweep()
        with pytest.raises(Unauthenticated):
            await vault.ask("read", "auth/token/lookup-self", token=token)
        assert not await vault.node.store.list(f"{vault.vault.root_org}/{mount}/")
        assert not (await vault.vault.tables.read(vault.vault.root_org)).going

    play(scenario)


def test_a_removed_login_method_takes_its_tokens_along_and_no_others():
    async def scenario(vault):
        await people(vault)
        await people(vault, "others")
        token, other = [(await login(vault, path))["client_token"] for path in ("auth/people", "auth/others")]
        child = (await vault.ask("update", "auth/token/create", {"policies": ["default"]})).auth["client_token"]
        await vault.ask("update", "sys/remount", {"from": "auth/people", "to": "auth/moved"})
        assert (await vault.ask("read", "auth/token/lookup-self", token=token)).data["path"] == "auth/people/login"
        await vault.ask("delete", "sys/auth/moved")
        with pytest.raises(Unauthenticated):
            await vault.ask("read", "auth/token/lookup-self", token=token)
        for alive in (other, child):
            await vault.ask("read", "auth/token/lookup-self", token=alive)

    play(scenario)


def test_tokens_of_a_login_live_as_its_mount_says():
    async def scenario(vault):
        await people(vault, default_lease_ttl="1h", max_lease_ttl="2h")
        assert (await login(vault))["lease_duration"] == 3600
        await vault.ask("update", "auth/people/users/ann", {"token_ttl": "3h"})
        assert (await login(vault))["lease_duration"] == 7200
        await vault.ask("update", "sys/auth/people/tune", {"max_lease_ttl": "4h"})
        token = await login(vault)
        assert token["lease_duration"] == 10_800
        tuned = (await vault.ask("read", "sys/auth/people/tune")).data
        assert (tuned["default_lease_ttl"], tuned["max_lease_ttl"], tuned["token_type"]) == (
            3600,
            14_400,
            "default-service",
        )

    play(scenario)


@pytest.mark.parametrize(
    ("tuned", "said", "given"),
    [
        ("default-service", "default", "service"),
        ("default-service", "batch", "batch"),
        ("default-batch", "default", "batch"),
        ("default-batch", "service", "service"),
        ("service", "batch", "service"),
        ("batch", "service", "batch"),
    ],
)
def test_tokens_of_a_login_are_of_the_type_that_mount_and_role_say(tuned, said, given):
    async def scenario(vault):
        await people(vault)
        await vault.ask("update", "sys/auth/people/tune", {"token_type": tuned})
        await vault.ask("update", "auth/people/users/ann", {"token_type": said})
        made = await login(vault)
        assert made["token_type"] == given
        assert (await vault.ask("read", "auth/token/lookup-self", token=made["client_token"])).data["type"] == given
        await vault.ask("delete", "sys/auth/people")
        with pytest.raises(Unauthenticated):
            await vault.ask("read", "auth/token/lookup-self", token=made["client_token"])

    play(scenario)


def test_a_limit_that_a_batch_token_cannot_keep_is_refused():
    async def scenario(vault):
        await people(vault)
        user = "auth/people/users/ann"
        for fields in ({"token_num_uses": 1}, {"token_period": "1h"}):
            assert isinstance(
                await refusal(vault.ask("update", user, {"token_type": "batch", **fields})), InvalidRequest
            )
        await vault.ask("update", user, {"token_num_uses": 3})
        await vault.ask("update", "sys/auth/people/tune", {"token_type": "batch"})
        assert isinstance(await refusal(login(vault)), InvalidRequest)

    play(scenario)


def test_tokens_of_tokens_live_as_their_mount_says():
    async def scenario(vault):
        await vault.ask("update", "sys/auth/token/tune", {"default_lease_ttl": "1h", "max_lease_ttl": "2h"})
        made = await vault.ask("update", "auth/token/create", {"policies": ["default"]})
        assert (made.auth["lease_duration"], made.warnings) == (3600, [])
        made = await vault.ask("update", "auth/token/create", {"policies": ["default"], "ttl": "9h"})
        assert made.auth["lease_duration"] == 7200
        assert made.warnings

    play(scenario)


def test_tuning_says_what_it_changes_and_keeps_the_rest():
    async def scenario(vault):
        await enable(vault, "sys/mounts/a", "transit", description="d", config={"max_lease_ttl": "1h"})
        await vault.ask("update", "sys/mounts/a/tune", {"audit_non_hmac_request_keys": "x,y"})
        tuned = (await vault.ask("read", "sys/mounts/a/tune")).data
        assert tuned["audit_non_hmac_request_keys"] == ["x", "y"]
        assert (tuned["description"], tuned["default_lease_ttl"], tuned["max_lease_ttl"]) == ("d", 3600, 3600)
        await vault.ask("update", "sys/mounts/a/tune", {"description": "", "max_lease_ttl": "system"})
        tuned = (await vault.ask("read", "sys/mounts/a/tune")).data
        assert (tuned["description"], tuned["max_lease_ttl"]) == ("", 2_764_800)
        for path, data in (
            ("sys/mounts/none/tune", {"description": "x"}),
            ("sys/mounts/a/tune", {"token_type": "service"}),
            ("sys/mounts/secret/tune", {"options": {"version": "1"}}),
        ):
            assert isinstance(await refusal(vault.ask("update", path, data)), InvalidRequest)
        await vault.ask("update", "sys/mounts/secret/tune", {"options": {"version": 2}, "description": "ours"})
        assert (await table(vault))["secret/"]["description"] == "ours"
        await vault.ask("update", "sys/mounts/services/tune", {"description": "bindings"})
        assert (await table(vault))["services/"]["description"] == "bindings"

    play(scenario)


def test_secrets_stay_where_they_are_and_services_lend_nothing_without_them():
    async def scenario(vault):
        await vault.ask("update", "secret/data/x", {"data": {"value": "v"}})
        await enable(vault, "sys/mounts/more", "transit")
        assert await vault.get("secret/data/x")
        await vault.ask("delete", "sys/mounts/secret")
        assert isinstance(await refusal(vault.ask("read", "secret/data/x")), NotFound)
        await enable(vault, "sys/mounts/secret", "kv-v2")
        assert isinstance(await refusal(vault.ask("read", "secret/data/x")), NotFound)

    play(scenario)


def test_login_methods_are_made_with_sudo_and_engines_without():
    async def scenario(vault):
        plain = 'path "sys/*" { capabilities = ["create", "read", "update", "delete", "list"] }'
        token = await policy_token(vault, plain)
        await enable(vault, "sys/mounts/a", "transit", token)
        for operation, path in (("update", "sys/auth/x"), ("read", "sys/auth/token/tune"), ("delete", "sys/auth/x")):
            assert isinstance(
                await refusal(vault.ask(operation, path, {"type": "userpass"}, token=token)), PolicyDenied
            )
        assert isinstance(
            await refusal(vault.ask("update", "sys/remount", {"from": "a", "to": "b"}, token=token)), PolicyDenied
        )
        assert (await vault.ask("read", "sys/auth", token=token)).data

    play(scenario)


def test_who_has_no_right_at_a_mount_learns_nothing_of_it():
    async def scenario(vault):
        await enable(vault, "sys/mounts/a", "transit")
        await enable(vault, "sys/auth/people", "userpass", config={"listing_visibility": "unauth"})
        token = await policy_token(vault, 'path "a/keys/k" { capabilities = ["read"] }')
        seen = (await vault.ask("read", "sys/internal/ui/mounts", token=token)).data
        assert (seen["secret"]["a/"]["type"], "secret/" in seen["secret"]) == ("transit", False)
        assert (await vault.ask("read", "sys/internal/ui/mounts/a/keys/other", token=token)).data["path"] == "a/"
        for path in ("secret/data/x", "none/x"):
            refused = await refusal(vault.ask("read", f"sys/internal/ui/mounts/{path}", token=token))
            assert refused.reason.startswith("preflight capability check returned 403")
        public = {"people/": {"type": "userpass", "description": "", "options": None}}
        for stranger in (b"", b"hvs.unknown"):
            open_to_all = (await vault.ask("read", "sys/internal/ui/mounts", token=stranger)).data
            assert open_to_all == {"auth": public, "secret": {}}
        await org(vault, "acme")
        for name in ("acme", "nowhere"):
            nothing = (await vault.ask("read", "sys/internal/ui/mounts", token=b"", org=name)).data
            assert nothing == {"auth": {}, "secret": {}}

    play(scenario)


def test_paths_below_auth_answer_strangers_alike_whether_something_is_mounted_or_not():
    async def scenario(vault):
        acme = await org(vault, "acme")
        await org(vault, "bare")
        await enable(vault, "sys/auth/approle", "approle", acme)
        told = set()
        for name in ("acme", "bare", "nowhere"):
            ids = {"role_id": "x", "secret_id": "y"}
            error = await refusal(vault.ask("update", "auth/approle/login", ids, token=b"", org=name))
            told.add((type(error), error.status, str(error)))
        assert len(told) == 1
        error = await refusal(vault.ask("update", "auth/approle/login", {"role_id": "x", "secret_id": "y"}))
        assert isinstance(error, NotFound)  # the administrator is told what is wrong

    play(scenario)


def test_a_catalog_says_what_can_be_mounted():
    async def scenario(vault):
        catalog = (await vault.ask("read", "sys/plugins/catalog")).data
        assert {"kv", "transit"} <= set(catalog["secret"])
        assert {"approle", "userpass"} <= set(catalog["auth"])
        for kind, names in (("secret", catalog["secret"]), ("auth", catalog["auth"])):
            assert (await vault.ask("list", f"sys/plugins/catalog/{kind}")).data["keys"] == names
            for name in names:
                assert (await vault.ask("read", f"sys/plugins/catalog/{kind}/{name}")).data["builtin"] is True
        assert isinstance(await refusal(vault.ask("read", "sys/plugins/catalog/secret/none")), NotFound)
        assert isinstance(await refusal(vault.ask("update", "sys/plugins/catalog/secret/x", {})), NotFound)

    play(scenario)


def test_a_login_that_is_under_way_while_its_method_goes_gives_a_token_that_is_good_for_nothing(monkeypatch):
    async def scenario(vault):
        await people(vault)
        make = vault.vault.tokens.create

        async def late(*args, **options):
            monkeypatch.undo()
            await vault.ask("delete", "sys/auth/people")
            return await make(*args, **options)

        monkeypatch.setattr(vault.vault.tokens, "create", late)
        token = (await login(vault))["client_token"]
        assert isinstance(await refusal(vault.ask("read", "auth/token/lookup-self", token=token)), Unauthenticated)

    play(scenario)


@pytest.mark.parametrize("kind", ["", "transit", "kv-v1"])
def test_without_the_usual_mount_of_secrets_nothing_is_lent_and_the_refusal_says_so(kind):
    async def scenario(vault):
        await stripe(vault)
        token = await agent(vault, services=["stripe"])
        await vault.ask("delete", "sys/mounts/secret")
        if kind:
            await enable(vault, "sys/mounts/secret", kind)
        assert (await refusal(use(vault, "services/stripe", token))).status == 404

    play(scenario)
