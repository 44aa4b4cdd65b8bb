"""Rotators at real sources: PostgreSQL, AWS as moto plays it, and programs."""

import json
import sys
import textwrap

import boto3
import pytest

import database_server
import postgres_server
from engines.database_world import with_database
from keyhole.core.errors import UpstreamUnreachable
from keyhole.net.ask import Asker
from keyhole.testing import FrozenClock
from seals.aws import REGION, aws_stand_in
from vault.world import play, refusal

HOUR = 3600


async def rotate(vault, **data):
    return (await vault.ask("update", "sys/rotations/r/rotate", data)).data


def test_two_users_of_postgresql_take_turns_and_the_old_one_works_for_its_grace():
    async def scenario(world):
        vault = world.vault
        with postgres_server.superuser() as session:
            for user in ("app_a", "app_b"):
                session.execute(f"DROP ROLE IF EXISTS {user}")
                session.execute(f"CREATE ROLE {user} LOGIN PASSWORD 'a first password'")
        for role in ("a", "b"):
            await world.write(f"static-roles/{role}", db_name="pg", username=f"app_{role}", rotation_period="24h")
        first = await world.read("static-creds/a")
        login = {"username": "app_a", "password": first["password"]}
        await vault.ask("update", "secret/data/db/app", {"data": login})
        settings = {"roles": "a,b"}
        await vault.ask("update", "sys/rotations/r", {"secret": "db/app", "rotator": "database", "settings": settings})
        assert (await rotate(vault))["step"] == "grace"
        second = (await vault.get("secret/data/db/app"))["data"]
        assert second["username"] == "app_b"
        assert database_server.may_log_in(**login)
        assert database_server.may_log_in(**second)
        world.clock.advance(HOUR + 1)
        for _ in range(2):
            await world.sweep()
        assert not database_server.may_log_in(**login)
        assert database_server.may_log_in(**second)
        await rotate(vault, now=True)
        third = (await vault.get("secret/data/db/app"))["data"]
        assert third["username"] == "app_a"
        assert database_server.may_log_in(**third)
        assert not database_server.may_log_in(**second)
        with postgres_server.superuser() as session:
            session.execute("ALTER ROLE app_b NOLOGIN")
        await vault.vault.rotations.run(vault.vault.root_org, "r", asked=True)
        assert (await vault.get("secret/data/db/app"))["data"] == third  # nobody can log in with the new one yet
        assert (await vault.ask("read", "sys/rotations/r")).data["step"] == "made"

    with_database(scenario)


def test_one_user_is_replaced_in_place_for_services_that_lend_the_static_role():
    async def scenario(world):
        vault = world.vault
        with postgres_server.superuser() as session:
            session.execute("DROP ROLE IF EXISTS app_a")
            session.execute("CREATE ROLE app_a LOGIN PASSWORD 'a first password'")
        await world.write("static-roles/a", db_name="pg", username="app_a", rotation_period="24h")
        before = await world.read("static-creds/a")
        rotation = {"rotator": "database", "settings": {"roles": "a"}}
        assert (
            "one password"
            in (await refusal(vault.ask("update", "sys/rotations/r", {**rotation, "secret": "x"}))).reason
        )
        await vault.ask("update", "sys/rotations/r", rotation)
        assert (await rotate(vault))["step"] == "idle"
        after = await world.read("static-creds/a")
        assert after["password"] != before["password"]
        assert database_server.may_log_in("app_a", after["password"])

    with_database(scenario)


class Cut:
    """An ``Asker`` whose answer to one action is lost."""

    def __init__(self):
        self.asker, self.lost = Asker(), ""

    async def addresses(self, *asked, **how):
        return await self.asker.addresses(*asked, **how)

    async def ask(self, method, url, *, body=b"", **how):
        heard = await self.asker.ask(method, url, body=body, **how)
        if self.lost and self.lost.encode() in body:
            self.lost = ""
            raise UpstreamUnreachable("the answer was lost")
        return heard


