"""What a document may be, and that nothing of a credential is let into one."""

import base64
import copy
import json
import random
import string

import pytest
from jsonschema import Draft202012Validator

from keyhole.faces.workflow.credentials import find_in
from keyhole.faces.workflow.lint import lint
from keyhole.faces.workflow.loading import CALL, INPUTS, PARALLEL, RETRY, STEP, WORKFLOW, load
from keyhole.faces.workflow.reading import ReadingLimits
from keyhole.faces.workflow.schema import schema
from keyhole.scrub import Scrubber

KEY = "sk_live_" + "51HqLyjWDarjtT1zdp7dcAxQz9"  # put together, so that no text in the shape of a key stands here
VALIDATOR = Draft202012Validator(schema())
DRAWN = "7Hq4LyjWDarjtT1zdp7dcAx"
GOOD = {
    "workflow": "invoice",
    "description": "Charges a customer, and sends the invoice.",
    "inputs": {"customer": {"default": "c-17"}, "amount": {"type": "number", "must": {"max": 5000}}},
    "steps": [
        {
            "id": "customer",
            "call": {"url": "https://crm.example/customers/${input/customer}", "query": {"page": 1}},
            "retry": {"attempts": 3, "wait": "1s", "on": ["5xx", 429, "upstream_timeout"]},
        },
        {
            "parallel": {
                "paper": [
                    {
                        "id": "pdf",
                        "tool": "docs/render",
                        "arguments": {"to": "${customer/body/name}", "next_page_token": "${customer/body/next}"},
                        "timeout": "30s",
                    }
                ],
                "money": [
                    {
                        "id": "charge",
                        "call": {
                            "service": "pay",
                            "method": "POST",
                            "url": "https://pay.example/charges",
                            "headers": {"Accept": "application/json"},
                            "json": {"amount": "${input/amount}", "order": "3f2504e0-4f89-41d3-9a0c-0305e82c3301"},
                            "expect": [201],
                        },
                        "idempotency_key": "Idempotency-Key",
                        "retry": {"attempts": 4},
                        "keep": {"id": "/id"},
                    }
                ],
            }
        },
        {
            "id": "mail",
            "tool": "mail/send",
            "when": [
                {"at": "/charge/status", "in": [201]},
                {"any": [{"at": "/customer/body/mail", "absent": True}, {"at": "/customer/body/mail", "in": [True]}]},
                {"not": {"at": "/customer/body/blocked", "in": [True], "optional": True}},
            ],
            "arguments": {"text": "Paid: ${charge/body/id} for ${input/amount}"},
            "on_failure": "continue",
        },
    ],
    "outputs": {"charge": "${charge/body/id}"},
}


def changed(path, value):
    """The good document with one thing changed; ``...`` takes it out."""
    document = copy.deepcopy(GOOD)
    *way, last = path
    at = document
    for part in way:
        at = at[part]
    if value is ...:
        del at[last]
    else:
        at[last] = value
    return document


def rules(document):
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    found = lint(content)
    assert (found.workflow is None) == bool(found.problems)
    return {problem.rule for problem in found.problems}


def test_a_workflow_is_read_alike_from_json_and_yaml():
    yaml = b"""
workflow: w
inputs: {a: {type: number, default: 1.5}}
steps:   # comments are for people
  - id: one
    call: {url: "https://a.example/${input/a}", json: {yes: no, day: 2026-01-31, nothing: ~}}
    idempotent: true
"""
    as_json = {
        "workflow": "w",
        "inputs": {"a": {"type": "number", "default": 1.5}},
        "steps": [
            {
                "id": "one",
                "call": {
                    "url": "https://a.example/${input/a}",
                    "json": {"yes": "no", "day": "2026-01-31", "nothing": None},
                },
                "idempotent": True,
            }
        ],
    }
    assert lint(yaml).problems == ()
    assert lint(yaml).workflow == lint(json.dumps(as_json).encode()).workflow
    assert lint(json.dumps(GOOD, indent="\t").encode()).problems == ()


