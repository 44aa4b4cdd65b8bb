"""Batch tokens, token roles, chosen tokens and the limits that a token carries with it."""

import asyncio
import string

import pytest

from keyhole.core.errors import InvalidRequest, PolicyDenied, Unauthenticated
from keyhole.core.request import Anonymous, Operation, Request
from keyhole.testing import FrozenClock
from keyhole.vault.tokens import MOUNT
from vault.world import Place, agent, child, org, play, policy_token, refusal, stripe, use

CREATE = 'path "auth/token/create*" { capabilities = ["update"] }\n'
ROLES = 'path "auth/token/roles/*" { capabilities = ["create", "read", "update", "delete"] }\n'
READ = 'path "secret/data/*" { capabilities = ["read"] }\n'


async def alive(vault, token, remote=""):
    request = Request(token.encode(), Operation.READ, "auth/token/lookup-self", remote=remote)
    error = await refusal(vault.node.handle(request))
    assert error is None or isinstance(error, Unauthenticated), error
    return error is None


async def create(vault, *, token=None, path="auth/token/create", **fields):
    return await vault.ask("update", path, fields, token=token)


async def stored(vault):
    return await vault.vault.storage(vault.vault.root_org, MOUNT).list("t")


def test_a_batch_token_is_good_for_requests_and_lies_nowhere():
    clock = FrozenClock()

    async def scenario(vault):
        await vault.ask("update", "secret/data/a", {"data": {"k": "v"}})
        before = await stored(vault)
        await vault.ask("update", "sys/policies/acl/reader", {"policy": READ})
        auth = (await create(vault, policies=["reader"], type="batch", ttl="5m", meta={"a": "b"}, run="4711")).auth
        token = auth["client_token"]
        assert token.startswith("hvb.")
        assert (auth["token_type"], auth["accessor"], auth["renewable"]) == ("batch", "", False)
        assert (auth["lease_duration"], auth["orphan"], auth["policies"]) == (300, False, ["default", "reader"])
        assert await stored(vault) == before
        found = (await vault.ask("read", "auth/token/lookup-self", token=token)).data
        assert (found["id"], found["type"], found["meta"], found["run"]) == (token, "batch", {"a": "b"}, "4711")
        assert (await vault.get("secret/data/a", token=token))["data"] == {"k": "v"}
        clock.advance(299)
        assert await alive(vault, token)
        clock.advance(1)
        assert not await alive(vault, token)

    play(scenario, clock=clock)


def test_a_batch_token_ends_with_the_token_that_made_it():
    clock = FrozenClock()

    async def scenario(vault):
        revoked, expired = [await policy_token(vault, CREATE, ttl="1h") for _ in range(2)]
        first, second = [await child(vault, token=each, type="batch", ttl="9h") for each in (revoked, expired)]
        lonely = await child(vault, path="auth/token/create-orphan", policies=["given"], type="batch", ttl="9h")
        assert await alive(vault, first)
        await vault.ask("update", "auth/token/revoke", {"token": revoked})
        assert not await alive(vault, first)
        assert await alive(vault, second)
        clock.advance(3601)
        assert not await alive(vault, second)
        assert await alive(vault, lonely)

    play(scenario, clock=clock)


def test_work_under_way_for_a_batch_token_ends_when_the_token_does():
    clock = FrozenClock()

    async def scenario(vault):
        storage = vault.vault.storage(vault.vault.root_org, MOUNT)
        parent = await policy_token(vault, CREATE, ttl="1h")
        _, caller = await vault.vault.authenticate((await child(vault, token=parent, type="batch", ttl="9m")).encode())
        ends = await vault.vault.tokens.still(storage, caller, vault.vault.clock.now())
        assert ends - vault.vault.clock.now() == pytest.approx(540)
        _, long = await vault.vault.authenticate((await child(vault, token=parent, type="batch", ttl="9h")).encode())
        assert await vault.vault.tokens.still(
            storage, long, vault.vault.clock.now()
        ) - vault.vault.clock.now() == pytest.approx(3600)
        clock.advance(541)
        with pytest.raises(Unauthenticated):
            await vault.vault.tokens.still(storage, caller, vault.vault.clock.now())
        await vault.ask("update", "auth/token/revoke", {"token": parent})
        with pytest.raises(Unauthenticated):
            await vault.vault.tokens.still(storage, long, vault.vault.clock.now())

    play(scenario, clock=clock)


