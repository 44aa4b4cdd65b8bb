"""Pods that log in with the token of their service account. The cluster is a stand-in that answers TokenReviews."""

from __future__ import annotations

import json
import time

import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey

from faces.api_client import play
from keyhole.core.errors import UpstreamUnreachable
from keyhole.net.ask import Heard

HOST = "https://10.96.0.1:6443"
ROLE = {
    "bound_service_account_names": ["app", "job-*"],
    "bound_service_account_namespaces": ["prod"],
    "token_policies": "app",
}


class Cluster:
    """A stand-in for the API of a cluster: knows the tokens that it has signed, and whose account they are."""

    def __init__(self) -> None:
        self.key = RSAKey.generate_key(2048)
        self.asked = []
        self.tokens = {}
        self.away = False
        self.audiences = None

    def token(self, name="app", namespace="prod", *, uid="uid-1", known=True, **more):
        now = int(time.time())
        claims = {
            "iss": "https://kubernetes.default.svc",
            "sub": f"system:serviceaccount:{namespace}:{name}",
            "aud": ["api"],
            "exp": now + 600,
            "iat": now,
            "kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": name, "uid": uid}},
            **more,
        }
        made = jwt.encode({"alg": "RS256"}, {k: v for k, v in claims.items() if v is not None}, self.key)
        if known:
            self.tokens[made] = {"username": f"system:serviceaccount:{namespace}:{name}", "uid": uid}
        return made

    async def ask(self, method, url, *, headers=(), body=b"", ca_pem="", allow=()):
        spec = json.loads(body)["spec"]
        self.asked.append({"url": url, "allow": allow, "ca": ca_pem, **dict(headers), **spec})
        if self.away:
            raise UpstreamUnreachable("the cluster is away")
        user = self.tokens.get(spec["token"])
        status = {"authenticated": user is not None, "user": user or {}, "audiences": spec.get("audiences", ["api"])}
        status |= {} if self.audiences is None else {"audiences": self.audiences}
        return Heard(201, {}, json.dumps({"kind": "TokenReview", "status": status}).encode())


def scene(scenario, *, config=None, **role):
    """``scenario(ask, cluster, login)``"""

    async def go(ask, vault):
        cluster = vault.vault.net = Cluster()
        wanted = {"kubernetes_host": HOST, **(config(cluster) if config else {})}
        made = await ask("POST", "auth/kubernetes/config", wanted)
        assert made.status == 204, made.body
        made = await ask("POST", "auth/kubernetes/role/app", {**ROLE, **role})
        assert made.status == 204, made.body

        async def login(token, name="app", **options):
            return await ask("POST", "auth/kubernetes/login", {"role": name, "jwt": token}, token=None, **options)

        return await scenario(ask, cluster, login)

    return play(go, enabled=("sys/auth/kubernetes",))


def test_a_pod_gets_a_token_and_the_cluster_has_said_whose_it_is():
    async def scenario(ask, cluster, login):
        token = cluster.token()
        auth = (await login(token)).json["auth"]
        assert auth["token_policies"] == ["app", "default"]
        assert auth["metadata"] == {
            "role": "app",
            "service_account_name": "app",
            "service_account_namespace": "prod",
            "service_account_secret_name": "",
            "service_account_uid": "uid-1",
        }
        [asked] = cluster.asked
        assert asked["url"] == f"{HOST}/apis/authentication.k8s.io/v1/tokenreviews"
        assert asked["Authorization"] == f"Bearer {token}"
        assert asked["allow"] == ["10.96.0.1"]
        entity = (await ask("GET", f"identity/entity/id/{auth['entity_id']}")).json["data"]
        assert [each["name"] for each in entity["aliases"]] == ["uid-1"]
        assert (await login(cluster.token("job-7"))).status == 200

    scene(scenario)


def test_with_a_reviewer_the_pod_s_token_asks_for_nothing():
    reviewer = Cluster().token("reviewer")

    async def scenario(ask, cluster, login):
        assert (await login(cluster.token())).status == 200
        assert cluster.asked[-1]["Authorization"] == f"Bearer {reviewer}"
        read = await ask("GET", "auth/kubernetes/config")
        assert reviewer not in read.body.decode()
        assert read.json["data"]["token_reviewer_jwt_set"] is True

    scene(scenario, config=lambda _cluster: {"token_reviewer_jwt": reviewer})


