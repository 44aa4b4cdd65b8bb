"""A request under an id says all that it said without one."""

from keyhole.core.request import Anonymous, Operation, Request
from keyhole.core.stated import Stated


def test_a_request_that_is_named_keeps_all_else():
    given = [Anonymous(), Operation.READ, "a/b", {"x": 1}, "org", "192.0.2.1", "", 7, b"der", Stated(), {"h": "v"}]
    request = Request(*given)
    bare = Request(b"", Operation.LIST, "")
    assert [name for name in Request.__slots__ if getattr(request, name) == getattr(bare, name)] == ["id"]
    named = request.named("an id")
    assert named is not request
    assert request.id == ""
    for name in Request.__slots__:
        expected = "an id" if name == "id" else getattr(request, name)
        assert getattr(named, name) == expected, name
