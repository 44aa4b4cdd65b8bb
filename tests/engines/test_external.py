"""Other managers as sources. AWS is moto, Vault is a second node of ours, the others are stand-ins (outside_world)."""

import asyncio
import json
import socket
import ssl
import sys
import time

import boto3
import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jwt
from joserfc.jwk import ECKey

from engines.outside_world import STAND_INS, VALUE, AzureStandIn, DopplerStandIn, connect
from keyhole.core.errors import (
    AddressDenied,
    InvalidRequest,
    NotFound,
    PolicyDenied,
    TargetFailed,
    UpstreamTimeout,
    UpstreamTls,
    UpstreamUnreachable,
)
from keyhole.engines.external.logins import Logins
from keyhole.net.ask import Asker, AskLimits
from keyhole.net.dial import Dialer
from keyhole.net.resolve import Resolver
from seals.aws import REGION, aws_stand_in
from seals.other_vault import other_vault
from vault.world import SERVICE, agent, journal, org, play, policy_token, refusal, use

SOURCES = 'path "external/sources/*" { capabilities = ["create", "update", "read"] }'


async def add(vault, name="there", token=None, **body):
    await vault.ask("update", f"external/sources/{name}", body, token=token)


async def get(vault, path, token=None):
    return await vault.get(f"external/read/there/{path}", token=token)


def scene(scenario):
    async def main(vault):
        await connect(vault)
        return await scenario(vault)

    return play(main)


@pytest.fixture(params=sorted(STAND_INS))
def stand_in(request):
    make, path, others = STAND_INS[request.param]
    with make().running() as running:
        yield running, path, others


def test_what_lies_in_a_stand_in_is_read_and_lent_without_being_kept(stand_in):
    manager, path, _ = stand_in

    async def scenario(vault):
        await add(vault, **manager.source())
        assert (await get(vault, path))["value"] == VALUE
        await vault.ask("update", "services/out", {**SERVICE, "secret": f"/external/read/there/{path}"})
        token = await agent(vault, services=["out"])
        assert isinstance(await refusal(get(vault, path, token)), PolicyDenied)
        lent = await use(vault, "services/out", token)
        assert lent.lent["value"].reveal().decode() == VALUE
        asked = len(manager.asked)
        await use(vault, "services/out", token)
        assert len(manager.asked) > asked
        records = [record for _, record in await journal(vault)]
        assert any(record.secrets == (f"/external/read/there/{path}",) for record in records)
        assert VALUE not in repr(records)

    scene(scenario)


def test_what_is_missing_refused_or_spelt_in_a_second_way_is_said_without_a_value(stand_in):
    manager, path, others = stand_in

    async def scenario(vault):
        await add(vault, **manager.source())
        errors = [await refusal(get(vault, other)) for other in others]
        assert all(isinstance(error, InvalidRequest) for error in errors), errors
        missing = path[:-1] + ("9" if path[-1] != "9" else "8")
        assert isinstance(await refusal(get(vault, missing)), NotFound)
        await get(vault, path)
        manager.forbidden = True
        error = await refusal(get(vault, path))
        assert isinstance(error, TargetFailed)
        assert error.hint
        assert VALUE not in str(error)

    scene(scenario)


def test_a_source_that_is_away_says_so_with_the_next_step(stand_in):
    manager, path, _ = stand_in
    body = manager.source()

    async def scenario(vault):
        away = {key: "http://127.0.0.1:1" if str(value).startswith("http") else value for key, value in body.items()}
        await add(vault, **away)
        error = await refusal(get(vault, path))
        assert isinstance(error, UpstreamUnreachable)
        assert "'there'" in error.reason
        assert "keyhole external test there" in error.hint

    scene(scenario)


def test_a_source_is_shown_without_its_credentials_and_replaced_as_a_whole():
    async def scenario(vault):
        source = {"kind": "doppler", "address": "https://api.example.com", "project": "p", "config": "c"}
        await add(vault, **source, credentials={"token": VALUE})
        shown = await vault.get("external/sources/there")
        assert shown["credentials"] == ["token"]
        assert VALUE not in json.dumps(shown)
        # The stored token would go to another server.
        error = await refusal(add(vault, **{**source, "address": "https://evil.example.com"}))
        assert isinstance(error, InvalidRequest)
        assert (await vault.get("external/sources/there"))["address"] == "https://api.example.com"
        await vault.ask("delete", "external/sources/there")
        assert isinstance(await refusal(vault.ask("list", "external/sources")), NotFound)
        assert isinstance(await refusal(get(vault, "X")), NotFound)

    scene(scenario)