def test_what_a_batch_token_cannot_do_says_so():
    async def scenario(vault):
        rights = CREATE + 'path "auth/token/*" { capabilities = ["update", "sudo"] }\n'
        token = await policy_token(vault, rights, type="batch")
        for path, data in (
            ("auth/token/create", {}),
            ("auth/token/create-orphan", {}),
            ("auth/token/renew-self", {}),
            ("auth/token/revoke-self", {}),
            ("cubbyhole/a", {"k": "v"}),
        ):
            error = await refusal(vault.ask("update", path, data, token=token))
            assert isinstance(error, InvalidRequest), path
            assert "token" in error.reason
        for path in ("renew", "revoke", "revoke-orphan"):
            assert isinstance(
                await refusal(vault.ask("update", f"auth/token/{path}", {"token": token})), InvalidRequest
            )
        assert await alive(vault, token)

    play(scenario)


@pytest.mark.parametrize(
    "fields",
    [{"policies": ["root"]}, {"num_uses": 2}, {"explicit_max_ttl": "1h"}, {"period": "1h"}, {"id": "mine"}],
)
def test_a_batch_token_cannot_be_what_only_a_stored_one_can(fields):
    async def scenario(vault):
        error = await refusal(create(vault, **{"policies": ["default"], "type": "batch"} | fields))
        assert isinstance(error, InvalidRequest)
        assert error.reason.startswith("batch tokens cannot")

    play(scenario)


_BASE64URL = string.ascii_letters + string.digits + "-_"


def test_a_batch_token_that_was_changed_or_belongs_to_another_org_is_unknown():
    async def scenario(vault):
        acme = await org(vault, "acme")
        token = await child(vault, policies=["default"], type="batch")
        theirs = await child(vault, token=acme, policies=["default"], type="batch")
        assert await alive(vault, theirs)
        body, _, mark = theirs.partition(".")[2].partition(".")
        for forged in (
            *(token[:-1] + last for last in _BASE64URL if last != token[-1]),  # some differ in unused bits alone
            f"{token}=",
            f"{token[:40]}+{token[40:]}",
            token[:60] + ("A" if token[60] != "A" else "B") + token[61:],
            f"{token}.{mark}",
            f"hvb.{body}",
            "hvb." + "A" * 200,
            "hvb.",
        ):
            assert not await alive(vault, forged), forged

    play(scenario)


def test_a_batch_token_too_long_for_a_header_is_refused():
    async def scenario(vault):
        error = await refusal(
            create(
                vault,
                policies=["default"],
                type="batch",
                meta={"k": "x" * 500, **{str(n): "y" * 500 for n in range(8)}},
            )
        )
        assert isinstance(error, InvalidRequest)

    play(scenario)


def test_a_batch_token_counts_on_another_node_and_after_a_rotation_of_keys(tmp_path):
    place = Place(tmp_path)

    async def main():
        async with place.open() as one, place.open() as two:
            token = await child(one, policies=["default"], type="batch")
            await one.ask("update", "sys/rotate")
            assert await alive(two, token)
            assert await alive(one, token)

    asyncio.run(main())


def test_a_role_gives_what_it_says_to_who_may_use_it():
    clock = FrozenClock()

    async def scenario(vault):
        await vault.ask("update", "sys/policies/acl/app", {"policy": READ})
        role = {"allowed_policies": "app", "orphan": True, "token_period": "1h", "path_suffix": "sfx"}
        await vault.ask("update", "auth/token/roles/r1", role)
        maker = await policy_token(vault, 'path "auth/token/create/r1" { capabilities = ["update"] }')
        auth = (await create(vault, token=maker, path="auth/token/create/r1")).auth
        assert (auth["policies"], auth["orphan"], auth["lease_duration"]) == (["app", "default"], True, 3600)
        found = (await vault.ask("read", "auth/token/lookup-self", token=auth["client_token"])).data
        assert (found["path"], found["role"], found["period"]) == ("auth/token/create/r1/sfx", "r1", 3600)
        await vault.ask("update", "auth/token/revoke", {"token": maker})
        for _ in range(40):
            clock.advance(3000)
            await vault.ask("update", "auth/token/renew-self", token=auth["client_token"])
        error = await refusal(create(vault, path="auth/token/create/r1", policies=["other"]))
        assert error.reason == (
            'token policies (["default" "other"]) must be subset of the role\'s allowed policies (["app" "default"])'
        )
        assert (await refusal(create(vault, path="auth/token/create/none"))).reason == "unknown role none"

    play(scenario, clock=clock)


