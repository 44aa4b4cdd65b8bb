"""npm, pip, netrc, AWS, Docker, git: what each format can say, and what is not taken."""

import base64
import json

import pytest

from keyhole.core.errors import InvalidRequest
from keyhole.core.path import parse_path
from keyhole.importers import Origin, load, rewritten
from keyhole.importers.docker import parse_helper

ORIGIN = Origin("a file", group="home")


def report(name, text):
    return load(name).parse(text if isinstance(text, bytes) else text.encode(), ORIGIN)


def one(name, text):
    [found] = report(name, text).found
    return found


def fields(found):
    return {key: value.reveal().decode() for key, value in found.fields.items()}


def why(name, text):
    return {skipped.name: skipped.why for skipped in report(name, text).skipped}


def b64(text):
    return base64.b64encode(text.encode()).decode()


class TestNpmrc:
    def test_a_token_goes_as_bearer_to_the_host_of_its_registry(self):
        found = one("npmrc", "//Registry.Example:8443/npm/:_authToken=abcdef0123")
        assert fields(found) == {"value": "abcdef0123"}
        assert (found.binding.host, found.binding.inject) == ("registry.example:8443", {"kind": "bearer"})
        assert found.name == "npm/registry.example-8443/npm"

    def test_base64_is_opened_and_written_again_around_a_placeholder(self):
        content = f"//r.example/:_auth={b64('me:pass:word1')}\n".encode()
        found = one("npmrc", content)
        assert fields(found) == {"username": "me", "password": "pass:word1"}
        assert rewritten(content, [(found.spots[0], "PH")]) == f"//r.example/:_auth={b64('me:PH')}\n".encode()

    def test_a_long_path_of_a_registry_still_has_a_name_that_a_secret_can_have(self):
        found = one("npmrc", f"//r.example/{'deep/' * 500}:_authToken=abcdef0123")
        assert parse_path(found.name) == found.name

    def test_name_and_password_belong_together(self):
        found = one("npmrc", f"//r.example/:_password={b64('hunter22')}\n//r.example/:username=me\n")
        assert fields(found) == {"username": "me", "password": "hunter22"}
        assert "no username" in why("npmrc", f"//r.example/:_password={b64('hunter22')}")["//r.example/:_password"]

    def test_a_token_without_a_registry_is_for_the_one_that_is_set(self):
        found = one("npmrc", "_authToken=abcdef0123\nregistry = http://own.example/npm/\n")
        assert (found.binding.host, found.binding.scheme) == ("own.example", "http")

    @pytest.mark.parametrize(
        ("line", "reason"),
        [
            ("//r.example/:_authToken=${NPM_TOKEN}", "refers to a variable"),
            ("//r.example/:_authToken=", "empty"),
            ("//r.example/:_auth=bm9jb2xvbg==", "not base64 of a name and a password"),
            ("//r.example/:_auth=***", "not base64"),
            ("//r.example/:tokenHelper=/bin/helper", "program"),
            ("//r.example/:keyfile=/k.pem", "file of its own"),
            (f"//r.example/:_auth={b64('me:keyhole_placeholder_00')}", "placeholder"),
        ],
    )
    def test_what_is_not_taken(self, line, reason):
        assert not report("npmrc", line).found
        assert reason in next(iter(why("npmrc", line).values()))

    def test_comments_and_settings_are_not_looked_at(self):
        text = "; _authToken=x\n# //r/:_authToken=y\nsave-exact=true\n[section]\nemail=me@example\n"
        assert report("npmrc", text) == type(report("npmrc", ""))()


