"""Files of environment variables, and where their readers do not agree."""

import pytest

from keyhole.core.errors import InvalidRequest
from keyhole.importers import LIMITS, Origin, rewritten
from keyhole.importers.dotenv import parse

ORIGIN = Origin(".env", group="My Shop")


def report(text):
    return parse(text if isinstance(text, bytes) else text.encode(), ORIGIN)


def values(text):
    """Variable to value, doubted or not."""
    return {found.variable: found.fields["value"].reveal().decode() for found in report(text).found}


def why(text):
    return {skipped.name: skipped.why for skipped in report(text).skipped}


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("A_KEY=abcdef", "abcdef"),
        ("export A_KEY=abcdef", "abcdef"),
        ("  A_KEY = abcdef  ", "abcdef"),
        ("A_KEY='abc def'", "abc def"),
        ('A_KEY="abc # def"', "abc # def"),
        ('A_KEY=`it\'s "so"`', 'it\'s "so"'),
        ("A_KEY=abcdef # a comment", "abcdef"),
        ("A_KEY=abcdef\t# a comment", "abcdef"),
        ("A_KEY='abc' # a comment", "abc"),
        (r'A_KEY="a\nb\tc\"d\\e\$f"', 'a\nb\tc"d\\e$f'),
        (r"A_KEY='a\nb$HOME'", r"a\nb$HOME"),
        ("A_KEY='one\ntwo'", "one\ntwo"),
        ('A_KEY="one\r\ntwo"', "one\r\ntwo"),
        ("A_KEY=a=b==", "a=b=="),
        ("A_KEY=schlüssel", "schlüssel"),
        ("A_KEY='пароль'", "пароль"),
        ("A_KEY=abc$", "abc$"),
        ("A_KEY=a b c", "a b c"),
    ],
)
def test_a_value_is_what_programs_find_in_the_variable(written, value):
    assert values(written) == {"A_KEY": value}
    assert values(f"# before\n\n{written}\nB=1\n")["A_KEY"] == value


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("A_KEY=", "empty"),
        ('A_KEY=""', "empty"),
        ("A_KEY= # later", "empty"),
        ("A_KEY=${OTHER}", "refers"),
        ('A_KEY="x${OTHER}y"', "refers"),
        ("A_KEY=$OTHER", "refers"),
        ("A_KEY=$(pass show x)", "refers"),
        ("A_KEY=pa$sword", "refers"),
        ("A_KEY=abc#def", "differently"),
        ("A_KEY=#abcdef", "differently"),
        ("A_KEY=abc\\def", "differently"),
        ("A_KEY='abc", "not closed"),
        ('A_KEY="abc', "not closed"),
        ("A_KEY='abc'def", "after its closing quote"),
        ("A_KEY=op://vault/item/field", "another place"),
        ("A_KEY=keyhole_placeholder_0123456789abcdef", "placeholder"),
        (b"A_KEY=\xff\xfe\xfd", "UTF-8"),
        (f"A_KEY={'a' * (LIMITS.value + 1)}", "longer than 64 KiB"),
    ],
)
def test_what_is_not_certain_is_left_with_a_reason(written, reason):
    found = report(written)
    assert not found.found
    assert [skipped.name for skipped in found.skipped] == ["A_KEY"]
    assert reason in found.skipped[0].why


def test_an_unclosed_quote_does_not_swallow_the_lines_after_it():
    text = "A_KEY='abc\nB_KEY='0123456789abcdef'\nC_KEY=\"0123456789abcdeg\"\n"
    assert values(text).keys() == {"B_KEY", "C_KEY"}
    assert "not closed" in why(text)["A_KEY"]


def test_of_two_with_one_name_the_last_counts_and_the_first_is_said():
    text = "A_KEY=old-old-old-1\nB_KEY=0123456789\nA_KEY=new-new-new-2\n"
    assert values(text)["A_KEY"] == "new-new-new-2"
    [skipped] = report(text).skipped
    assert (skipped.where, skipped.why) == ("line 1", "is given again in line 3, which counts; it stays in the file")


