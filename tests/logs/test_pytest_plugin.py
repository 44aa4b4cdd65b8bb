"""A test that prints a known secret fails, and nothing that pytest writes shows it."""

import pytest

pytest_plugins = ["pytester"]

VALUE = "known-test-value-31"
SECRETS = f"def known(): return ['{VALUE[:9]}' + '{VALUE[9:]}']"
TESTS = """
import base64, logging, sys, warnings
import pytest
from secrets_of_tests import known

VALUE, = known()

def test_prints(): print("x", VALUE)
def test_prints_encoded(): print(base64.b64encode(VALUE.encode()).decode())
def test_writes_errors(): sys.stderr.write(VALUE)
def test_logs(): logging.getLogger().warning("log %s", VALUE)
def test_is_compared(): assert VALUE == "other"
def test_raises(): raise ValueError(VALUE)
def test_skips(): pytest.skip(f"because {VALUE}")
def test_has_properties(record_property): record_property("key", VALUE)
@pytest.mark.xfail
def test_is_expected_to_fail(): raise ValueError(VALUE)
@pytest.fixture
def printing():
    yield
    print(VALUE)
def test_prints_at_its_end(printing): pass
def test_is_quiet(): print("nothing"); logging.getLogger().warning("nothing")
def test_fails_quietly(): assert 1 == 2
@pytest.mark.xfail
def test_is_expected_to_fail_quietly(): raise ValueError("x")
def test_reads_what_it_printed(capsys):
    print(VALUE)
    assert capsys.readouterr().out == VALUE + "\\n"
"""


@pytest.fixture
def project(pytester, monkeypatch):
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    pytester.makepyfile(secrets_of_tests=SECRETS)
    pytester.syspathinsert()
    return pytester


def test_what_prints_a_value_fails_and_shows_nothing(project):
    project.makeini("[pytest]\nkeyhole_leaks = call:secrets_of_tests:known\n    env:NOT_SET")
    project.makepyfile(TESTS)
    options = ("-rA", "--junitxml=report.xml", "-o", "junit_logging=all", "-o", "junit_family=xunit1")
    done = project.runpytest_inprocess(*options)
    shown = done.stdout.str() + done.stderr.str() + (project.path / "report.xml").read_text()
    assert VALUE not in shown
    assert "*" * len(VALUE) in shown
    done.assert_outcomes(passed=3, failed=10, errors=1, xfailed=1)
    assert "a known secret was printed, in: Captured stdout call" in shown
    assert "in: Captured log call" in shown
    assert "in: its properties" in shown
    assert "ValueError" in shown


def test_workers_of_xdist_send_nothing_that_has_a_value(project, monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    project.makeini("[pytest]\nkeyhole_leaks = call:secrets_of_tests:known")
    project.makepyfile(
        "from secrets_of_tests import known\ndef test_prints(): print(known()[0])\ndef test_is_quiet(): pass"
    )
    done = project.runpytest_subprocess("-n", "1", "-rA", "-p", "xdist", "-p", "keyhole.logs.pytest_plugin")
    assert VALUE not in done.stdout.str() + done.stderr.str()
    done.assert_outcomes(passed=1, failed=1)


def test_names_made_of_parameters_and_reasons_to_fail_are_seen_and_cleaned(project):
    project.makeini("[pytest]\nkeyhole_leaks = call:secrets_of_tests:known")
    project.makepyfile(
        "import pytest\nfrom secrets_of_tests import known\nVALUE, = known()\n"
        "@pytest.mark.parametrize('key', [VALUE, 'other'])\ndef test_named(key): pass\n"
        "@pytest.mark.parametrize('key', [pytest.param(VALUE, id='the-key')])\ndef test_with_id(key): pass\n"
        "@pytest.mark.xfail(reason=VALUE)\ndef test_reason(): assert False\n"
    )
    done = project.runpytest_inprocess("-p", "no:xdist", "-rA", "-vv", "--junitxml=report.xml")
    written = [path.read_text() for path in project.path.rglob("*") if path.name in {"report.xml", "nodeids"}]
    assert len(written) == 2
    assert VALUE not in "".join([done.stdout.str(), *written])
    done.assert_outcomes(passed=2, failed=2)
    assert "give it an id" in done.stdout.str()


def test_it_is_off_unless_it_is_wanted(project):
    project.makepyfile(f"def test_prints(): print({VALUE!r}); assert False")
    done = project.runpytest_inprocess("-p", "no:xdist")
    assert VALUE in done.stdout.str()


def test_modules_that_print_and_warnings_are_seen_too(project, monkeypatch):
    monkeypatch.setenv("APP_KEY", VALUE)
    project.makeini("[pytest]\nkeyhole_leaks = env:APP_KEY")
    project.makepyfile(
        test_one="import os\nprint(os.environ['APP_KEY'])\ndef test(): pass",
        test_two="import os, warnings\ndef test(keyhole_leaks):\n    warnings.warn(os.environ['APP_KEY'])\n"
        "    keyhole_leaks.add('added-' + 'later')\ndef test_later(): print('added-later')",
    )
    done = project.runpytest_inprocess("-p", "no:xdist", "--continue-on-collection-errors", "-W", "default")
    assert VALUE not in done.stdout.str()
    done.assert_outcomes(passed=1, failed=1, errors=1, warnings=1)
    assert "1 warnings had a known secret in them" in done.stdout.str()
    done = project.runpytest_inprocess("-p", "no:xdist", "-W", "default", "test_two.py::test")
    assert done.ret == pytest.ExitCode.TESTS_FAILED


@pytest.mark.parametrize("line", ["everything", "call:no_such_module:known", "call:secrets_of_tests:none", "env:"])
def test_a_wrong_setting_is_said(project, line):
    project.makeini(f"[pytest]\nkeyhole_leaks = {line}")
    done = project.runpytest_inprocess("-p", "no:xdist")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    assert "keyhole_leaks" in done.stderr.str()