@pytest.mark.parametrize(
    ("role", "asked", "given"),
    [
        ({"allowed_policies": ["a", "b"]}, [], ["a", "b", "default"]),
        ({"allowed_policies": ["a", "b"]}, ["b"], ["b", "default"]),
        ({"allowed_policies": ["a"], "token_no_default_policy": True}, [], ["a"]),
        ({"allowed_policies_glob": ["team-*"]}, [], ["default"]),
        ({"allowed_policies_glob": ["team-*"]}, ["team-x"], ["default", "team-x"]),
        ({"allowed_policies_glob": ["team-*"]}, ["tea"], None),
        ({"allowed_policies": ["a"], "allowed_policies_glob": ["team-*"]}, ["a", "team-1"], ["a", "default", "team-1"]),
        ({"disallowed_policies": ["b"]}, ["a"], ["a", "default"]),
        ({"disallowed_policies": ["b"]}, ["a", "b"], None),
        ({"disallowed_policies": ["default"]}, ["a"], ["a"]),
        ({"disallowed_policies_glob": ["te*"]}, ["team"], None),
        ({"allowed_policies": ["a", "b"], "disallowed_policies": ["b"]}, [], None),
        ({"allowed_policies": ["root"]}, [], None),
        ({}, [], ["default", "given"]),
        ({}, ["a"], None),
    ],
)
def test_the_policies_of_a_role_are_a_choice_within_its_bounds(role, asked, given):
    async def scenario(vault):
        await vault.ask("update", "auth/token/roles/r", role)
        maker = await policy_token(vault, CREATE)
        call = create(vault, token=maker, path="auth/token/create/r", policies=asked)
        if given is None:
            assert isinstance(await refusal(call), InvalidRequest)
        else:
            assert (await call).auth["policies"] == given

    play(scenario)


def test_of_a_role_and_a_request_the_smaller_bounds_count():
    async def scenario(vault):
        role = {
            "token_num_uses": 5,
            "token_explicit_max_ttl": "1h",
            "renewable": False,
            "token_bound_cidrs": "10.0.0.0/8",
        }
        await vault.ask("update", "auth/token/roles/r", role)
        reply = await create(vault, path="auth/token/create/r", policies=["default"], ttl="2h", num_uses=9)
        assert (reply.auth["num_uses"], reply.auth["lease_duration"], reply.auth["renewable"]) == (5, 3600, False)
        assert "exceeded the effective max_ttl" in reply.warnings[0]
        token = reply.auth["client_token"]
        assert not await alive(vault, token, "192.0.2.1")
        assert await alive(vault, token, "10.1.2.3")
        reply = await create(vault, path="auth/token/create/r", policies=["default"], num_uses=2, explicit_max_ttl="5m")
        assert (reply.auth["num_uses"], reply.auth["lease_duration"]) == (2, 300)

    play(scenario)


@pytest.mark.parametrize(
    ("of_role", "asked", "made"),
    [
        ("default-service", "", "service"),
        ("default-service", "batch", "batch"),
        ("default-batch", "", "batch"),
        ("default-batch", "service", "service"),
        ("service", "batch", "service"),
        ("batch", "service", "batch"),
    ],
)
def test_the_type_of_a_token_is_the_roles_unless_it_leaves_the_choice(of_role, asked, made):
    async def scenario(vault):
        await vault.ask("update", "auth/token/roles/r", {"token_type": of_role})
        auth = (await create(vault, path="auth/token/create/r", policies=["default"], type=asked)).auth
        assert auth["token_type"] == made

    play(scenario)


