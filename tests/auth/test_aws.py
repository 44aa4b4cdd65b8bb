"""Machines that log in with a signed question to AWS: a stand-in here, whose signatures botocore makes and verifies."""

from __future__ import annotations

import base64
import json

import pytest
import trustme
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from e2e.aws import ID, KEY, REGION, Aws, Denied
from faces.api_client import play
from keyhole.net.ask import Heard

ENDPOINT = f"https://sts.{REGION}.amazonaws.com"
BODY = "Action=GetCallerIdentity&Version=2011-06-15"
ROLE_ARN = "arn:aws:iam::123456789012:role/app"


class Sts:
    """A stand-in for STS: names the principal of the one key that it knows."""

    def __init__(self, aws: Aws) -> None:
        self.aws = aws
        self.asked = []
        self.arn = "arn:aws:sts::123456789012:assumed-role/app/i-0123"
        self.answer = None

    async def ask(self, method, url, *, headers=(), body=b"", ca_pem="", allow=()):
        self.asked.append(url)
        sent = [("host", url.split("/")[2]), *headers]
        try:
            self.aws.verify(method, "/", sent, body)
        except Denied:
            return Heard(403, {}, b"<Error>SignatureDoesNotMatch</Error>")
        said = {"Arn": self.arn, "Account": "123456789012", "UserId": "AROAX:i-0123"}
        whole = {"GetCallerIdentityResponse": {"GetCallerIdentityResult": said}}
        return Heard(200, {}, self.answer or json.dumps(whole).encode())


def signed(*, url=f"{ENDPOINT}/", body=BODY, key=KEY, extra=(), unsigned=(), method="POST", **more):
    """The fields of a login, as Vault's clients make them."""
    made = AWSRequest(
        method, url, data=body, headers={"Content-Type": "application/x-www-form-urlencoded", **dict(extra)}
    )
    SigV4Auth(Credentials(ID, key), "sts", REGION).add_auth(made)
    headers = {**dict(made.headers), **dict(unsigned)}
    return {
        "iam_http_request_method": method,
        "iam_request_url": base64.b64encode(url.encode()).decode(),
        "iam_request_body": base64.b64encode(body.encode()).decode(),
        "iam_request_headers": base64.b64encode(json.dumps(headers).encode()).decode(),
        "role": "app",
        **more,
    }


@pytest.fixture(scope="module")
def server():
    made = Aws(trustme.CA())
    yield made
    made.close()


def scene(server, scenario, *, client=None, **role):
    """``scenario(ask, sts, login)``"""

    async def go(ask, vault):
        sts = vault.vault.net = Sts(server)
        made = await ask("POST", "auth/aws/config/client", {"sts_region": REGION, **(client or {})})
        assert made.status == 204, made.body
        wanted = {"bound_iam_principal_arn": [ROLE_ARN], "token_policies": "app", **role}
        made = await ask("POST", "auth/aws/role/app", wanted)
        assert made.status == 204, made.body

        async def login(**fields):
            return await ask("POST", "auth/aws/login", signed(**fields), token=None)

        return await scenario(ask, sts, login)

    return play(go, enabled=("sys/auth/aws",))


def test_a_role_of_aws_gets_a_token_and_its_key_never_comes_here(server):
    async def scenario(ask, sts, login):
        auth = (await login()).json["auth"]
        assert auth["token_policies"] == ["app", "default"]
        assert auth["metadata"]["canonical_arn"] == ROLE_ARN
        assert auth["metadata"]["account_id"] == "123456789012"
        assert sts.asked == [f"{ENDPOINT}/"]
        assert (await ask("POST", "auth/aws/config/identity", {"iam_alias": "unique_id"})).status == 204
        auth = (await login(role="")).json["auth"]
        entity = (await ask("GET", f"identity/entity/id/{auth['entity_id']}")).json["data"]
        assert [(each["name"], each["metadata"]) for each in entity["aliases"]] == [
            ("AROAX", {"account_id": "123456789012", "auth_type": "iam"})
        ]
        assert (await ask("LIST", "auth/aws/roles")).json["data"]["keys"] == ["app"]

    scene(server, scenario)


