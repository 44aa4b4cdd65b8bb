"""What an agent finds in its environment for a service."""

import pytest

from keyhole.core.errors import InvalidRequest
from keyhole.core.service import Service

BASE = {"hosts": ["api.example.com"], "secret": "a/key", "inject": {"kind": "bearer"}}


def made(**more) -> Service:
    return Service.from_data("example", {**BASE, **more})


def test_a_list_of_variables_holds_the_one_placeholder():
    service = made(placeholder="sk-keyhole", variables=["A", "B"])
    assert service.environment() == {"A": "sk-keyhole", "B": "sk-keyhole"}
    assert service.as_data()["variables"] == ["A", "B"]
    assert service.shown() == ("sk-keyhole",)
    assert made(variables=["A"]).environment() == {}


def test_variables_of_several_fields_hold_the_placeholder_of_theirs():
    service = made(
        placeholder="main-keyhole",
        placeholders={"id": "AKIAKEYHOLE", "key": "keyhole-key"},
        variables={"AWS_ID": "id", "AWS_KEY": "key", "MAIN": ""},
    )
    assert service.environment() == {"AWS_ID": "AKIAKEYHOLE", "AWS_KEY": "keyhole-key", "MAIN": "main-keyhole"}
    assert service.shown() == ("main-keyhole", "AKIAKEYHOLE", "keyhole-key")
    assert Service.from_data("example", service.as_data()).as_data() == service.as_data()


def test_files_are_kept():
    service = made(files={"ACME_FILE": '{"key": "<throw-away RSA key>"}'})
    assert service.files == service.as_data()["files"] == {"ACME_FILE": '{"key": "<throw-away RSA key>"}'}
    with pytest.raises(InvalidRequest):
        made(files={"not a name": "x"})


def test_settings_and_the_test_are_kept_and_no_placeholders():
    service = made(settings={"REGION": "eu"}, test={"path": "/v1/me"})
    assert service.environment() == {}
    assert service.shown() == ()
    assert service.as_data()["settings"] == {"REGION": "eu"}
    assert service.as_data()["test"] == {"method": "GET", "path": "/v1/me"}
