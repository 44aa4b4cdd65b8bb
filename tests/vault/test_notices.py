"""Who administers is told in time, once, by every channel that works, and never a value."""

import asyncio
import hashlib
import hmac
import json
import re
import threading

import pytest

from keyhole.core.errors import UpstreamUnreachable
from keyhole.core.notice import Notice
from keyhole.net.ask import Asker, Heard
from keyhole.testing import FakeUpstream, FrozenClock
from vault.world import CANARY, Place, journal, play, policy_token, refusal

HOUR, DAY = 3600, 86_400
HOOK = {"url": "https://hooks.example.com/T0KEN-1n-the-path", "key": "a-key-of-the-tests"}


class Net:
    """Notes what is sent; hosts in ``dead`` do not answer, those in ``silent`` never do."""

    def __init__(self):
        self.sent, self.dead, self.silent = [], set(), set()

    async def ask(self, method, url, *, headers=(), body=b"", ca_pem="", allow=()):
        host = url.split("/")[2]
        if host in self.silent:
            await asyncio.Event().wait()
        if host in self.dead:
            raise UpstreamUnreachable("nobody there")
        self.sent.append((host, json.loads(body)))
        return Heard(204, {}, b"")

    def texts(self, host="hooks.example.com"):
        return [message["text"] for where, message in self.sent if where == host]


def noticed(scenario, **options):
    """Run ``scenario(vault, clock, net)`` with one channel."""
    clock = FrozenClock()

    async def wrapped(vault):
        vault.vault.net = net = Net()
        await vault.ask("update", "sys/notices/ops", HOOK)
        await scenario(vault, clock, net)

    return play(wrapped, clock=clock, **options)


async def put(vault, name, **options):
    await vault.ask("update", f"secret/data/{name}", {"data": {"value": CANARY}, "options": options})


async def pass_time(vault, clock, seconds):
    """Let time pass as a server does: it sweeps, and what became due is sent."""
    clock.advance(seconds)
    for _ in range(3):  # a secret is due, then its letters are, then what they led to
        await vault.node.sweep()


def test_what_expires_is_told_once_at_each_threshold():
    async def scenario(vault, clock, net):
        await put(vault, "stripe/api-key", expires_in="40d", owner="payments")
        told = []
        for hours in range(0, 42 * 24, 12):
            await pass_time(vault, clock, 12 * HOUR)
            told += [hours + 12] * (len(net.sent) - len(told))
        assert [round(hours / 24) for hours in told] == [10, 33, 39, 40]
        texts = net.texts()
        assert all("secret/stripe/api-key" in text and "payments" in text for text in texts)
        assert ["has expired" in text for text in texts] == [False, False, False, True]
        assert CANARY not in json.dumps(net.sent)
        kinds = [record.result for _, record in await journal(vault) if record.operation == "notice"]
        assert kinds == ["expiry"] * 4

    noticed(scenario)


def test_a_date_that_is_near_already_is_told_once_and_not_for_every_threshold():
    async def scenario(vault, clock, net):
        await put(vault, "a", expires_in="20h")
        await pass_time(vault, clock, 1)
        assert len(net.sent) == 1
        await vault.ask("update", "secret/metadata/a", {"expires_in": "400d"})
        await pass_time(vault, clock, DAY)
        assert len(net.sent) == 1
        await vault.ask("update", "secret/metadata/a", {"expires_in": "6d"})
        await pass_time(vault, clock, 1)
        assert len(net.sent) == 2
        await vault.ask("delete", "secret/data/a")
        await pass_time(vault, clock, 7 * DAY)
        assert len(net.sent) == 2  # nobody is told of what was deleted

    noticed(scenario)


def test_a_new_value_that_is_due_is_told_and_counts_from_the_last_one():
    async def scenario(vault, clock, net):
        await put(vault, "a", rotate_every="90d")
        await pass_time(vault, clock, 61 * DAY)
        assert "a new value of the secret secret/a is due" in net.texts()[0]
        about = (await vault.ask("read", "secret/metadata/a")).data
        await put(vault, "a")  # the same value is no new one
        again = (await vault.ask("read", "secret/metadata/a")).data
        assert (again["rotated_at"], again["rotate_every"]) == (about["rotated_at"], 90 * DAY)
        await vault.ask("update", "secret/data/a", {"data": {"value": "another-value"}})
        assert (await vault.ask("read", "secret/metadata/a")).data["rotated_at"] > about["rotated_at"]
        await pass_time(vault, clock, 50 * DAY)
        assert len(net.sent) == 1
        await pass_time(vault, clock, 41 * DAY)
        assert "was due" in net.texts()[-1]

    noticed(scenario)


