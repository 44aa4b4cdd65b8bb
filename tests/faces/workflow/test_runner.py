"""Runs of workflows with an actor that only counts: order, retries, conditions, and crashes at every point."""

import asyncio
import fcntl
import itertools
import json
import os
import stat
import threading
from collections import Counter

import pytest

from keyhole.client.core import Result
from keyhole.client.travel import Answered
from keyhole.core.errors import Conflict, InvalidRequest, KeyholeError, NotFound, PolicyDenied, StoreUnavailable
from keyhole.core.identity import RunContext
from keyhole.faces.workflow import state as state_module
from keyhole.faces.workflow.acting import Actor, Grip, render
from keyhole.faces.workflow.inputs import take_inputs
from keyhole.faces.workflow.lint import lint
from keyhole.faces.workflow.results import Outcome, kept, read_body, read_headers, scrubbed
from keyhole.faces.workflow.runner import Runner
from keyhole.faces.workflow.state import RunState, StateFile, is_running, look, runs

KEY = "sk_live_" + "51HqLyjWDarjtT1zdp7dcAxQz9"
URL = "https://a.example/x"


def workflow(*steps, **more):
    found = lint(json.dumps({"workflow": "w", "steps": list(steps), **more}).encode())
    assert found.problems == ()
    return found.workflow


def get(name, url=URL, **more):
    return {"id": name, "call": {"url": url, **more.pop("call", {})}, **more}


def post(name, **more):
    return get(name, call={"method": "POST", "json": {}}, **more)


class Killed(BaseException):
    """The process ends here, and nothing of it goes on."""


class World:
    """An actor, a journal, and the other side, which counts what was done. Dies before the event number `dies`."""

    def __init__(self, answers=None, dies=-1):
        self.answers = answers or {}
        self.done = Counter()
        self.keys = {}
        self.journal = []
        self.order = []
        self.events = itertools.count()
        self.accessors = itertools.count()
        self.dies = dies
        self.closed = 0

    def happens(self):
        if next(self.events) >= self.dies >= 0:
            raise Killed

    async def open(self, step):
        self.happens()
        return Grip(None, f"accessor-{next(self.accessors)}")

    async def close(self, grip):
        self.closed += 1

    async def do(self, grip, request):
        step = request.step
        self.happens()
        self.journal.append({"phase": "intent", "accessor": grip.accessor, "step": step.id})
        self.happens()
        answers = self.answers.get(step.id)
        outcome = answers.pop(0) if answers else Outcome("ok", status=200, body={"of": step.id})
        if isinstance(outcome, BaseException):
            raise outcome
        if outcome.result == "ok" or outcome.doubt:
            self.done[step.id] += 1
            self.order.append(step.id)
            if step.key:
                self.keys.setdefault(step.id, set()).add(request.trip.headers[step.key])
        self.happens()
        said = "ok" if outcome.result == "ok" or outcome.status else outcome.error
        ended = {"phase": "outcome", "accessor": grip.accessor, "step": step.id, "result": said}
        self.journal.append({**ended, "status": outcome.status})
        self.happens()
        await asyncio.sleep(0)
        return outcome

    async def recorded(self, step, accessor):
        return [each for each in self.journal if each["accessor"] == accessor]


def state_of(found, run="r1", **inputs):
    return RunState(run, found.name, "coder", "vault", {}, inputs, "", 1.0)


def begin(home, found, world, **inputs):
    file = StateFile.create(home, state_of(found, **inputs))
    return finish(file, found, world)


def again(home, found, world, **verdicts):
    return finish(StateFile.reopen(home, "r1"), found, world, verdicts)


def finish(file, found, world, verdicts=None):
    runner = Runner(found, file, world, verdicts=verdicts)
    try:
        return asyncio.run(runner.run()), runner.outputs()
    finally:
        file.close()


def test_steps_go_in_order_and_branches_side_by_side(tmp_path):
    branches = {"left": [get("b"), get("c")], "right": [get("d")]}
    found = workflow(get("a"), {"parallel": branches}, get("e"), outputs={"last": "${e/body/of}"})
    world = World()
    assert begin(tmp_path, found, world) == ("done", {"last": "e"})
    assert world.order[0] == "a"
    assert world.order[-1] == "e"
    assert world.order.index("d") < world.order.index("c")  # d did not wait for its neighbours
    assert world.closed == 5


