"""A pytest plugin: a test that prints a known secret fails, and no report shows it. Off without ``keyhole_leaks``.

    [tool.pytest.ini_options]
    keyhole_leaks = ["fetched", "env:STRIPE_API_KEY", "call:tests.secrets:known", "shapes"]

Looked at are the captured stdout, stderr and log of each phase, the texts of failures and skips, properties and
warnings. It works in each worker of xdist, before a report leaves it.
"""

from __future__ import annotations

import importlib
from collections.abc import Generator
from typing import Any

import pytest

from keyhole.core.errors import InvalidRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyhole.logs.scrubber import LogScrubber

_SETTING = "keyhole_leaks"
_PLUGIN = "keyhole-leaks"
_NAMED = "keyhole-leaks-in-name"
_FETCHED, _SHAPES = "fetched", "shapes"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Make the setting known."""
    parser.addini(
        _SETTING,
        "what no test may print: fetched (what clients of Keyhole fetch), env:NAME, call:MODULE:FUNCTION, shapes",
        type="linelist",
        default=[],
    )


def pytest_configure(config: pytest.Config) -> None:
    """Look, where it is wanted."""
    wanted = config.getini(_SETTING)
    if not wanted:
        return
    try:
        config.pluginmanager.register(Leaks(wanted), _PLUGIN)
    except InvalidRequest as error:
        raise pytest.UsageError(f"{_SETTING}: {error}") from None


@pytest.fixture(scope="session")
def keyhole_leaks(pytestconfig: pytest.Config) -> LogScrubber:
    """What no test may print: ``keyhole_leaks.add(value)`` adds to it."""
    plugin = pytestconfig.pluginmanager.get_plugin(_PLUGIN)
    if plugin is None:
        pytest.fail(f"{_SETTING} is not set, so nobody looks: set it to fetched, or more")
    found: LogScrubber = plugin.scrubber
    return found


class Leaks:
    """Looks through reports.

    Args:
        wanted: the lines of the setting.

    Attributes:
        scrubber: what is looked for.
    """

    def __init__(self, wanted: list[str]) -> None:
        from keyhole.logs.scrubber import LogScrubber  # noqa: PLC0415  # nothing is loaded where it is off

        env, calls, rest = [], [], set()
        for line in wanted:
            kind, _, name = line.strip().partition(":")
            if kind == "env" and name:
                env.append(name)
            elif kind == "call" and ":" in name:
                calls.append(_function(name))
            else:
                rest.add(line.strip())
        if rest - {_FETCHED, _SHAPES}:
            raise InvalidRequest(
                f"{min(rest - {_FETCHED, _SHAPES})!r} is nothing to look for",
                "fetched, env:NAME, call:MODULE:FUNCTION or shapes",
            )
        self.scrubber: LogScrubber = LogScrubber(calls, env=env, fetched=_FETCHED in rest, shapes=_SHAPES in rest)
        self._failed: set[str] = set()
        self._outside = 0

    @pytest.hookimpl(tryfirst=True)
    def pytest_itemcollected(self, item: pytest.Item) -> None:
        """Clean the name of a test: those of parameters are made of their values, and stand everywhere."""
        clean = self.scrubber.text(item.nodeid)
        if clean != item.nodeid:
            _rename(item, self.scrubber.text(item.name), clean)
            item.keywords[_NAMED] = True

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Fail the test in the phase in which it is seen first; later reports are only cleaned."""
        report = yield
        places = self._clean(report)
        if item.keywords.get(_NAMED) and report.when == "call":
            places.append("its name, made of a parameter: give it an id")
        if places and item.nodeid not in self._failed:
            self._failed.add(item.nodeid)
            _fail(report, places)
        return report

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_make_collect_report(self) -> Generator[None, Any, Any]:
        """The same for what a module prints while it is imported."""
        report = yield
        if places := self._clean(report):
            _fail(report, places)
        return report

    @pytest.hookimpl(tryfirst=True)
    def pytest_warning_recorded(self, warning_message: Any) -> None:
        """Clean warnings; they belong to no report, so the whole run fails."""
        text = str(warning_message.message)
        clean = self.scrubber.text(text)
        if clean != text:
            warning_message.message = type("ScrubbedWarning", (UserWarning,), {})(clean)
            self._outside += 1

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, Any, Any]:
        """Fail the run for what no test could be failed for."""
        if self._outside and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        return (yield)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say that warnings had a value in them."""
        if self._outside:
            terminalreporter.write_line(f"keyhole: {self._outside} warnings had a known secret in them", red=True)

    def _clean(self, report: Any) -> list[str]:
        """Take values out of a report; where they were."""
        places = []
        for index, (name, text) in enumerate(report.sections):
            clean = self.scrubber.text(text)
            if clean != text:
                report.sections[index] = (name, clean)
                places.append(name)
        if report.longrepr is not None:
            clean_repr = self._failure(report.longrepr)
            if clean_repr is not report.longrepr:
                report.longrepr = clean_repr
                places.append("the text of its failure")
        reason = getattr(report, "wasxfail", None)
        if isinstance(reason, str) and (clean := self.scrubber.text(reason)) != reason:
            report.wasxfail = clean
            places.append("the reason why it fails")
        properties = getattr(report, "user_properties", None)
        if properties and (clean_list := self.scrubber.value(properties)) is not properties:
            properties[:] = clean_list
            places.append("its properties")
        return places

    def _failure(self, shown: Any) -> Any:
        """The text of a failure; of a skip, that is a triple."""
        if isinstance(shown, tuple):
            return self.scrubber.value(shown)
        text = str(shown)
        crash = getattr(getattr(shown, "reprcrash", None), "message", "")
        clean = self.scrubber.text(text)
        return shown if clean == text and self.scrubber.text(crash) == crash else clean


def _rename(item: Any, name: str, node: str) -> None:
    """Pytest has no way to do it; its newer versions keep the parts of a name apart."""
    item.name = name
    if hasattr(item, "_id"):
        item._id = type(item._id).parse(node)  # noqa: SLF001
    else:
        item._nodeid = node  # noqa: SLF001


def _fail(report: Any, places: list[str]) -> None:
    said = f"a known secret was printed, in: {', '.join(places)}"
    was = "" if report.longrepr is None or isinstance(report.longrepr, tuple) else f"{report.longrepr}\n"
    report.longrepr = f"{was}keyhole: {said}"
    report.outcome = "failed"
    if hasattr(report, "wasxfail"):
        del report.wasxfail


def _function(name: str) -> Any:
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InvalidRequest(f"call:{name} cannot be had: {error}", "call:MODULE:FUNCTION") from None