class TestPip:
    def test_addresses_in_one_and_in_several_lines(self):
        text = "[global]\nindex-url = https://me:pa%40ss%21x@one.example/simple\nextra-index-url:\n  https://t0ken@two.example\n"
        first, second = report("pip", text).found
        assert fields(first) == {"username": "me", "password": "pa@ss!x"}
        assert fields(second) == {"username": "t0ken", "password": ""}
        assert (first.name, second.name) == ("pip/one.example", "pip/two.example")

    def test_a_placeholder_is_percent_encoded(self):
        content = b"[global]\nindex-url = https://me:secretword@one.example/simple\n"
        [found] = report("pip", content).found
        assert b"me:p%2Fq%3A@one" in rewritten(content, [(found.spots[0], "p/q:")])

    def test_uploads_of_pypirc(self):
        text = "[distutils]\nindex-servers =\n  own\n"
        text += "[own]\nrepository = https://up.example/legacy/\npassword = abcdef0123\n"
        found = one("pip", text)
        assert fields(found) == {"username": "__token__", "password": "abcdef0123"}
        assert found.binding.host == "up.example"

    def test_addresses_without_a_password_and_references_are_left(self):
        assert not report("pip", "[global]\nindex-url = https://one.example/simple\n").found
        text = "[global]\nindex-url = https://me:${PIP_PASSWORD}@one.example/simple\n"
        assert "refers" in why("pip", text)["index-url"]


class TestNetrc:
    def test_words_may_stand_in_lines_or_beside_each_other(self):
        text = "machine a.example login me password one-one-1\nmachine b.example\n\tpassword two-two-2\n\tlogin you\n"
        assert [fields(found) for found in report("netrc", text).found] == [
            {"username": "me", "password": "one-one-1"},
            {"username": "you", "password": "two-two-2"},
        ]

    def test_quotes_escapes_and_marks(self):
        found = one("netrc", 'machine a.example login "me too" password "p\\"a ss#1"')
        assert fields(found) == {"username": "me too", "password": 'p"a ss#1'}
        assert fields(one("netrc", "machine a.example login me password #1#secret"))["password"] == "#1#secret"

    def test_a_word_that_is_a_keyword_can_be_a_password(self):
        found = one("netrc", "machine a.example login machine password default")
        assert fields(found) == {"username": "machine", "password": "default"}

    def test_macros_and_the_default_are_left(self):
        text = "macdef up\nmachine evil.example login x password y\nput *\n\ndefault login anonymous password guest\n"
        assert not report("netrc", text).found
        assert why("netrc", text).keys() == {"macdef", "default"}

    def test_a_second_account_has_a_name_of_its_own_and_the_same_one_is_left(self):
        text = "machine a.example login x password one-one-1\nmachine a.example login y password two-two-2\n"
        assert [found.name for found in report("netrc", text).found] == ["netrc/a.example", "netrc/a.example/y"]
        text += "machine a.example login x password three-3\n"
        assert "second entry" in why("netrc", text)["a.example"]

    def test_comments_end_with_their_line(self):
        assert one("netrc", "# machine b.example password no\nmachine a.example login x password one-one-1").name


class TestAws:
    def test_profiles_with_and_without_a_session(self):
        text = (
            "[default]\naws_access_key_id=AKIA1\naws_secret_access_key=abc\n"
            "[profile dev]\nAWS_ACCESS_KEY_ID = ASIA2\naws_secret_access_key = d=e/f+\naws_session_token = tok==\n"
        )
        first, second = report("aws", text).found
        assert (first.name, second.name) == ("aws/default", "aws/dev")
        assert fields(second) == {"access_key_id": "ASIA2", "secret_access_key": "d=e/f+", "session_token": "tok=="}
        assert "temporary" in report("aws", text).notes[0]

    def test_profiles_that_get_their_keys_elsewhere_are_said_with_the_means(self):
        text = (
            "[a]\nrole_arn=arn:x\nsource_profile=b\n[c]\ncredential_process=/bin/x --secret y\n"
            "[d]\nsso_session=s\nsso_account_id=1\n[sso-session s]\nsso_start_url=https://x\n[e]\nregion=eu\n"
            "[f]\naws_secret_access_key=abc\n"
        )
        assert not report("aws", text).found
        reasons = why("aws", text)
        assert reasons.keys() == {"a", "c", "d", "f"}
        assert "program" in reasons["c"]
        assert "--secret" not in str(reasons)
        assert "sign-on" in reasons["d"]

    def test_a_value_with_a_comment_behind_it_is_not_guessed(self):
        text = "[default]\naws_access_key_id=AKIA1\naws_secret_access_key=abc # mine\n"
        assert "one word" in next(iter(why("aws", text).values()))

    def test_nested_settings_are_no_keys(self):
        text = "[default]\ns3 =\n  aws_secret_access_key = no\naws_access_key_id = AKIA1\n"
        assert not report("aws", text).found