@pytest.mark.parametrize("admin", [False, True])
def test_an_access_key_of_aws_is_replaced_and_the_old_one_deleted(admin):
    with aws_stand_in() as url:
        session = boto3.session.Session("stand-in", "stand-in", region_name=REGION)
        iam = session.client("iam", endpoint_url=url)
        user = f"ci-{admin}"  # the stand-in is one for the whole process
        iam.create_user(UserName=user)
        first = iam.create_access_key(UserName=user)["AccessKey"]

        def keys():
            return {key["AccessKeyId"] for key in iam.list_access_keys(UserName=user)["AccessKeyMetadata"]}

        async def scenario(vault):
            vault.vault.net = net = Cut()
            pair = {"access_key_id": first["AccessKeyId"], "secret_access_key": first["SecretAccessKey"]}
            await vault.ask("update", "secret/data/aws/ci", {"data": {**pair, "region": REGION}})
            await vault.ask("update", "secret/data/aws/admin", {"data": pair})
            settings = {"user": user, "endpoint": url, "sts_endpoint": url, "allow_addresses": ["127.0.0.1"]}
            settings |= {"admin": "aws/admin"} if admin else {}
            rotation = {"secret": "aws/ci", "rotator": "aws_iam", "settings": settings}
            await vault.ask("update", "sys/rotations/r", rotation)
            net.lost = "CreateAccessKey"
            assert "lost" in (await refusal(rotate(vault))).reason
            assert keys() == {first["AccessKeyId"]}  # what had been made without an answer is gone
            await rotate(vault)
            new = (await vault.get("secret/data/aws/ci"))["data"]
            assert new["region"] == REGION
            assert keys() == {first["AccessKeyId"], new["access_key_id"]}
            await rotate(vault, now=True)
            assert keys() == {new["access_key_id"]}
            iam.create_access_key(UserName=user)
            assert "two access keys already" in (await refusal(rotate(vault))).reason

        play(scenario)


PROGRAM = """
import json, os, sys
asked = json.load(sys.stdin)
with open(PLACE) as file:
    world = json.load(file)
seen = json.dumps([sys.argv[1:], dict(os.environ)])
step = asked["step"]
world["steps"].append(step)
world["seen"] += seen
code = 0
if step == "create":
    value = "made-by-a-program-" + asked["attempt"]
    world["live"].append(value)
    print(json.dumps({"fields": {"value": value}}))
elif step == "verify":
    code = 0 if asked["new"]["fields"]["value"] in world["live"] else 1
    if world["later"]:
        world["later"] -= 1
        code = 75
elif step == "revoke":
    world["live"].remove(asked["value"]["fields"]["value"])
with open(PLACE, "w") as file:
    json.dump(world, file)
sys.exit(code)
"""


def test_a_program_is_told_values_on_stdin_alone(tmp_path):
    place, program = tmp_path / "world.json", tmp_path / "rotate"
    place.write_text(json.dumps({"live": ["first-value-1234"], "steps": [], "seen": "", "later": 1}))
    program.write_text(f"#!{sys.executable}\nPLACE = {str(place)!r}\n{textwrap.dedent(PROGRAM)}")
    program.chmod(0o700)

    async def scenario(vault):
        vault.vault.net = Asker()
        await vault.ask("update", "secret/data/tool", {"data": {"value": "first-value-1234"}})
        settings = {"argv": [str(program), "--of", "tool"]}
        await vault.ask("update", "sys/rotations/r", {"secret": "tool", "rotator": "command", "settings": settings})
        await rotate(vault, now=True)
        value = (await vault.get("secret/data/tool"))["data"]["value"]
        world = json.loads(place.read_text())
        assert world["live"] == [value]
        assert world["steps"] == ["prepare", "create", "verify", "verify", "revoke"]
        assert "--of" in world["seen"]
        assert value not in world["seen"]
        assert "first-value" not in world["seen"]

    play(scenario)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("exit 3", "failed at the step prepare (3)"),
        ("sleep 60", "took longer than 1 s"),
        ("echo no-json-but-secret-1234", "something else than a JSON object"),
        ("head -c 50000000 /dev/zero", "failed at the step prepare"),
    ],
)
def test_a_program_that_does_not_keep_to_the_rules_changes_nothing(script, said):
    async def scenario(vault):
        vault.vault.net = Asker()
        await vault.ask("update", "secret/data/tool", {"data": {"value": "first-value-1234"}})
        settings = {"argv": ["/bin/sh", "-c", script], "timeout": 1}
        await vault.ask("update", "sys/rotations/r", {"secret": "tool", "rotator": "command", "settings": settings})
        error = await refusal(rotate(vault))
        assert said in error.reason
        assert "secret-1234" not in str(error)
        assert (await vault.get("secret/data/tool"))["data"]["value"] == "first-value-1234"

    play(scenario, clock=FrozenClock())


def test_only_the_org_root_may_run_programs():
    async def scenario(vault):
        made = (await vault.ask("update", "sys/namespaces/acme")).data
        token = made["root_token"]
        await vault.ask("update", "secret/data/tool", {"data": {"value": "first-value-1234"}}, token=token)
        rotation = {"secret": "tool", "rotator": "command", "settings": {"argv": ["/bin/true"]}}
        error = await refusal(vault.ask("update", "sys/rotations/r", rotation, token=token))
        assert (error.code, "org root" in error.reason) == ("policy_denied", True)

    play(scenario)