@pytest.mark.parametrize(
    "content",
    [
        b'{"workflow": "w", "workflow": "v"}',
        b'{"workflow": "w"} {}',
        b"a: &x 1\nb: *x",
        b"a: !!python/object/apply:os.system [x]",
        b"a: 1\n---\nb: 2",
        b"a: 1\na: 2",
        b"",
        b"- 1",
        b'{"a": tru}',
        b'{"a": "\\ud800"}',
        b"a: \xff",
        b"<<: {a: 1}",
        b'{"a":' * 100,
        b"a: " + b"[" * 100 + b"]" * 100,
        b"x" * 2_000_000,
    ],
)
def test_what_could_be_read_in_two_ways_or_is_too_large_is_refused_with_its_place(content):
    [problem] = lint(content).problems
    assert problem.rule == "syntax"
    assert problem.line >= 1
    assert problem.hint


@pytest.mark.parametrize("content", [b'{"a": [1, 2, 3, 4, 5, 6]}', b"a: [1, 2, 3, 4, 5, 6, 7, 8]", b"a: [[[[1]]]]"])
def test_a_document_is_bounded(content):
    limits = ReadingLimits(depth=3, nodes=6)
    [problem] = load(content, limits).problems
    assert problem.rule == "syntax"
    assert load(b"a: [1]", limits).root is not None


def test_a_problem_says_where_it_is_and_what_to_do():
    content = b"workflow: w\nsteps:\n  - id: a\n    call: {url: 'https://a.example/${b/body}'}\n    onfailure: stop\n"
    unknown, reference = sorted(lint(content).problems, key=lambda problem: -problem.line)
    assert (reference.line, reference.column, reference.where) == (4, 17, "/steps/0/call/url")
    assert "'b'" in reference.reason
    assert (unknown.line, unknown.column) == (5, 5)
    assert "on_failure" in unknown.hint


CHARGE = ("steps", 1, "parallel", "money", 0)
STRUCTURE = [
    (("workflow",), ...),
    (("workflow",), "No Name"),
    (("steps",), []),
    (("steps",), {"id": "a"}),
    (("more",), 1),
    (("version",), 2),
    (("agent",), "root"),
    (("inputs", "amount", "type"), "object"),
    (("inputs", "amount", "must"), {"most": 1}),
    (("inputs", "Amount"), {}),
    (("steps", 0, "id"), ...),
    (("steps", 0, "id"), "a b"),
    (("steps", 0, "tool"), "docs/render"),
    (("steps", 0, "call"), ...),
    (("steps", 0, "call", "url"), ...),
    (("steps", 0, "call", "url"), "crm.example/x"),
    (("steps", 0, "call", "url"), "https://${input/customer}/x"),
    (("steps", 0, "call", "url"), "https://crm.${input/customer}.example/x"),
    (("steps", 0, "call", "url"), "file:///etc/passwd"),
    (("steps", 0, "call", "method"), "TRACE"),
    (("steps", 0, "call", "query"), {"a": [1]}),
    (("steps", 0, "retry", "attempts"), 1000),
    (("steps", 0, "retry", "wait"), "soon"),
    (("steps", 1, "parallel"), {}),
    (("steps", 1, "parallel", "paper"), []),
    (("steps", 1, "id"), "x"),
    ((*CHARGE, "call", "text"), "both"),
    ((*CHARGE, "call", "expect"), [99]),
    ((*CHARGE, "keep"), {"id": "id"}),
    ((*CHARGE, "timeout"), -1),
    ((*CHARGE, "on_failure"), "ignore"),
    (("steps", 2, "tool"), "mail"),
    (("steps", 2, "tool"), "${input/customer}/send"),
    (("steps", 2, "arguments"), []),
    (("steps", 2, "when"), []),
    (("steps", 2, "when"), {}),
    (("steps", 2, "when"), "charge/status == 201"),
    (("steps", 2, "when"), [{"at": "/charge/status", "equals": 201}]),
    (("steps", 2, "when"), [{"at": "/charge/status"}]),
    (("steps", 2, "when"), [{"any": []}]),
    (("steps", 2, "when"), [{"not": {"at": "/charge/status", "in": []}}]),
    (("outputs",), ["x"]),
    (("harmless",), ["x"]),
]