@pytest.mark.parametrize(
    "token",
    [
        lambda c: c.token("other"),
        lambda c: c.token(namespace="test"),
        lambda c: c.token(known=False),
        lambda c: c.token(exp=1000),
        lambda c: c.token(sub="system:serviceaccount:prod:admin"),
        lambda c: c.token(**{"kubernetes.io": {"namespace": "prod"}}),
        lambda c: c.token(**{"kubernetes.io": {"namespace": "prod", "serviceaccount": {"name": ["app"], "uid": "u"}}}),
        lambda c: c.token(**{"kubernetes.io": None}),
        lambda c: c.token("jobx7"),
    ],
)
def test_accounts_that_the_role_is_not_for_are_refused_alike(token):
    async def scenario(_ask, cluster, login):
        answers = [await login(token(cluster)), await login(cluster.token(), "nobody")]
        assert {answer.status for answer in answers} == {403}
        assert len({answer.body for answer in answers}) == 1

    scene(scenario)


def test_a_token_whose_account_the_cluster_names_otherwise_is_refused():
    async def scenario(_ask, cluster, login):
        token = cluster.token()
        cluster.tokens[token] = {"username": "system:serviceaccount:prod:app", "uid": "uid-of-a-later-one"}
        assert (await login(token)).status == 403
        cluster.tokens[token] = {"username": "admin", "uid": "uid-1"}
        assert (await login(token)).status == 403

    scene(scenario)


def test_a_role_can_want_an_audience():
    async def scenario(_ask, cluster, login):
        assert (await login(cluster.token())).status == 403
        assert cluster.asked == []
        assert (await login(cluster.token(aud=["vault", "api"]))).status == 200
        assert cluster.asked[-1]["audiences"] == ["vault"]
        for cluster.audiences in (["api"], [], 5, "vault", {"vault": 1}):
            assert (await login(cluster.token(aud=["vault"]))).status == 403

    scene(scenario, audience="vault")


def test_with_keys_of_the_cluster_nobody_is_asked():
    def keys(cluster):
        return {"pem_keys": [cluster.key.as_pem(private=False).decode()]}

    async def scenario(_ask, cluster, login):
        assert (await login(cluster.token(known=False))).status == 200
        assert (await login(cluster.token(exp=None))).status == 403  # nobody could say that it was deleted
        assert (await login(Cluster().token())).status == 400
        assert cluster.asked == []

    scene(scenario, config=keys)


def test_a_role_may_be_for_every_account_of_the_cluster_and_the_cluster_still_says_whose_a_token_is():
    async def scenario(_ask, cluster, login):
        assert (await login(cluster.token("any", "where"))).status == 200
        assert (await login(cluster.token("other", "where", known=False))).status == 403

    scene(scenario, bound_service_account_names="*", bound_service_account_namespaces="*")


def test_a_cluster_that_is_away_is_said_to_be_away():
    async def scenario(_ask, cluster, login):
        cluster.away = True
        assert (await login(cluster.token())).status == 502

    scene(scenario)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({}, 400, "no host provided"),
        ({"kubernetes_host": "10.0.0.1"}, 400, "kubernetes_host"),
        ({"kubernetes_host": HOST, "token_reviewer_jwt": "reviewer_jwt"}, 500, "must have three parts"),
        ({"kubernetes_host": HOST, "token_reviewer_jwt": "a.b.c"}, 500, "token_reviewer_jwt: "),
        ({"kubernetes_host": HOST, "pem_keys": ["-----BEGIN PUBLIC KEY-----"]}, 400, "not a public key"),
        ({"kubernetes_host": HOST, "kubernetes_ca_cert": "x"}, 400, "not in PEM form"),
        ({"kubernetes_host": HOST, "disable_local_ca_jwt": True}, 400, "kubernetes_ca_cert must be given"),
    ],
)
def test_settings_that_cannot_work_are_refused(body, status, words):
    async def scenario(ask, _cluster, _login):
        answer = await ask("POST", "auth/kubernetes/config", body)
        assert (answer.status, words in answer.json["errors"][0]) == (status, True), answer.body

    scene(scenario)


@pytest.mark.parametrize(
    "body",
    [
        {"bound_service_account_names": []},
        {"bound_service_account_namespaces": ""},
        {"bound_service_account_names": ["a b"]},
        {"alias_name_source": "x"},
        {"bound_service_account_namespace_selector": "{}"},
    ],
)
def test_a_role_for_nobody_or_nothing_known_is_refused(body):
    async def scenario(ask, _cluster, _login):
        assert (await ask("POST", "auth/kubernetes/role/other", {**ROLE, **body})).status == 400

    scene(scenario)
