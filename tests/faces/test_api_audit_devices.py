"""Audit devices over HTTP, and at SIGHUP of a real server."""

import json
import signal

from faces.api_client import play
from faces.test_api_server import serving


def entries(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_headers_are_written_as_they_are_configured_and_no_credential_ever(tmp_path):
    file = tmp_path / "audit.log"

    async def scenario(ask, _vault):
        assert (await ask("PUT", "sys/audit/f", {"type": "file", "options": {"file_path": str(file)}})).status == 204
        headers = "sys/config/auditing/request-headers"
        assert (await ask("POST", f"{headers}/X-Trace", {"hmac": False})).status == 204
        assert (await ask("PUT", f"{headers}/X-Person", {"hmac": True})).status == 204
        assert (await ask("PUT", f"{headers}/X-Vault-Token", {"hmac": True})).status == 400
        assert (await ask("GET", f"{headers}/x-trace")).json["data"] == {"x-trace": {"hmac": False}}
        listed = (await ask("GET", headers)).json
        assert (
            listed["headers"] == listed["data"]["headers"] == {"x-trace": {"hmac": False}, "x-person": {"hmac": True}}
        )
        await ask("GET", "secret/data/a", headers=[(b"x-trace", b"t-1"), (b"x-person", b"Ann"), (b"x-other", b"o")])
        written = entries(file)[-2]["request"]["headers"]
        assert written["x-trace"] == ["t-1"]
        assert written["x-person"][0].startswith("hmac-sha256:")
        assert "x-other" not in written
        assert (await ask("DELETE", f"{headers}/x-trace")).status == 204
        gone = await ask("GET", f"{headers}/x-trace")
        assert (gone.status, gone.json["errors"]) == (400, ["Could not find header in config"])

    play(scenario)


def test_failing_devices_are_answered_as_vault_does(tmp_path):
    async def scenario(ask, vault):
        await ask("PUT", "sys/audit/f", {"type": "file", "options": {"file_path": str(tmp_path / "f")}})
        vault.vault.devices._devices["f"].made.way._write = lambda _data: (_ for _ in ()).throw(OSError(28, "full"))
        answer = await ask("GET", "secret/data/a")
        assert (answer.status, answer.json) == (500, {"errors": ["internal error"]})
        assert answer.headers["x-keyhole-error"] == "audit_unavailable"

    play(scenario)


def test_server_goes_on_in_a_new_file_after_sighup(tmp_path):
    file, moved = tmp_path / "logs" / "audit.log", tmp_path / "logs" / "audit.log.1"
    with serving(tmp_path, init=True) as server:
        assert server.ask("PUT", "/v1/sys/audit/f", {"type": "file", "options": {"file_path": str(file)}})[0] == 204
        assert server.ask("POST", "/v1/secret/data/one", {"data": {"v": "x"}})[0] == 200
        file.rename(moved)
        assert server.ask("POST", "/v1/secret/data/two", {"data": {"v": "x"}})[0] == 200
        assert not file.exists()
        server.process.send_signal(signal.SIGHUP)
        while not file.exists():
            assert server.ask("GET", "/v1/secret/data/one")[0] == 200
        assert server.ask("POST", "/v1/secret/data/three", {"data": {"v": "x"}})[0] == 200
        for name, path in (("one", moved), ("two", moved), ("three", file)):
            written = [e["type"] for e in entries(path) if e["request"]["path"] == f"secret/data/{name}"]
            assert written[:2] == ["request", "response"]
