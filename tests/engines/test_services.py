"""Services: what is stored is a binding that makes sense, or nothing."""

import pytest

from vault.world import SERVICE, play, refusal


@pytest.mark.parametrize(
    "change",
    [
        {"hosts": []},
        {"hosts": ["*"]},
        {"hosts": [1]},
        {"hosts": {"a": 1}},
        {"hosts": ["https://api.example.com"]},
        {"hosts": ["x"] * 65},
        {"schemes": ["ftp"]},
        {"schemes": [["https"]]},
        {"methods": ["get"]},
        {"methods": ["GET X"]},
        {"secret": ""},
        {"secret": None},
        {"secret": "/secret/data/x"},
        {"secret": "/secret"},
        {"secret": "/database//x"},
        {"secret": "a/../b"},
        {"secret": "a#"},
        {"inject": None},
        {"inject": "bearer"},
        {"inject": {"kind": "nonsense"}},
        {"inject": {"kind": ["bearer"]}},
        {"inject": {"kind": "header"}},
        {"inject": {"kind": "header", "name": "Host"}},
        {"inject": {"kind": "header", "name": "Content-Length"}},
        {"inject": {"kind": "header", "name": "a b"}},
        {"inject": {"kind": "header", "name": "X-Key", "template": "no place"}},
        {"inject": {"kind": "header", "name": "X-Key", "template": "{}\r\nX: y"}},
        {"inject": {"kind": "basic", "user": "a:b"}},
        {"inject": {"kind": "placeholder", "text": "short"}},
        {"inject": {"kind": "placeholder", "text": "long-enough", "in": 5}},
        {"inject": {"kind": "placeholder", "text": "long-enough", "in": ["nowhere"]}},
        {"inject": {"kind": "placeholder", "text": "long-enough", "in": [["header"]]}},
        {"allow_addresses": ["10.0.0.5/8"]},
        {"allow_addresses": ["everything"]},
        {"placeholder": "é"},
        {"variables": ["A B"]},
        {"variables": {"A B": ""}},
        {"variables": {"A": "key"}},
        {"variables": {"A": " b"}, "placeholders": {" b": "keyhole-text"}},
        {"placeholders": ["keyhole-text"]},
        {"placeholders": {"key": "é"}},
        {"placeholders": {f"key{n}": "x" for n in range(65)}},
        {"settings": {"A B": "x"}},
        {"settings": {"A": "two\nlines"}},
        {"test": "GET /"},
        {"test": {"method": "DELETE"}},
        {"paths": ["x" * 10_000]},
        {"deny_path": ["/v1/admin/**"]},
        {"method": ["GET"]},
        {"name": "another"},
    ],
)
def test_a_binding_that_makes_no_sense_is_a_bad_request(change):
    async def scenario(vault):
        error = await refusal(vault.ask("update", "services/x", {**SERVICE, **change}))
        assert error is not None
        assert error.code == "invalid_request", error
        assert (await refusal(vault.ask("list", "services"))).code == "not_found"

    play(scenario)


def test_a_service_is_read_as_it_was_written_and_replaced_as_a_whole():
    async def scenario(vault):
        await vault.ask("update", "services/x", {**SERVICE, "methods": ["GET"], "deny_paths": ["/v1/admin/**"]})
        first = (await vault.ask("read", "services/x")).data
        assert (first["methods"], first["deny_paths"], first["secret"]) == (
            ["GET"],
            ["/v1/admin/**"],
            "stripe/api-key#value",
        )
        await vault.ask("update", "services/x", first)
        assert (await vault.ask("read", "services/x")).data == first
        await vault.ask("update", "services/x", SERVICE)
        assert (await vault.ask("read", "services/x")).data["methods"] == []
        for name in ("a/b", "ö", "-x", "x" * 64, "a b"):
            assert (await refusal(vault.ask("update", f"services/{name}", SERVICE))).code in {
                "invalid_request",
                "not_found",
            }

    play(scenario)
