"""The door: who may do what, and that every answer and every refusal leaves its record first."""

import asyncio
import json

import pytest

from keyhole.core.errors import NotFound, PolicyDenied, Unauthenticated
from keyhole.core.identity import Caller
from keyhole.core.policy import Acl
from keyhole.core.record import Phase
from keyhole.core.request import Anonymous, LocalOwner, Operation, Request
from keyhole.faces.api.envelope import render
from keyhole.testing import open_vault
from vault.world import (
    CANARY,
    SERVICE,
    Place,
    agent,
    child,
    mounts_of,
    play,
    policy_token,
    recorded,
    refusal,
    stripe,
    use,
)

READER = 'path "secret/data/stripe/*" { capabilities = ["read"] }'
USER = 'path "services/stripe" { capabilities = ["use"] }'


def test_an_answer_is_preceded_by_its_intent_and_followed_by_its_outcome():
    async def scenario(vault):
        await stripe(vault)
        async with recorded(vault) as records:
            reply = await vault.ask("read", "secret/data/stripe/api-key")
        assert [r.phase for r in records] == [Phase.INTENT, Phase.OUTCOME]
        assert {r.id for r in records} == {reply.request_id}
        assert records[0].secrets == ("stripe/api-key",)
        assert [r.result for r in records] == ["", "ok"]
        assert records[0].caller == "user/root"
        assert records[0].rule == "root"

    play(scenario)


@pytest.mark.parametrize(
    ("operation", "path", "data", "code"),
    [
        ("read", "secret/data/none", {}, "not_found"),
        ("update", "secret/data/x", {"data": 1}, "invalid_request"),
        ("update", "sys/policies/acl/root", {"policy": "x"}, "invalid_request"),
    ],
)
def test_a_request_that_fails_behind_the_door_has_an_outcome_that_says_so(operation, path, data, code):
    async def scenario(vault):
        async with recorded(vault) as records:
            error = await refusal(vault.ask(operation, path, data))
        assert [(r.phase, r.result) for r in records] == [(Phase.INTENT, ""), (Phase.OUTCOME, code)]
        assert error.request_id == records[0].id

    play(scenario)


@pytest.mark.parametrize(
    ("operation", "path"),
    [
        ("read", "secret/data/stripe/api-key"),
        ("read", "secret/data/none"),
        ("read", "no/such/route"),
        ("delete", "sys/seal-status"),
        ("read", "a//b"),
        ("update", "sys/seal"),
        ("use", "services/stripe"),
        ("use", "services/none"),
    ],
)
def test_a_refusal_is_one_record_and_nothing_else(operation, path):
    async def scenario(vault):
        await stripe(vault)
        token = await agent(vault)
        async with recorded(vault) as records:
            error = await refusal(vault.ask(operation, path, token=token))
        [record] = records
        assert record.phase is Phase.REFUSED
        assert record.caller == "agent/coder"
        assert record.result == error.code
        assert record.id == error.request_id
        assert record.operation == operation

    play(scenario)


def test_a_use_of_a_service_that_does_not_exist_is_recorded_also_for_root():
    async def scenario(vault):
        async with recorded(vault) as records:
            error = await refusal(use(vault, "services/none", "root"))
        assert isinstance(error, NotFound)
        assert [(r.phase, r.result) for r in records] == [(Phase.REFUSED, "not_found")]

    play(scenario)


def test_use_is_decided_on_services_only_whatever_the_path_is_called():
    policy = 'path "*" { capabilities = ["use"] }\npath "services/stripe" { capabilities = ["deny"] }'

    async def scenario(vault):
        await stripe(vault)
        token = await policy_token(vault, policy)
        for path in ("stripe", "services/stripe", "secret/data/stripe/api-key", "services/services/stripe"):
            assert await refusal(use(vault, path, token)) is not None, path

    play(scenario)


