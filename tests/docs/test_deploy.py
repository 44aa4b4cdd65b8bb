"""The files under deploy/ are what they say: well formed, with options that exist, and no way around the broker."""

from pathlib import Path

import click
import pytest
import yaml

from keyhole.cli.root import root

DEPLOY = Path(__file__).parents[2] / "deploy"
FILES = sorted(DEPLOY.rglob("*.yaml"))


def documents(path: Path) -> list[dict]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def pods(path: Path) -> list[dict]:
    kinds = {"Pod": lambda found: found["spec"], "Deployment": lambda found: found["spec"]["template"]["spec"]}
    return [kinds[document["kind"]](document) for document in documents(path) if document.get("kind") in kinds]


def containers(path: Path) -> list[dict]:
    return [each for pod in pods(path) for each in (*pod.get("initContainers", ()), *pod["containers"])]


def commands() -> list[tuple[str, list[str]]]:
    found = [(path.name, each["args"]) for path in FILES for each in containers(path) if "args" in each]
    compose = documents(DEPLOY / "compose.yaml")[0]["services"]
    return found + [("compose.yaml", each["command"]) for each in compose.values() if "command" in each]


def test_there_is_a_server_in_each():
    assert [name for name, _ in commands()] == ["egress.yaml", "sidecar.yaml", "compose.yaml"]


@pytest.mark.parametrize(("name", "words"), commands())
def test_the_commands_are_ours(name, words):
    command = root.get_command(click.Context(root), words[0])
    command.make_context(words[0], list(words[1:]))  # an option that does not exist is a usage error
    assert all(word.startswith("--") for word in words[1:]), name


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.parent.name == "kubernetes"], ids=lambda path: path.name
)
def test_objects_of_kubernetes_have_what_all_have(path):
    for document in documents(path):
        assert {"apiVersion", "kind", "metadata", "spec"} <= set(document)
        assert document["metadata"]["namespace"] == "agents"
    for pod in pods(path):
        assert pod["automountServiceAccountToken"] is False
        mounted = {volume["name"] for volume in pod["volumes"]}
        for each in (*pod.get("initContainers", ()), *pod["containers"]):
            assert {mount["name"] for mount in each.get("volumeMounts", ())} <= mounted


def test_the_agent_of_compose_has_an_internal_network_and_no_other():
    found = documents(DEPLOY / "compose.yaml")[0]
    agent = found["services"]["agent"]
    assert agent["networks"] == ["agents"]
    assert found["networks"]["agents"]["internal"] is True
    assert "agents" in found["services"]["keyhole"]["networks"]
    assert not {"ports", "privileged", "network_mode", "secrets", "extra_hosts"} & set(agent)
    assert agent["volumes"] == ["./ca.pem:/keyhole/ca.pem:ro"]


def test_agents_of_kubernetes_may_connect_to_the_proxy_alone():
    [policy] = [
        document
        for document in documents(DEPLOY / "kubernetes" / "egress.yaml")
        if document["kind"] == "NetworkPolicy" and document["spec"]["podSelector"]["matchLabels"] == {"role": "agent"}
    ]
    assert "Egress" in policy["spec"]["policyTypes"]
    [rule] = policy["spec"]["egress"]
    assert rule == {
        "to": [{"podSelector": {"matchLabels": {"app": "keyhole"}}}],
        "ports": [{"protocol": "TCP", "port": 8210}],
    }


@pytest.mark.parametrize("name", ["egress.yaml", "sidecar.yaml"])
def test_the_agent_holds_neither_the_key_nor_a_capability_nor_the_user_of_the_server(name):
    found = containers(DEPLOY / "kubernetes" / name)
    pod = pods(DEPLOY / "kubernetes" / name)[-1]
    [agent] = [each for each in found if each["name"] == "agent"]
    rights = pod.get("securityContext", {}) | agent["securityContext"]
    assert rights["capabilities"] == {"drop": ["ALL"]}
    assert rights["allowPrivilegeEscalation"] is False
    assert rights["runAsNonRoot"] is True
    assert rights["runAsUser"] != 10001
    assert [mount["name"] for mount in agent["volumeMounts"]] == ["ca"]


def test_beside_a_sidecar_the_network_is_left_to_the_sidecars_user():
    shut, keyhole, _ = containers(DEPLOY / "kubernetes" / "sidecar.yaml")
    assert f"--uid-owner {keyhole['securityContext']['runAsUser']} " in shut["command"][-1]
    assert shut["command"][-1].rstrip().endswith("-j REJECT\ndone")
    assert "ip6tables" in shut["command"][-1]
