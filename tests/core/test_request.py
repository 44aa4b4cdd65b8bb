"""A request under an id says all that it said without one."""

from dataclasses import fields

from keyhole.core.request import Anonymous, Operation, Request
from keyhole.core.stated import Stated


def test_a_request_that_is_named_keeps_all_else():
    given = [Anonymous(), Operation.READ, "a/b", {"x": 1}, "org", "192.0.2.1", "", 7, b"der", Stated(), {"h": "v"}]
    request = Request(*given)
    bare = Request(b"", Operation.LIST, "")
    assert [field.name for field in fields(Request) if getattr(request, field.name) == getattr(bare, field.name)] == [
        "id"
    ]
    named = request.named("an id")
    assert named is not request
    assert request.id == ""
    for field in fields(Request):
        expected = "an id" if field.name == "id" else getattr(request, field.name)
        assert getattr(named, field.name) == expected, field.name
