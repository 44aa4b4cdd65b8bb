"""Audit devices: what they get, what they never get, and what happens when they do not work."""

import asyncio
import contextlib
import gzip
import json
import os
import socket
import stat
from collections import Counter

import pytest

from keyhole.core.errors import InvalidRequest, KeyholeError, PolicyDenied, Unauthenticated
from keyhole.core.request import Operation, Request
from keyhole.testing import open_vault
from keyhole.vault import devices
from keyhole.vault.devices import NoDeviceWrote, lane
from vault.world import CANARY, SERVICE, Place, journal, play


def entries(path):
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    assert not text or text.endswith("\n")
    return [json.loads(line) for line in text.split("\n")[:-1]]


async def enable(vault, name, kind, **options):
    await vault.ask("update", f"sys/audit/{name}", {"type": kind, "options": options})


def test_each_request_has_an_entry_and_each_answer_another_and_no_value_is_in_clear(tmp_path):
    file = tmp_path / "audit.log"
    secret = {"password": CANARY, "pin": 271828, "list": [CANARY, {"deep": CANARY}], "on": True, "note": None}

    async def scenario(vault):
        await enable(vault, "f", "file", file_path=str(file))
        await vault.ask("update", "secret/data/a/b", {"data": secret})
        await vault.ask("read", "secret/data/a/b")
        found = entries(file)
        assert [(e["type"], e["request"]["operation"]) for e in found] == [
            ("request", "create"),
            ("response", "create"),
            ("request", "read"),
            ("response", "read"),
        ]
        assert {e["request"]["path"] for e in found} == {"secret/data/a/b"}
        assert CANARY not in file.read_text()
        assert "271828" not in file.read_text()
        hashed = (await vault.ask("update", "sys/audit-hash/f", {"input": CANARY})).data["hash"]
        pin = (await vault.ask("update", "sys/audit-hash/f", {"input": "271828"})).data["hash"]
        told = {"password": hashed, "pin": pin, "list": [hashed, {"deep": hashed}], "on": True, "note": None}
        assert found[0]["request"]["data"]["data"] == told
        assert found[3]["response"]["data"]["data"] == told
        token = (await vault.ask("update", "sys/audit-hash/f", {"input": vault.token})).data["hash"]
        assert {e["auth"]["client_token"] for e in found} == {token}
        assert found[0]["auth"]["policies"] == ["root"]
        assert found[0]["request"]["mount_type"] == "kv"
        assert found[0]["request"]["id"] == found[1]["request"]["id"] != found[2]["request"]["id"]

    play(scenario)


def test_two_devices_hash_the_same_text_differently(tmp_path):
    async def scenario(vault):
        for name in ("f", "g"):
            await enable(vault, name, "file", file_path=str(tmp_path / name))
        hashes = {(await vault.ask("update", f"sys/audit-hash/{n}", {"input": "x"})).data["hash"] for n in ("f", "g")}
        assert len(hashes) == 2
        with pytest.raises(InvalidRequest, match="unknown audit backend"):
            await vault.ask("update", "sys/audit-hash/h", {"input": "x"})

    play(scenario)


def test_refusals_of_callers_and_of_strangers_are_entries_too(tmp_path):
    file = tmp_path / "audit.log"

    async def scenario(vault):
        await enable(vault, "f", "file", file_path=str(file))
        made = await vault.ask("update", "auth/token/create", {"policies": ["default"], "meta": {"role": "ci"}})
        token = made.auth["client_token"]
        with pytest.raises(PolicyDenied):
            await vault.ask("read", "secret/data/x", token=token)
        with pytest.raises(Unauthenticated):
            await vault.ask("read", "secret/data/x", token="hvs.unknown")
        with pytest.raises(KeyholeError):
            await vault.ask("read", "secret/data/none")
        denied, _, unknown, _, asked, failed = entries(file)[-6:]
        assert denied["error"] == "permission denied"
        assert denied["auth"]["policies"] == ["default"]
        assert denied["auth"]["metadata"] == {"role": "ci"}
        assert "policies" not in unknown["auth"]
        assert "error" not in asked
        assert failed["error"]
        assert token not in file.read_text()

    play(scenario)


