"""How long a leased credential is served, and what is done when: times are handed in."""

import pytest

from keyhole.client.core import Result
from keyhole.client.tenure import Tenure
from keyhole.core.errors import Expired, InvalidRequest, NotFound, PolicyDenied, Unreachable

AWAY = Unreachable("nobody answers")


def tenure(*, grace=30.0, duration=100, renewable=True, began=0.0):
    made = Tenure("database/creds/r", grace, 300.0, lambda: 0.5)
    made.read(lease(duration, renewable=renewable), began)
    return made


def lease(duration=100, *, renewable=True, name="u1"):
    return Result(
        {"username": name, "password": "p"}, lease_id=f"l/{name}", lease_duration=duration, renewable=renewable
    )


def served(made, now):
    try:
        return dict(made.current(now).fields)["username"]
    except Expired:
        return None


def test_it_is_renewed_at_two_thirds_and_served_for_nine_tenths():
    made = tenure()
    due, step = made.due()
    assert (pytest.approx(due), step) == (200 / 3, "renew")
    assert served(made, 89.9) == "u1"
    assert served(made, 90.1) is None
    made.renewed(lease(), 66.0)
    assert served(made, 155.0) == "u1"
    assert made.version == 1


def test_chance_spreads_renewals_on_both_sides_of_two_thirds():
    for chance in (0.0, 1.0):
        made = Tenure("p", 0.0, 300.0, lambda chance=chance: chance)
        made.read(lease(), 0.0)
        assert 60.0 < made.due()[0] < 75.0


def test_it_counts_from_before_it_was_asked_for():
    made = tenure(began=1000.0)
    assert served(made, 1089.0) == "u1"
    assert served(made, 1091.0) is None


def test_what_cannot_be_renewed_is_read_anew_in_time():
    made = tenure(renewable=False)
    assert made.due()[1] == "read"
    made.read(lease(name="u2"), 67.0)
    assert served(made, 68.0) == "u2"
    assert made.version == 2
    assert made.past == ["l/u1", "l/u2"]


def test_a_renewal_that_gives_no_more_time_leads_to_another_credential_at_once():
    made = tenure()
    made.renewed(lease(30), 70.0)
    assert made.due() == (70.0, "read")
    assert served(made, 71.0) == "u1"


def test_while_nobody_answers_it_is_served_for_the_grace_and_never_past_its_end():
    made = tenure(grace=30.0)
    made.unreachable(AWAY, 65.0)
    assert served(made, 89.0) == "u1"
    assert served(made, 94.9) == "u1"  # 65 + 30
    assert served(made, 95.1) is None
    longer = tenure(grace=3600.0)
    longer.unreachable(AWAY, 65.0)
    assert served(longer, 97.0) == "u1"
    assert served(longer, 100.0) is None


def test_a_server_that_does_not_answer_yet_is_as_good_as_away():
    made = tenure(grace=30.0)
    made.asking(66.0)
    assert served(made, 95.9) == "u1"
    made.unreachable(AWAY, 94.0)
    assert served(made, 95.9) == "u1"
    assert served(made, 96.1) is None
    made.renewed(lease(), 97.0)
    assert made.served_until() == 187.0


def test_tries_are_bounded_in_rate_and_go_on_after_the_end():
    made = tenure()
    waits, now = [], 65.0
    for _ in range(40):
        made.unreachable(AWAY, now)
        waits.append(made.due()[0] - now)
        now = made.due()[0]
    assert waits[:3] == [0.5, 1.0, 2.0]
    assert max(waits) == 15.0
    made.read(lease(name="u2"), now)
    assert served(made, now) == "u2"
    assert made.failure is None


def test_a_lease_that_is_gone_is_not_served_any_more():
    made = tenure()
    made.refused(InvalidRequest("invalid lease"), 66.0, gone=True)
    assert served(made, 66.0) is None
    assert made.due() == (66.0, "read")


def test_a_refused_renewal_leaves_what_is_still_good():
    made = tenure()
    made.refused(PolicyDenied("no"), 66.0, gone=False)
    assert served(made, 67.0) == "u1"
    assert made.due() == (66.0, "read")
    made.refused(PolicyDenied("no"), 66.5, gone=False)
    assert made.due()[0] > 66.5
    assert served(made, 89.0) == "u1"
    with pytest.raises(Expired, match="there is no other yet: no"):
        made.current(91.0)


def test_what_has_no_lease_is_read_again_and_outlives_a_server_for_the_grace():
    made = Tenure("secret/data/x", 30.0, 300.0, lambda: 0.5)
    made.read(Result({"data": {"value": "v"}, "metadata": {}}), 0.0)
    assert made.due() == (200.0, "read")
    assert made.current(1.0).fields == {"value": "v"}
    made.read(Result({"data": {"value": "v"}, "metadata": {}}), 200.0)
    assert made.version == 1
    made.unreachable(AWAY, 460.0)
    assert made.served_until() == 490.0


def test_an_answer_without_fields_is_no_credential():
    with pytest.raises(NotFound):
        Tenure("p", 0.0, 300.0, lambda: 0.5).read(Result({}), 0.0)
