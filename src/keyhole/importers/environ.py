"""The environment of the process, as the system keeps it: ``NAME=value`` with a NUL byte after each.

Everything is doubted: only what the catalog knows or the user names is taken, for nobody wants all of it.
"""

from __future__ import annotations

from keyhole.importers.collect import Collector
from keyhole.importers.found import Origin, Report
from keyhole.importers.judge import Judgement, judge

TITLE = "environment"
PLACES: tuple[str, ...] = ()
UNKNOWN = "is not a variable that the catalog knows"


def parse(content: bytes, origin: Origin) -> Report:
    """See the contract of the shelf."""
    found = Collector(origin)
    for item in content.split(b"\0"):
        name, mark, raw = item.partition(b"=")
        try:
            variable, value = name.decode(), raw.decode()
        except UnicodeDecodeError:
            continue  # no variable that the catalog knows, and none that a person could name
        if mark and variable and value:
            seems = judge(variable, value)
            found.variable(variable, value, "environment", (), seems=Judgement(seems.kind, UNKNOWN))
    return found.report()