def test_no_number_that_may_be_a_value_is_in_clear_whatever_became_of_the_request(tmp_path):
    file = tmp_path / "audit.log"

    async def ask(vault, path, data, token=None, wrap_ttl=0):
        credential = (vault.token if token is None else token).encode()
        request = Request(credential, Operation.UPDATE, path, data, wrap_ttl=wrap_ttl)
        with contextlib.suppress(KeyholeError):
            await vault.node.handle(request)

    async def scenario(vault):
        await vault.ask("update", "sys/auth/userpass", {"type": "userpass"})
        await vault.ask("update", "sys/mounts/totp", {"type": "totp"})
        narrow = (await vault.ask("update", "auth/token/create", {"policies": ["default"]})).auth["client_token"]
        await enable(vault, "f", "file", file_path=str(file))
        await ask(vault, "secret/data/x", {"data": {"pin": 271828}}, narrow)
        await ask(vault, "secret/data/x", {"data": {"pin": 271828}}, "hvs.unknown")
        await ask(vault, "sys/wrapping/wrap", {"pin": 271828}, wrap_ttl=60)
        await ask(vault, "auth/userpass/users/bob", {"password": 271828})
        await ask(vault, "auth/userpass/login/bob", {"password": 271828}, "")
        await ask(vault, "totp/code/bob", {"code": 271828})
        assert len(entries(file)) >= 12
        assert "271828" not in file.read_text()
        await ask(vault, "auth/token/create", {"policies": ["default"], "ttl": 271828})
        assert entries(file)[-1]["request"]["data"]["ttl"] == 271828

    play(scenario)


def test_login_and_what_it_gave_are_entries_without_password_or_token(tmp_path):
    file = tmp_path / "audit.log"

    async def scenario(vault):
        for path, data in (("sys/auth/userpass", {"type": "userpass"}),):
            with contextlib.suppress(KeyholeError):  # it is there already
                await vault.ask("update", path, data)
        await vault.ask("update", "auth/userpass/users/bob", {"password": CANARY})
        await enable(vault, "f", "file", file_path=str(file))
        reply = await vault.ask("update", "auth/userpass/login/bob", {"password": CANARY}, token="")
        asked, answered = entries(file)[-2:]
        assert asked["request"]["path"] == "auth/userpass/login/bob"
        assert answered["response"]["auth"]["client_token"].startswith("hmac-sha256:")
        assert answered["response"]["auth"]["policies"] == ["default"]
        assert CANARY not in file.read_text()
        assert reply.auth["client_token"] not in file.read_text()
        assert reply.auth["accessor"] not in file.read_text()

    play(scenario)


def test_use_of_a_secret_is_an_entry_when_it_begins_and_when_it_ends(tmp_path):
    file = tmp_path / "audit.log"

    async def scenario(vault):
        await vault.ask("update", "secret/data/stripe/api-key", {"data": {"value": CANARY}})
        await vault.ask("update", "services/stripe", SERVICE)
        await enable(vault, "f", "file", file_path=str(file))
        door = vault.vault
        state, caller = await door.authenticate(vault.token.encode())
        request = Request(vault.token.encode(), devices.Operation.USE, "services/stripe", id="r1")
        lent = await door.use(state, caller, request, "services/stripe")
        door.conclude(state, lent.intent, "ok", status=200, received=12)
        await vault.ask("read", "sys/audit")
        begun, ended = [e for e in entries(file) if e["request"]["id"] == "r1"]
        assert (begun["type"], begun["request"]["operation"]) == ("request", "use")
        assert ended["response"]["data"] == {"status": 200, "received": 12}
        assert CANARY not in file.read_text()

    play(scenario)


def test_request_fails_when_no_device_writes_and_nothing_was_done(tmp_path):
    async def scenario(vault):
        await vault.ask("update", "secret/data/a", {"data": {"v": "old"}})
        folder = tmp_path / "logs"
        await enable(vault, "f", "file", file_path=str(folder / "audit.log"))
        vault.vault.devices._devices["f"].made.way._write = lambda _data: (_ for _ in ()).throw(OSError(28, "full"))
        with pytest.raises(NoDeviceWrote, match="internal error") as refusal:
            await vault.ask("update", "secret/data/a", {"data": {"v": "new"}})
        assert refusal.value.status == 500
        # Who administers the devices gets out of it, and the journal has it all.
        await vault.ask("delete", "sys/audit/f")
        assert json.loads((await vault.ask("read", "secret/data/a")).data["data"].reveal()) == {"v": "old"}
        results = [(r.path, r.result) for _, r in await journal(vault) if r.operation in {"update", "audit-device"}]
        assert ("secret/data/a", "audit_unavailable") in results
        assert ("sys/audit/f", "failing") in results

    play(scenario)


