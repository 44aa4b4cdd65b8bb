"""What a server says of itself: figures, machine, versions, logs, settings."""

import logging
import re

import pytest

from faces.api_client import play
from faces.test_api_server import PASSPHRASE, serving
from vault.lab import Lab


def test_metrics_count_requests_by_how_they_ended():
    async def scenario(ask, _vault):
        await ask("GET", "secret/data/none")
        await ask("POST", "secret/data/x", {"data": {"v": "planted"}})
        answer = await ask("GET", "sys/metrics?format=prometheus")
        assert answer.headers["content-type"].startswith("text/plain")
        text = answer.body.decode()
        assert 'keyhole_request_seconds_count{operation="read",result="not_found"} 1' in text
        assert 'keyhole_request_seconds_count{operation="update",result="ok"} 1' in text
        assert "vault_core_unsealed 1" in text
        line = re.compile(r"# HELP \w+ .+|# TYPE \w+ \w+|\w+(\{[^}]*\})? [0-9.e+-]+")
        assert all(map(line.fullmatch, text.splitlines()))
        shown = (await ask("GET", "sys/metrics")).json
        assert {"Timestamp", "Gauges", "Counters", "Samples", "Points"} <= shown.keys()
        assert (await ask("GET", "sys/metrics?format=carrier")).status == 400
        assert (await ask("GET", "sys/metrics", token=None)).status == 403

    play(scenario)


def test_metrics_count_logins_and_what_became_of_leases_and_show_no_names():
    async def scenario(ask, vault):
        await ask("POST", "sys/auth/people", {"type": "userpass"})
        await ask("POST", "auth/people/users/ann", {"password": "correct horse battery"})
        good, bad = {"password": "correct horse battery"}, {"password": "wrong horse battery"}
        for data in (bad, good, bad):
            await ask("POST", "auth/people/login/ann", data, token=None)
        Lab().mount(vault)
        lease = (await vault.ask("read", "lab/creds/reader")).lease.id
        await vault.ask("update", "sys/leases/revoke", {"lease_id": lease, "sync": True})
        everybody = (await ask("GET", "/metrics", token=None)).body.decode()
        own = (await ask("GET", "sys/metrics?format=prometheus")).body.decode()
        for text in (everybody, own):
            assert 'keyhole_logins_total{method="userpass",result="ok"} 1\n' in text
            assert 'keyhole_logins_total{method="userpass",result="refused"} 2\n' in text
            assert 'keyhole_leases_total{result="revoked"} 1\n' in text
            assert 'keyhole_leases_total{result="irrevocable"} 0\n' in text
            assert not {"ann", "people", "reader"}.intersection(re.findall(r"\w+", text))
        counters = (await ask("GET", "sys/metrics")).json["Counters"]
        assert {"Name": "keyhole.leases", "Count": 1, "Sum": 1, "Labels": {"result": "revoked"}} in counters
        await ask("POST", "sys/seal")
        await vault.node.seal()
        assert "keyhole_sealed 1" in (await ask("GET", "/metrics", token=None)).body.decode()

    play(scenario)


def test_request_that_runs_is_seen_without_what_it_carries():
    async def scenario(ask, _vault):
        answer = await ask("GET", "sys/in-flight-req?planted=planted")
        [shown] = answer.json["data"].values()
        assert shown["request_path"] == "/v1/sys/in-flight-req"
        assert shown["client_remote_address"] == "127.0.0.1"
        assert "planted" not in answer.body.decode()

    play(scenario)


def test_machine_is_described_in_vaults_fields():
    async def scenario(ask, _vault):
        data = (await ask("GET", "sys/host-info")).json["data"]
        assert data["memory"]["total"] > data["memory"]["used"] > 0
        assert data["cpu_times"][0]["cpu"] == "cpu0"
        assert {"hostname", "uptime", "bootTime", "os", "kernelVersion"} <= data["host"].keys()
        assert all(disk["total"] >= disk["used"] for disk in data["disk"])

    play(scenario)