def test_a_step_is_done_when_its_conditions_hold(tmp_path):
    found = workflow(
        get("a"),
        get("b", when=[{"at": "/a/status", "in": [200]}, {"at": "/input/amount", "max": 10}]),
        get("c", when=[{"not": {"at": "/a/body/of", "like": "a*"}}]),
        get("d", when=[{"any": [{"at": "/c/result", "in": ["skipped"]}, {"at": "/a/body/no", "in": [1]}]}]),
        inputs={"amount": {"type": "number"}},
        outputs={"c": "${c/body/of}"},
    )
    world = World()
    assert begin(tmp_path, found, world, amount=9.5) == ("done", {"c": None})
    assert world.order == ["a", "b", "d"]


def test_a_failed_step_stops_what_follows_and_not_what_runs_beside_it(tmp_path):
    branches = {"left": [get("b"), get("c")], "right": [get("d"), get("e")]}
    found = workflow({"parallel": branches}, get("f"))
    world = World({"b": [Outcome("failed", "policy_denied")]})
    assert begin(tmp_path, found, world)[0] == "failed"
    assert set(world.order) <= {"d", "e"}
    assert "d" in world.order
    assert again(tmp_path, found, world)[0] == "done"
    assert world.done == Counter("bcdef")


def test_a_step_may_fail_where_the_workflow_says_so(tmp_path):
    found = workflow(get("a", on_failure="continue"), get("b", when=[{"at": "/a/error", "in": ["policy_denied"]}]))
    world = World({"a": [Outcome("failed", "policy_denied", "no")]})
    assert begin(tmp_path, found, world)[0] == "done"
    assert world.order == ["b"]


@pytest.mark.parametrize(
    ("outcome", "tries"),
    [
        (Outcome("failed", "failed", status=503, doubt=True), 3),
        (Outcome("failed", "upstream_timeout", doubt=True), 3),
        (Outcome("failed", "failed", status=404), 1),
        (Outcome("failed", "policy_denied"), 1),
    ],
)
def test_only_what_passes_is_tried_again(tmp_path, outcome, tries):
    found = workflow(get("a", retry={"attempts": 3, "wait": 0}))
    assert begin(tmp_path, found, World({"a": [outcome] * 3}))[0] == "failed"
    assert look(tmp_path, "r1").steps["a"].attempts == tries


def test_all_attempts_of_a_step_have_one_key_and_other_steps_another(tmp_path):
    found = workflow(
        post("a", idempotency_key="Idempotency-Key", retry={"attempts": 3, "wait": 0}),
        post("b", idempotency_key="Idempotency-Key"),
    )
    late = Outcome("failed", "upstream_timeout", doubt=True)
    world = World({"a": [late, late, Outcome("failed", "policy_denied")]})
    assert begin(tmp_path, found, world)[0] == "failed"
    assert again(tmp_path, found, world)[0] == "done"
    [key] = world.keys["a"]
    assert {key} != world.keys["b"]
    assert "r1" not in key


EVERY = [
    get("a"),
    {
        "parallel": {
            "left": [post("b", idempotency_key="Idempotency-Key"), post("c")],
            "right": [post("d", keep={})],
        }
    },
    post("f"),
]


def test_a_run_that_is_killed_at_any_point_repeats_no_step_that_was_done(tmp_path):
    """What is neither idempotent nor has a key is done once, whatever a person would say of a step in doubt."""
    found = workflow(*EVERY, outputs={"c": "${c/body/of}", "f": "${f/body/of}"})
    whole = World()
    begin(tmp_path / "whole", found, whole)
    points = next(whole.events)
    doubts = Counter()
    for point in range(points):
        home = tmp_path / str(point)
        world = World(dies=point)
        with pytest.raises(Killed):
            begin(home, found, world)
        before = look(home, "r1")
        ended = {name for name, step in before.steps.items() if step.ended is not None}
        so_far = Counter(world.done)
        world.dies = -1
        ending, _ = again(home, found, world)
        for name in ended:
            assert world.done[name] == so_far[name], (point, name)
        if ending == "doubt":
            [name] = [n for n, step in look(home, "r1").steps.items() if step.open]
            doubts[name] += 1
            verdict = "done" if world.done[name] else "repeat"
            ending, _ = again(home, found, world, **{name: verdict})
        assert ending == "done"
        assert all(world.done[name] == 1 for name in "cdf"), (point, world.done)
        assert world.keys["b"] == whole.keys["b"]
    assert doubts["d"] < doubts["c"]  # what d gives is not needed, so the journal's word is enough
    assert doubts["f"] == doubts["c"]