def test_request_goes_on_while_one_device_of_two_writes(tmp_path):
    async def scenario(vault):
        for name in ("f", "g"):
            await enable(vault, name, "file", file_path=str(tmp_path / name))
        vault.vault.devices._devices["f"].made.way._write = lambda _data: (_ for _ in ()).throw(OSError(5, "broken"))
        for number in range(3):
            await vault.ask("update", f"secret/data/{number}", {"data": {"v": "x"}})
        assert Counter(e["request"]["path"] for e in entries(tmp_path / "g"))["secret/data/2"] == 2

    play(scenario)


def test_device_that_hangs_holds_up_one_request_for_its_time_and_the_others_not_at_all(tmp_path):
    async def scenario(vault):
        await enable(vault, "f", "file", file_path=str(tmp_path / "f"))
        path = str(tmp_path / "listener")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()
        await enable(vault, "s", "socket", socket_type="unix", address=path, write_timeout="1s")
        hanging = vault.vault.devices._devices["s"]
        let_go = asyncio.Event()
        sent = []
        send = hanging.made.way.send

        async def hang(lines):
            await let_go.wait()
            await send(lines)
            sent.extend(lines)

        hanging.made.way.send = hang
        hanging.lane.seconds = 0.05
        await vault.ask("update", "secret/data/0", {"data": {"v": "x"}})
        assert hanging.lane.behind
        hanging.lane.seconds = 10**6  # whoever waited now would wait for ever
        for number in range(50):
            await vault.ask("update", f"secret/data/{number}", {"data": {"v": "x"}})
        let_go.set()
        while hanging.lane.behind:  # noqa: ASYNC110 - this is what is looked for
            await asyncio.sleep(0)
        # It catches up, and has lost nothing.
        paths = Counter(json.loads(line)["request"]["path"] for line in sent)
        assert paths["secret/data/49"] == 2
        assert hanging.lane.lost == 0
        listener.close()

    play(scenario)


def test_queue_of_a_device_that_hangs_is_bounded(monkeypatch):
    monkeypatch.setattr(lane, "QUEUE_LINES", 10)

    class Hanging:
        async def send(self, _lines):
            await asyncio.Event().wait()

        def close(self):
            pass

    async def main():
        one = lane.Lane(Hanging(), 0.01)
        written = [one.put(b"x\n") for _ in range(100)]
        await asyncio.sleep(0)
        assert one.lost == 90
        assert sum(future.done() and not future.result() for future in written) == 90
        await one.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("kind", "options", "wrong"),
    [
        ("nope", {}, 'unknown backend type: "nope"'),
        ("file", {}, "file_path is required"),
        ("file", {"file_path": "relative.log"}, "file_path is not absolute"),
        ("file", {"file_path": "/tmp/x", "log_raw": "true"}, "secrets in clear"),
        ("file", {"file_path": "/tmp/x", "mode": "0755"}, "mode"),
        ("file", {"file_path": "/tmp/x", "mode": "0622"}, "mode"),
        ("file", {"file_path": "/tmp/x", "prefix": "* * * * * root sh\n"}, "prefix"),
        ("file", {"file_path": "/tmp/x", "prefix": "reboot "}, "prefix"),
        ("file", {"file_path": "/tmp/x", "format": "jsonx"}, "json"),
        ("file", {"file_path": "/tmp/x", "color": "red"}, "unknown option 'color'"),
        ("file", {"file_path": "/dev/null"}, "something else"),
        ("file", {"file_path": "/tmp/x", "write_timeout": "1h"}, "write_timeout"),
        ("socket", {"address": "nowhere"}, "port"),
        ("socket", {"address": "relative", "socket_type": "unix"}, "socket_type"),
        ("http", {"uri": "http://logs.example.com/x"}, "https only"),
        ("http", {"uri": "https://user:pw@logs.example.com/x"}, "without a password"),
        ("syslog", {"facility": "COFFEE"}, "facility"),
    ],
)
def test_device_that_cannot_be_is_refused(kind, options, wrong):
    async def scenario(vault):
        with pytest.raises(InvalidRequest, match=wrong):
            await enable(vault, "f", kind, **options)
        assert (await vault.ask("read", "sys/audit")).data == {}

    play(scenario)


