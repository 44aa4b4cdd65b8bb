"""Entities, aliases and groups: what is made, found, refused and removed."""

import asyncio

import pytest

from faces.api_client import play
from vault.identities import accessor_of, login, machine, make, read


async def keys(ask, path):
    answer = await ask("LIST", f"identity/{path}")
    return answer.json["data"]["keys"] if answer.status == 200 else answer.status


async def refusal(ask, path, **fields):
    """Status and text of what is not done."""
    answer = await ask("POST", f"identity/{path}", fields)
    return answer.status, answer.json["errors"][0]


def test_an_entity_is_found_by_id_and_by_name_and_changed_by_both():
    async def scenario(ask, _vault):
        made = await make(ask, "entity", name="Ann", metadata={"team": "red"}, policies=["app"])
        assert made == {"id": made["id"], "name": "Ann", "aliases": None}
        assert await make(ask, "entity", name="ann", policies="app,ops") is None
        assert await make(ask, f"entity/id/{made['id']}", metadata={"team": "blue"}) is None
        found = await read(ask, "entity/name/ANN")
        assert (found["id"], found["name"], found["policies"]) == (made["id"], "ann", ["app", "ops"])
        assert found == await read(ask, f"entity/id/{made['id']}")
        assert found["metadata"] == {"team": "blue"}
        assert await make(ask, f"entity/id/{made['id']}", name="anna") is None
        assert (await ask("GET", "identity/entity/name/ann")).status == 404
        assert await keys(ask, "entity/name") == ["anna"]
        assert await make(ask, "entity/name/bob", disabled=True) is not None
        assert (await read(ask, "entity/name/bob"))["disabled"] is True

    play(scenario)


def test_what_is_deleted_is_gone_and_deleting_it_again_is_no_error():
    async def scenario(ask, _vault):
        ids = [(await make(ask, "entity", name=f"e{n}"))["id"] for n in range(4)]
        for path in (f"entity/id/{ids[0]}", f"entity/id/{ids[0]}", "entity/name/e1", "entity/name/nobody"):
            assert (await ask("DELETE", f"identity/{path}")).status == 204
        await make(ask, "entity/batch-delete", entity_ids=[ids[2], "unknown"])
        assert await keys(ask, "entity/id") == [ids[3]]
        await make(ask, "entity/batch-delete", entity_ids=[ids[3]])
        assert (await keys(ask, "entity/id"), await keys(ask, "entity/name")) == (404, 404)
        assert await make(ask, "entity", name="e0") is not None

    play(scenario)