def test_a_line_that_was_cut_off_is_as_one_that_was_never_written(tmp_path):
    found = workflow(get("a"), post("b"), post("c", idempotency_key="Idempotency-Key"))
    begin(tmp_path / "whole", found, World())
    content = (tmp_path / "whole/workflows/r1.jsonl").read_bytes()
    head = content.index(b"\n") + 1
    for size in range(head, len(content), 47):
        home = tmp_path / str(size)
        (home / "workflows").mkdir(parents=True)
        (home / "workflows/r1.jsonl").write_bytes(content[:size])
        world = World()
        again(home, found, world)
        lines = (home / "workflows/r1.jsonl").read_bytes().splitlines()
        assert all(json.loads(line) for line in lines)
        whole = content[:size].rsplit(b"\n", 1)[0].splitlines()
        for name in "abc":
            there = any(json.loads(line).get("event") == "end" and json.loads(line)["step"] == name for line in whole)
            assert not (there and world.done[name])
    for size in range(0, head - 1, 29):
        (tmp_path / "whole/workflows/r1.jsonl").write_bytes(content[:size])
        with pytest.raises(InvalidRequest):
            StateFile.reopen(tmp_path / "whole", "r1")


def test_a_step_that_may_have_been_done_is_in_doubt_until_a_person_says(tmp_path):
    found = workflow(post("a"), get("b"))
    late = Outcome("failed", "upstream_timeout", doubt=True)
    world = World({"a": [late]})
    assert begin(tmp_path, found, world)[0] == "doubt"
    assert again(tmp_path, found, world)[0] == "doubt"
    assert world.done["a"] == 1
    with pytest.raises(InvalidRequest):
        again(tmp_path, found, world, b="done")
    assert again(tmp_path, found, world, a="done")[0] == "done"
    assert world.done == Counter("ab")


def test_a_step_that_waits_for_an_approval_goes_on_after_it(tmp_path):
    found = workflow(post("a"), get("b"))
    world = World({"a": [Outcome("waiting", "approval_required", "ask", "keyhole approve 1")]})
    assert begin(tmp_path, found, world)[0] == "waiting"
    assert look(tmp_path, "r1").ending == "waiting"
    assert again(tmp_path, found, world)[0] == "done"
    assert world.done == Counter("ab")


def test_what_cannot_be_written_down_is_not_done(tmp_path, monkeypatch):
    found, world = workflow(post("a"), post("b")), World()
    file = StateFile.create(tmp_path, state_of(found))
    real = os.write

    def full(descriptor, content):
        if b'"step":"b"' in content:
            raise OSError(28, "No space left on device")
        return real(descriptor, content)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StoreUnavailable):
        finish(file, found, world)
    assert world.done == Counter("a")


def test_one_process_works_on_a_run(tmp_path):
    found = workflow(get("a"))
    file = StateFile.create(tmp_path, state_of(found))
    assert is_running(tmp_path, "r1")
    with pytest.raises(Conflict):
        StateFile.reopen(tmp_path, "r1")
    with pytest.raises(Conflict):
        StateFile.create(tmp_path, state_of(found))
    file.close()
    assert not is_running(tmp_path, "r1")
    with pytest.raises(NotFound):
        StateFile.reopen(tmp_path, "r2")
    with pytest.raises(InvalidRequest):
        look(tmp_path, "../r1")
    path = tmp_path / "workflows/r1.jsonl"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.run for each in runs(tmp_path)] == ["r1"]


def test_nothing_is_sent_when_the_token_is_refused(tmp_path):
    class Refusing(World):
        async def open(self, step):
            raise PolicyDenied("no", "ask")

    world = Refusing()
    assert begin(tmp_path, workflow(post("a")), world)[0] == "failed"
    assert not world.done
    assert look(tmp_path, "r1").steps["a"].attempts == 0


def request(step, known):
    [_, made] = workflow(get("a"), step, inputs={"x": {}}).steps()
    return render(made, known, "kh-1")