def test_versions_and_nodes_are_listed():
    async def scenario(ask, _vault):
        history = (await ask("LIST", "sys/version-history")).json["data"]
        [version] = history["keys"]
        assert history["key_info"][version]["previous_version"] is None
        [node] = (await ask("GET", "sys/ha-status")).json["data"]["nodes"]
        assert (node["active_node"], node["version"]) == (True, version)
        assert (await ask("PUT", "sys/step-down")).status == 204

    play(scenario)


def test_level_of_logs_is_read_set_and_reset():
    async def scenario(ask, _vault):
        try:
            assert (await ask("POST", "sys/loggers/keyhole", {"level": "debug"})).status == 204
            assert (await ask("GET", "sys/loggers/keyhole")).json["data"] == {"keyhole": "debug"}
            assert (await ask("GET", "sys/loggers")).json["data"]["keyhole"] == "debug"
            assert (await ask("POST", "sys/loggers", {"level": "loud"})).status == 400
            assert (await ask("POST", "sys/loggers/asyncio", {"level": "debug"})).status == 404
            assert (await ask("DELETE", "sys/loggers/keyhole")).status == 204
            assert (await ask("GET", "sys/loggers/keyhole")).json["data"] == {"keyhole": "warning"}
        finally:
            logging.getLogger("keyhole").setLevel(logging.NOTSET)

    play(scenario)


def test_pages_of_other_origins_cannot_be_let_in():
    async def scenario(ask, _vault):
        answer = await ask("POST", "sys/config/cors", {"allowed_origins": "*"})
        assert answer.status == 400
        assert (await ask("GET", "sys/config/cors")).json["data"] == {"enabled": False}
        assert (await ask("DELETE", "sys/config/cors")).status == 204

    play(scenario)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "sys/metrics"),
        ("GET", "sys/host-info"),
        ("GET", "sys/in-flight-req"),
        ("POST", "sys/loggers"),
        ("LIST", "sys/version-history"),
        ("PUT", "sys/step-down"),
    ],
)
def test_what_is_of_the_whole_server_is_not_for_orgs(method, path):
    async def scenario(ask, vault):
        made = await vault.ask("update", "sys/namespaces/acme", {})
        answer = await ask(method, path, {"level": "debug"}, token=made.data["root_token"])
        assert (answer.status, answer.json["errors"]) == (400, ["operation unavailable in namespaces"])

    play(scenario)


def test_key_status_says_since_when_and_for_how_much_the_key_is_used():
    async def scenario(ask, _vault):
        first = (await ask("GET", "sys/key-status")).json["data"]
        assert first.keys() == {"term", "install_time", "encryptions"}
        await ask("POST", "secret/data/x", {"data": {"v": "x"}})
        second = (await ask("GET", "sys/key-status")).json["data"]
        assert second["encryptions"] > first["encryptions"]
        assert (await ask("PUT", "sys/rotate")).status in {200, 204}
        third = (await ask("GET", "sys/key-status")).json["data"]
        assert third["term"] == first["term"] + 1
        assert third["install_time"] > first["install_time"]
        assert third["encryptions"] < second["encryptions"]

    play(scenario)


def test_health_answers_with_the_status_that_was_asked_for():
    async def scenario(ask, vault):
        assert (await ask("GET", "sys/health?activecode=299")).status == 299
        for wrong in ("abc", "99", "600", "-1", "2000000000"):
            assert (await ask("GET", f"sys/health?activecode={wrong}")).status == 400
        await vault.node.seal()
        sealed = await ask("GET", "sys/health?sealedcode=200")
        assert sealed.status == 200
        assert sealed.json["standby"]
        assert sealed.json["replication_dr_mode"] == "unknown"

    play(scenario)


def test_settings_are_shown_without_paths_or_secrets(tmp_path):
    with serving(tmp_path, init=True) as server:
        status, answer = server.ask("GET", "/v1/sys/config/state/sanitized")
        assert status == 200
        assert answer["data"]["storage"]["type"] == "sqlite"
        assert answer["data"]["api_addr"].endswith(f":{server.port}")
        assert str(tmp_path) not in str(answer)
        assert PASSPHRASE not in str(answer)
