"""The table of settings in the docs is what the code has, and each can be said in every way that it promises."""

import re
from pathlib import Path

import pytest

from keyhole.cli.server import server_command
from keyhole.config import SETTINGS, TABLES, Config, load
from keyhole.core.errors import InvalidRequest

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
ROW = re.compile(r"\| `([a-z0-9_]+)` \| (.*?) \| .+ \|")


def _shown(name):
    default = Config._field_defaults.get(name, "")
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, float):
        return f"`{default:g}`"
    return f"`{default}`" if default not in ("", (), {}) else "-"


def test_the_page_lists_every_setting_with_what_holds_unless_it_is_said():
    assert ROW.findall(PAGE.read_text()) == [(name, _shown(name)) for name in SETTINGS]


def _said(name):
    """A value that is not the usual one: as the file has it, as a variable says it, and what comes of it."""
    default = Config._field_defaults.get(name, "")
    if name == "org_shares":
        return {"acme": 0.25}, "acme=0.25", {"acme": 0.25}
    if name == "api_limits":
        return {"depth": 3}, "depth=3", Config().api._replace(depth=3)
    if name == "egress":
        return "log", "log", "log"
    if name == "trusted_proxies":
        return ["10.0.0.0/8"], "10.0.0.0/8", ("10.0.0.0/8",)
    if name == "sql_listen":
        return ["mysql://127.0.0.1:1"], "mysql://127.0.0.1:1", ("mysql://127.0.0.1:1",)
    if isinstance(default, bool):
        return True, "true", True
    if isinstance(default, float):
        return (0.5, "0.5", 0.5) if name.endswith("share") else (7.0, "7", 7.0)
    if isinstance(default, int):
        return default + 1, str(default + 1), default + 1
    if isinstance(default, tuple):
        return ["a.test:127.0.0.1"], "a.test:127.0.0.1", ("a.test:127.0.0.1",)
    return "127.0.0.1:7", "127.0.0.1:7", "127.0.0.1:7"


NEEDS = {"tls_cert": {"tls_key": "k"}, "tls_key": {"tls_cert": "c"}}
NEEDS["tls_client_ca"] = {"tls_key": "k", "tls_cert": "c"}
NEEDS["tls_require_client_cert"] = {**NEEDS["tls_client_ca"], "tls_client_ca": "a"}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_is_taken_from_the_file_the_environment_and_an_option(name, tmp_path, monkeypatch):
    filed, text, wanted = _said(name)
    field = "api" if name == "api_limits" else name
    needed = NEEDS.get(name, {})
    written = {True: "true"}.get(filed) if filed is True else repr(filed).replace("'", '"').replace(": ", " = ")
    lines = [f'{key} = "{value}"' for key, value in needed.items()]
    (tmp_path / "settings.toml").write_text("\n".join([*lines, f"{name} = {written}"]))
    assert getattr(load(str(tmp_path / "settings.toml")), field) == wanted

    options = {parameter.name: parameter for parameter in server_command.params}
    if name != "vault":  # which every command has
        option = options[name]
        assert f"--{name.replace('_', '-')}" in option.opts
        assert bool(option.multiple) is (isinstance(Config._field_defaults.get(name), tuple) or name in TABLES)
        args = option.opts[0:1] if option.is_flag else [option.opts[0], text]
        context = server_command.make_context("server", args)
        assert getattr(load(flags={**needed, name: context.params[name]}), field) == wanted

    monkeypatch.setenv(f"KEYHOLE_{name.upper()}", text)
    assert getattr(load(flags=needed), field) == wanted


@pytest.mark.parametrize("text", ["acme", "acme=", "acme=x", "=0.5=", "acme=2", "acme=0"])
def test_a_share_that_is_none_is_refused_by_name(text):
    with pytest.raises(InvalidRequest, match="share"):
        load(flags={"org_shares": (text,)})
