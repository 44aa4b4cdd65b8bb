"""``sys/notices``: by which channels administrators are told, and from which day on before a date."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from keyhole import notifiers
from keyhole.core.errors import InvalidRequest, KeyholeError, NotFound
from keyhole.core.fields import parse_texts
from keyhole.core.notice import KINDS
from keyhole.core.numbers import parse_count
from keyhole.core.path import parse_name
from keyhole.core.request import Operation, Reply
from keyhole.core.times import DAY, format_time
from keyhole.core.value import Secret
from keyhole.engines import Call, Context, Field, Route
from keyhole.notifiers import Message
from keyhole.vault.keys import new_request_id
from keyhole.vault.notices import CONFIG, channel_of
from keyhole.vault.storage import Change, Write
from keyhole.vault.vault import Vault

_MOST = 32  # channels of an org
_DAYS = 16
_FURTHEST = 366
_RESERVED = frozenset({CONFIG, "check"})
_COMMON = frozenset({"type", "kinds", "name"})


class _Handlers:
    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    async def exists(self, context: Context, params: Mapping[str, str]) -> bool:
        storage = self._vault.notices.storage(context.caller.org_id)
        return (await storage.get_one(f"c/{params['name']}")).data is not None

    async def write(self, context: Context, call: Call) -> Reply:
        name, kind = _name(call), str(call.data.get("type") or "webhook")
        kinds = parse_texts(call.data.get("kinds"), "kinds", most=len(KINDS))
        for each in kinds:
            if each not in KINDS:
                raise InvalidRequest(f"there is no kind of notice {each[:40]!r}", f"one of: {', '.join(KINDS)}")
        member = notifiers.load(kind)
        settings = await member.read({key: value for key, value in call.data.items() if key not in _COMMON})
        storage = self._vault.notices.storage(context.caller.org_id)
        item = await storage.get_one(f"c/{name}")
        call.require_new(stored=item.data is not None)
        if item.data is None and len(await storage.list("c")) >= _MOST:
            raise InvalidRequest(f"there are {_MOST} channels already", "keyhole notice rm NAME")
        stored = {"type": kind, "kinds": kinds, "settings": settings}
        await storage.change([(f"c/{name}", json.dumps(stored).encode(), item.revision)])
        made = settings.get("key") if not call.data.get("key") else None
        once = {"key": Secret(json.dumps(made))} if made else {}
        return Reply({**_shown(name, stored), **once})

    async def read(self, context: Context, call: Call) -> Reply:
        name = _name(call)
        storage = self._vault.notices.storage(context.caller.org_id)
        stored, _ = await channel_of(storage, name)
        item = await storage.get_one(f"s/{name}")
        went = json.loads(item.data) if item.data is not None else {"sent": 0, "failed": 0, "error": "", "given_up": 0}
        waiting = len(await storage.list(f"q/{name}"))
        times = {f"last_{key}": format_time(went[key]) if went[key] else None for key in ("sent", "failed")}
        return Reply(
            {**_shown(name, stored), **times, "error": went["error"], "given_up": went["given_up"], "waiting": waiting}
        )

    async def delete(self, context: Context, call: Call) -> None:
        name = _name(call)
        storage = self._vault.notices.storage(context.caller.org_id)
        paths = [f"c/{name}", f"s/{name}", *(f"q/{name}/{each}" for each in await storage.list(f"q/{name}"))]
        items = await storage.get(*paths)
        gone = [(path, item.revision) for path, item in zip(paths, items, strict=True) if item.data is not None]
        if gone:
            await storage.change(deletes=gone)

    async def names(self, context: Context, _call: Call) -> Reply:
        keys = await self._vault.notices.storage(context.caller.org_id).list("c")
        if not keys:
            raise NotFound("there are no channels", "keyhole notice add NAME")
        return Reply({"keys": keys})

    async def test(self, context: Context, call: Call) -> Reply:
        name, org_id = _name(call), context.caller.org_id
        stored, _ = await channel_of(self._vault.notices.storage(org_id), name)
        text = f"{context.caller.name} tries whether notices arrive here"
        message = Message(
            new_request_id(), format_time(context.now), context.caller.org, "test", f"sys/notices/{name}", text
        )
        await self._vault.notices.send(org_id, stored, message)
        return Reply({"name": name, "sent": True})

    async def read_config(self, context: Context, _call: Call) -> Reply:
        return Reply({"days": list(await self._vault.notices.days(context.caller.org_id))})

    async def write_config(self, context: Context, call: Call) -> Reply:
        value = call.data.get("days")
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, list) or len(items) > _DAYS:
            raise InvalidRequest(f"days is a list of at most {_DAYS} numbers", "for example 30,7,1")
        days = {parse_count(str(item).strip(), "days", least=1, most=_FURTHEST) for item in items if str(item).strip()}
        storage = self._vault.notices.storage(context.caller.org_id)
        item = await storage.get_one(CONFIG)
        # It is due at once: what is stored of each secret stands on the days of before.
        write = Write(CONFIG, json.dumps({"days": sorted(days, reverse=True)}).encode(), item.revision, 1.0)
        await storage.commit(Change([write]))
        if not self._vault.expiry.background:
            await self._vault.notices.look(context.caller.org_id)
        return Reply({"days": sorted(days, reverse=True)})

    async def check(self, context: Context, _call: Call) -> Reply:
        org_id = context.caller.org_id
        found = await self._vault.notices.look(org_id)
        await self._vault.notices.send_all(org_id)
        waiting = len(await self._vault.notices.storage(org_id).list("q", recursive=True))
        ends = [
            {
                "name": each.name,
                "what": each.what,
                "at": format_time(each.at),
                "days": int((each.at - context.now) // DAY),
                "past": each.at <= context.now,
            }
            for each in sorted(found, key=lambda each: each.at)
        ]
        return Reply({"secrets": ends, "waiting": waiting})


def _name(call: Call) -> str:
    name = parse_name(call.params["name"])
    if name in _RESERVED:
        raise InvalidRequest(f"a channel cannot be called {name}", "choose another name")
    return name


def _shown(name: str, stored: Mapping[str, Any]) -> dict[str, Any]:
    try:
        about = notifiers.load(stored["type"]).shown(stored["settings"])
    except KeyholeError:
        about = {}
    return {"name": name, "type": stored["type"], "kinds": stored["kinds"] or list(KINDS), **about}


def routes(vault: Vault) -> tuple[Route, ...]:
    """The table. A channel is a place outside to which names of ours go, so it needs ``sudo`` to set one."""
    r = _Handlers(vault)
    changes = frozenset({Operation.CREATE, Operation.UPDATE, Operation.DELETE})
    return (
        Route("notices", {Operation.LIST: r.names}, help="Names of the channels by which administrators are told."),
        Route(
            "notices/config",
            {Operation.READ: r.read_config, Operation.CREATE: r.write_config},
            sudo=changes,
            fields=(Field("days", "list of days before a date at which administrators are told"),),
            help="When administrators are told.",
        ),
        Route(
            "notices/check",
            {Operation.CREATE: r.check},
            sudo=changes,
            help="Looks at all secrets now, sends what waits, and says which come near their end.",
        ),
        Route(
            "notices/{name}",
            {Operation.READ: r.read, Operation.CREATE: r.write, Operation.DELETE: r.delete},
            exists=r.exists,
            sudo=changes,
            fields=(
                Field("type", f"one of {', '.join(notifiers.MEMBERS)}", "string"),
                Field("kinds", f"only these: {', '.join(KINDS)}", "list"),
                Field("url", "of a webhook", "string"),
                Field("key", "with which messages are signed; one that is made is shown this once", "string"),
                Field("ca_pem", "certificates that alone prove the webhook's server", "string"),
                Field("urls", "of Apprise, for e-mail, Slack and others", "list"),
                Field("allow_addresses", "networks or hosts that are reached although they are private", "list"),
            ),
            help="A channel by which administrators are told. What is set is never shown again.",
        ),
        Route(
            "notices/{name}/test",
            {Operation.CREATE: r.test},
            sudo=changes,
            help="Sends a message through a channel, once.",
        ),
    )