@pytest.mark.parametrize(("path", "value"), STRUCTURE)
def test_the_schema_and_the_loader_refuse_the_same_forms(path, value):
    document = changed(path, value)
    assert rules(document) & {"structure"}
    assert not VALIDATOR.is_valid(document)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ((), None),
        (("version",), 1),
        (("$schema",), "https://example.com/workflow.schema.json"),
        (("steps", 0, "retry", "wait"), 0.5),
        ((*CHARGE, "call", "json"), [1, None, {"a": True}]),
        ((*CHARGE, "keep"), {}),
        (("steps", 2, "when"), [{"at": "/run/workflow", "in": ["invoice"]}, {"at": "/input/amount", "max": 2.5}]),
        (("steps", 2, "when"), [{"not": {"all": [{"at": "/charge/error", "like": "upstream_*"}]}}]),
        (("harmless",), ["0123456789abcdef"]),
    ],
)
def test_the_schema_and_the_loader_take_the_same_forms(path, value):
    document = changed(path, value) if path else GOOD
    assert rules(document) == set()
    VALIDATOR.validate(document)


def test_the_schema_knows_the_members_that_the_loader_knows():
    made = schema()
    Draft202012Validator.check_schema(made)
    step, parallel = made["$defs"]["step"]["properties"], made["$defs"]["parallel"]["properties"]
    assert made["properties"].keys() == WORKFLOW
    assert made["$defs"]["input"]["properties"].keys() == INPUTS
    assert step.keys() == STEP
    assert parallel.keys() == PARALLEL
    assert step["call"]["properties"].keys() == CALL
    assert step["retry"]["properties"].keys() == RETRY


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("steps", 0, "call", "url"), "https://crm.example/${input/other}"),
        (("steps", 0, "call", "url"), "https://crm.example/${charge/body/id}"),
        (("steps", 1, "parallel", "paper", 0, "arguments"), {"x": "${charge/body/id}"}),
        (("steps", 2, "arguments"), {"x": "${mail/body}"}),
        (("steps", 2, "arguments"), {"x": "${charge/token}"}),
        (("steps", 2, "arguments"), {"x": "${charge}"}),
        (("steps", 2, "arguments"), {"x": "${run/token}"}),
        (("steps", 2, "arguments"), {"x": "${1 + 1}"}),
        (("steps", 2, "when"), [{"at": "/nobody/status", "in": [200]}]),
        (("steps", 2, "when"), [{"not": {"any": [{"at": "/pdf/other", "absent": True}]}}]),
        (("outputs", "charge"), "${nobody/body}"),
    ],
)
def test_a_reference_leads_to_what_has_ended_before(path, value):
    assert "reference" in rules(changed(path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("steps", 2, "id"), "customer"),
        (("steps", 2, "id"), "input"),
        ((*CHARGE, "idempotency_key"), ...),
        ((*CHARGE, "idempotency_key"), "accept"),
        ((*CHARGE, "call", "headers"), {"Authorization": "${customer/body/x}"}),
        ((*CHARGE, "call", "headers"), {"X-Keyhole-Service": "other"}),
        ((*CHARGE, "call", "headers"), {"Host": "other.example"}),
        ((*CHARGE, "call", "headers"), {"X-A": "a\r\nB: c"}),
        (("inputs", "amount", "default"), "much"),
        (("steps", 0, "call", "url"), "https://crm.example:99999/x"),
        (("steps", 0, "call", "url"), "https://[crm/x"),
        ((*CHARGE, "retry", "on"), ["policy_denied"]),
    ],
)
def test_what_a_schema_cannot_say_is_refused_too(path, value):
    assert "structure" in rules(changed(path, value))


