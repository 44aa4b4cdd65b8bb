"""How much of one process an org or an agent may take, so that whoever floods it is a nuisance to itself alone."""

from collections.abc import Mapping
from typing import NamedTuple

from keyhole.core import EMPTY


class ShareLimits(NamedTuple):
    """What there is to be shared, and the parts of it. Each process that serves the vault counts for itself.

    Attributes:
        org: the part that one org may take of ``calls``, ``held``, ``certificates``, of the sessions with databases and
            of the connections of each listener; above 0, at most 1.
        agent: the part that one agent, user or other caller of an org may take of the same.
        orgs: orgs by name whose part is another than ``org``.
        calls: calls of the proxy and requests of the API that are under way, in all.
        held: bytes of bodies that are held whole, in all.
        certificates: new certificates for tunnels, a minute; old ones are kept and cost nothing.
        starting: calls and requests of one org that are judged at the same time. Further ones wait, and the org's
            agents take turns.
        waiting: how many of one org may wait so.
        patience: seconds after which one that is still being judged, such as for a person's approval, makes room.
        org_rate: calls and requests a second of one org, on average; 0 for any number.
        agent_rate: the same of one agent.
    """

    org: float = 0.75
    agent: float = 0.5
    orgs: Mapping[str, float] = EMPTY
    calls: int = 10_000
    held: int = 512 * 1024 * 1024
    certificates: int = 400
    starting: int = 64
    waiting: int = 5_000
    patience: float = 0.5
    org_rate: float = 0.0
    agent_rate: float = 0.0

    @property
    def rates(self) -> bool:
        """Whether there is a rate for anybody."""
        return bool(self.org_rate or self.agent_rate)

    def parts(self, org: str) -> tuple[float, float]:
        """The part of an org, and that of each of its agents."""
        whole = self.orgs.get(org, self.org)
        return whole, min(whole, self.agent)


def part_of(total: int, part: float) -> int:
    """So much of a total, and at least one."""
    return max(1, int(total * part))