def test_file_of_something_else_is_never_added_to(tmp_path):
    keys = tmp_path / "authorized_keys"
    keys.write_text("ssh-ed25519 AAAA me@home\n")
    (tmp_path / "config.json").write_text('{"auths":{}}\n')
    link = tmp_path / "link.log"
    link.symlink_to(tmp_path / "target.log")
    os.mkfifo(tmp_path / "pipe")

    async def scenario(vault):
        for name in ("authorized_keys", "config.json", "link.log", "pipe", "."):
            with pytest.raises(InvalidRequest):
                await enable(vault, "f", "file", file_path=str(tmp_path / name))

    play(scenario)
    assert keys.read_text() == "ssh-ed25519 AAAA me@home\n"
    assert not (tmp_path / "target.log").exists()


def test_file_is_private_unless_its_mode_says_otherwise(tmp_path):
    async def scenario(vault):
        await enable(vault, "f", "file", path=str(tmp_path / "deep" / "f"))
        await enable(vault, "g", "file", file_path=str(tmp_path / "g"), mode="0640", prefix="@cee: ")
        await vault.ask("read", "sys/audit")

    previous = os.umask(0)
    try:
        play(scenario)
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "deep" / "f").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "deep").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "g").stat().st_mode) == 0o640
    assert all(line.startswith("@cee: {") for line in (tmp_path / "g").read_text().splitlines())


def test_nothing_is_lost_when_files_are_moved_and_compressed_while_requests_go_on(tmp_path):
    file = tmp_path / "audit.log"
    parts = []

    async def scenario(vault):
        await enable(vault, "f", "file", file_path=str(file))
        done = asyncio.Event()

        async def ask(worker):
            for number in range(40):
                await vault.ask("update", f"secret/data/{worker}/{number}", {"data": {"v": "x"}})

        async def rotate():
            while not done.is_set():
                moved = tmp_path / f"audit.log.{len(parts)}"
                file.rename(moved)
                vault.vault.devices.reopen()
                while not file.exists():  # noqa: ASYNC110 - until then it writes into the file that was moved
                    await asyncio.sleep(0)
                with gzip.open(f"{moved}.gz", "wb") as packed:
                    packed.write(moved.read_bytes())
                moved.unlink()
                parts.append(tmp_path / f"{moved.name}.gz")

        async def work():
            await asyncio.gather(*(ask(worker) for worker in range(4)))
            done.set()
            await vault.ask("read", "sys/audit")

        await asyncio.gather(work(), rotate())
        seen = Counter()
        for part in [*parts, file]:
            seen.update((e["type"], e["request"]["path"]) for e in entries(part) if "secret/" in e["request"]["path"])
        assert seen == {
            (kind, f"secret/data/{worker}/{number}"): 1
            for kind in ("request", "response")
            for worker in range(4)
            for number in range(40)
        }
        assert len(parts) > 1
        # The journal has the same requests, across the same time.
        ids = {r.id for _, r in await journal(vault) if r.path.startswith("secret/data/")}
        assert ids == {
            e["request"]["id"] for part in [*parts, file] for e in entries(part) if "secret/" in e["request"]["path"]
        }
        assert (await vault.ask("read", "sys/audit-log/verify")).data["valid"]

    play(scenario)


@pytest.mark.parametrize(
    "name",
    ['x","result":"ok', "new\nline", "\x1b[31mred", "quote'\"", "{}", "\u202eright to left", "a" * 10**6, "\ud800"],
)
def test_whatever_is_sent_is_one_entry_a_line(tmp_path, name):
    file = tmp_path / "audit.log"

    async def scenario(vault):
        await enable(vault, "f", "file", file_path=str(file))
        before = len(entries(file))
        for operation, path, data in (
            ("update", "secret/data/x", {"data": {name: name}}),
            ("read", f"secret/data/{name}", {}),
            ("update", f"auth/userpass/login/{name}", {name: name}),
        ):
            with contextlib.suppress(KeyholeError):
                await vault.ask(operation, path, data)
        found = entries(file)[before:]
        assert len(found) >= 4
        assert all(line.isascii() and line.isprintable() for line in file.read_text().split("\n"))
        assert all(e.keys() <= {"time", "type", "auth", "request", "response", "error"} for e in found)
        assert (await vault.ask("read", "sys/audit-log/verify")).data["valid"]

    play(scenario)