@pytest.mark.parametrize("token", ["hvs.unknown", "hvs." + "a" * 44 + "." + "b" * 16, "ö", "", "a b", "x" * 300])
def test_an_unknown_token_is_one_record_in_the_org_root_that_does_not_name_it(token):
    async def scenario(vault):
        async with recorded(vault) as records:
            with pytest.raises(Unauthenticated):
                await vault.ask("read", "secret/data/x", token=token)
        [record] = records
        assert (record.phase, record.result, record.caller) == (Phase.REFUSED, "unauthenticated", "")
        assert not token or token not in json.dumps(record.as_data())

    play(scenario)


def test_no_credential_is_refused_like_a_wrong_one():
    async def scenario(vault):
        with pytest.raises(Unauthenticated):
            await vault.ask("read", "secret/data/x", token=Anonymous())

    play(scenario)


def test_use_lends_to_the_road_and_never_answers_a_value_to_a_face():
    async def scenario(vault):
        await stripe(vault)
        token = await agent(vault, services=["stripe"])
        reply = await use(vault, "services/stripe", token)
        assert reply.lent["value"].reveal() == CANARY.encode()
        assert CANARY not in repr(reply)
        with pytest.raises(TypeError):  # a record is no JSON, so no face can answer with such a reply
            render(reply)
        reply.data = {}
        assert CANARY.encode() not in render(reply)[2]

    play(scenario)


def test_read_does_not_imply_use_and_use_does_not_imply_read():
    async def scenario(vault):
        await stripe(vault)
        reader = await policy_token(vault, READER)
        assert (await vault.get("secret/data/stripe/api-key", token=reader))["data"] == {"value": CANARY}
        assert isinstance(await refusal(use(vault, "services/stripe", reader)), PolicyDenied)
        user = await policy_token(vault, USER)
        assert (await use(vault, "services/stripe", user)).lent
        for operation in ("read", "list", "update", "delete", "patch"):
            assert isinstance(
                await refusal(vault.ask(operation, "secret/data/stripe/api-key", token=user)), PolicyDenied
            )
        assert isinstance(await refusal(vault.ask("read", "services/stripe", token=user)), PolicyDenied)

    play(scenario)


def _filled(pattern):
    names = {
        "path...": "stripe/api-key",
        "name...": "given",
        "name": "coder",
        "service": "stripe",
        "id": "x",
        "type": "auth",
    }
    for name, value in names.items():
        pattern = pattern.replace(f"{{{name}}}", value)
    return pattern


def test_a_proxy_token_gets_nothing_but_refusals_from_every_route_even_with_the_policy_root():
    async def scenario(vault):
        await stripe(vault)
        agents = await agent(vault, services=["stripe"], scope="proxy")
        mighty = await child(vault, scope="proxy", policies=["root"])
        paths = {mount.path + _filled(route.pattern) for mount in mounts_of(vault) for route in mount.engine.routes}
        assert len(paths) > 40
        operations = [op for op in Operation if op is not Operation.USE]
        for path in sorted(paths | {"secret/data/none", "no/such"}):
            for operation in operations:
                for token in (agents, mighty):
                    error = await refusal(vault.ask(operation.value, path.rstrip("/"), {"data": {}}, token=token))
                    assert error is not None, (operation, path)
                    assert error.status in {400, 403, 404, 405}
                    assert CANARY not in str(error)
        assert (await use(vault, "services/stripe", agents)).lent

    play(scenario)


def test_every_route_refuses_an_agent_without_grants_but_what_the_default_policy_gives():
    async def scenario(vault):
        await stripe(vault)
        token = await agent(vault)
        opened, logins = set(), set()
        for login in ("approle", "userpass"):
            await vault.ask("update", f"sys/auth/{login}", {"type": login})
        await vault.ask("read", "sys/auth")
        for mount in mounts_of(vault):
            for route in mount.engine.routes:
                path = mount.path + _filled(route.pattern)
                if route.open:
                    logins.add(mount.path + route.pattern)
                    continue
                for operation in route.handlers:
                    if path == "auth/token/revoke-self":
                        continue
                    error = await refusal(vault.ask(operation.value, path.rstrip("/"), {"k": "v"}, token=token))
                    if not isinstance(error, PolicyDenied):
                        opened.add(path if mount.path == "tools/" else mount.path)
        own = {"tools/own/offered", "tools/own/begin", "tools/own/end"}
        assert opened <= {"auth/token/", "sys/", "cubbyhole/", *own}
        ui = {"sys/internal/ui/mounts", "sys/internal/ui/mounts/{path...}", "sys/internal/ui/namespaces"}
        ui |= {
            "sys/internal/help",
            "sys/internal/help/{path...}",
            "sys/internal/specs/openapi",
            "sys/replication/status",
        }
        keys = {f"identity/oidc/.well-known/{name}" for name in ("keys", "openid-configuration")}
        assert logins == {"auth/approle/login", "auth/userpass/login/{name}"} | ui | keys
        assert isinstance(await refusal(vault.ask("update", "auth/token/create", token=token)), PolicyDenied)

    play(scenario)