def test_logins_are_kept_until_they_are_refused():
    with AzureStandIn().running() as manager:

        async def scenario(vault):
            await add(vault, **manager.source())
            await asyncio.gather(*(get(vault, "app-db") for _ in range(8)))
            assert manager.logins == 1
            manager.token = "another one by now"
            assert (await get(vault, "app-db"))["value"] == VALUE
            assert manager.logins == 2

        scene(scenario)


def test_private_addresses_and_commands_take_sudo():
    with DopplerStandIn().running() as manager:

        async def scenario(vault):
            token = await policy_token(vault, SOURCES + ' path "external/read/*" { capabilities = ["read"] }')
            error = await refusal(add(vault, token=token, **manager.source()))
            assert isinstance(error, InvalidRequest)
            assert "sudo" in error.hint
            named = {**manager.source(), "address": manager.url.replace("http://", "https://")}
            await add(vault, token=token, **named)
            assert isinstance(await refusal(get(vault, "APP_DB", token)), AddressDenied)
            for body in (
                {"kind": "command", "argv": ["/bin/true"]},
                {"kind": "aws-secrets-manager", "region": "eu-central-1", "own_identity": True},
                {
                    "kind": "vault",
                    "address": "https://v.example",
                    "auth": "jwt",
                    "role": "r",
                    "jwt_file": "/etc/passwd",
                },
            ):
                assert isinstance(await refusal(add(vault, "x", token=token, **body)), PolicyDenied)
            assert manager.asked == []

        scene(scenario)


def test_only_the_org_root_may_run_programs_read_files_and_ask_as_the_server():
    async def scenario(vault):
        token = await org(vault, "acme")
        await vault.ask("update", "sys/mounts/external", {"type": "external"}, token=token)
        login = {"kind": "vault", "address": "https://v.example", "auth": "jwt", "role": "r"}
        for body in (
            {"kind": "command", "argv": ["/bin/cat", "/etc/passwd"]},
            {"kind": "aws-secrets-manager", "region": "eu-central-1", "own_identity": True},
            {**login, "jwt_file": "/etc/passwd"},
        ):
            error = await refusal(add(vault, token=token, **body))
            assert isinstance(error, PolicyDenied)
            assert "org root" in error.reason
            await add(vault, **body)

    scene(scenario)


def test_a_credential_may_be_a_secret_of_this_vault_for_who_may_read_it():
    with DopplerStandIn().running() as manager:

        async def scenario(vault):
            await vault.ask("update", "secret/data/doppler", {"data": {"key": manager.token}})
            body = {**manager.source(), "credentials": {}, "credentials_from": {"token": "doppler#key"}}
            sudo = 'path "external/sources/*" { capabilities = ["create", "update", "sudo"] }'
            assert isinstance(await refusal(add(vault, token=await policy_token(vault, sudo), **body)), PolicyDenied)
            await add(vault, **body)
            assert (await get(vault, "APP_DB"))["value"] == VALUE
            assert (await vault.get("external/sources/there"))["credentials_from"] == {"token": "doppler#key"}
            await vault.ask("update", "secret/data/doppler", {"data": {"key": "another"}})
            assert isinstance(await refusal(get(vault, "APP_DB")), TargetFailed)
            looped = {**body, "credentials_from": {"token": "/external/read/there/APP_DB"}}
            assert isinstance(await refusal(add(vault, **looped)), InvalidRequest)

        scene(scenario)


def test_a_test_says_what_there_is_and_shows_no_value():
    with DopplerStandIn().running() as manager:

        async def scenario(vault):
            await add(vault, **manager.source())
            said = await vault.ask("update", "external/sources/there/test", {"path": "APP_DB"})
            assert said.data == {"name": "there", "answers": True, "fields": ["value"]}
            missing = {"path": "APP_DB", "field": "other"}
            assert isinstance(await refusal(vault.ask("update", "external/sources/there/test", missing)), NotFound)
            only = await policy_token(vault, 'path "external/sources/there/test" { capabilities = ["update"] }')
            error = await refusal(vault.ask("update", "external/sources/there/test", {"path": "APP_DB"}, token=only))
            assert isinstance(error, PolicyDenied)

        scene(scenario)