@pytest.mark.parametrize("jump", [-86400.0, 10 * 365 * 86400.0, 3600.0, -3600.0, 1.0])
def test_order_of_entries_and_of_the_journal_is_kept_when_the_clock_jumps(tmp_path, jump):
    place, file = Place(tmp_path), tmp_path / "audit.log"

    async def scenario(vault):
        await enable(vault, "f", "file", file_path=str(file))
        await vault.ask("update", "secret/data/before", {"data": {"v": "x"}})

    async def later(vault):
        await vault.ask("update", "secret/data/after", {"data": {"v": "x"}})
        records = [r for _, r in await journal(vault)]
        paths = [r.path for r in records if r.phase == "intent" and r.path.startswith("secret/data")]
        assert paths == ["secret/data/before", "secret/data/after"]
        verdict = (await vault.ask("read", "sys/audit-log/verify")).data
        assert verdict["valid"], verdict
        if jump < -600:
            assert any(r.operation == "clock" for r in records)

    place.play(scenario)
    shifted(place, later, jump)
    found = [
        e["request"]["path"] for e in entries(file) if e["type"] == "request" and "secret/" in e["request"]["path"]
    ]
    assert found == ["secret/data/before", "secret/data/after"]


def shifted(place, scenario, jump):
    """Open the vault where the store's clock is off by ``jump`` seconds."""
    from keyhole.stores.sqlite import SqliteStore

    now = SqliteStore.now

    async def later(store):
        return await now(store) + jump

    SqliteStore.now = later
    try:
        place.play(scenario)
    finally:
        SqliteStore.now = now


def test_devices_belong_to_the_org_root_and_get_the_entries_of_all(tmp_path):
    file = tmp_path / "audit.log"

    async def scenario(vault):
        made = await vault.ask("update", "sys/namespaces/acme", {})
        token = made.data["root_token"]
        with pytest.raises(InvalidRequest, match="unavailable in namespaces"):
            await vault.ask("update", "sys/audit/x", {"type": "file"}, token=token)
        with pytest.raises(InvalidRequest, match="unavailable in namespaces"):
            await vault.ask("read", "sys/audit", token=token)
        await enable(vault, "f", "file", file_path=str(file))
        await vault.ask("update", "secret/data/theirs", {"data": {"v": CANARY}}, token=token)
        entry = next(e for e in entries(file) if e["request"]["path"] == "secret/data/theirs")
        assert entry["request"]["namespace"]["path"] == "acme/"

    play(scenario)


def test_device_that_one_server_enabled_is_written_by_the_other_with_its_next_request(tmp_path):
    place, file = Place(tmp_path), tmp_path / "audit.log"

    async def main():
        async with place.open() as one, open_vault(place.location, seal=place.seal) as two:
            await two.ask("read", "sys/audit")
            await enable(one, "f", "file", file_path=str(file))
            await two.ask("update", "secret/data/two", {"data": {"v": "x"}})
            assert [e["type"] for e in entries(file) if e["request"]["path"] == "secret/data/two"] == [
                "request",
                "response",
            ]
            await one.ask("delete", "sys/audit/f")
            size = file.stat().st_size
            await two.ask("update", "secret/data/three", {"data": {"v": "x"}})
            assert "secret/data/three" not in file.read_text()[size:]

    asyncio.run(main())


def test_listing_can_be_elided(tmp_path):
    async def scenario(vault):
        await vault.ask("update", "secret/data/a", {"data": {"v": "x"}})
        await enable(vault, "f", "file", file_path=str(tmp_path / "f"), elide_list_responses="true")
        await enable(vault, "g", "file", file_path=str(tmp_path / "g"))
        await vault.ask("list", "secret/metadata")
        assert entries(tmp_path / "f")[-1]["response"]["data"] == {"keys": 1}
        assert entries(tmp_path / "g")[-1]["response"]["data"]["keys"][0].startswith("hmac-sha256:")

    play(scenario)


def test_fields_that_a_mount_was_tuned_for_stay_as_they_are_and_no_others(tmp_path):
    file = tmp_path / "audit.log"

    async def scenario(vault):
        await vault.ask("update", "sys/mounts/kv1", {"type": "kv", "options": {"version": "1"}})
        tuned = {"audit_non_hmac_request_keys": ["user"], "audit_non_hmac_response_keys": ["user"]}
        await vault.ask("update", "sys/mounts/kv1/tune", tuned)
        await enable(vault, "f", "file", file_path=str(file))
        await vault.ask("update", "kv1/x", {"user": "ann", "password": CANARY, "nested": {"user": "bob"}})
        await vault.ask("update", "secret/data/x", {"data": {"user": "eve"}})
        written = next(e["request"]["data"] for e in entries(file) if e["request"]["path"] == "kv1/x")
        assert written["user"] == "ann"
        assert written["password"].startswith("hmac-sha256:")
        text = file.read_text()
        assert not any(word in text for word in (CANARY, '"bob"', '"eve"'))

    play(scenario)