@pytest.mark.parametrize(
    ("value", "path"),
    [("a b", "/c/a%20b/d"), ("../../admin", "/c/..%2F..%2Fadmin/d"), ("x?y=1#z", "/c/x%3Fy%3D1%23z/d"), (7, "/c/7/d")],
)
def test_a_result_becomes_no_structure_of_a_url(value, path):
    made = request(
        get("b", "https://a.example/c/${a/body/x}/d?e=${input/x}"),
        {"a": {"body": {"x": value}}, "input": {"x": "1&f=2"}},
    )
    assert made.trip.url == f"https://a.example{path}?e=1%26f%3D2"


@pytest.mark.parametrize("value", ["..", ".", ""])
def test_a_result_does_not_change_the_path(value):
    with pytest.raises(InvalidRequest):
        request(get("b", "https://a.example/c/${a/body/x}/d"), {"a": {"body": {"x": value}}})


@pytest.mark.parametrize("known", [{}, {"a": {}}, {"a": {"body": [1]}}, {"a": {"body": {"x": {"y": 1}}}}])
def test_a_reference_to_nothing_or_to_an_object_within_a_text_is_refused(known):
    with pytest.raises(InvalidRequest):
        request(get("b", "https://a.example/c/${a/body/x}"), known)


def test_a_whole_reference_keeps_the_type_and_a_key_goes_where_it_is_named():
    step = get("b", call={"method": "POST", "json": {"x": "${a/body}", "t": "n: ${a/body/n}"}}, idempotency_key="X-Key")
    made = request(step, {"a": {"body": {"n": 1.5, "on": True}}})
    assert json.loads(made.trip.body) == {"x": {"n": 1.5, "on": True}, "t": "n: 1.5"}
    assert made.trip.headers == {"X-Key": "kh-1", "Content-Type": "application/json"}
    tool = {"id": "b", "tool": "s/t", "arguments": {"x": ["${a/body/n}"]}, "idempotency_key": "key"}
    assert request(tool, {"a": {"body": {"n": 1}}}).arguments == {"x": [1], "key": "kh-1"}


def test_what_comes_together_at_run_time_is_not_sent(tmp_path):
    step = get("b", call={"method": "POST", "json": {"x": "${a/body/x}${a/body/y}"}})
    world = World({"a": [Outcome("ok", status=200, body={"x": KEY[:9], "y": KEY[9:]})]})
    assert begin(tmp_path, workflow(get("a"), step), world)[0] == "failed"
    assert world.order == ["a"]
    assert KEY not in (tmp_path / "workflows/r1.jsonl").read_text()


def test_results_are_kept_without_credentials_and_bounded():
    body = {"id": 1, "access_token": "opaque", "note": f"use {KEY}", "next_page_token": "p2", KEY: [KEY]}
    clean = scrubbed(body)
    assert KEY not in json.dumps(clean)
    assert clean["note"] == "use " + "*" * len(KEY)
    assert (clean["access_token"], clean["next_page_token"], clean["id"]) == ("******", "p2", 1)
    assert kept({"a": {"b": [1, 2]}, "c": "x" * 10**6}, {"b": ("a", "b", "1"), "n": ("no",)}) == {"b": 2}
    with pytest.raises(Exception, match="gave more than"):
        kept("x" * 10**6, None)
    assert read_headers([("Set-Cookie", "a=b"), ("ETag", "1"), ("X-Token", "t")]) == {"etag": "1"}
    assert read_body(b'{"a": 1}', "application/json; charset=utf-8") == {"a": 1}
    assert read_body(b'{"a": 1, "a": 2}', "application/json") == '{"a": 1, "a": 2}'
    assert read_body(b"\x89PNG", "image/png") is None


def test_inputs_are_of_their_type_and_no_credentials():
    found = workflow(
        get("a"),
        inputs={"n": {"type": "number", "must": {"min": 1, "max": 5}}, "t": {"default": "x"}, "b": {"type": "boolean"}},
    )
    assert take_inputs(found, ["n=2.5", "b=true"]) == {"n": 2.5, "t": "x", "b": True}
    for bad in (["n=6", "b=true"], ["n=x", "b=true"], ["b=true"], ["n=1", "b=yes"], ["n=1", "b=true", "u=1"], ["n"]):
        with pytest.raises(InvalidRequest):
            take_inputs(found, bad)
    for secret in (KEY, "${HOME}", "https://u:hunter2@x.example/", KEY.encode().hex()):
        with pytest.raises(InvalidRequest) as caught:
            take_inputs(found, ["n=1", "b=true", f"t={secret}"])
        assert secret not in str(caught.value)


