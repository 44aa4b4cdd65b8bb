"""Fill a journal with a million records, and see what it takes to prove it whole and to report from it.

    python tests/campaigns/long_journal.py --records 1000000 [--vault /tmp/campaign/vault.db]

Prints the seconds of the processor that verification takes, of all and of what came after a checkpoint, and those of a
report and of a query of a window, with the memory that the process has had at most. Fails when anything is not whole,
when the whole takes more than a minute or the rest more than a second, or when a report needs more than 256 MiB.
"""

import argparse
import asyncio
import resource
import sys
import tempfile
import time
from pathlib import Path

from keyhole.core.record import Phase, Record
from keyhole.testing import MemorySeal, open_vault

CHUNK = 2000
AGENTS, SECRETS = 50, 200


def record_of(number):
    agent, secret = number % AGENTS, number % SECRETS
    return Record(
        phase=Phase.INTENT if number % 2 == 0 else Phase.OUTCOME,
        id=f"{number // 2:032x}",
        caller=f"agent/a{agent}",
        accessor=f"accessor-{agent}",
        operation="use",
        path=f"services/s{secret}",
        service=f"s{secret}",
        secrets=(f"team/s{secret}",),
        result="" if number % 2 == 0 else "ok",
        host="api.example.com:443",
        method="GET",
        target=f"/v1/things/{number}",
        run=f"run-{number // 1000}",
    )


async def fill(vault, records, start=0):
    journal, org = vault.vault.journal, vault.vault.root_org
    for first in range(start, start + records, CHUNK):
        for number in range(first, min(first + CHUNK, start + records)):
            journal.outcome(record_of(number).encode(), org)
        await journal.drain()


class Measured:
    """The seconds of the processor that a block takes, by what it does."""

    def __init__(self):
        self.seconds = {}

    async def of(self, what, asked):
        began = time.process_time()
        answer = await asked
        self.seconds[what] = time.process_time() - began
        return answer.data


async def campaign(location, records):
    """Raises ``AssertionError`` when something is not whole; the seconds, and the MiB that it took at most."""
    measured = Measured()
    async with open_vault(location, seal=MemorySeal(bytes(32))) as vault:
        await fill(vault, records)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        found = await measured.of("verify", vault.ask("read", "sys/audit-log/verify"))
        assert found["valid"]
        assert found["records"] >= records
        checkpoint = (await vault.ask("read", "sys/audit-log/checkpoint")).data
        await fill(vault, 1000, records)
        since = {"checkpoint": checkpoint, "since": True}
        found = await measured.of("verify since", vault.ask("update", "sys/audit-log/verify", since))
        assert found["valid"]
        assert 1000 <= found["records"] < 2000
        found = await measured.of("report access", vault.ask("read", "sys/reports/access", {"limit": "100000"}))
        assert sum(row["uses"] for row in found["rows"]) == (records + 1000) // 2
        assert found["complete"]
        now = str(vault.vault.clock.now() + 60)
        found = await measured.of("query", vault.ask("read", "sys/audit-log", {"secret": "team/s7", "before": now}))
        assert len(found["records"]) == min(100, len(range(7, records + 1000, SECRETS)))
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return measured.seconds, grown / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--vault", help="a file that does not exist yet")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="keyhole-campaign-") as folder:
        location = f"sqlite:{given.vault or Path(folder, 'vault.db')}"
        seconds, grown = asyncio.run(campaign(location, given.records))
    for what, took in seconds.items():
        print(f"{what}: {took:.2f} s of the processor")
    print(f"{grown:.0f} MiB more than when it was filled")
    return 1 if seconds["verify"] > 60 or seconds["verify since"] > 1 or grown > 256 else 0


if __name__ == "__main__":
    sys.exit(main())
