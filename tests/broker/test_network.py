"""Addresses that are dialled, and that never are: the product in a network namespace where all can be reached."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from broker.stack import SECRET, vectors

TESTS = Path(__file__).parents[1]
ENTER = ["unshare", "--net", "--map-root-user"]


@pytest.fixture(scope="module")
def played(tmp_path_factory) -> dict[str, Any]:
    try:
        subprocess.run([*ENTER, "ip", "link", "set", "lo", "up"], check=True, capture_output=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("no network namespace can be made here, so the addresses were not dialled")
    home = tmp_path_factory.mktemp("home")
    (home / ".netrc").write_text(f"default login thief password {SECRET}\n")
    proxy = "http://127.0.0.1:3128"
    traps = {name: proxy for base in ("http_proxy", "https_proxy", "all_proxy") for name in (base, base.upper())}
    environment = {**os.environ, **traps, "NO_PROXY": "", "HOME": str(home), "NETRC": str(home / ".netrc")}
    environment["PYTHONPATH"] = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [*ENTER, sys.executable, "-m", "broker.network_driver"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


def test_refused_destinations_are_never_dialled(played: dict[str, Any]) -> None:
    blocked = [row for row in played["urls"] if row["must"] == "block"]
    assert len(blocked) > 500
    assert [(row["id"], row["dialled"]) for row in blocked if row["dialled"]] == []
    assert [(row["id"], row["tunnelled"]) for row in blocked if 200 in row["tunnelled"]] == []
    for way in ("absolute", "tunnelled"):
        wrong = [(row["id"], row["url"], row[way]) for row in blocked if not {400, 403}.intersection(row[way])]
        assert wrong == []
        assert [(row["id"], row[way]) for row in blocked if row[way][-1] not in {400, 403}] == []


def test_public_destinations_are_reached(played: dict[str, Any]) -> None:
    allowed = [row for row in played["urls"] if row["must"] == "allow"]
    assert len(allowed) > 20
    for row in allowed:
        address = row["effective_ip"] or row["url"].split("/")[2].strip("[]")
        expected = {"93.184.215.14"} if "allowed.test" in row["url"] else {address}
        assert set(row["dialled"]) == expected, row
        assert 200 in row["tunnelled"], row


def test_addresses_in_a_path_are_not_dialled(played: dict[str, Any]) -> None:
    rows = [row for row in played["urls"] if row["must"] == "allow_host"]
    assert rows
    assert {address for row in rows for address in row["dialled"]} <= {"93.184.215.14"}


def test_environment_of_the_server_does_not_redirect_or_log_in(played: dict[str, Any]) -> None:
    """The variables named a proxy at 127.0.0.1:3128, where the canary listened too, and a .netrc for every host."""
    dialled = [address for row in played["urls"] for address in row["dialled"]]
    assert "127.0.0.1" not in dialled
    assert played["heads"]
    assert [head for head in played["heads"] if "uthorization" in head and "Bearer" not in head] == []


@pytest.mark.parametrize("row", vectors("net/dns_scenarios.jsonl"), ids=lambda row: row["class"])
def test_names_that_lead_astray_are_not_followed(played: dict[str, Any], row: dict[str, Any]) -> None:
    result = played["names"][row["id"]]
    if row["class"] == "rebind-per-query":
        assert result["statuses"][0] == 200
        assert set(result["dialled"]) == {"93.184.215.14"}
        assert set(result["statuses"][1:]) <= {200, 403}
    else:
        assert result["dialled"] == []
        failed = {502, 504} if row["class"] in {"resolver-stall", "no-answer"} else {403}
        assert set(result["statuses"]) <= failed
    assert result["seconds"] < 5


def test_other_requests_do_not_wait_for_a_stuck_name(played: dict[str, Any]) -> None:
    assert played["names"]["others"]["statuses"] == [200]
    assert played["names"]["others"]["seconds"] < played["names"]["dns-08"]["seconds"]


def test_exemption_is_for_the_named_address_and_no_other(played: dict[str, Any]) -> None:
    reached = {name: result["dialled"] for name, result in played["exempt"].items() if result["dialled"]}
    assert set(reached) - {"mapped-five.test"} == {"five.test"}
    assert reached["five.test"] == ["10.0.0.5"]
    refused = {result["code"] for name, result in played["exempt"].items() if name not in reached}
    assert refused == {"address_denied"}


@pytest.mark.vectors
def test_one_host_is_judged_asked_dialled_and_named(played: dict[str, Any]) -> None:
    if not os.environ.get("KEYHOLE_VECTORS"):
        pytest.skip("KEYHOLE_VECTORS is not set: the WPT URL vectors in urltestdata.json did not run")
    rows = played["standard"]
    assert len(rows) > 20
    for row in rows:
        host = row["record"].rpartition(":")[0].strip("[]")
        assert row["hostname"].strip("[]").removesuffix(".") == host, row["input"]
        if row["asked"]:
            assert row["asked"] == [host]
        else:
            assert row["dialled"] == [host]
        for head in row["heads"]:
            [said] = [line[6:] for line in head.split("\r\n") if line.startswith("Host: ")]
            assert said in {row["record"], row["record"].rpartition(":")[0]}
        for hello in row["hellos"]:
            assert host in hello or not row["asked"]
