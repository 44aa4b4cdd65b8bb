"""A request judged by conditions, as the broker does it."""

import json

from keyhole.core.checks.conditions import Asked, Condition
from keyhole.core.errors import KeyholeError
from keyhole.core.target import canonical_target, readings

JSON = (b"content-type", b"application/json")
FORM = (b"content-type", b"application/x-www-form-urlencoded")


def judge(condition, target="/", *, method="GET", body=None, headers=(JSON,), now=0.0):
    """The code with which a request is refused; empty for one that is let through."""
    read = Condition.from_data(json.loads(json.dumps(Condition.from_data(condition).as_data())))
    path = canonical_target(target.encode())
    asked = Asked(method, path, readings(path), [*headers] if body is not None else [], has_body=body is not None)
    try:
        if read.scope.means(method, asked.paths):
            read.judge_head(asked, now)
            if read.needs_body(asked):
                read.judge_body(asked, body or b"")
    except KeyholeError as error:
        refused = error
    else:
        return ""
    assert refused.hint, "every refusal says what to do next"
    return refused.code
