"""``sys/policies/password``: rules by which passwords are made, and passwords that are made by them."""

from __future__ import annotations

import json

from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.core.path import parse_policy_name
from keyhole.core.request import Operation, Reply
from keyhole.core.value import Secret
from keyhole.crypto.passwords import CharacterRule, PasswordRules
from keyhole.engines import Call, Context, Field, Route
from keyhole.vault import hcl
from keyhole.vault.storage import Storage
from keyhole.vault.sys.policies import decoded
from keyhole.vault.vault import Vault

MOUNT = "passwords"
_MAX_RULES = 32


def parse_rules(text: str) -> PasswordRules:
    """Read a password policy.

    ::

        length = 20
        rule "charset" { charset = "abcdefghijklmnopqrstuvwxyz"  min-chars = 1 }

    Raises:
        InvalidRequest: it says what is wrong, and where.
    """
    length = 0
    rules: list[CharacterRule] = []
    for keys, value, line in hcl.parse_items(text):
        match keys:
            case ("length",) if type(value) is int and not length:
                length = value
            case ("rule", "charset") if isinstance(value, list) and len(rules) < _MAX_RULES:
                rules.append(_rule(value, line))
            case _:
                raise _wrong(f"{' '.join(keys)[:80]!r} is not expected here", line)
    return PasswordRules(length, tuple(rules)).checked()


def _rule(items: list[hcl.Item], outer: int) -> CharacterRule:
    found: dict[str, object] = {}
    for keys, value, line in items:
        name = keys[0].replace("_", "-")
        if len(keys) != 1 or name not in {"charset", "min-chars"} or name in found:
            raise _wrong(f"{' '.join(keys)[:80]!r} is not expected here", line)
        found[name] = value
    characters, least = found.get("charset"), found.get("min-chars", 0)
    if not isinstance(characters, str) or not characters.isprintable() or not characters:
        raise _wrong("charset is a text of characters that can be seen", outer)
    if type(least) is not int or least < 0:
        raise _wrong("min-chars is a whole number", outer)
    return CharacterRule("".join(dict.fromkeys(characters)), least)


def _wrong(what: str, line: int) -> InvalidRequest:
    shown = "".join(char if char.isprintable() else "\ufffd" for char in what)
    return InvalidRequest(f"invalid password policy: {shown} (line {line})", 'write length, and rule "charset" { … }')


def routes(vault: Vault) -> tuple[Route, ...]:
    """The table."""

    def storage(context: Context) -> Storage:
        return vault.storage(context.caller.org_id, MOUNT)

    async def text_of(context: Context, call: Call) -> str:
        item = await storage(context).get_one(f"p/{parse_policy_name(call.params['name'])}")
        if item.data is None:
            raise NotFound("policy does not exist", "see LIST sys/policies/password")
        return str(json.loads(item.data)["policy"])

    async def rules_of(org_id: str, name: str) -> PasswordRules:
        item = await vault.storage(org_id, MOUNT).get_one(f"p/{parse_policy_name(name)}")
        if item.data is None:
            raise NotFound(f"there is no password policy {name[:64]!r}", "see LIST sys/policies/password")
        return parse_rules(str(json.loads(item.data)["policy"]))

    vault.passwords = rules_of

    async def read(context: Context, call: Call) -> Reply:
        return Reply({"policy": await text_of(context, call)})

    async def write(context: Context, call: Call) -> None:
        text = call.data.get("policy")
        if not isinstance(text, str) or not text.strip():
            raise InvalidRequest("missing policy", "send policy: HCL, or base64 of it")
        text = decoded(text)
        parse_rules(text)
        path, kept = f"p/{parse_policy_name(call.params['name'])}", storage(context)
        item = await kept.get_one(path)
        await kept.change([(path, json.dumps({"policy": text}).encode(), item.revision)])

    async def delete(context: Context, call: Call) -> None:
        path, kept = f"p/{parse_policy_name(call.params['name'])}", storage(context)
        item = await kept.get_one(path)
        if item.data is not None:
            await kept.change(deletes=[(path, item.revision)])

    async def names(context: Context, _call: Call) -> Reply:
        found = await storage(context).list("p")
        if not found:
            raise NotFound("there are no password policies", "write one to sys/policies/password/NAME")
        return Reply({"keys": found})

    async def generate(context: Context, call: Call) -> Reply:
        password = parse_rules(await text_of(context, call)).generate()
        return Reply({"password": Secret(json.dumps(password))})

    one = {Operation.READ: read, Operation.CREATE: write, Operation.DELETE: delete}
    return (
        Route("policies/password", {Operation.LIST: names}, help="Names of password policies."),
        Route(
            "policies/password/{name}",
            one,
            fields=(Field("policy", 'HCL: length, and rule "charset" with charset and min-chars'),),
            help="How passwords are made.",
        ),
        Route("policies/password/{name}/generate", {Operation.READ: generate}, help="A password by this policy."),
    )
