"""`keyhole workflow`, where something is wrong: before anything is done, and with the next step."""

import json

from cli_driver import ok, run

GOOD = {
    "workflow": "w",
    "inputs": {"n": {"type": "number"}},
    "steps": [{"id": "a", "call": {"url": "https://a.test/"}}],
}
KEY = "sk_live_" + "51HqLyjWDarjtT1zdp7dcAxQz9"


def test_what_is_wrong_is_said_before_anything_is_done(local, tmp_path):
    good, bad, path = tmp_path / "good.json", tmp_path / "bad.yaml", tmp_path / "home" / "workflows"
    good.write_text(json.dumps(GOOD))
    bad.write_text(f"workflow: w\nsteps:\n  - id: a\n    tool: a/b\n    arguments: {{x: {KEY}}}\n")
    assert ok("workflow", "lint", good).out == ""
    found = run("workflow", "lint", good, bad, "--json")
    assert found.code == 1
    assert {(each["file"], each["line"], each["column"]) for each in found.json["problems"]} == {(str(bad), 5, 20)}
    refused = run("workflow", "run", bad)
    assert (refused.code, refused.out) == (1, "")
    assert f"{bad}:5:20: " in refused.err
    assert KEY not in found.out + refused.err
    for code, *words in (
        (3, "run", good),
        (3, "run", good, "--input", "n=many"),
        (3, "run", good, "--input", f"n={KEY}"),
        (3, "run", tmp_path / "none.yaml"),
        (5, "run", good, "--input", "n=1", "--agent", "nobody"),
        (5, "resume", "20270131-120000-00000000"),
        (5, "show", "20270131-120000-00000000"),
        (3, "resume", "../x"),
    ):
        ran = run("workflow", *words)
        assert ran.code == code, ran
        assert "next:" in ran.err
        assert KEY not in ran.err
    assert not path.exists()
    assert ok("workflow", "list", "--json").json == []
    ok("set", "a/key", stdin="an ordinary word")
    bad.write_text("workflow: w\nsteps: [{id: a, tool: a/b, arguments: {x: an ordinary word}}]\n")
    assert run("workflow", "lint", bad).code == 0
    [problem] = run("workflow", "lint", bad, "--compare", "--json").json["problems"]
    assert problem["rule"] == "credential-known"


def test_a_step_that_is_refused_has_failed_and_can_be_made_later(local, tmp_path):
    good = tmp_path / "good.json"
    good.write_text(json.dumps(GOOD))
    ok("agent", "add", "coder")
    ran = run("workflow", "run", good, "--input", "n=1", "--agent", "coder", "--json")
    assert ran.code == 2
    assert ran.json["steps"] == {"a": {"result": "failed", "error": "no_service"}}
    again = run("workflow", "resume", ran.json["run"])
    assert again.code == 2
    assert "keyhole service add" in again.err
    assert ok("workflow", "list", "--json").json[0]["state"] == "failed"
    assert run("--vault", f"sqlite:{tmp_path / 'other.db'}", "workflow", "resume", ran.json["run"]).code == 2