@pytest.mark.parametrize(
    "role",
    [
        {"allowed_policies": ["admin"]},
        {"allowed_policies_glob": ["*"]},
        {"disallowed_policies": ["admin"]},
        {"orphan": True},
        {"token_period": "1h"},
        {"period": "1h"},
        {"allowed_entity_aliases": ["*"]},
    ],
)
def test_a_role_gives_no_more_than_who_wrote_it_has(role):
    async def scenario(vault):
        plain = await policy_token(vault, ROLES + CREATE)
        assert isinstance(await refusal(vault.ask("update", "auth/token/roles/r", role, token=plain)), PolicyDenied)
        await vault.ask("update", "auth/token/roles/r", {"allowed_policies": ["given"]}, token=plain)
        again = {"allowed_policies": [], **role}
        assert isinstance(await refusal(vault.ask("update", "auth/token/roles/r", again, token=plain)), PolicyDenied)
        await vault.ask("update", "auth/token/roles/r", role)
        await vault.ask(
            "update", "auth/token/roles/r", {"renewable": False, "allowed_policies": ["given"]}, token=plain
        )

    play(scenario)


@pytest.mark.parametrize(
    ("role", "change"),
    [
        ({"allowed_policies_glob": ["*"], "disallowed_policies": ["admin"]}, {"disallowed_policies": []}),
        ({"allowed_policies_glob": ["*"], "disallowed_policies_glob": ["adm*"]}, {"disallowed_policies_glob": []}),
        ({"allowed_policies": ["admin"], "token_bound_cidrs": ["10.0.0.0/8"]}, {"token_bound_cidrs": ["0.0.0.0/0"]}),
        ({"allowed_policies": ["admin"], "token_num_uses": 1}, {"token_num_uses": 0}),
        ({"allowed_policies": ["admin"], "token_explicit_max_ttl": "5m"}, {"token_explicit_max_ttl": 0}),
        ({"allowed_policies": ["default"], "orphan": True}, {"allowed_policies": ["given"]}),
        ({"allowed_policies": ["default"], "token_period": "1h"}, {"allowed_policies": ["given"]}),
    ],
)
def test_what_bounds_a_role_that_gives_more_is_not_for_its_writer_to_lift(role, change):
    async def scenario(vault):
        plain = await policy_token(vault, ROLES + CREATE)
        await vault.ask("update", "auth/token/roles/r", role)
        before = (await vault.ask("read", "auth/token/roles/r")).data
        assert isinstance(await refusal(vault.ask("update", "auth/token/roles/r", change, token=plain)), PolicyDenied)
        assert (await vault.ask("read", "auth/token/roles/r")).data == before
        await vault.ask("update", "auth/token/roles/r", change)

    play(scenario)


@pytest.mark.parametrize(
    "role",
    [
        {"allowed_policies": [1]},
        {"allowed_policies": {"a": 1}},
        {"allowed_policies_glob": ["a b"]},
        {"path_suffix": "a/b"},
        {"path_suffix": ".."},
        {"token_type": "none"},
        {"token_type": "batch", "token_num_uses": 1},
        {"token_type": "batch", "token_period": "1h"},
        {"token_bound_cidrs": ["x"]},
        {"token_num_uses": -1},
        {"orphan": "perhaps"},
        {"allowed_entity_aliases": ["a\nb"]},
    ],
)
def test_an_odd_role_is_a_bad_request(role):
    async def scenario(vault):
        assert isinstance(await refusal(vault.ask("update", "auth/token/roles/r", role)), InvalidRequest)
        assert (await refusal(vault.ask("read", "auth/token/roles/r"))).code == "not_found"
        assert (await refusal(vault.ask("list", "auth/token/roles"))).code == "not_found"

    play(scenario)


def test_a_chosen_token_is_what_was_chosen_and_only_once():
    async def scenario(vault):
        reply = await create(vault, id="my-fixed-id", policies=["default"])
        assert reply.auth["client_token"] == "my-fixed-id"
        assert "hard to guess" in "".join(reply.warnings)
        assert await alive(vault, "my-fixed-id")
        assert "duplicate" in (await refusal(create(vault, id="my-fixed-id", policies=["default"]))).reason
        await vault.ask("update", "auth/token/revoke", {"token": "my-fixed-id"})
        assert not await alive(vault, "my-fixed-id")
        await create(vault, id="my-fixed-id", policies=["default"])
        assert await alive(vault, "my-fixed-id")
        plain = await policy_token(vault, CREATE)
        assert isinstance(await refusal(create(vault, token=plain, id="other")), PolicyDenied)
        for odd in ("a.b", "hvs.x", "a b", "x" * 200, 7):
            assert isinstance(await refusal(create(vault, id=odd, policies=["default"])), InvalidRequest)
        acme = await org(vault, "acme")
        assert isinstance(await refusal(create(vault, token=acme, id="x", policies=["default"])), InvalidRequest)

    play(scenario)


