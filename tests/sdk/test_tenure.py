"""A lease is renewed, replaced and served in TypeScript exactly when it is in Python."""

import random

import pytest

from keyhole.client.core import Result
from keyhole.client.tenure import Tenure
from keyhole.core.errors import InvalidRequest, Unreachable
from sdk import built

STEPS = ("asking", "read", "renewed", "unreachable", "refused")


def play(choice):
    """What happens to one credential after another, at times that only grow."""
    found, now = [], 0.0
    for what in ("read", *choice.choices(STEPS, k=14)):
        now += choice.choice((0.1, 1.0, 30.0, 400.0))
        more = None
        if what in {"read", "renewed"}:
            leased = choice.random() < 0.7
            seconds = choice.choice((0, 2, 60, 3600)) if leased else 0
            fields = choice.choice(({"n": 1, "v": "x"}, {"data": {"v": "y"}, "metadata": {}}, {"v": None, "w": "z"}))
            lease = f"lease-{len(found)}" if leased else ""
            more = {"data": fields, "leaseId": lease, "leaseDuration": seconds, "renewable": choice.random() < 0.7}
        elif what == "refused":
            more = choice.random() < 0.5
        found.append([what, now, more])
    return found


def played_by_python(steps):
    tenure, said = Tenure("database/creds/x", 60, 300, lambda: 0.25), []
    for what, now, more in steps:
        match what:
            case "asking":
                tenure.asking(now)
            case "unreachable":
                tenure.unreachable(Unreachable("away"), now)
            case "refused":
                tenure.refused(InvalidRequest("no"), now, gone=more)
            case _:
                result = Result(
                    data=more["data"],
                    lease_id=more["leaseId"],
                    lease_duration=more["leaseDuration"],
                    renewable=more["renewable"],
                )
                getattr(tenure, what)(result, now)
        held = None if tenure.held is None else dict(tenure.held.fields)
        reason = None if tenure.failure is None else tenure.failure.reason
        said.append([*tenure.due(), tenure.served_until(), tenure.version, held, list(tenure.past), reason])
    return said


def test_both_do_the_same_at_the_same_time():
    choice = random.Random(6)
    plays = [play(choice) for _ in range(300)]
    for steps, ours in zip(plays, built.answer("tenure.js", given=plays), strict=True):
        for step, node, python in zip(steps, ours, played_by_python(steps), strict=True):
            assert node == [pytest.approx(each) if isinstance(each, float) else each for each in python], (step, steps)
