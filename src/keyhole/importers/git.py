"""git's store of credentials (git-credential-store(1)): one address with name and password a line."""

from __future__ import annotations

from collections import Counter

from keyhole.core.value import Secret
from keyhole.importers.address import addresses
from keyhole.importers.collect import Collector, segment
from keyhole.importers.found import Binding, Found, Origin, Report
from keyhole.importers.text import lines, scan

TITLE = "git's stored credentials"
PLACES = ("~/.git-credentials", "~/.config/git/credentials", "$XDG_CONFIG_HOME/git/credentials")


def parse(content: bytes, origin: Origin) -> Report:
    """See the contract of the shelf."""
    found = Collector(origin)
    entries = []
    for line in lines(scan(content)):
        there = list(addresses(line.text.strip(), line.start + len(line.text) - len(line.text.lstrip())))
        if len(there) == 1 and there[0].has_secret:
            entries.append((line, there[0]))
        elif line.text.strip():
            found.skip("", line.where, "is no address with a name and a password")
    accounts = Counter(address.host for _, address in entries)
    for line, address in entries:
        if found.refused(address.host, address.secret, line.where, references=False) or address.user is None:
            continue
        user = [segment(address.user)] if accounts[address.host] > 1 and address.password else []
        found.add(
            Found(
                name="/".join(["git", segment(address.host), *user]),
                fields={"username": Secret(address.user), "password": Secret(address.password or "")},
                where=line.where,
                kind="password",
                binding=Binding(address.host, {"kind": "basic"}, address.scheme),
                spots=(address.spot,),
            )
        )
    return found.report()