def test_a_policy_that_does_not_exist_is_said_when_it_is_given():
    async def scenario(vault):
        reply = await create(vault, policies=["nowhere", "default"])
        assert reply.warnings == ['Policy "nowhere" does not exist']

    play(scenario)


@pytest.mark.parametrize("name", ["response-wrapping", "control-group"])
def test_a_policy_of_the_vault_itself_is_not_given_out(name):
    async def scenario(vault):
        assert (await refusal(create(vault, policies=[name]))).reason == f'cannot assign policy "{name}"'

    play(scenario)


def test_a_root_token_with_a_period_or_a_cap_has_an_end():
    async def scenario(vault):
        assert (await create(vault, period="30m")).auth["lease_duration"] == 1800
        assert (await create(vault, explicit_max_ttl="5m", ttl="30m")).auth["lease_duration"] == 300
        assert (await create(vault, explicit_max_ttl="5m")).auth["lease_duration"] == 300
        assert (await create(vault)).auth["lease_duration"] == 0

    play(scenario)


def test_a_token_shows_itself_to_who_sent_it_and_to_nobody_else():
    async def scenario(vault):
        made = (await create(vault, policies=["default"])).auth
        token = made["client_token"]
        assert (await vault.ask("read", "auth/token/lookup-self", token=token)).data["id"] == token
        assert (await vault.ask("update", "auth/token/renew-self", token=token)).auth["client_token"] == token
        by_accessor = (await vault.ask("update", "auth/token/lookup-accessor", {"accessor": made["accessor"]})).data
        assert by_accessor["id"] == ""
        renewed = await vault.ask("update", "auth/token/renew-accessor", {"accessor": made["accessor"]})
        assert renewed.auth["client_token"] == ""
        assert (await vault.ask("read", "auth/token/lookup-self", token=token)).data["last_renewal_time"] > 0

    play(scenario)


def test_a_token_for_some_services_has_children_for_no_others():
    async def scenario(vault):
        await stripe(vault)
        service = {"hosts": ["api.github.com"], "secret": "stripe/api-key", "inject": {"kind": "bearer"}}
        await vault.ask("update", "services/github", service)
        rights = CREATE + 'path "services/*" { capabilities = ["use"] }'
        token = await policy_token(vault, rights, services=["stripe"])
        below = await child(vault, token=token)
        batch = await child(vault, token=token, type="batch")
        for each in (token, below, batch):
            assert await use(vault, "services/stripe", each)
            assert isinstance(await refusal(use(vault, "services/github", each)), PolicyDenied)
            paths = {"paths": ["services/stripe", "services/github"]}
            found = (await vault.ask("update", "sys/capabilities", {"token": each, **paths})).data
            assert (found["services/stripe"], found["services/github"]) == (["use"], ["deny"])
        for more in (["github"], ["stripe", "github"]):
            assert isinstance(await refusal(create(vault, token=token, services=more)), InvalidRequest)
        assert (await vault.ask("read", "auth/token/lookup-self", token=below)).data["services"] == ["stripe"]

    play(scenario)


def test_the_children_of_a_bound_token_are_bound_as_well():
    async def scenario(vault):
        await vault.ask("update", "auth/token/roles/r", {"token_bound_cidrs": ["10.0.0.0/8"], "renewable": True})
        await vault.ask("update", "sys/policies/acl/given", {"policy": CREATE})
        bound = await child(vault, path="auth/token/create/r", policies=["given"])
        ask = Request(bound.encode(), Operation.UPDATE, "auth/token/create", {}, remote="10.0.0.1")
        below = (await vault.node.handle(ask)).auth["client_token"]
        assert await alive(vault, below, "10.9.9.9")
        assert not await alive(vault, below, "192.0.2.1")

    play(scenario)