def variants(value):
    raw = value.encode()
    yield "plain", value
    yield "in a text", f"Use {value}, please"
    yield "base64", base64.b64encode(raw).decode()
    yield "base64url", base64.urlsafe_b64encode(b"?" + raw).decode()
    yield "twice", base64.b64encode(base64.b64encode(raw)).decode()
    yield "hex", raw.hex()
    yield "hex with colons", raw.hex(":")
    yield "percent", "".join(f"%{byte:02x}" for byte in raw)
    yield "HTML", "".join(f"&#{byte};" for byte in raw)
    yield "escapes", "".join(f"\\u{byte:04x}" for byte in raw)
    yield "full width", "".join(chr(byte + 0xFEE0) for byte in raw)
    yield "invisible", f"{value[:5]}\u200b{value[5:]}"
    yield "spaced", " ".join(value)
    yield "login", base64.b64encode(b"api:" + raw).decode()


PLACES = [
    ("steps", 2, "arguments", "text"),
    ("steps", 0, "call", "url"),
    ("steps", 1, "parallel", "money", 0, "call", "json"),
    ("steps", 1, "parallel", "money", 0, "call", "headers", "Accept"),
    ("inputs", "customer", "default"),
    ("inputs", "customer", "description"),
    ("description",),
    ("steps", 2, "when"),
    ("outputs", "charge"),
]


@pytest.mark.parametrize("how", [name for name, _ in variants("x")])
@pytest.mark.parametrize("secret", [KEY, DRAWN])
def test_a_credential_is_refused_in_every_place_and_coding(secret, how):
    [value] = [value for name, value in variants(secret) if name == how]
    for place in PLACES:
        put = f"https://crm.example/{value}" if place[-1] == "url" else value
        document = changed(place, [{"at": "/customer/body/x", "in": [put]}] if place[-1] == "when" else put)
        content = json.dumps(document).encode()
        found = [problem for problem in lint(content).problems if problem.rule.startswith("credential-")]
        assert found, (how, place)
        said = json.dumps([problem.as_data() for problem in found])
        assert secret not in said
        assert value not in said
        assert all(problem.hint for problem in found)


def test_a_credential_is_refused_in_names_keys_and_comments():
    assert "credential-shape" in rules(changed(("steps", 2, "arguments"), {KEY: 1}))
    assert "credential-shape" in rules(changed(("steps", 2, "id"), KEY.lower()))
    assert "credential-shape" in rules(changed(("workflow",), KEY))
    comment = f"workflow: w\n# the key is {KEY}\nsteps: [{{id: a, tool: a/b}}]\n".encode()
    [problem] = lint(comment).problems
    assert (problem.rule, problem.line, problem.column) == ("credential-shape", 2, 14)


@pytest.mark.parametrize(
    "arguments",
    [
        {"text": "${input/customer}" + KEY[8:]},
        {"text": ["sk_live_", KEY[8:20], KEY[20:]]},
        {"a": KEY[:9], "b": KEY[9:]},
    ],
)
def test_parts_do_not_come_together(arguments):
    document = changed(("inputs", "customer", "default"), KEY[:8])
    document["steps"][2]["arguments"] = arguments
    assert any(rule.startswith("credential-") for rule in rules(document))
    said = lint(json.dumps(changed(("steps", 2, "arguments"), {"t": "${input/customer}x"})).encode(), {"customer": KEY})
    assert "credential-shape" in {problem.rule for problem in said.problems}


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("$STRIPE_KEY", "environment"),
        ("Bearer ${STRIPE_KEY}", "environment"),
        ("${env/STRIPE_KEY}", "environment"),
        ("${{ secrets.STRIPE }}", "environment"),
        ("{{ env.STRIPE }}", "environment"),
        ("$(cat key.txt)", "environment"),
        ("%APPDATA%", "environment"),
        ("process.env.KEY", "environment"),
        ("env:STRIPE_KEY", "environment"),
        ("op://vault/stripe/key", "elsewhere"),
        ("vault:secret/data/stripe#key", "elsewhere"),
        ("arn:aws:secretsmanager:eu-west-1:1:secret:x", "elsewhere"),
        ("https://app:hunter2@db.example/", "address"),
        ("postgres://app@db.example/app", "address"),
        ("https://db.example/?q=1&api_key=abc", "name"),
        ('{"user": "app", "password": "hunter2"}', "name"),
        (base64.b64encode(b"password=hunter2").decode(), "encoded"),
    ],
)
def test_references_to_credentials_are_refused(text, rule):
    assert f"credential-{rule}" in rules(changed(("steps", 2, "arguments", "text"), text))


