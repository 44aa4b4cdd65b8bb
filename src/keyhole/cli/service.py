"""``service``: where secrets may go and how they are attached."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import click

from keyhole.cli.base import Session, group, pass_session
from keyhole.cli.bindings import placeholder_for
from keyhole.cli.checks import check_options, lines, read_checks, without_checks
from keyhole.cli.names import secrets, services
from keyhole.cli.ways import described, inject_of, way_options
from keyhole.core.errors import (
    InvalidRequest,
    KeyholeError,
    NotFound,
    UpstreamTimeout,
    UpstreamTls,
    UpstreamUnreachable,
)
from keyhole.core.inject import KINDS
from keyhole.core.passthrough import SCHEMES as PASSED
from keyhole.core.path import DEFAULT_FIELD, parse_name, parse_secret_ref
from keyhole.core.probe import Probe, Verdict
from keyhole.core.service import PORTS, Service
from keyhole.core.sql import SQL

REFUSED = 1
_MEANS = {
    Verdict.ACCEPTED: "accepted: the API takes the key {secret}",
    Verdict.REFUSED: "refused: the API does not take the key {secret}; store another with: keyhole set {secret}",
    Verdict.LIMITED: "limited: the API knows the key {secret}, or hides why not, and does not let it make this call: "
    "look at its scopes where it was made",
    Verdict.UNCLEAR: "unclear: this answer does not say whether the API takes the key {secret}",
}


@group("service", examples="keyhole service add stripe --host api.stripe.com --secret stripe/api-key --bearer")
def service() -> None:
    """Where secrets may go and how they are attached."""


@service.command(
    "add",
    examples="""
    keyhole service add stripe --host api.stripe.com --secret stripe/api-key --bearer
    keyhole service add stats --host stats.internal --secret /database/creds/stats --basic
    keyhole service add github --host api.github.com --secret github/token --header 'Authorization=token {}'
    keyhole service add crm --host crm.internal:8443 --allow-address 10.0.0.5/32 --secret crm/login --basic
    keyhole service add maps --host maps.example.com --secret maps/key --query key
    keyhole service add telegram --host api.telegram.org --secret telegram/token --inject path --option text=BOT-TOKEN
    keyhole service add datadog --host api.datadoghq.com --secret datadog/keys \\
        --inject headers --option headers=DD-API-KEY=api_key,DD-APPLICATION-KEY=app_key
    keyhole service add s3 --host '*.s3.eu-central-1.amazonaws.com' --secret aws/keys --sigv4
    keyhole service add gh --host api.github.com --method GET --path '/repos/**' --deny-path '/repos/*/*/keys/**' \\
        --secret github/token --bearer
    keyhole service add pay --host api.pay.example --secret pay/key --bearer --rate 10/m \\
        --body-condition '/amount<=5000' --approve 'POST /v1/refunds'
    keyhole service add shop --scheme postgres --host db.internal:5432 --secret /database/creds/readonly --sql
    """,
)
@click.argument("name")
@click.option("--host", "hosts", multiple=True, required=True, metavar="HOST[:PORT]", help="May be repeated.")
@click.option(
    "--scheme",
    "schemes",
    multiple=True,
    metavar="SCHEME",
    help="https unless said, http; postgres or mysql with --sql; tls or ssh pass a tunnel on as it is.",
)
@click.option("--method", "methods", multiple=True, metavar="M", help="All unless said; may be repeated.")
@click.option("--path", "paths", multiple=True, metavar="GLOB", help="* within a segment, ** across; all unless said.")
@click.option("--deny-path", "deny_paths", multiple=True, metavar="GLOB", help="Wins over --path.")
@click.option("--allow-address", "allow_addresses", multiple=True, metavar="CIDR", help="A private network.")
@click.option(
    "--secret",
    shell_complete=secrets,
    default="",
    metavar="NAME[#FIELD]",
    help="What is attached; /PATH for a source, such as /database/creds/ROLE.",
)
@way_options
@click.option("--certificate", metavar="NAME[#FIELD]", help="The client's certificate and its key.")
@click.option("--variable", "variables", multiple=True, metavar="NAME", help="Variable that holds the placeholder.")
@click.option(
    "--capture",
    "captures",
    multiple=True,
    metavar="JSON",
    help='Keep the credential that such a call makes: {"method", "path", "fields": {pointer: field}, "into"}.',
)
@check_options
@pass_session
def add(session: Session, /, *, name: str, secret: str, **options: Any) -> None:
    """Bind a secret to a destination and a way of attaching it. A service of that name is replaced.

    Needs read on the secret: who may bind may leak. Naming private addresses needs sudo.
    """
    name = parse_name(name)
    inject = inject_of(options)
    path = _path_of(secret, inject)
    lists = ("hosts", "schemes", "methods", "paths", "deny_paths", "allow_addresses", "variables")
    body: dict[str, Any] = {key: list(options[key]) for key in lists if options[key]}
    if options["variables"]:
        body["placeholder"] = inject.get("text") or _placeholder(secret, options["variables"])
    if options["certificate"]:
        body["certificate"] = options["certificate"]
    if options["captures"]:
        body["capture"] = [_capture(text) for text in options["captures"]]
    body |= read_checks(options)
    session.client.write(f"services/{name}", {**body, "secret": secret, "inject": inject})
    if path and not path.startswith("/"):
        with contextlib.suppress(KeyholeError):
            _warn_missing(session, path)
    stored = session.client.read(f"services/{name}").data
    session.out.done(stored, f"service {name}: {_said(stored)}")


def _said(stored: dict[str, Any]) -> str:
    hosts = " ".join(stored["hosts"])
    if stored["secret"]:
        return f"{stored['secret']} goes to {hosts} as {stored['inject']['kind']}"
    if set(stored["schemes"]) <= set(PASSED):
        return f"tunnels to {hosts} are passed on as they are, and nothing is lent in them"
    return f"calls to {hosts} are let out, and nothing is attached to them"


def _capture(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidRequest("--capture is a JSON object", "see docs/minting.md for its fields") from None


def _path_of(secret: str, inject: dict[str, Any]) -> str:
    """The path of the secret; empty for a way of attaching that needs none."""
    if secret:
        return parse_secret_ref(secret)[0]
    kind = KINDS.get(inject["kind"])
    if kind is None or not kind.secretless:
        raise InvalidRequest("no secret is named", "say --secret NAME, or NAME#FIELD")
    return ""


def _placeholder(secret: str, variables: tuple[str, ...]) -> str:
    """What an agent finds in the variables: in the shape that their SDKs expect, where the catalog knows it."""
    from keyhole.catalog import Catalog  # noqa: PLC0415  # few services name variables

    catalog = Catalog.load()
    for variable in variables:
        entry = catalog.for_variable(variable)
        if entry is not None:
            return placeholder_for(secret, entry, entry.fields.get(variable, ""))
    return placeholder_for(secret, None)


def _warn_missing(session: Session, path: str) -> None:
    try:
        session.client.read(f"secret/metadata/{path}")
    except NotFound:
        session.out.warn(f"there is no secret {path!r} yet: keyhole set {path}")


@service.command("kinds", examples="keyhole service kinds\nkeyhole service kinds --json")
@pass_session
def kinds(session: Session, /) -> None:
    """Every way of attaching a secret, for service add --inject KIND --option NAME=VALUE."""
    found = [described(name, kind) for name, kind in KINDS.items()]
    rows = [[kind["kind"], kind["help"], " ".join(kind["options"]) or "-"] for kind in found]
    session.out.table(found, ["kind", "attaches the secret", "options"], rows)


@service.command("list", examples="keyhole service list\nkeyhole service list --json")
@pass_session
def list_services(session: Session, /) -> None:
    """All services."""
    found = [session.client.read(f"services/{name}").data for name in session.names("services")]
    rows = [[s["name"], " ".join(s["hosts"]), s["secret"], s["inject"]["kind"]] for s in found]
    session.out.table(
        found, ["name", "hosts", "secret", "as"], rows, empty="no services yet: keyhole service add NAME …"
    )


@service.command("show", examples="keyhole service show stripe")
@click.argument("name", shell_complete=services)
@pass_session
def show(session: Session, /, *, name: str) -> None:
    """One service."""
    data = session.client.read(f"services/{parse_name(name)}").data
    rows = [(key, _shown(value)) for key, value in without_checks(data).items() if value]
    rows += [("checked", line) for line in lines(data)]
    session.out.result(data, (f"{key + ':':<17}{text}" for key, text in rows))


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(inner)}" for key, inner in value.items())
    return " ".join(map(_shown, value)) if isinstance(value, list) else str(value)


@service.command("latency", examples="keyhole service latency\nkeyhole service latency stripe --json")
@click.argument("name", required=False, shell_complete=services)
@pass_session
def latency(session: Session, /, *, name: str | None) -> None:
    """How long calls take in each stage, since the server was started.

    A server counts the calls that it makes itself; a local vault that no server keeps open has none to show.
    """
    data = session.client.read("sys/latency").data
    found = {each: figures for each, figures in data["services"].items() if name in {None, each}}
    if name is not None and not found:
        session.client.read(f"services/{parse_name(name)}")  # it may be that there is no such service
    rows = [row for each, figures in found.items() for row in _stages(each or "-", figures)]
    titles = ["service", "calls", "stage", "p50", "p95", "p99"]
    session.out.table({**data, "services": found}, titles, rows, empty="this server has made no calls yet")


def _stages(name: str, figures: dict[str, Any]) -> list[list[str]]:
    """A row for each stage that calls came through; one for calls that came through none."""
    came = [(stage, times) for stage, times in figures["stages"].items() if times["count"]]
    rows = [[stage, *(_seconds(times[part]) for part in ("p50", "p95", "p99"))] for stage, times in came]
    return [[name, str(figures["calls"]), *row] for row in rows or [["-", "-", "-", "-"]]]


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.2f} ms"


@service.command("rm", examples="keyhole service rm stripe")
@click.argument("name", shell_complete=services)
@pass_session
def remove(session: Session, /, *, name: str) -> None:
    """Remove a service. Calls through it are refused from the next one on; the secret stays."""
    name = parse_name(name)
    session.client.read(f"services/{name}")
    session.client.delete(f"services/{name}")
    session.out.done({"name": name, "removed": True}, f"removed the service {name}")


@service.command("test", examples="keyhole service test stripe\nkeyhole service test github /user --method GET")
@click.argument("name", shell_complete=services)
@click.argument("path", default="")
@click.option("--method", default="", metavar="M", help="GET unless said.")
@pass_session
def test(session: Session, /, *, name: str, path: str, method: str) -> int:
    """Make one real call through a service, and say whether the API took the credential.

    Without a path it makes the harmless call that the catalog knows for the service. Exit code 0 if the key was
    accepted, 1 if the API refused it or it may not make this call, 6 if the API could not be reached, 2 if the answer
    says neither.
    """
    bound = Service.from_data(name, session.client.read(f"services/{parse_name(name)}").data)
    if bound.inject.kind == SQL:
        raise InvalidRequest(
            "a database has no harmless call",
            f"keyhole doctor --service {name}, or open a session: keyhole run -- psql",
        )
    host = bound.hosts[0]
    if host.wildcard:
        raise InvalidRequest(f"{host} stands for many hosts", "keyhole call https://HOST/PATH --service NAME")
    probe = bound.test or Probe(statuses=tuple(range(200, 400)))
    if path or method:
        probe = Probe(method.upper() or "GET", f"/{path.lstrip('/')}", statuses=tuple(range(200, 400)))
    url = f"{bound.schemes[0]}://{str(host).removesuffix(f':{PORTS[bound.schemes[0]]}')}{probe.path}"
    try:
        answer = session.client.call(probe.method, url, service=name, headers=probe.headers, body=probe.body)
    except (UpstreamUnreachable, UpstreamTimeout, UpstreamTls) as error:
        if "token endpoint refused" in error.reason:  # it was reached, and did not take the secret
            session.out.result({"name": name, "url": url, "verdict": "refused"}, f"refused: {error.reason}")
            return REFUSED
        raise type(error)(f"the API could not be reached: {error.reason}", error.hint) from None
    verdict = probe.verdict(answer.status, answer.text)
    session.out.result(
        {"name": name, "url": url, "status": answer.status, "verdict": verdict.value},
        f"{probe.method} {url}: {answer.status}\n{_MEANS[verdict].format(secret=_without_default(bound.secret))}",
    )
    return {Verdict.ACCEPTED: 0, Verdict.UNCLEAR: 2}.get(verdict, REFUSED)


def _without_default(reference: str) -> str:
    return reference.removesuffix(f"#{DEFAULT_FIELD}")
