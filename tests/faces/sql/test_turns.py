"""Statements of many sessions are passed on in turn, each in the line of who sends it."""

import threading
import time

import pytest

from keyhole.broker.sql.stream import SqlStream
from keyhole.core.fair import ASKING
from keyhole.net.postgres.talk import PostgresTalk
from keyhole.vault.admission import Admission
from loop_passes import Passes

MANY = 12


@pytest.fixture
def taking_turns(world):
    """Nobody counts as alone."""
    shares = world.keyhole.node.open_vault().shares
    before, shares.admission = shares.admission, Admission(alone=2)
    yield shares.admission
    shares.admission = before


@pytest.mark.usefixtures("taking_turns")
@pytest.mark.parametrize(("where", "name"), [(PostgresTalk, "of_client"), (SqlStream, "_clean")])
def test_of_statements_that_come_at_once_few_are_worked_on_in_a_pass(world, monkeypatch, where, name):
    passes, connections = Passes(), [world.connect() for _ in range(MANY)]
    passes.note(monkeypatch, where, name)

    def ask(connection):
        for _ in range(3):
            assert len(connection.execute("SELECT repeat('x', 1000) FROM generate_series(1, 300)").fetchall()) == 300

    world.call_soon(passes.begin)
    world.call_soon(time.sleep, 0.5)  # so that all of them have come when it looks
    threads = [threading.Thread(target=ask, args=(connection,)) for connection in connections]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    world.call_soon(passes.end)
    for connection in connections:
        connection.close()
    assert sum(passes.done.values()) >= 3 * MANY
    assert passes.most <= 4


def test_what_a_session_has_done_is_done_for_its_agent(world, monkeypatch, taking_turns):
    seen = set()
    enter = taking_turns.enter

    def noted(admission, whose):
        seen.add((whose, ASKING.get()))
        return enter(whose)

    monkeypatch.setattr(Admission, "enter", noted)
    with world.connect() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    org = world.keyhole.node.open_vault().root_org
    assert {(whose, asking) for whose, asking in seen if whose[0] == org} == {((org, "agent/coder"),) * 2}