def test_binding_a_secret_needs_read_on_it():
    binder = 'path "services/*" { capabilities = ["create", "update", "read"] }'

    async def scenario(vault):
        await stripe(vault)
        token = await policy_token(vault, binder)
        for name in ("stripe", "mine"):
            error = await refusal(vault.ask("update", f"services/{name}", SERVICE, token=token))
            assert isinstance(error, PolicyDenied)
            assert "read" in str(error)
        token = await policy_token(vault, f"{binder}\n{READER}")
        await vault.ask("update", "services/mine", SERVICE, token=token)

    play(scenario)


def test_naming_private_addresses_needs_sudo_on_the_service():
    plain = 'path "services/*" { capabilities = ["create", "update"] }\n' + READER
    private = {**SERVICE, "allow_addresses": ["10.0.0.5/32"]}

    async def scenario(vault):
        await stripe(vault)
        token = await policy_token(vault, plain)
        assert "sudo" in str(await refusal(vault.ask("update", "services/db", private, token=token)))
        await vault.ask("update", "services/db", SERVICE, token=token)
        token = await policy_token(vault, plain.replace('"update"', '"update", "sudo"'))
        await vault.ask("update", "services/db", private, token=token)

    play(scenario)


def test_deleting_a_service_or_a_grant_holds_for_the_next_request():
    async def scenario(vault):
        await stripe(vault)
        token = await agent(vault, services=["stripe"])
        await use(vault, "services/stripe", token)
        await vault.ask("delete", "agents/coder/services/stripe")
        assert isinstance(await refusal(use(vault, "services/stripe", token)), PolicyDenied)
        await vault.ask("update", "agents/coder/services/stripe")
        await use(vault, "services/stripe", token)
        await vault.ask("delete", "services/stripe")
        assert isinstance(await refusal(use(vault, "services/stripe", token)), NotFound)

    play(scenario)


def test_an_expired_or_deleted_secret_is_not_lent():
    async def scenario(vault):
        await stripe(vault)
        token = await agent(vault, services=["stripe"])
        await vault.ask("delete", "secret/data/stripe/api-key")
        async with recorded(vault) as records:
            assert (await refusal(use(vault, "services/stripe", token))).code == "not_found"
        assert [(r.phase, r.result) for r in records] == [(Phase.INTENT, ""), (Phase.OUTCOME, "not_found")]
        expired = {"data": {"value": CANARY}, "options": {"expires_at": "2020-01-01"}}
        await vault.ask("update", "secret/data/stripe/api-key", expired)
        assert (await refusal(use(vault, "services/stripe", token))).code == "expired"

    play(scenario)


def test_parameters_of_a_read_are_held_against_the_policy():
    text = 'path "secret/data/*" { capabilities = ["read"] denied_parameters = { version = [] } }'

    async def scenario(vault):
        await stripe(vault)
        token = await policy_token(vault, text)
        await vault.ask("read", "secret/data/stripe/api-key", token=token)
        error = await refusal(vault.ask("read", "secret/data/stripe/api-key", {"version": "1"}, token=token))
        assert isinstance(error, PolicyDenied)

    play(scenario)


def test_who_may_do_everything_learns_of_missing_routes_and_others_do_not():
    async def scenario(vault):
        token = await agent(vault)
        error = await refusal(vault.ask("read", "nomount/x"))
        assert (error.status, "no handler for route" in error.reason) == (404, True)
        known = await refusal(vault.ask("read", "secret/data/x", token=token))
        unknown = await refusal(vault.ask("read", "nomount/x", token=token))
        assert (known.status, known.reason) == (unknown.status, unknown.reason) == (403, "permission denied")

    play(scenario)


