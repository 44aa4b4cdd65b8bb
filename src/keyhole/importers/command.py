"""What a command prints that other programs made for handing out a token, such as ``gh auth token``."""

from __future__ import annotations

from dataclasses import dataclass

from keyhole.core.errors import InvalidRequest
from keyhole.core.path import DEFAULT_FIELD
from keyhole.core.value import Secret
from keyhole.importers.collect import Collector, segment
from keyhole.importers.found import Binding, Found, Origin, Report

SHORTEST = 8  # bytes; a shorter value cannot be masked in answers
TITLE = "command"
PLACES: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Known:
    """A command that prints a token and nothing else.

    Attributes:
        argv: the program and its arguments.
        variable: a variable that holds such a token, by which the catalog knows it.
        secret: a name for it.
        expires_in: how long it lives; empty where it lives on.
        host: where it goes as a bearer token, for what the catalog does not know by the variable.
    """

    argv: tuple[str, ...]
    variable: str
    secret: str
    expires_in: str = ""
    host: str = ""


KNOWN = {
    "gh": Known(("gh", "auth", "token"), "GITHUB_TOKEN", "github/token"),
    "glab": Known(("glab", "config", "get", "token", "--host", "gitlab.com"), "GITLAB_TOKEN", "gitlab/token"),
    "gcloud": Known(("gcloud", "auth", "print-access-token"), "", "gcloud/access-token", "1h", "*.googleapis.com"),
    "az": Known(
        ("az", "account", "get-access-token", "--query", "accessToken", "--output", "tsv"),
        "",
        "azure/access-token",
        "1h",
        "management.azure.com",
    ),
    "heroku": Known(("heroku", "auth:token"), "HEROKU_API_KEY", "heroku/token"),
    "flyctl": Known(("flyctl", "auth", "token"), "FLY_API_TOKEN", "fly/token"),
}


def parse(content: bytes, origin: Origin) -> Report:
    """See the contract of the shelf. ``origin.group`` is a name of ``KNOWN``, or the program's."""
    known = KNOWN.get(origin.group)
    try:
        text = content.decode().strip("\r\n \t")
    except UnicodeDecodeError:
        raise InvalidRequest("what the command printed is not text", "name a command that prints the token") from None
    if not text:
        raise InvalidRequest("the command printed nothing", "run it by itself to see why")
    if any(char.isspace() or not char.isprintable() for char in text):
        raise InvalidRequest(
            "the command printed more than one word", "name one that prints the token alone; see its --help"
        )
    if len(text) < SHORTEST:
        raise InvalidRequest(f"the command printed less than {SHORTEST} characters", "run it by itself to see why")
    found = Collector(origin)
    if not found.refused("", text, "output", references=False):
        found.add(
            Found(
                name=known.secret if known else f"{segment(origin.group)}/token",
                fields={DEFAULT_FIELD: Secret(text)},
                where="output",
                kind="oauth-token",
                variable=known.variable if known else "",
                binding=Binding(known.host, {"kind": "bearer"}) if known and known.host else None,
                expires_in=known.expires_in if known else "",
            )
        )
    return found.report()