def test_a_date_that_has_passed_goes_with_the_value_that_had_it():
    async def scenario(vault, clock, _net):
        await put(vault, "a", expires_at="2020-01-01")
        error = await refusal(vault.ask("read", "secret/data/a"))
        assert (error.code, error.status) == ("expired", 403)
        assert "keyhole set a" in error.hint
        await vault.ask("update", "secret/data/a", {"data": {"value": "a new value"}})
        assert await vault.get("secret/data/a")
        when = vault.vault.clock.now() + 100
        await vault.ask("update", "secret/metadata/a", {"expires_at": when})
        await vault.ask("update", "secret/data/a", {"data": {"value": "one more"}})
        clock.advance(101)
        assert (await refusal(vault.ask("read", "secret/data/a"))).code == "expired"

    noticed(scenario)


@pytest.mark.parametrize("value", [-1, True, 10**20, "soon", {"a": 1}, "2020-13-01"])
def test_a_date_that_is_none_is_refused(value):
    async def scenario(vault):
        await put(vault, "a")
        assert (
            await refusal(vault.ask("update", "secret/metadata/a", {"expires_at": value}))
        ).code == "invalid_request"
        await vault.ask("update", "secret/metadata/a", {"rotate_every": "0"})
        assert (
            await refusal(vault.ask("update", "secret/metadata/a", {"rotate_every": "5s"}))
        ).code == "invalid_request"

    play(scenario)


def test_thresholds_of_the_org_count_also_for_what_was_stored_before():
    async def scenario(vault, clock, net):
        await put(vault, "a", expires_in="50d")
        await pass_time(vault, clock, 1)
        assert net.sent == []
        await vault.ask("update", "sys/notices/config", {"days": "60,3"})
        await pass_time(vault, clock, 1)
        assert len(net.sent) == 1
        await pass_time(vault, clock, 46 * DAY)
        assert len(net.sent) == 1
        await pass_time(vault, clock, 2 * DAY)
        assert len(net.sent) == 2
        for wrong in ("0", "a", ["x"], [1] * 17, {}, "-3", "400"):
            assert (await refusal(vault.ask("update", "sys/notices/config", {"days": wrong}))).code == "invalid_request"

    noticed(scenario)


def test_two_nodes_and_a_restart_tell_once(tmp_path):
    place, clock, net = Place(tmp_path), FrozenClock(), Net()

    async def first(vault):
        vault.vault.net = net
        await vault.ask("update", "sys/notices/ops", HOOK)
        await put(vault, "a", expires_in="6d")
        async with place.open(clock=clock) as other:
            other.vault.net = net
            await asyncio.gather(*(node.sweep() for node in (vault.node, other.node) for _ in range(4)))
            await asyncio.gather(*(node.sweep() for node in (vault.node, other.node) for _ in range(4)))

    async def again(vault):
        vault.vault.net = net
        for _ in range(3):
            await vault.node.sweep()

    place.play(first, clock=clock)
    place.play(again, clock=clock)
    assert len(net.sent) == 1


def test_a_node_that_dies_between_telling_and_marking_tells_once(monkeypatch):
    async def scenario(vault, clock, net):
        from keyhole.engines.kv.document import Document

        await put(vault, "a", expires_in="6d")

        async def dies(*_):
            raise RuntimeError

        monkeypatch.setattr(Document, "save", dies)
        await pass_time(vault, clock, 1)
        monkeypatch.undo()
        assert len(net.sent) == 1
        await pass_time(vault, clock, 1)
        assert len(net.sent) == 1
        stored = await vault.vault.storage(vault.vault.root_org, "kv").get_one("k/a")
        assert json.loads(stored.data)["told"]

    noticed(scenario)


def test_a_dead_channel_delays_nothing_and_is_given_up_after_bounded_tries():
    async def scenario(vault, clock, net):
        net.dead.add("dead.example.com")
        vault.vault.notices.limits = vault.vault.notices.limits._replace(tries=4, last_retry=100)
        await vault.ask("update", "sys/notices/dead", {**HOOK, "url": "https://dead.example.com/"})
        for number in range(5):
            await vault.vault.notices.tell(vault.vault.root_org, Notice("alarm", "x", f"alarm {number}", f"{number}"))
        await pass_time(vault, clock, 0)
        assert sorted(net.texts()) == [f"alarm {number}" for number in range(5)]
        about = (await vault.ask("read", "sys/notices/dead")).data
        assert (about["error"], about["waiting"]) == ("nobody there", 5)
        for _ in range(30):
            await pass_time(vault, clock, 200)
        about = (await vault.ask("read", "sys/notices/dead")).data
        assert (about["waiting"], about["given_up"]) == (0, 5)
        assert (await vault.ask("read", "sys/notices/ops")).data["error"] == ""
        assert [r.path for _, r in await journal(vault) if r.result.startswith("given up")] == ["sys/notices/dead"] * 5

    noticed(scenario)


