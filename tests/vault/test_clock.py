"""The clock of a vault goes by the seconds that pass, whatever somebody sets the clock of the store to."""

import pytest

from keyhole.testing import FrozenClock
from keyhole.vault.clock import Clock
from vault.lab import Lab
from vault.world import play

NOW = 1_800_000_000.0


def test_a_slow_clock_is_followed_as_fast_as_clocks_drift():
    passed = FrozenClock()
    clock = Clock(NOW, monotonic=passed)
    for second in range(1, 101):
        passed.advance(1)
        assert clock.resynchronise(NOW + second + second * 0.0005) < 0.001
    assert abs(clock.now() - (NOW + 100.05)) < 0.001


@pytest.mark.parametrize("jump", [3600.0, -3600.0, 10 * 365 * 86_400.0])
def test_a_clock_that_is_set_is_not_followed(jump):
    passed = FrozenClock()
    clock = Clock(NOW, monotonic=passed)
    for second in range(1, 1001):
        passed.advance(1)
        ahead = clock.resynchronise(NOW + second + jump)
    assert NOW + 1000 <= clock.now() <= NOW + 1001.1
    assert abs(ahead - max(0.0, jump)) < 1.1


@pytest.mark.parametrize("jump", [86_400.0, -86_400.0])
def test_a_lease_neither_ends_nor_goes_on_when_the_clock_is_set(jump, monkeypatch, caplog):
    passed, lab = FrozenClock(), Lab(ttl=3600)

    async def scenario(vault):
        lab.mount(vault)
        now = type(vault.node.store).now
        await vault.ask("read", "lab/creds/x")
        start = await now(vault.node.store)

        async def shifted(_store):
            return start + passed() - began + jump

        began = passed()
        monkeypatch.setattr(type(vault.node.store), "now", shifted)
        for _ in range(36):
            passed.advance(99)
            await vault.node.sweep()
            assert lab.alive
        passed.advance(40)
        await vault.node.sweep()
        assert not lab.alive
        assert ("s ahead: the server goes on by its own" in caplog.text) == (jump > 0)

    play(scenario, clock=passed)