def test_the_same_value_twice_is_replaced_twice():
    content = b"A_KEY=0123456789\nA_KEY='0123456789'\n"
    found = report(content)
    assert not found.skipped
    assert rewritten(content, [(spot, "X") for spot in found.found[0].spots]) == b"A_KEY=X\nA_KEY='X'\n"


def test_a_later_reference_hides_the_value_before_it_and_both_are_said():
    assert "given again in line 2" in report("A_KEY=0123456789\nA_KEY=${B}\n").skipped[0].why
    assert not report("A_KEY=0123456789\nA_KEY=${B}\n").found


def test_lines_are_counted_through_values_of_several_lines_and_any_line_end():
    for end in ("\n", "\r\n", "\r"):
        text = end.join(["A_KEY='one", "two", "three'", "", "# c", "B_KEY=0123456789", "junk"])
        found = report(text)
        assert [each.where for each in found.found] == ["line 1", "line 6"]
        assert [each.where for each in found.skipped] == ["line 7"]


def test_a_value_in_a_comment_is_told_and_stays():
    assert "comment" in why("# STRIPE_KEY=sk_live_0123456789abcdef\n# PORT=3000\n# see FOO=bar\n")["STRIPE_KEY"]
    assert len(why("# STRIPE_KEY=sk_live_0123456789abcdef\n# PORT=3000\n")) == 1


@pytest.mark.parametrize(
    "written",
    [
        "PORT=3000",
        "DEBUG=true",
        "NODE_ENV=production",
        "BASE_URL=https://api.example.com/v1",
        "AWS_REGION=eu-central-1",
        "NEXT_PUBLIC_API_KEY=abcdef0123456789",
        "STRIPE_PUBLISHABLE_KEY=pk_live_abcdef",
        "TOKEN_EXPIRY=3600",
        "KEY_FILE=/etc/ssl/key.pem",
        "SSH_AUTH_SOCK=/run/agent.sock",
        "API_KEY=changeme",
        "API_KEY=your-key-here",
        "API_KEY=<insert>",
        "API_KEY=xxxxxxxx",
        "SECRET=abc",
        "CLIENT_ID=0123456789",
        "REQUEST=3f2504e0-4f89-41d3-9a0c-0305e82c3301",
        "VERSION=1.22.333.4444",
        "GREETING=The quick brown fox jumps",
    ],
)
def test_what_does_not_look_like_a_secret_is_doubted(written):
    [found] = report(written).found
    assert found.doubt


@pytest.mark.parametrize(
    ("written", "kind"),
    [
        ("API_KEY=abcdef0123456789", "api-key"),
        ("DB_PASSWORD=hunter2hunter2", "password"),
        ("apiToken=abcdef0123456789", "api-key"),
        ("STRIPE=sk_live_9hX2kQ7vB4nM8cZ1", "api-key"),
        ("DATABASE_URL=postgres://u:pa55word@db/x", "connection-string"),
        ("KEY='-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY-----'", "ssh-key"),
        ("KEY='-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----'", "certificate"),
    ],
)
def test_what_looks_like_a_secret_is_taken_with_its_kind(written, kind):
    [found] = report(written).found
    assert not found.doubt
    assert found.kind == kind
    assert found.name.startswith("my-shop/")
    assert bool(found.stays) == (kind in {"connection-string", "ssh-key", "certificate"})


def test_only_the_value_is_replaced_and_not_what_is_around_it():
    content = b"\xef\xbb\xbf# c\r\nexport  A_KEY = \"0123456789\"  # why\r\nB_KEY='0123456780'\r\nPORT=1"
    found = report(content)
    changes = [(spot, "P") for each in found.found if not each.doubt for spot in each.spots]
    assert rewritten(content, changes) == b"\xef\xbb\xbf# c\r\nexport  A_KEY = \"P\"  # why\r\nB_KEY='P'\r\nPORT=1"


def test_many_entries_are_refused_and_a_hostile_file_takes_no_time():
    with pytest.raises(InvalidRequest, match="more than 2000 entries"):
        report("".join(f"A{n}=1\n" for n in range(LIMITS.entries + 1)))
    for text in ("A='\n" * 50_000, 'A="\\' * 50_000, "A=" + " " * 500_000 + "x", "export " * 50_000, "A=1\n" * 200_000):
        try:
            report(text)
        except InvalidRequest:
            continue