def test_a_channel_that_comes_back_gets_what_waited():
    async def scenario(vault, clock, net):
        net.dead.add("hooks.example.com")
        await put(vault, "a", expires_in="6d")
        await pass_time(vault, clock, 1)
        assert net.sent == []
        net.dead.clear()
        await pass_time(vault, clock, 60)
        assert len(net.sent) == 1

    noticed(scenario)


def test_a_channel_that_never_answers_holds_up_no_other():
    async def scenario(vault, clock, net):
        net.silent.add("silent.example.com")
        vault.vault.notices.limits = vault.vault.notices.limits._replace(attempt=0.5)
        await vault.ask("update", "sys/notices/silent", {**HOOK, "url": "https://silent.example.com/"})
        await put(vault, "a", expires_in="6d")
        await pass_time(vault, clock, 1)
        assert len(net.texts()) == 1
        assert "in time" in (await vault.ask("read", "sys/notices/silent")).data["error"]

    noticed(scenario)


def test_alarms_are_told_with_the_same_one_once_in_a_while():
    async def scenario(vault, clock, net):
        await put(vault, "bait")
        await vault.ask("update", "sys/honey/bait")
        for _ in range(3):
            await vault.ask("read", "secret/data/bait")
        await pass_time(vault, clock, 0)
        assert net.texts() == ["user/root: the honey secret bait was touched"]
        assert [r.operation for _, r in await journal(vault)].count("alarm") == 3
        clock.advance(301)
        await vault.ask("read", "secret/data/bait")
        await pass_time(vault, clock, 0)
        assert len(net.sent) == 2

    noticed(scenario)


def test_too_many_alarms_are_recorded_and_not_sent():
    async def scenario(vault, clock, net):
        vault.vault.notices.limits = vault.vault.notices.limits._replace(letters=3)
        for number in range(6):
            await vault.vault.notices.tell(vault.vault.root_org, Notice("alarm", "x", f"alarm {number}", f"{number}"))
        await pass_time(vault, clock, 0)
        assert len(net.sent) == 3
        assert [r.operation for _, r in await journal(vault)].count("notice") == 6

    noticed(scenario)


def test_a_channel_gets_the_kinds_that_it_is_for():
    async def scenario(vault, clock, net):
        await vault.ask("update", "sys/notices/dates", {**HOOK, "url": "https://dates.example.com/", "kinds": "expiry"})
        await vault.vault.notices.tell(vault.vault.root_org, Notice("alarm", "x", "an alarm", "1"))
        await put(vault, "a", expires_in="6d")
        await pass_time(vault, clock, 1)
        assert len(net.texts("dates.example.com")) == 1
        assert len(net.texts()) == 2

    noticed(scenario)


def test_what_is_set_of_a_channel_is_never_read_back_and_needs_sudo(tmp_path):
    place = Place(tmp_path)
    urls = ["mailtos://ops:correct-horse-battery@smtp.example.com?to=a@example.com"]

    async def scenario(vault):
        made = (await vault.ask("update", "sys/notices/ops", HOOK)).data
        mail = (await vault.ask("update", "sys/notices/mail", {"type": "apprise", "urls": urls})).data
        shown = json.dumps([made, mail, (await vault.ask("read", "sys/notices/ops")).data])
        assert (made["host"], mail["schemes"]) == ("hooks.example.com", ["mailtos"])
        assert not re.search("T0KEN|a-key-of|correct-horse|smtp", shown)
        fresh = (await vault.ask("update", "sys/notices/fresh", {"url": HOOK["url"]})).data
        assert len(fresh["key"]) > 40
        assert "key" not in (await vault.ask("read", "sys/notices/fresh")).data
        assert "key" not in made
        raw = b"".join(path.read_bytes() for path in place.file.parent.iterdir())
        assert not re.search(b"T0KEN|a-key-of|correct-horse", raw)
        token = await policy_token(vault, 'path "sys/notices/*" { capabilities = ["create", "update", "read"] }')
        assert (await vault.ask("read", "sys/notices/ops", token=token)).data["type"] == "webhook"
        for path, data in (("ops", HOOK), ("ops/test", {}), ("config", {"days": "1"}), ("check", {})):
            assert (
                await refusal(vault.ask("update", f"sys/notices/{path}", data, token=token))
            ).code == "policy_denied"
        await vault.ask("delete", "sys/notices/ops")
        assert (await refusal(vault.ask("read", "sys/notices/ops"))).code == "not_found"

    place.play(scenario)