@pytest.mark.parametrize(
    "body",
    [
        {"kind": "none"},
        {"kind": "vault"},
        {"kind": "vault", "address": "https://v.example", "version": "3", "credentials": {"token": "t"}},
        {"kind": "vault", "address": "https://v.example", "auth": "approle", "credentials": {"role_id": "r"}},
        {"kind": "vault", "address": "https://v.example", "auth": "jwt", "credentials": {"jwt": "j"}},
        {"kind": "vault", "address": "ftp://v.example", "credentials": {"token": "t"}},
        {"kind": "vault", "address": "http://v.example", "credentials": {"token": "t"}},
        {"kind": "vault", "address": "https://u:p@v.example", "credentials": {"token": "t"}},
        {"kind": "vault", "address": "https://v.example", "credentials": {"token": "t"}, "ca_cert": "none"},
        {"kind": "vault", "address": "https://v.example", "credentials": {"token": "t"}, "adress": "x"},
        {"kind": "vault", "address": "https://v.example", "credentials": {"tokn": "FORGOTTEN"}},
        {"kind": "aws-secrets-manager", "region": "eu-central-1/../x", "credentials": {"access_key_id": "a"}},
        {"kind": "command", "argv": ["true"]},
        {"kind": "command", "argv": ["/bin/true"], "credentials": {"LD_PRELOAD": "FORGOTTEN"}},
        {"kind": "command", "argv": ["/bin/true"], "timeout": 3600},
        {"kind": "bitwarden-serve", "credentials": {"token": "FORGOTTEN"}},
        {"kind": "azure-key-vault", "address": "https://x.vault.azure.net", "tenant": "a/b", "client_id": "c"},
    ],
)
def test_settings_that_cannot_work_are_refused_and_not_repeated(body):
    async def scenario(vault):
        error = await refusal(add(vault, **body))
        assert isinstance(error, InvalidRequest)
        assert "FORGOTTEN" not in str(error)

    scene(scenario)


# AWS: moto's server


@pytest.fixture(scope="module")
def aws():
    with aws_stand_in() as url:
        session = boto3.session.Session("stand-in", "stand-in", region_name=REGION)
        secrets, ssm = (session.client(name, endpoint_url=url) for name in ("secretsmanager", "ssm"))
        secrets.create_secret(Name="app/db", SecretString=json.dumps({"username": "app", "password": VALUE}))
        secrets.create_secret(Name="plain", SecretString=VALUE)
        ssm.put_parameter(Name="/app/key", Value=VALUE, Type="SecureString")
        yield url


def of_aws(url, kind="aws-secrets-manager", **more):
    keys = {"access_key_id": "stand-in", "secret_access_key": "stand-in"}
    return {"kind": kind, "region": REGION, "endpoint": url, "credentials": keys, **more}


def test_secrets_and_parameters_of_aws_are_read(aws):
    async def scenario(vault):
        await add(vault, **of_aws(aws))
        assert await get(vault, "plain") == {"value": VALUE}
        found = await get(vault, "app/db")
        assert (found["username"], found["password"]) == ("app", VALUE)
        assert isinstance(await refusal(get(vault, "none")), NotFound)
        arn = f"arn:aws:secretsmanager:{REGION}:123456789012:secret:plain"
        assert isinstance(await refusal(get(vault, arn)), InvalidRequest)
        await add(vault, **of_aws(aws, "aws-parameter-store"))
        assert await get(vault, "app/key") == {"value": VALUE}
        assert isinstance(await refusal(get(vault, "app/none")), NotFound)
        assert isinstance(await refusal(get(vault, "app/key:1")), InvalidRequest)

    scene(scenario)


def test_the_server_may_ask_aws_as_itself(aws, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "stand-in")

    async def scenario(vault):
        body = of_aws(aws, own_identity=True)
        del body["credentials"]
        await add(vault, **body)
        assert await get(vault, "plain") == {"value": VALUE}

    scene(scenario)


# Vault: a second node of ours


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    with other_vault(tmp_path_factory.mktemp("other")) as running:
        running.ask("POST", "secret/data/app/db", {"data": {"username": "app", "password": VALUE}})
        running.ask("POST", "sys/mounts/old", {"type": "kv", "options": {"version": "1"}})
        running.ask("POST", "old/app/db", {"password": VALUE})
        policy = 'path "secret/data/app/*" { capabilities = ["read"] } path "old/*" { capabilities = ["read"] }'
        running.ask("PUT", "sys/policies/acl/app", {"policy": policy})
        running.ask("POST", "sys/auth/approle", {"type": "approle"})
        running.ask("POST", "auth/approle/role/app", {"token_policies": "app", "token_ttl": "1h"})
        yield running


