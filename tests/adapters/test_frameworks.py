"""The adapters run with the frameworks that they are for, and the examples of the docs with them; no model is asked."""

import re
import sys
import types
from functools import cache

import pytest

from adapters.frameworks.driver import HERE, ROOT, checked
from keyhole.adapters import crewai
from keyhole.adapters.tool import wrap
from keyhole.core.errors import InvalidRequest

PYTHON = ROOT / ".cache/frameworks/python/bin/python"
NAMES = ("langchain", "openai_agents", "pydantic_ai", "claude_agent_sdk")


@cache
def examples():
    """The examples of the page, by the framework's adapter that they import."""
    found = re.findall(r"^```py\n(.*?)^```$", (ROOT / "docs/tool.md").read_text(), re.MULTILINE | re.DOTALL)
    return {re.search(r"keyhole\.adapters\.(\w+)", code)[1]: code for code in found}


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    assert PYTHON.exists(), f"there is no {PYTHON}: make test gets it"
    folder = tmp_path_factory.mktemp("frameworks")
    files = [HERE / f"check_{name}.py" for name in NAMES]
    for name in NAMES:
        files.append(folder / f"example_{name}.py")
        files[-1].write_text(examples()[name])
    return checked(PYTHON, files, folder)


@pytest.mark.parametrize("name", NAMES)
def test_a_framework_never_sees_a_value(said, name):
    checks = said[f"check_{name}"]
    assert len(checks) > 2
    assert not any(checks.values()), "\n".join(checks.values())


@pytest.mark.parametrize("name", NAMES)
def test_the_example_of_the_page_runs(said, name):
    assert said[f"example_{name}"] == {"example": ""}


@pytest.mark.parametrize("name", [*NAMES, "crewai"])
def test_what_is_no_tool_or_has_no_framework_is_said(name, monkeypatch):
    module = __import__(f"keyhole.adapters.{name}", fromlist=["x"])
    make = getattr(module, "function_tool", None) or module.tool
    monkeypatch.setattr(sys, "path", [])  # whatever is installed
    monkeypatch.setattr(sys, "modules", {k: v for k, v in sys.modules.items() if k.startswith(("keyhole", "_"))})
    with pytest.raises(InvalidRequest, match=r"is not installed: pip install"):
        make(wrap(None, "a.tool", {})(lambda *, credentials: None))


def test_crewai_is_given_a_function_without_credentials(monkeypatch):
    """CrewAI is too big to be there for each run of the tests: `make crewai` tries the real one."""
    given = []

    def decorator(name, **options):
        return lambda function: given.append((name, options, function)) or function

    monkeypatch.setitem(sys.modules, "crewai", types.ModuleType("crewai"))
    monkeypatch.setitem(sys.modules, "crewai.tools", types.SimpleNamespace(tool=decorator))
    source = types.SimpleNamespace(read_as=lambda tool, path: {"data": {"value": "xoxb-0123456789"}})

    def send(channel: str, *, credentials) -> str:
        """Send a message."""
        yield from f"{channel} {credentials.token}"

    made = wrap(source, "slack.send", {"token": "slack/bot-token"})(send)
    assert crewai.tool(made)("c") == crewai.tool("Send it", result_as_answer=True)(made)("c") == f"c {'*' * 15}"
    assert [(name, options) for name, options, _ in given] == [("send", {}), ("Send it", {"result_as_answer": True})]
    assert all(each.__annotations__ == {"channel": str, "return": str} for _, _, each in given)
