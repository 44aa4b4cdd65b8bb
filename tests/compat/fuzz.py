"""Requests that schemathesis makes up from the OpenAPI document of a server, and what may be said of the answers."""

from functools import cache

import hypothesis

# These would end the run itself, or write wherever a made-up path leads.
LEFT_OUT = {
    ("DELETE", "/auth/token/revoke-self"),
    ("POST", "/auth/token/revoke-self"),
    ("POST", "/sys/audit/{path}"),
    ("POST", "/sys/seal"),
    ("POST", "/sys/step-down"),
}


@cache
def checks():
    """Of each answer. Only who asks for them waits for schemathesis to be imported."""
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        response_schema_conformance,
        status_code_conformance,
    )

    return [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


def operations(url, token):
    """What the document of a server has, as schemathesis reads it."""
    import schemathesis

    headers = {"X-Vault-Token": token}
    schema = schemathesis.openapi.from_url(f"{url}/v1/sys/internal/specs/openapi", headers=headers)
    found = [each.ok() for each in schema.get_all_operations()]
    return [each for each in found if (each.method.upper(), each.path) not in LEFT_OUT]


def fuzz(url, token, *, examples, seed=0):
    """Ask every operation; gives a line for each that answered what it must not."""
    wrong = []
    for operation in operations(url, token):
        try:
            _ask(operation, token, examples, seed)
        except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001 - what hypothesis itself has to say, too
            wrong.append(f"{operation.method.upper()} {operation.path}: {_summary(error)}")
    return wrong


def _ask(operation, token, examples, seed):
    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=examples,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
    )
    @hypothesis.given(case=operation.as_strategy())
    def one(case):
        answer = case.call(headers={"X-Vault-Token": token}, timeout=30)
        case.validate_response(answer, checks=checks(), headers={"X-Vault-Token": token})

    one()


def _summary(error):
    text = " ".join(str(part) for part in getattr(error, "exceptions", [error]))
    return f"{type(error).__name__}: {text[:2000]}"