def of_vault(other, **more):
    token = other.ask("POST", "auth/token/create", {"policies": ["app"]})["auth"]["client_token"]
    return {"kind": "vault", "address": other.url, "credentials": {"token": token}, **more}


def test_kv_of_both_versions_and_any_path_of_another_vault_are_read(other):
    async def scenario(vault):
        await add(vault, **of_vault(other))
        assert await get(vault, "app/db") == {"username": "app", "password": VALUE}
        assert isinstance(await refusal(get(vault, "app/none")), NotFound)
        assert isinstance(await refusal(get(vault, "others/db")), TargetFailed)
        assert (await vault.ask("update", "external/sources/there/test", {})).data["answers"] is True
        await add(vault, **of_vault(other, version="1", mount="old"))
        assert await get(vault, "app/db") == {"password": VALUE}
        await add(vault, **of_vault(other, version="any", mount=""))
        assert await get(vault, "old/app/db") == {"password": VALUE}

    scene(scenario)


def test_both_fields_of_one_secret_are_lent_from_one_answer(other):
    async def scenario(vault):
        await add(vault, **of_vault(other))
        bound = {**SERVICE, "secret": "/external/read/there/app/db", "inject": {"kind": "basic"}}
        await vault.ask("update", "services/out", bound)
        lent = (await use(vault, "services/out", await agent(vault, services=["out"]))).lent
        assert {name: value.reveal().decode() for name, value in lent.items()} == {"username": "app", "password": VALUE}

    scene(scenario)


def test_a_login_by_approle_survives_the_end_of_its_token(other):
    role = other.ask("GET", "auth/approle/role/app/role-id")["data"]["role_id"]
    secret = other.ask("POST", "auth/approle/role/app/secret-id")["data"]

    async def scenario(vault):
        keys = {"role_id": role, "secret_id": secret["secret_id"]}
        await add(vault, **of_vault(other, auth="approle", credentials=keys))
        assert (await get(vault, "app/db"))["password"] == VALUE
        listed = other.ask("LIST", "auth/token/accessors")["data"]["keys"]
        for accessor in listed:
            found = other.ask("POST", "auth/token/lookup-accessor", {"accessor": accessor})["data"]
            if found["path"].startswith("auth/approle"):
                other.ask("POST", "auth/token/revoke-accessor", {"accessor": accessor})
        assert (await get(vault, "app/db"))["password"] == VALUE
        other.ask("POST", "auth/approle/role/app/secret-id-accessor/destroy", secret)
        await add(vault, **of_vault(other, auth="approle", credentials=keys))
        error = await refusal(get(vault, "app/db"))
        assert isinstance(error, TargetFailed)
        assert keys["secret_id"] not in str(error)

    scene(scenario)


def test_a_workload_logs_in_by_its_own_token(other, tmp_path):
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    other.ask("POST", "sys/auth/jwt", {"type": "jwt"})
    other.ask("POST", "auth/jwt/config", {"jwt_validation_pubkeys": [public.decode()]})
    role = {"role_type": "jwt", "user_claim": "sub", "bound_audiences": ["vault"], "token_policies": ["app"]}
    other.ask("POST", "auth/jwt/role/app", role)
    claims = {"sub": "pod", "aud": "vault", "iat": int(time.time()), "exp": int(time.time()) + 600}
    file = tmp_path / "token"
    file.write_text(jwt.encode({"alg": "ES256"}, claims, ECKey.import_key(key), algorithms=["ES256"]) + "\n")

    async def scenario(vault):
        body = {"kind": "vault", "address": other.url, "auth": "jwt", "role": "app"}
        await add(vault, **body, jwt_file=str(file))
        assert (await get(vault, "app/db"))["password"] == VALUE
        await add(vault, **body, credentials={"jwt": file.read_text().strip()})
        assert (await get(vault, "app/db"))["password"] == VALUE
        file.unlink()
        await add(vault, **body, jwt_file=str(file))
        assert isinstance(await refusal(get(vault, "app/db")), TargetFailed)

    scene(scenario)


# What any server may do