@pytest.mark.parametrize("name", ["password", "apiKey", "client_secret", "X-Api-Key", "token", "db_passwd", "Cookie"])
def test_a_member_called_after_a_credential_has_no_text_of_its_own(name):
    assert "credential-name" in rules(changed(("steps", 2, "arguments", name), "a"))
    assert "credential-name" in rules(changed(("steps", 2, "arguments", name), 12345))
    assert rules(changed(("steps", 2, "arguments", name), "${charge/body/id}")) == set()
    assert rules(changed(("steps", 2, "arguments", name), True)) == set()


@pytest.mark.parametrize("how", ["plain", "in a text", "base64", "hex", "percent", "escapes"])
def test_a_known_value_is_found_whatever_it_looks_like(how):
    word = "sunflower river"
    [value] = [value for name, value in variants(word) if name == how]
    document = changed(("steps", 2, "arguments", "text"), value)
    known = Scrubber.compile([word.encode()])
    found = lint(json.dumps(document).encode(), known=known).problems
    assert {(each.rule, each.where) for each in found} >= {("credential-known", "/steps/2/arguments/text")}
    assert lint(json.dumps(GOOD).encode(), known=known).problems == ()
    assert rules_of(b"workflow: w\n# sunflower river\nsteps: [{id: a, tool: a/b}]\n", known) == {"credential-known"}


def rules_of(content, known):
    return {problem.rule for problem in lint(content, known=known).problems}


def test_an_input_is_not_called_after_a_credential():
    assert "credential-name" in rules(changed(("inputs", "api_key"), {}))


@pytest.mark.parametrize(
    "text",
    [
        "Please send the report of 2026-Q3 to accounting@example.com",
        "customers-2026-q3-report-final",
        "3f2504e0-4f89-41d3-9a0c-0305e82c3301",
        "query($id: ID!) { customer(id: $id) { name } }",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "https://example.com/a?to=https%3A%2F%2Fexample.com%2Fx&limit=100",
        "getCustomerInvoiceById",
        "DE89370400440532013000",
        "$5.00 or 100%",
        "name=Acme&page_token=2&csrf_token=3",
        "Grüße für März, 日本語",
        "2026-11-26T21:00:00Z",
    ],
)
def test_what_is_no_credential_is_taken(text):
    assert rules(changed(("steps", 2, "arguments"), {"text": text, "max_tokens": 100, "secret_name": "x"})) == set()


def test_what_only_looks_drawn_can_be_said_to_be_none_and_a_shape_cannot():
    document = changed(("steps", 2, "arguments", "text"), f"file {DRAWN}")
    [problem] = lint(json.dumps(document).encode()).problems
    told = problem.reason.partition("fingerprint ")[2][:16]
    assert rules(document | {"harmless": [told]}) == set()
    assert rules(document | {"harmless": ["0" * 16]}) == {"credential-random"}
    document["steps"][2]["arguments"]["text"] = KEY
    prints = [p.reason.partition("fingerprint ")[2][:16] for p in lint(json.dumps(document).encode()).problems]
    assert "credential-shape" in rules(document | {"harmless": [each for each in prints if len(each) == 16]})