@pytest.mark.parametrize(
    ("path", "fields", "text"),
    [
        ("entity", {"name": "x", "policies": ["root"]}, "policies cannot contain root"),
        ("entity", {"id": "unknown"}, "entity not found from id"),
        ("entity", {"name": "x", "metadata": "text"}, "failed to parse metadata"),
        ("entity", {"name": "x", "metadata": {"k": "v" * 513}}, "a key of metadata"),
        ("entity", {"name": "x" * 256}, "name is text"),
        ("entity", {"name": ["x"]}, "name is text"),
        ("entity/batch-delete", {}, "missing entity ids"),
        ("entity-alias", {"name": "x"}, "'id' or 'mount_accessor' and 'name' must be provided"),
        ("entity-alias", {"name": "x", "mount_accessor": "no"}, "invalid mount accessor"),
        ("entity-alias", {"id": "no", "name": "x"}, "invalid alias ID provided"),
        ("group", {"name": "g", "type": "cosmic"}, "invalid group type"),
        ("group", {"name": "g", "policies": ["root"]}, "policies cannot contain root"),
        ("group", {"name": "g", "member_entity_ids": ["no"]}, "invalid entity ID"),
        ("group", {"name": "g", "member_group_ids": ["no"]}, "invalid group ID"),
        ("group", {"name": "g", "type": "external", "member_entity_ids": ["no"]}, "member entities can't be set"),
        ("group-alias", {"name": "g"}, "missing mount_accessor"),
        ("group-alias", {"name": "g", "mount_accessor": "no"}, "invalid mount accessor"),
        ("lookup/entity", {}, "query parameter not supplied"),
        ("lookup/entity", {"id": "a", "name": "b"}, "query parameter conflict"),
        ("lookup/group", {"alias_name": "a"}, "both 'alias_name' and 'alias_mount_accessor'"),
        ("entity/merge", {"to_entity_id": "a"}, "missing entity ids to merge from"),
        ("entity/merge", {"from_entity_ids": ["a"]}, "missing entity id to merge to"),
        ("entity/merge", {"from_entity_ids": ["a"], "to_entity_id": "a"}, "to_entity_id should not be present"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_reason(path, fields, text):
    async def scenario(ask, _vault):
        status, said = await refusal(ask, path, **fields)
        assert status == 400
        assert said.startswith(text)

    play(scenario)


def test_two_entities_cannot_have_one_name_also_when_they_are_made_at_once():
    async def scenario(ask, _vault):
        made = await asyncio.gather(*(ask("POST", "identity/entity", {"name": "same"}) for _ in range(8)))
        assert sorted(answer.status for answer in made) == [200] + [204] * 7
        other = await make(ask, "entity", name="other")
        assert await refusal(ask, f"entity/id/{other['id']}", name="same") == (400, "entity name is already in use")

    play(scenario)


def test_an_alias_belongs_to_one_entity_and_can_be_moved():
    async def scenario(ask, vault):
        accessor = await accessor_of(vault)
        first, second = [(await make(ask, "entity", name=name))["id"] for name in ("first", "second")]
        alias = await make(ask, "entity-alias", name="x", canonical_id=first, mount_accessor=accessor)
        assert alias["canonical_id"] == first
        assert await make(ask, "entity-alias", name="x", mount_accessor=accessor) is None
        said = await refusal(ask, "entity-alias", name="y", canonical_id=first, mount_accessor=accessor)
        assert said == (400, "Alias already exists for requested entity and mount accessor")
        await make(ask, f"entity-alias/id/{alias['id']}", canonical_id=second, custom_metadata={"k": "v"})
        shown = await read(ask, f"entity-alias/id/{alias['id']}")
        assert (shown["canonical_id"], shown["custom_metadata"], shown["mount_type"]) == (second, {"k": "v"}, "approle")
        assert (await read(ask, f"entity/id/{first}"))["aliases"] == []
        own = await make(ask, "entity-alias", name="z", mount_accessor=accessor)
        assert len(await keys(ask, "entity/id")) == 3
        said = await refusal(ask, f"entity-alias/id/{own['id']}", name="x")
        assert said == (400, "alias with combination of mount accessor and name already exists")
        assert (await ask("DELETE", f"identity/entity-alias/id/{alias['id']}")).status == 204
        assert await keys(ask, "entity-alias/id") == [own["id"]]
        assert (await ask("GET", f"identity/entity-alias/id/{alias['id']}")).status == 404

    play(scenario)


def test_subjects_of_an_issuer_that_differ_in_case_are_two():
    async def scenario(ask, vault):
        accessor = await accessor_of(vault)
        names = ("kay", "Kay", "\N{KELVIN SIGN}ay")
        made = [await make(ask, "entity-alias", name=name, mount_accessor=accessor) for name in names]
        assert len({alias["canonical_id"] for alias in made}) == 3
        groups = [await make(ask, "group-alias", name=name, mount_accessor=accessor) for name in names]
        assert len({alias["canonical_id"] for alias in groups}) == 3

    play(scenario)


def test_a_group_in_itself_is_refused_however_long_the_way():
    async def scenario(ask, _vault):
        a, b, c = [(await make(ask, "group", name=name))["id"] for name in "abc"]
        await make(ask, f"group/id/{a}", member_group_ids=[b])
        await make(ask, f"group/id/{b}", member_group_ids=[c])
        text = "cyclic relationship detected for member group ID"
        assert await refusal(ask, f"group/id/{c}", member_group_ids=[a]) == (400, text)
        assert await refusal(ask, f"group/id/{a}", member_group_ids=[a]) == (400, text)
        assert (await read(ask, f"group/id/{b}"))["parent_group_ids"] == [a]
        assert (await ask("DELETE", f"identity/group/id/{b}")).status == 204
        assert (await read(ask, f"group/id/{a}"))["member_group_ids"] is None
        await make(ask, f"group/id/{c}", member_group_ids=[a])

    play(scenario)


def test_two_groups_that_take_each_other_in_at_once_cannot_both():
    async def scenario(ask, _vault):
        for turn in range(5):
            a, b = [(await make(ask, "group", name=f"{name}{turn}"))["id"] for name in "ab"]
            made = await asyncio.gather(
                ask("POST", f"identity/group/id/{a}", {"member_group_ids": [b]}),
                ask("POST", f"identity/group/id/{b}", {"member_group_ids": [a]}),
            )
            assert sorted(answer.status for answer in made) == [204, 400]

    play(scenario)


def test_the_type_of_a_group_stays():
    async def scenario(ask, vault):
        await make(ask, "group", name="g", type="internal")
        assert await refusal(ask, "group/name/g", type="external") == (400, "group type cannot be changed")
        outer = await make(ask, "group", name="x", type="external")
        alias = await make(
            ask, "group-alias", name="admins", canonical_id=outer["id"], mount_accessor=await accessor_of(vault)
        )
        shown = await read(ask, "group/name/x")
        assert (shown["type"], shown["alias"]["name"], shown["member_entity_ids"]) == ("external", "admins", None)
        inner = (await read(ask, "group/name/g"))["id"]
        said = await refusal(ask, f"group-alias/id/{alias['id']}", canonical_id=inner)
        assert said == (400, "alias can't be set on an internal group")

    play(scenario)


def test_lookups_find_by_one_thing_and_answer_nothing_for_what_is_not_there():
    async def scenario(ask, vault):
        accessor = await accessor_of(vault)
        entity = await make(ask, "entity", name="ann")
        alias = await make(ask, "entity-alias", name="x", canonical_id=entity["id"], mount_accessor=accessor)
        factors = {"alias_name": "x", "alias_mount_accessor": accessor}
        for by in ({"id": entity["id"]}, {"name": "ann"}, {"alias_id": alias["id"]}, factors):
            assert (await make(ask, "lookup/entity", **by))["id"] == entity["id"]
        group = await make(ask, "group", name="g", type="external")
        alias = await make(ask, "group-alias", name="x", canonical_id=group["id"], mount_accessor=accessor)
        for by in ({"id": group["id"]}, {"name": "g"}, {"alias_id": alias["id"]}, factors):
            assert (await make(ask, "lookup/group", **by))["id"] == group["id"]
        for kind in ("entity", "group"):
            assert (await ask("POST", f"identity/lookup/{kind}", {"id": "unknown"})).status == 204

    play(scenario)


def test_of_two_aliases_at_one_mount_a_merge_is_told_which_one_stays():
    async def scenario(ask, vault):
        accessor = await accessor_of(vault)
        stays, goes = [(await make(ask, "entity", name=name, policies=[name]))["id"] for name in ("stays", "goes")]
        await make(ask, "group", name="g", member_entity_ids=[goes])
        first = await make(ask, "entity-alias", name="x", canonical_id=stays, mount_accessor=accessor)
        second = await make(ask, "entity-alias", name="y", canonical_id=goes, mount_accessor=accessor)
        both = {"from_entity_ids": [goes], "to_entity_id": stays}
        status, said = await refusal(ask, "entity/merge", **both)
        assert (status, first["id"] in said, second["id"] in said) == (400, True, True)
        await make(ask, "entity/merge", **both, conflicting_alias_ids_to_keep=[second["id"]])
        found = await read(ask, f"entity/id/{stays}")
        assert [alias["id"] for alias in found["aliases"]] == [second["id"]]
        assert found["aliases"][0]["merged_from_canonical_ids"] == [goes]
        assert (found["merged_entity_ids"], found["policies"]) == ([goes], ["goes", "stays"])
        assert (await read(ask, "group/name/g"))["member_entity_ids"] == [stays]
        assert (await ask("GET", f"identity/entity/id/{goes}")).status == 404
        assert await keys(ask, "entity-alias/id") == [second["id"]]

    play(scenario)


def test_ids_of_another_org_answer_as_if_they_did_not_exist():
    async def scenario(ask, vault):
        accessor = await accessor_of(vault)
        entity = await make(ask, "entity", name="ann", policies=["app"])
        alias = await make(ask, "entity-alias", name="x", canonical_id=entity["id"], mount_accessor=accessor)
        group = await make(ask, "group", name="g", type="external")
        outer = await make(ask, "group-alias", name="x", canonical_id=group["id"], mount_accessor=accessor)
        theirs = {"entity": entity["id"], "entity-alias": alias["id"], "group": group["id"], "group-alias": outer["id"]}
        other = (await ask("POST", "sys/namespaces/other")).json["data"]["root_token"]
        for kind, real in theirs.items():
            for method, body in (("GET", None), ("POST", {"name": "taken"}), ("DELETE", None)):
                answers = [await ask(method, f"identity/{kind}/id/{i}", body, token=other) for i in (real, "0" * 36)]
                assert len({(answer.status, answer.body) for answer in answers}) == 1
            assert (await ask("LIST", f"identity/{kind}/id", token=other)).status == 404
        for fields in ({"id": entity["id"]}, {"name": "ann"}, {"alias_name": "x", "alias_mount_accessor": accessor}):
            assert (await ask("POST", "identity/lookup/entity", fields, token=other)).status == 204
        made = await ask("POST", "identity/group", {"name": "g", "member_entity_ids": [entity["id"]]}, token=other)
        assert made.status == 400
        made = await ask("POST", "identity/entity-alias", {"name": "y", "mount_accessor": accessor}, token=other)
        assert (made.status, made.json["errors"]) == (400, ["invalid mount accessor"])
        assert (await read(ask, f"entity/id/{entity['id']}"))["policies"] == ["app"]

    play(scenario)


def test_who_gives_policies_away_must_have_them():
    async def scenario(ask, vault):
        policy = 'path "identity/*" { capabilities = ["create", "read", "update", "delete"] }'
        await ask("PUT", "sys/policies/acl/people", {"policy": policy})
        mine = (await ask("POST", "auth/token/create", {"policies": ["people"]})).json["auth"]["client_token"]
        accessor = await accessor_of(vault)
        powerful = await make(ask, "entity", name="powerful", policies=["admin"])
        group = await make(ask, "group", name="admins", policies=["admin"])
        alias = await make(ask, "entity-alias", name="own", mount_accessor=accessor)
        attempts = {
            "entity": {"name": "x", "policies": ["admin"]},
            "group": {"name": "x", "policies": ["admin"]},
            f"group/id/{group['id']}": {"member_entity_ids": [alias["canonical_id"]]},
            "entity-alias": {"name": "z", "mount_accessor": accessor, "canonical_id": powerful["id"]},
            f"entity-alias/id/{alias['id']}": {"canonical_id": powerful["id"]},
            "entity/merge": {"from_entity_ids": [alias["canonical_id"]], "to_entity_id": powerful["id"]},
        }
        for path, fields in attempts.items():
            answer = await ask("POST", f"identity/{path}", fields, token=mine)
            assert answer.status == 403, path
        answer = await ask("POST", "identity/entity", {"name": "x", "policies": ["people"]}, token=mine)
        assert answer.status == 200

    play(scenario)


def test_logins_are_listed_with_their_aliases():
    async def scenario(ask, _vault):
        who = await machine(ask)
        auth = await login(ask, who)
        listing = (await ask("LIST", "identity/entity/id")).json["data"]
        line = listing["key_info"][auth["entity_id"]]
        assert listing["keys"] == [auth["entity_id"]]
        assert [(alias["name"], alias["mount_path"]) for alias in line["aliases"]] == [(who.role_id, "auth/approle/")]
        assert line["name"].startswith("entity_")

    play(scenario)


@pytest.mark.parametrize(
    "path", ["oidc/provider/default", "oidc/client", "oidc/assignment/x", "mfa/method", "alias/id"]
)
def test_what_is_not_there_says_so(path):
    async def scenario(ask, _vault):
        for method in ("GET", "LIST", "POST", "DELETE"):
            answer = await ask(method, f"identity/{path}", {} if method == "POST" else None)
            assert (answer.status, "not supported" in answer.json["errors"][0]) == (404, True)
            assert answer.headers["x-keyhole-hint"]

    play(scenario)


@pytest.mark.parametrize("noun", ["entity", "group"])
def test_an_id_in_the_body_leads_no_path_to_another_one(noun):
    async def scenario(ask, _vault):
        mine, other = await make(ask, noun, name="mine"), await make(ask, noun, name="other", metadata={"team": "red"})
        text = f'path "identity/{noun}/name/mine" {{ capabilities = ["create", "update"] }}'
        await ask("POST", "sys/policies/acl/narrow", {"policy": text})
        narrow = (await ask("POST", "auth/token/create", {"policies": ["narrow"]})).json["auth"]["client_token"]
        there = f"identity/{noun}/name/mine"
        assert (await ask("POST", there, {"metadata": {"team": "blue"}}, token=narrow)).status in (200, 204)
        await ask("DELETE", f"identity/{noun}/id/{mine['id']}")
        answer = await ask("POST", there, {"id": other["id"], "metadata": {"team": "blue"}}, token=narrow)
        assert answer.status == 400
        found = await read(ask, f"{noun}/id/{other['id']}")
        assert (found["name"], found["metadata"]) == ("other", {"team": "red"})

    play(scenario)