class Hostile(DopplerStandIn):
    def tell(self, path, query):
        return self.said


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ((200, {"name": "APP_DB", "value": {"computed": "x" * 2_000_000}}), UpstreamUnreachable),
        ((200, ["APP_DB", VALUE]), NotFound),
        ((200, {"name": "OTHER", "value": {"computed": VALUE}}), NotFound),
        ((302, {}), TargetFailed),
        ((429, {}), TargetFailed),
        ((503, {"message": VALUE}), UpstreamUnreachable),
    ],
)
def test_answers_of_any_kind_are_bounded_and_quoted_nowhere(said, error):
    with Hostile().running() as manager:
        manager.said = said

        async def scenario(vault):
            await add(vault, **manager.source())
            found = await refusal(get(vault, "APP_DB"))
            assert isinstance(found, error), found
            assert VALUE not in str(found)

        scene(scenario)


def test_a_server_that_says_nothing_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as silent:

        async def scenario(vault):
            vault.vault.net = Asker(Dialer(Resolver()), limits=AskLimits(seconds=0.2))
            url = f"http://127.0.0.1:{silent.getsockname()[1]}"
            await add(vault, **DopplerStandIn().of(url))
            found = await refusal(get(vault, "APP_DB"))
            assert isinstance(found, UpstreamTimeout)
            assert "keyhole external test there" in found.hint

        scene(scenario)


def test_a_server_proves_itself_by_the_cas_of_its_source():
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with DopplerStandIn().running(context) as manager:

        async def scenario(vault):
            await add(vault, **manager.source())
            assert isinstance(await refusal(get(vault, "APP_DB")), UpstreamTls)
            await add(vault, **manager.source(), ca_cert=authority.cert_pem.bytes().decode())
            assert (await get(vault, "APP_DB"))["value"] == VALUE

        scene(scenario)


# Commands


def of_command(program, **more):
    return {"kind": "command", "argv": [sys.executable, "-I", "-c", program, "{path}"], **more}


def test_a_command_prints_a_secret_with_its_own_environment_only(monkeypatch):
    monkeypatch.setenv("FORGOTTEN", VALUE)
    program = "import json, os, sys; print(json.dumps({'path': sys.argv[1], **os.environ}))"

    async def scenario(vault):
        await add(vault, **of_command(program, credentials={"OP_TOKEN": "t"}))
        found = await get(vault, "a b/$(id); c")
        assert found.pop("path") == "a b/$(id); c"
        found.pop("value")
        found.pop("LC_CTYPE", None)  # Python's own
        assert set(found) == {"PATH", "LANG", "OP_TOKEN"}
        assert isinstance(await refusal(get(vault, "-e")), InvalidRequest)
        await add(vault, **of_command("import sys; print('{\"a\": 1}')", json=False))
        assert await get(vault, "x") == {"value": '{"a": 1}'}

    scene(scenario)


@pytest.mark.parametrize(
    ("program", "seconds", "error"),
    [
        (f"import sys; print('{VALUE}', file=sys.stderr); sys.exit(3)", 25, TargetFailed),
        ("print('x' * 50_000_000)", 25, TargetFailed),
        ("import time; time.sleep(600)", 1, UpstreamTimeout),
        ("import os, time; os.close(1); time.sleep(600)", 1, UpstreamTimeout),
        ("pass", 25, NotFound),
    ],
)
def test_a_command_that_fails_floods_or_hangs_is_ended_and_quoted_nowhere(program, seconds, error):
    async def scenario(vault):
        await add(vault, **of_command(program, timeout=seconds))
        found = await refusal(get(vault, "x"))
        assert isinstance(found, error)
        assert VALUE not in str(found)

    scene(scenario)


def test_a_server_that_forbids_commands_runs_none():
    async def scenario(vault):
        await add(vault, **of_command("print('{}')"))
        vault.vault.net = Asker(Dialer(Resolver()), programs=False)
        assert isinstance(await refusal(get(vault, "x")), PolicyDenied)

    scene(scenario)


def test_a_command_that_is_not_there_says_so():
    async def scenario(vault):
        await add(vault, kind="command", argv=["/nowhere/op"])
        assert isinstance(await refusal(get(vault, "x")), TargetFailed)

    scene(scenario)


def test_logins_at_one_source_are_made_one_after_the_other_also_when_they_fail():
    async def main():
        logins, under_way, most = Logins(), 0, 0

        async def log_in():
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0.001)
            under_way -= 1
            raise TargetFailed("the source refuses the login")

        waiting = [asyncio.create_task(logins.token(("source", 1), 0.0, log_in)) for _ in range(3)]
        await asyncio.wait(waiting[:1])
        waiting.append(asyncio.create_task(logins.token(("source", 1), 0.0, log_in)))
        await asyncio.wait(waiting)
        assert [type(each.exception()) for each in waiting] == [TargetFailed] * 4
        assert most == 1

    asyncio.run(main())