def test_most_of_what_a_generator_draws_is_seen():
    draw = random.Random(7)
    alphabets = [
        string.ascii_letters + string.digits,
        string.hexdigits[:16],
        string.ascii_letters + string.digits + "-_",
    ]
    missed = 0
    for alphabet in alphabets:
        for _ in range(50):
            text = "".join(draw.choices(alphabet, k=32))
            missed += not list(find_in(text))
    assert missed <= 3


def spelled(value):
    """Ways of writing a text down that nobody uses but to hide it."""
    raw = value.encode()
    yield "groups", " ".join(base64.b64encode(raw).decode()[at : at + 8] for at in range(0, len(raw) * 4 // 3, 8))
    yield "hex with 0x", ", ".join(f"0x{byte:02x}" for byte in raw)
    yield "hex of UTF-16", value.encode("utf-16le").hex()
    yield "base64 of UTF-16", base64.b64encode(value.encode("utf-16le")).decode()
    yield "quoted-printable", "".join(f"={byte:02X}" for byte in raw)
    yield "with dashes", "-".join(value)
    yield "in lines", "\n".join(value)
    yield "with accents", "\u0301".join(value)
    yield "codes", list(raw)


@pytest.mark.parametrize("how", [name for name, _ in spelled("x")])
def test_a_credential_that_is_spelled_out_is_refused(how):
    [value] = [value for name, value in spelled(KEY) if name == how]
    assert rules(changed(("steps", 2, "arguments", "text"), value)), how


@pytest.mark.parametrize(
    "arguments",
    [
        {"headers": [{"name": "X-Api-Key", "value": "hunter2"}]},
        {"field": "password", "value": "hunter2"},
        {"password": {"value": "hunter2"}},
        {"args": ["login", "--password", "hunter2"]},
        {"command": "login --password hunter2"},
        {"dsn": "host=db user=app password = hunter2"},
        {"text": "Authorization: Bearer hunter2"},
        {"text": "Bearer hunter2"},
        {"text": '{\\"password\\":\\"hunter2\\"}'},
        {"passwort": "hunter2"},
        {"a": "{{ CRM_TOKEN }}", "b": "x"},
        {"a": "<API_KEY>", "b": "x"},
        {"a": "$crm_token", "b": "x"},
        {"a": "see file:///etc/keys/crm", "b": "x"},
    ],
)
def test_a_text_in_a_place_that_is_called_after_a_credential_is_refused_however_the_place_is_said(arguments):
    assert rules(changed(("steps", 2, "arguments"), arguments))


def test_no_default_and_no_input_becomes_a_credential():
    document = changed(("inputs", "customer", "default"), "hunter2")
    document["steps"][2]["arguments"] = {"password": "${input/customer}"}
    assert "credential-name" in rules(document)
    del document["inputs"]["customer"]["default"]
    assert "credential-name" in rules(document)
    document["steps"][2]["arguments"] = {"list": [{"name": "token", "value": "${input/customer}"}]}
    assert "credential-name" in rules(document)


@pytest.mark.parametrize(
    "comment",
    [
        "# see https://app:hunter2@db.example/",
        f"# {base64.b64encode(KEY.encode()).decode()}",
        f"# {KEY[:12]}\n# {KEY[12:]}",
        "# password: hunter2",
        f"# {DRAWN}",
    ],
)
def test_comments_are_no_place_for_a_credential(comment):
    document = f"workflow: w\n{comment}\nsteps: [{{id: a, tool: a/b}}] # with $HOME and #4711\n".encode()
    problems = lint(document).problems
    assert {problem.line for problem in problems} <= {2, 3}
    assert problems


@pytest.mark.parametrize(
    "text",
    [
        "Token economics, and a basic overview",
        "Basic information",
        "a token is a thing",
        "Hello {{name}}, your order <order_id> of $amount is there",
        "one two six ten",
        "----------------------------",
        "1, 2, 3",
    ],
)
def test_prose_and_templates_of_others_are_taken(text):
    assert (
        rules(changed(("steps", 2, "arguments"), {"text": text, "codes": [101, 102, 103, 99, 98, 97, 96, 95]})) == set()
    )