@pytest.mark.parametrize(
    "settings",
    [
        {"url": "http://hooks.example.com/"},
        {"url": "https://user:pw@hooks.example.com/"},
        {"url": ""},
        {"url": HOOK["url"], "key": "short"},
        {"url": HOOK["url"], "kinds": "everything"},
        {"url": HOOK["url"], "type": "pigeon"},
        {"type": "apprise", "urls": []},
        {"type": "apprise", "urls": ["nonsense"]},
        {"type": "apprise", "urls": ["dbus://"]},
        {"type": "apprise", "urls": ["syslog://"]},
        {"type": "apprise", "urls": ["discord://1234567890/abcdefghijklmnopqrstuvwxyz/?template=/etc/passwd"]},
        {"type": "apprise", "urls": ["fcm://project@device/?mode=oauth2&keyfile=/etc/passwd"]},
        {"type": "apprise", "urls": ["mailtos://u:p@smtp.example.com?pgp=yes&pgpprv=/etc/passwd"]},
    ],
)
def test_a_channel_that_cannot_work_is_refused(settings):
    async def scenario(vault):
        error = await refusal(vault.ask("update", "sys/notices/x", settings))
        assert error.code == "invalid_request"
        assert "nonsense" not in str(error)

    play(scenario)


def test_a_webhook_gets_signed_json_through_the_guard():
    async def scenario(vault):
        vault.vault.net = Asker()
        async with FakeUpstream() as hook:
            url = f"http://{hook.authority}/in"
            await vault.ask("update", "sys/notices/x", {"url": url, "key": HOOK["key"], "allow_addresses": "127.0.0.1"})
            assert (await vault.ask("update", "sys/notices/x/test")).data["sent"]
            head, _, body = hook.requests[0].partition(b"\r\n\r\n")
            moment, code = re.search(rb"X-Keyhole-Signature: t=(\d+),v1=([0-9a-f]{64})", head).groups()
            signed = hmac.new(HOOK["key"].encode(), moment + b"." + body, hashlib.sha256).hexdigest()
            assert signed == code.decode()
            assert json.loads(body)["text"] == "user/root tries whether notices arrive here"
            hook.answer = b"HTTP/1.1 500 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            error = await refusal(vault.ask("update", "sys/notices/x/test"))
            assert (error.code, error.reason) == ("target_failed", "the webhook answered with 500")
        port = hook.authority.rpartition(":")[2]
        await vault.ask("update", "sys/notices/y", {"url": f"https://localhost:{port}/"})
        assert (await refusal(vault.ask("update", "sys/notices/y/test"))).code == "address_denied"

    play(scenario)


def test_apprise_delivers_and_its_hosts_are_judged_first():
    async def scenario(vault):
        vault.vault.net = Asker()
        async with FakeUpstream() as hook:
            settings = {"type": "apprise", "urls": [f"json://{hook.authority}/in"]}
            await vault.ask("update", "sys/notices/x", settings)
            assert (await refusal(vault.ask("update", "sys/notices/x/test"))).code == "address_denied"
            assert hook.requests == []
            await vault.ask("update", "sys/notices/x", {**settings, "allow_addresses": ["127.0.0.1"]})
            await vault.ask("update", "sys/notices/x/test")
            assert b"tries whether notices arrive here" in hook.requests[0]

    play(scenario)


def test_servers_that_never_end_their_answers_take_no_threads_from_others(monkeypatch):
    end = threading.Event()

    class Endless:
        def notify(self, **_message):
            return end.wait(60)

    async def scenario(vault):
        vault.vault.net = Net()
        limits = vault.vault.notices.limits
        vault.vault.notices.limits = limits._replace(attempt=0.01)
        await vault.ask("update", "sys/notices/x", {"type": "apprise", "urls": ["json://example.com"]})
        monkeypatch.setattr("keyhole.notifiers.apprise._made", lambda _: Endless())
        codes = [(await refusal(vault.ask("update", "sys/notices/x/test"))).code for _ in range(40)]
        assert set(codes) == {"upstream_timeout", "target_failed"}  # the second: too many are under way
        assert await asyncio.wait_for(asyncio.to_thread(lambda: 1), 30) == 1

    try:
        play(scenario)
    finally:
        end.set()


def test_a_check_says_what_comes_near_where_no_server_runs():
    async def scenario(vault, _clock, net):
        await put(vault, "near", expires_in="5d")
        await put(vault, "far", expires_in="100d")
        await put(vault, "past", expires_at="2020-01-01")
        found = (await vault.ask("update", "sys/notices/check")).data
        assert [(each["name"], each["past"]) for each in found["secrets"]] == [
            ("secret/past", True),
            ("secret/near", False),
        ]
        assert len(net.sent) == 2
        await vault.ask("update", "sys/notices/check")
        assert len(net.sent) == 2

    noticed(scenario)
