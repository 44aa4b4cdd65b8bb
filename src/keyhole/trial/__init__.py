"""Whether the HTTP clients of this machine get through: each makes one request as a child of ``keyhole run`` would.

A vault in memory, the broker, and a small HTTPS API that wants a key, all on loopback and gone afterwards. Before the
proxy stands a relay that only counts, so that a client that ignores the proxy can be told from one that does not trust
its certificate. What is known of each client stands in ``clients.toml``, one table a client.

    async with Stage.open() as stage:
        trial = await stage.attempt(load_clients()["curl"])
"""

from keyhole.trial.known import KnownClient, Trial, load_clients
from keyhole.trial.stage import Stage

__all__ = ["KnownClient", "Stage", "Trial", "load_clients"]
