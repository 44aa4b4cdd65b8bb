"""`keyhole run --capture`: what a command's calls looked like, as a HAR file that may be shown to anybody."""

import json
import stat

import pytest

from e2e.world import API, KEY, TOKEN, held, make_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    made = make_world(tmp_path_factory.mktemp("capture"))
    yield made
    made.upstream.close()
    made.stranger.close()


def test_a_commands_calls_are_written_without_a_value(world):
    script = (
        f"curl -s -o /dev/null -H 'X-Mine: what-I-say' {world.base}/v1/x?page=7;"
        f"curl -s -o /dev/null -d a=b {world.base}/echo;"
        f"curl -s -o /dev/null {world.base}/v2/elsewhere;"
        "curl -s -o /dev/null https://stranger.example.test/; exit 9"
    )
    done = world.run("sh", "-c", script, code=9, options=("--capture", "calls.har"))
    assert b"keyhole: 4 calls in calls.har" in done.stderr
    path = world.folder / "work/calls.har"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_bytes()
    for value in (KEY, TOKEN):
        assert held(value, text) == []
    for kept in (b"what-I-say", b"page=7", b"a=b"):
        assert kept not in text
    log = json.loads(text)["log"]
    assert (log["version"], log["creator"]["name"]) == ("1.2", "keyhole")
    get, echo, other, stranger = log["entries"]
    assert get["request"]["url"] == f"https://{API}:{world.upstream.port}/v1/x?page="
    assert get["request"]["queryString"] == [{"name": "page", "value": ""}]
    assert {"name": "x-mine", "value": "", "comment": "value not kept"} in get["request"]["headers"]
    assert get["response"]["status"] == 200
    assert get["response"]["content"]["mimeType"] == "application/json"
    assert get["_keyhole"]["injection"] == "authorization: Bearer ***"
    assert echo["_keyhole"]["masked"] is True
    assert echo["request"]["bodySize"] == 3
    assert other["_keyhole"]["result"] in {"no_service", "policy_denied"}
    assert stranger["request"]["method"] == "CONNECT"
    assert stranger["_keyhole"]["result"] == "no_service"
    assert all(entry["time"] >= 0 and set(entry["timings"]) >= {"send", "wait", "receive"} for entry in log["entries"])


def test_a_file_that_cannot_be_written_is_named_before_the_command_starts(world):
    done = world.run("touch", "started", code=125, options=("--capture", "nowhere/calls.har"))
    assert b"calls.har cannot be written" in done.stderr
    assert not (world.folder / "work/started").exists()


def test_what_the_command_puts_in_place_of_the_file_is_not_written_to(world):
    (world.folder / "work/victim").write_text("untouched")
    world.run("ln", "-sf", "victim", "calls.har", options=("--capture", "calls.har"))
    assert (world.folder / "work/victim").read_text() == "untouched"
