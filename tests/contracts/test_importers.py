"""What every member of the shelf ``keyhole.importers`` promises."""

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from importers.samples import SAMPLES, hidden
from keyhole.core.errors import InvalidRequest, KeyholeError
from keyhole.core.value import Secret
from keyhole.importers import LIMITS, MEMBERS, Origin, importer_for, load, rewritten

ORIGIN = Origin("somewhere", group="shop")
PLACEHOLDER = "keyhole_placeholder_0123456789abcdef"


@pytest.fixture(params=list(SAMPLES))
def member(request):
    return request.param


@pytest.fixture
def parse(member):
    return load(member).parse


def spots_of(report):
    return [spot for found in report.found for spot in found.spots]


class TestImporters:
    def test_it_finds_what_is_there(self, parse, member):
        report = parse(SAMPLES[member], ORIGIN)
        assert report.found
        for found in report.found:
            assert found.name
            assert found.where
            assert found.fields
            assert all(isinstance(value, Secret) for value in found.fields.values())

    def test_no_value_is_in_what_it_says(self, parse, member):
        assert not hidden(repr(parse(SAMPLES[member], ORIGIN)))

    def test_the_same_bytes_give_the_same_report(self, parse, member):
        assert parse(SAMPLES[member], ORIGIN) == parse(SAMPLES[member], ORIGIN)

    def test_with_its_places_replaced_no_value_is_left_and_nothing_else_has_changed(self, parse, member):
        content = SAMPLES[member]
        report = parse(content, ORIGIN)
        if not spots_of(report):
            return
        changed = rewritten(content, [(spot, PLACEHOLDER) for spot in spots_of(report)])
        assert not hidden(changed.decode())
        assert kept(content, report) == kept(changed, parse_again(changed, content, report))
        again = parse(changed, ORIGIN)
        assert not [found for found in again.found if not found.doubt]
        assert sum("placeholder" in skipped.why for skipped in again.skipped) >= 1

    def test_every_place_says_a_value_that_was_found(self, parse, member):
        content = SAMPLES[member]
        for found in parse(content, ORIGIN).found:
            for spot in found.spots:
                changed = rewritten(content, [(spot, "another-value-0123456789")])
                values = [value for each in parse(changed, ORIGIN).found for value in each.fields.values()]
                assert Secret("another-value-0123456789") in values, (found.name, spot)

    def test_windows_line_ends_and_a_byte_order_mark_change_nothing(self, parse, member):
        if member in {"environ", "command"}:
            return
        plain = parse(SAMPLES[member], ORIGIN)
        marked = b"\xef\xbb\xbf" + SAMPLES[member].replace(b"\n", b"\r\n")
        other = parse(marked, ORIGIN)
        assert [found.name for found in other.found] == [found.name for found in plain.found]
        assert [found.fields for found in other.found] == [found.fields for found in plain.found]

    @pytest.mark.parametrize("content", [b"", b"\n", b" \t \r\n", b"\xff\xfe", b"\x00", b"{", b"[", b"\xef\xbb\xbf"])
    def test_nothing_and_nonsense_are_an_empty_report_or_a_refusal(self, parse, content):
        with contextlib.suppress(InvalidRequest):
            assert not parse(content, ORIGIN).found

    def test_what_is_too_large_is_refused(self, parse, member):
        if member in {"environ", "command"}:
            return
        with pytest.raises(InvalidRequest, match="larger than"):
            parse(b"#" * (LIMITS.file + 1), ORIGIN)

    @settings(max_examples=60, deadline=None)
    @given(content=st.binary(max_size=400), position=st.integers(0, 2000), cut=st.integers(0, 40))
    def test_damaged_files_never_break_it(self, content, position, cut):
        for name in SAMPLES:
            sample = SAMPLES[name]
            damaged = sample[:position] + content + sample[position + cut :]
            try:
                report = load(name).parse(damaged, ORIGIN)
            except KeyholeError:
                continue
            rewritten(damaged, [(spot, PLACEHOLDER) for spot in spots_of(report)])


def kept(content, report):
    """What a file says between the places."""
    parts, position = [], 0
    for spot in sorted(spots_of(report), key=lambda spot: spot.start):
        parts.append(content[position : spot.start])
        position = spot.end
    return [*parts, content[position:]]


def parse_again(changed, content, report):
    """The report with its places where they are in the changed file."""
    moved, shift = [], 0
    for spot in sorted(spots_of(report), key=lambda spot: spot.start):
        size = len(spot.written(PLACEHOLDER))
        moved.append(type(spot)(spot.start + shift, spot.start + shift + size))
        shift += size - (spot.end - spot.start)
    assert len(changed) == len(content) + shift
    return type(report)((type(report.found[0])("x", {}, "x", spots=tuple(moved)),))


def test_a_file_is_known_by_its_name():
    names = {
        "/home/me/.aws/credentials": "aws",
        "C:\\Users\\me\\.npmrc": "npmrc",
        ".env": "dotenv",
        "shop/.env.local": "dotenv",
        "prod.env": "dotenv",
        ".vscode/mcp.json": "mcp",
        ".docker/config.json": "docker",
        "config.json": "",
        "credentials": "",
        "environment": "",
    }
    assert {name: importer_for(name) for name in names} == names


def test_every_usual_place_of_a_member_is_known_by_its_name():
    for name in MEMBERS:
        for place in load(name).PLACES:
            if place.startswith(("~", ".")):
                assert importer_for(place) == name, place


def test_an_unknown_source_is_refused():
    for name in ("", "found", "../dotenv", "recognise"):
        with pytest.raises(InvalidRequest):
            load(name)


def test_a_member_is_loaded_only_when_it_is_named():
    program = (
        "import sys; import keyhole.importers as shelf; shelf.load('git')\n"
        "print(sorted(m for m in shelf.MEMBERS if f'keyhole.importers.{m}' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "['git']"


def test_the_example_of_the_shelf_runs(tmp_path):
    import keyhole.importers as shelf

    lines = [line[4:] for line in shelf.__doc__.splitlines() if line.startswith("    ")][:8]
    program = "from keyhole.importers import *\ncontent = b'A_TOKEN=0123456789abcdef'\n" + "\n".join(lines)
    assert "report" in program
    (tmp_path / "example.py").write_text(program)
    subprocess.run([sys.executable, str(tmp_path / "example.py")], check=True, timeout=60, cwd=Path.cwd())