class TestDocker:
    def test_only_docker_hub_says_where_its_password_is_exchanged(self):
        auths = {
            "https://index.docker.io/v1/": {"auth": b64("me:pw:with:colons")},
            "r.example:5000": {"auth": b64("a:bcdefgh")},
        }
        hub, other = report("docker", json.dumps({"auths": auths})).found
        assert fields(hub) == {"username": "me", "password": "pw:with:colons"}
        assert hub.binding.host == "auth.docker.io"
        assert other.binding is None
        assert (hub.name, other.name) == ("docker/index.docker.io", "docker/r.example-5000")

    def test_a_placeholder_stands_inside_of_the_base64(self):
        content = json.dumps({"auths": {"r.example": {"auth": b64("me:hunter22")}}}).encode()
        [found] = report("docker", content).found
        changed = rewritten(content, [(spot, "PH") for spot in found.spots])
        assert json.loads(changed)["auths"]["r.example"]["auth"] == b64("me:PH")

    def test_an_identity_token_is_taken_without_a_name(self):
        entry = {"auth": b64("00000000-0000-0000-0000-000000000000:"), "identitytoken": "tok-tok-tok"}
        assert fields(one("docker", json.dumps({"auths": {"r.example": entry}}))) == {"value": "tok-tok-tok"}

    def test_what_helpers_keep_is_said_and_can_be_asked_for(self):
        data = {"auths": {"a.example": {}}, "credsStore": "desktop", "credHelpers": {"gcr.example": "gcloud"}}
        found = report("docker", json.dumps(data))
        assert [(asked.helper, asked.server) for asked in found.asked] == [
            ("desktop", "a.example"),
            ("gcloud", "gcr.example"),
        ]
        assert "docker-credential-desktop" in found.skipped[0].why

    @pytest.mark.parametrize("name", ["../evil", "a b", "-x", "x;y", "", "a/b", "a\n"])
    def test_a_helper_that_is_no_program_name_is_never_asked(self, name):
        assert not report("docker", json.dumps({"credHelpers": {"r.example": name}})).asked

    def test_what_a_helper_prints(self):
        [found] = parse_helper(b'{"ServerURL": "r", "Username": "me", "Secret": "hunter22"}', "r.example", ORIGIN).found
        assert fields(found) == {"username": "me", "password": "hunter22"}
        [found] = parse_helper(b'{"Username": "<token>", "Secret": "tok-tok-tok"}', "r.example", ORIGIN).found
        assert fields(found) == {"value": "tok-tok-tok"}
        for bad in (b"", b"credentials not found", b"[]", b'{"Username": 1, "Secret": "x"}', b"[" * 5000):
            with pytest.raises(InvalidRequest):
                parse_helper(bad, "r.example", ORIGIN)

    @pytest.mark.parametrize(
        "text", ["{", "[1]", '"x"', '{"auths": [', '{"a": "\\x"}', '{"a": 1} 2', "[" * 100, "{'a': 1}"]
    )
    def test_what_is_no_json_is_refused_with_its_line(self, text):
        with pytest.raises(InvalidRequest):
            report("docker", text)


class TestGit:
    def test_one_address_a_line(self):
        text = "https://me:pa%2Fss%C3%A9@git.example\nhttp://you:secret12@other.example:8080\nhttps://t0ken-t0ken@t.example\n"
        first, second, third = report("git", text).found
        assert fields(first) == {"username": "me", "password": "pa/ssé"}
        assert (second.binding.host, second.binding.scheme) == ("other.example:8080", "http")
        assert fields(third) == {"username": "t0ken-t0ken", "password": ""}

    def test_accounts_of_one_host_have_names_of_their_own(self):
        text = "https://a:one-one-1@git.example\nhttps://b:two-two-2@git.example\n"
        assert [found.name for found in report("git", text).found] == ["git/git.example/a", "git/git.example/b"]

    def test_other_lines_are_said_and_not_repeated(self):
        found = report("git", "password hunter22\nhttps://git.example\n")
        assert [skipped.where for skipped in found.skipped] == ["line 1", "line 2"]
        assert "hunter22" not in repr(found)