def test_tidying_removes_what_is_left_of_ended_tokens():
    clock = FrozenClock()

    async def scenario(vault):
        storage = vault.vault.storage(vault.vault.root_org, MOUNT)
        await child(vault, policies=["default"], ttl="1m")
        kept = await child(vault, policies=["default"], ttl="1h")
        await storage.change([("a/leftover", b"nobody", 0)])
        clock.advance(61)
        reply = await vault.ask("update", "auth/token/tidy")
        assert reply.status == 202
        assert reply.warnings
        assert len(await storage.list("a")) == len(await storage.list("t")) == 2
        assert await alive(vault, kept)

    play(scenario, clock=clock)


def test_an_agents_batch_token_makes_no_agents_tokens():
    async def scenario(vault):
        await agent(vault)
        mint = 'path "agents/+/token" { capabilities = ["update", "sudo"] }'
        token = await policy_token(vault, mint, type="batch")
        assert isinstance(await refusal(vault.ask("update", "agents/coder/token", token=token)), InvalidRequest)

    play(scenario)


def test_a_role_may_say_for_whom_tokens_are_made():
    async def scenario(vault):
        role = {"allowed_entity_aliases": ["ci-*", "Deploy"], "allowed_policies": ["default"]}
        await vault.ask("update", "auth/token/roles/r", role)
        await vault.ask("update", "auth/token/roles/plain", {"allowed_policies": ["default"]})
        made = [
            (await create(vault, path="auth/token/create/r", entity_alias=name)).auth
            for name in ("ci-1", "CI-1", "deploy")
        ]
        assert made[0]["entity_id"] == made[1]["entity_id"] != made[2]["entity_id"]
        found = (
            await vault.ask("read", f"identity/entity/id/{made[0]['entity_id']}", token=made[0]["client_token"])
        ).data
        assert [alias["name"] for alias in found["aliases"]] == ["ci-1"]
        theirs = f"identity/entity/id/{made[2]['entity_id']}"
        assert isinstance(await refusal(vault.ask("read", theirs, token=made[0]["client_token"])), PolicyDenied)
        for path, name in (("r", "admin"), ("r", ["ci-1"]), ("plain", "ci-1"), ("r", "ci-\x00")):
            call = create(vault, path=f"auth/token/create/{path}", entity_alias=name)
            assert (await refusal(call)).reason == "invalid 'entity_alias' value", name
        assert "token role" in (await refusal(create(vault, entity_alias="ci-1"))).reason

    play(scenario)


@pytest.mark.parametrize(
    ("of_role", "of_mount", "made"),
    [
        ("default", "default-service", "service"),
        ("default", "default-batch", "batch"),
        ("batch", "default-service", "batch"),
        ("batch", "service", "service"),
        ("service", "batch", "batch"),
        ("default-batch", "default-service", "batch"),
    ],
)
def test_a_login_gives_tokens_of_the_type_that_its_role_and_mount_say(of_role, of_mount, made):
    async def scenario(vault):
        await vault.ask("update", "sys/auth/userpass", {"type": "userpass", "config": {"token_type": of_mount}})
        user = {"password": "correct horse battery", "token_type": of_role, "token_ttl": "5m"}
        await vault.ask("update", "auth/userpass/users/bob", user)
        ask = Request(Anonymous(), Operation.UPDATE, "auth/userpass/login/bob", {"password": user["password"]})
        auth = (await vault.node.handle(ask)).auth
        assert (auth["token_type"], auth["lease_duration"]) == (made, 300)
        found = (await vault.ask("read", "auth/token/lookup-self", token=auth["client_token"])).data
        assert (found["type"], found["entity_id"]) == (made, auth["entity_id"])
        await vault.ask("update", f"identity/entity/id/{auth['entity_id']}", {"disabled": True})
        assert not await alive(vault, auth["client_token"])

    play(scenario)


def test_a_role_for_batch_tokens_has_no_limits_that_only_stored_ones_keep():
    async def scenario(vault):
        await vault.ask("update", "sys/auth/userpass", {"type": "userpass"})
        for limit in ("token_num_uses", "token_period"):
            user = {"password": "correct horse battery", "token_type": "batch", limit: 60}
            assert isinstance(await refusal(vault.ask("update", "auth/userpass/users/bob", user)), InvalidRequest)

    play(scenario)