def test_what_is_picked_out_is_masked_by_the_name_under_which_it_stood():
    body = {"login": {"password": "open sesame", "user": "anna"}, "api_key": {"value": "open sesame", "id": "k-1"}}
    picked = {"a": ("login", "password"), "b": ("login", "user"), "c": ("api_key",), "d": ("api_key", "value")}
    found = kept(body, picked)
    assert found["b"] == "anna"
    assert found["c"]["id"] == "k-1"
    assert "sesame" not in json.dumps(found)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"access_token=opensesame&scope=repo", "application/x-www-form-urlencoded"),
        (b'{"access_token": "opensesame"}', "text/plain"),
        (b'{"password": ["opensesame"], "scope": 1}', "application/json"),
        (b'{"secret": {"value": "opensesame"}}', "application/json"),
        (b'{"login": "{\\"password\\": \\"opensesame\\"}"}', "application/json"),
    ],
)
def test_a_text_that_is_called_after_a_credential_is_masked_in_every_kind_of_body(content, kind):
    assert "opensesame" not in json.dumps(kept(read_body(content, kind), None))
    assert "opensesame" not in json.dumps(read_headers([("Location", "https://a.example/?token=opensesame")]))
    assert kept({"token": 12345678, "pages": 12345678}, None) == {"token": "********", "pages": 12345678}


@pytest.mark.parametrize(
    "value", ["\ud800", float("nan"), float("inf"), 1 << 20_000, {"\udfff": 1}, [[1e400]]], ids=range(6)
)
def test_what_json_has_not_is_not_kept(value):
    with pytest.raises(KeyholeError):
        kept({"x": value}, None)


def test_attempts_that_are_left_are_made_after_a_crash_also_of_a_step_that_may_fail(tmp_path):
    found = workflow(get("a", retry={"attempts": 3, "wait": 0}, on_failure="continue"))
    busy = Outcome("failed", "failed", status=503)
    dying = World({"a": [busy, busy]}, dies=5)  # before the second attempt
    with pytest.raises(Killed):
        begin(tmp_path, found, dying)
    world = World()
    assert again(tmp_path, found, world) == ("done", {})
    assert world.order == ["a"]


def test_all_branches_are_under_way_at_once(tmp_path):
    width = 24  # more than the threads that asyncio has by itself on a small machine
    meeting = threading.Barrier(width)

    class Vault:
        def ask(self, operation, path, data=None):
            return Result({"token": "t", "accessor": "a", "records": []})

        def call(self, trip):
            meeting.wait(30)
            return Answered(200, (), b"")

        def close(self):
            pass

    half = {f"l{n}": [get(f"l{n}")] for n in range(12)}
    other = {f"r{n}": [get(f"r{n}")] for n in range(12)}
    found = workflow({"parallel": {"left": [{"parallel": half}], "right": [{"parallel": other}, get("z")]}})
    assert found.width == width
    found = workflow({"parallel": {"left": [{"parallel": half}], "right": [{"parallel": other}]}})
    actor = Actor(Vault(), lambda _token: Vault(), "coder", RunContext(run="r1"), None)
    assert begin(tmp_path, found, actor) == ("done", {})


def test_what_a_person_says_of_a_step_that_may_fail_counts(tmp_path):
    found = workflow(post("a", on_failure="continue"), get("b"))
    late = Outcome("failed", "upstream_timeout", doubt=True)
    assert begin(tmp_path, found, World({"a": [late], "b": [Outcome("failed", "no_service")]}))[0] == "failed"
    world = World()
    assert again(tmp_path, found, world, a="repeat")[0] == "done"
    assert world.order == ["a", "b"]


def test_who_looks_at_a_run_is_not_in_the_way_of_who_goes_on_with_it(tmp_path):
    found = workflow(get("a"))
    assert begin(tmp_path, found, World({"a": [Outcome("failed", "no_service")]}))[0] == "failed"
    looking = os.open(tmp_path / "workflows/r1.jsonl", os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    tried = threading.Event()
    real = fcntl.flock

    def seen(descriptor, how):
        tried.set()
        return real(descriptor, how)

    def leave():
        tried.wait(30)
        os.close(looking)

    leaving = threading.Thread(target=leave)
    leaving.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fcntl, "flock", seen)
        patch.setattr(state_module, "_TRIES", 1_000_000)
        StateFile.reopen(tmp_path, "r1").close()
    leaving.join()
