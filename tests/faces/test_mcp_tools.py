"""The tools of ``keyhole mcp serve``, without a transport."""

import pytest

from keyhole.client.core import Result
from keyhole.faces.mcp.tools import Shelf


class Asked:
    """Remembers what it was asked."""

    def __init__(self):
        self.data = None

    def ask(self, operation, path, data=None):
        self.data = dict(data or {})
        return Result({"records": []})


@pytest.mark.parametrize("name", ["workflow", "run", "step", "tool", "after", "before", "service"])
def test_an_agent_finds_its_records_of_one_piece_of_work(name):
    asked = Asked()
    assert not Shelf().use(asked, "my_audit", {name: "x", "limit": 5}).failed
    assert asked.data == {name: "x", "limit": 5}


def test_an_agent_asks_for_no_records_but_its_own():
    found = Shelf().use(Asked(), "my_audit", {"agent": "other"})
    assert found.failed