@pytest.mark.parametrize(
    ("arn", "fits"),
    [
        ("arn:aws:sts::123456789012:assumed-role/app/session", True),
        ("arn:aws:sts::123456789012:assumed-role/app2/session", False),
        ("arn:aws:iam::123456789012:user/app", False),
        ("arn:aws:iam::123456789012:user/teams/blue/ann", True),
        ("arn:aws:iam::123456789012:user/teams/red/ann", False),
        ("arn:aws:iam::123456789012:root", False),
        ("arn:aws:sts::999999999999:assumed-role/app/session", False),
    ],
)
def test_the_role_is_for_those_that_it_names(server, arn, fits):
    async def scenario(_ask, sts, login):
        sts.arn = arn
        assert (await login()).status == (200 if fits else 403)

    bounds = [ROLE_ARN, "arn:aws:iam::123456789012:user/teams/blue/*"]
    scene(server, scenario, bound_iam_principal_arn=bounds)


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"key": "another"}, 403),
        ({"role": "nobody"}, 403),
        ({"url": "https://evil.test/"}, 400),
        ({"url": f"{ENDPOINT}.evil.test/"}, 400),
        ({"url": f"{ENDPOINT}/x"}, 400),
        ({"url": f"{ENDPOINT}:444/"}, 400),
        ({"url": f"{ENDPOINT}/?Action=GetSessionToken"}, 400),
        ({"url": f"http://sts.{REGION}.amazonaws.com/"}, 400),
        ({"body": f"{BODY}&Action=GetSessionToken"}, 400),
        ({"body": "Action=GetSessionToken&Version=2011-06-15"}, 400),
        ({"method": "GET"}, 400),
        ({"unsigned": {"X-Amz-Target": "x"}}, 400),
        ({"unsigned": {"Host": "evil.test"}}, 400),
        ({"iam_request_headers": "{}"}, 400),
        ({"iam_request_headers": "%"}, 400),
        ({"iam_request_url": ""}, 400),
    ],
)
def test_other_questions_are_not_sent_on_and_other_keys_prove_nothing(server, fields, status):
    async def scenario(_ask, sts, login):
        assert (await login(**fields)).status == status
        assert len(sts.asked) == (status == 403)

    scene(server, scenario)


def test_a_question_that_was_signed_for_another_vault_does_not_count(server):
    async def scenario(_ask, _sts, login):
        name = "X-Vault-AWS-IAM-Server-ID"
        assert (await login(extra={name: "vault.example.com"})).status == 200
        assert (await login(extra={name: "other.example.com"})).status == 400
        assert (await login(unsigned={name: "vault.example.com"})).status == 400
        assert (await login()).status == 400
        stolen = json.loads(base64.b64decode(signed()["iam_request_headers"]))
        twice = f"{stolen['Authorization']}, SignedHeaders=host;x-vault-aws-iam-server-id,"
        assert (await login(unsigned={**stolen, "Authorization": twice, name: "vault.example.com"})).status == 400

    scene(server, scenario, client={"iam_server_id_header_value": "vault.example.com"})


@pytest.mark.parametrize(
    "answer",
    [
        b"{}",
        b'{"GetCallerIdentityResponse": {"GetCallerIdentityResult": {"Arn": 1}}}',
        b"<x><Arn>arn:aws:iam::123456789012:user/teams/a</Arn><Arn>b</Arn><Account>123456789012</Account></x>",
    ],
)
def test_an_answer_that_names_nobody_lets_nobody_in(server, answer):
    async def scenario(_ask, sts, login):
        sts.answer = answer
        assert (await login()).status == 403

    scene(server, scenario)


def test_an_answer_in_xml_is_read_too(server):
    async def scenario(_ask, sts, login):
        sts.answer = (
            b"<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>arn:aws:sts::123456789012:assumed-role/app/s"
            b"</Arn><UserId>AROAX:s</UserId><Account>123456789012</Account></GetCallerIdentityResult>"
        )
        assert (await login()).status == 200

    scene(server, scenario)


def test_what_cannot_work_is_refused(server):
    async def scenario(ask, _sts, _login):
        for path, body in (
            ("role/x", {}),
            ("role/x", {"bound_iam_principal_arn": ["*"]}),
            ("role/x", {"bound_iam_principal_arn": ["arn:aws:iam::*:role/a"]}),
            ("role/x", {"bound_account_id": "1"}),
            ("role/x", {"auth_type": "ec2", "bound_account_id": "123456789012"}),
            ("config/identity", {"iam_alias": "x"}),
            ("config/client", {"sts_region": "x/../y"}),
            ("config/client", {"sts_endpoint": "http://sts.test"}),
        ):
            assert (await ask("POST", f"auth/aws/{path}", body)).status == 400, body
        refused = await ask("POST", "auth/aws/config/identity", {"iam_metadata": "something invalid"})
        assert "contains an unavailable field, please select from" in refused.json["errors"][0]

    scene(server, scenario)