def test_the_owner_of_the_store_is_root_of_the_org_root_and_nobody_elsewhere():
    async def scenario(vault):
        await vault.ask("update", "sys/namespaces/acme")
        await vault.ask("update", "secret/data/x", {"data": {"a": 1}}, token=LocalOwner())
        for name in ("acme", "nowhere"):
            with pytest.raises(Unauthenticated):
                await vault.ask("read", "secret/data/x", token=LocalOwner(), org=name)

    play(scenario)


def test_a_caller_stands_for_itself_in_its_own_org_only():
    async def scenario(vault):
        await vault.ask("update", "sys/namespaces/acme")
        made = Caller("root", vault.vault.root_org, "user/x", "", "full", ("root",), Acl([], root=True))
        await vault.ask("update", "secret/data/x", {"data": {}}, token=made, org="root")
        with pytest.raises(Unauthenticated):
            await vault.ask("read", "secret/data/x", token=made, org="acme")

    play(scenario)


def test_a_sealed_node_refuses_everything_and_opens_again(tmp_path):
    place = Place(tmp_path)

    async def main():
        async with place.open() as vault:
            await stripe(vault)
            await vault.node.seal()
            for operation, path in (("read", "secret/data/stripe/api-key"), ("update", "sys/seal"), ("use", "x")):
                assert (await refusal(vault.ask(operation, path))).code == "sealed"
            await vault.node.unseal(seal=place.seal)
            assert (await vault.get("secret/data/stripe/api-key"))["data"]["value"] == CANARY

    asyncio.run(main())


def test_a_handler_that_breaks_says_nothing_of_it_and_has_an_outcome(monkeypatch):
    async def broken(*_):
        raise RuntimeError(CANARY)

    async def scenario(vault):
        monkeypatch.setattr(vault.vault, "_dispatch", broken)
        async with recorded(vault) as records:
            error = await refusal(vault.ask("read", "secret/data/x"))
        assert (error.code, CANARY in str(error)) == ("internal", False)
        assert [r.result for r in records] == ["", "internal"]

    play(scenario)


def test_whoever_goes_away_in_the_middle_leaves_an_outcome(monkeypatch):
    async def scenario(vault):
        reached = asyncio.Event()

        async def slow(*_):
            reached.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(vault.vault, "_dispatch", slow)
        async with recorded(vault) as records:
            task = asyncio.create_task(vault.ask("read", "secret/data/x"))
            await reached.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert [r.phase for r in records] == [Phase.INTENT, Phase.OUTCOME]

    play(scenario)


def test_a_request_made_in_another_vault_is_unknown_here():
    async def scenario(vault):
        async with open_vault() as other:
            token = await child(other, policies=["default"])
        with pytest.raises(Unauthenticated):
            await vault.node.handle(Request(token.encode(), Operation.READ, "auth/token/lookup-self"))

    play(scenario)


def test_policies_are_compiled_once_for_each_set_and_not_for_each_request_or_token(monkeypatch):
    made = []

    def counted(rules, **options):
        made.append(len(rules))
        return Acl(rules, **options)

    monkeypatch.setattr("keyhole.vault.compiled.Acl", counted)

    async def scenario(vault):
        await stripe(vault)
        tokens = [await policy_token(vault, READER)]
        tokens += [await child(vault, policies=["given"]) for _ in range(3)]
        await vault.ask("read", "secret/data/stripe/api-key", token=tokens[0])
        made.clear()
        for token in tokens * 5:
            await vault.ask("read", "secret/data/stripe/api-key", token=token)
            await vault.ask("update", "secret/data/other", {"data": {"value": "changes the store"}})
        assert made == []
        await vault.ask("update", "sys/policies/acl/given", {"policy": USER})
        for token in tokens:
            assert isinstance(await refusal(vault.ask("read", "secret/data/stripe/api-key", token=token)), PolicyDenied)
        assert len(made) == 1

    play(scenario)
