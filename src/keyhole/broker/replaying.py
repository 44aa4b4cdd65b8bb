"""``sys/policy-capture`` and ``sys/policy-replay``: note what calls ask of the rules, and ask others about them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from keyhole.broker import noting
from keyhole.broker.broker import Broker
from keyhole.broker.noting import Setting
from keyhole.broker.replay import Changes, Replay, Rules
from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.core.lease import format_duration, parse_duration
from keyhole.core.numbers import parse_count
from keyhole.core.path import parse_name, parse_policy_name
from keyhole.core.policy import ROOT, PathRule
from keyhole.core.request import Operation, Reply
from keyhole.core.service import Service
from keyhole.core.times import format_time, parse_time
from keyhole.engines import Call, Context, Field, Route
from keyhole.vault import policies
from keyhole.vault.hcl import parse_policy
from keyhole.vault.keys import new_id
from keyhole.vault.sys.policies import decoded
from keyhole.vault.vault import Vault

LONGEST = 30 * 86_400
"""Seconds for which calls are noted without being asked again."""
LONGEST_KEPT = 90 * 86_400
MOST = 100_000
"""Calls of one capture."""
_FOR, _KEEP, _MOST, _EXAMPLES = "1d", "7d", 20_000, 5
_CHANGED = 200  # policies or services of one replay
_EGRESS = ("deny", "allow", "log")


class _Handlers:
    def __init__(self, broker: Broker, vault: Vault) -> None:
        self._broker = broker
        self._vault = vault

    async def begin(self, context: Context, call: Call) -> Reply:
        seconds = _duration(call, "for", _FOR, LONGEST)
        keep = _duration(call, "keep", _KEEP, LONGEST_KEPT)
        said = call.data.get("most")
        most = parse_count(_MOST if said is None else said, "most", least=1, most=MOST)
        await self._broker.notings.settle()
        setting = Setting(new_id(), context.now, context.now + seconds, most, keep, context.caller.name)
        await noting.turn_on(self._vault, context.caller.org_id, setting)
        return Reply(await self._said(context, setting))

    async def status(self, context: Context, _call: Call) -> Reply:
        await self._broker.notings.settle()
        setting = await noting.setting_of(self._vault, context.caller.org_id)
        if setting is None:
            raise NotFound("no calls are noted for a replay", "keyhole policy capture on")
        return Reply(await self._said(context, setting))

    async def forget(self, context: Context, _call: Call) -> None:
        await self._broker.notings.settle()
        await noting.remove_all(self._vault, context.caller.org_id)

    async def end(self, context: Context, _call: Call) -> None:
        org_id = context.caller.org_id
        await self._broker.notings.settle()
        setting = await noting.setting_of(self._vault, org_id)
        if setting is None:
            raise NotFound("no calls are noted for a replay", "keyhole policy capture on")
        if setting.until > context.now:
            await noting.turn_on(self._vault, org_id, replace(setting, until=context.now))

    async def _said(self, context: Context, setting: Setting) -> dict[str, Any]:
        org_id = context.caller.org_id
        taken = await noting.taken(self._vault, org_id, setting)
        here = self._broker.notings.last(org_id)
        return {
            "on": context.now < setting.until and taken < setting.most,
            "since": format_time(setting.since),
            "until": format_time(setting.until),
            "calls": taken,
            "most": setting.most,
            "keep": format_duration(int(setting.keep)),
            "by": setting.by,
            "missed": here.missed if here is not None else 0,
        }

    async def replay(self, context: Context, call: Call) -> Reply:
        org_id = context.caller.org_id
        changes = _changes(call)
        after = parse_time(call.data["after"]) if call.data.get("after") else 0.0
        agent = str(call.data.get("agent") or "")
        agent = f"agent/{agent}" if agent and "/" not in agent else agent
        examples = parse_count(call.data.get("examples", _EXAMPLES), "examples", most=100)
        await self._broker.notings.settle()
        state = await self._vault.compiled.state(org_id)
        services = await self._vault.services(state)
        warnings = await self._not_there(org_id, services, changes)
        today = Rules(self._vault, state, services, Changes())
        found = Replay(today, Rules(self._vault, state, services, changes) if changes else today, examples)
        storage = self._vault.storage(org_id, noting.MOUNT)
        for path in await noting.pieces(self._vault, org_id):
            for question in await noting.read_piece(storage, path, context.now):
                if question.at >= after and agent in {"", question.agent}:
                    await found.ask(question)
            await asyncio.sleep(0)  # other requests go on meanwhile
        return Reply(found.as_data(), warnings=warnings)

    async def _not_there(self, org_id: str, services: Mapping[str, Service], changes: Changes) -> list[str]:
        """Says of each service and policy that is to be removed and is not there: it may be misspelt."""
        gone = [f"service {name!r}" for name, new in changes.services.items() if new is None and name not in services]
        storage = self._vault.storage(org_id, policies.MOUNT, configures=True)
        for name, rules in changes.policies.items():
            if not rules and await policies.read(storage, name) is None:
                gone.append(f"policy {name!r}")
        return [f"there is no {each}, so that removing it changes nothing" for each in gone]


def _duration(call: Call, name: str, usual: str, longest: int) -> int:
    seconds = parse_duration(call.data.get(name) or usual, name=name)
    if not 1 <= seconds <= longest:
        raise InvalidRequest(f"{name} is from 1s to {format_duration(longest)}", f'"{name}": "{usual}"')
    return seconds


def _changes(call: Call) -> Changes:
    changes = Changes(egress=str(call.data.get("egress") or ""))
    if changes.egress and changes.egress not in _EGRESS:
        raise InvalidRequest(f"egress is one of {', '.join(_EGRESS)}")
    for written, text in _table(call, "policies").items():
        name = parse_policy_name(written)
        if name == ROOT:
            raise InvalidRequest("the policy root allows everything and cannot be changed", "name another")
        if text is not None and not isinstance(text, str):
            raise InvalidRequest("policies are texts by name, null for one that is removed", '{"ops": "path …"}')
        rules = [] if text is None else parse_policy(decoded(text))
        changes.policies[name] = [PathRule.from_data(rule) for rule in rules]
    for name, data in _table(call, "services").items():
        if data is not None and not isinstance(data, Mapping):
            raise InvalidRequest("services are objects by name, null for one that is removed", '{"stripe": {…}}')
        service = changes.services[parse_name(name)] = None if data is None else Service.from_data(name, data)
        if service is not None and service.checks is not None:
            service.checks.require_usable()
    return changes


def _table(call: Call, name: str) -> Mapping[str, Any]:
    table = call.data.get(name) or {}
    if not isinstance(table, Mapping) or len(table) > _CHANGED:
        raise InvalidRequest(f"{name} is an object of at most {_CHANGED}", f'"{name}": {{"NAME": …}}')
    return table


def routes(broker: Broker, vault: Vault) -> tuple[Route, ...]:
    """The table. What calls ask says who calls what, so every operation needs ``sudo``."""
    r = _Handlers(broker, vault)
    every = frozenset({Operation.READ, Operation.CREATE, Operation.UPDATE, Operation.DELETE})
    return (
        Route(
            "policy-capture",
            {Operation.CREATE: r.begin, Operation.READ: r.status, Operation.DELETE: r.end},
            sudo=every,
            fields=(
                Field("for", f"how long calls are noted, {_FOR} unless said, at most {format_duration(LONGEST)}"),
                Field("most", f"calls at most, {_MOST} unless said", "integer"),
                Field("keep", f"how long notes are kept, {_KEEP} unless said, at most {format_duration(LONGEST_KEPT)}"),
            ),
            help="Note what calls ask of the rules, without any value, for sys/policy-replay.",
        ),
        Route(
            "policy-capture/calls",
            {Operation.DELETE: r.forget},
            sudo=every,
            help="Note no more calls, and remove what was noted.",
        ),
        Route(
            "policy-replay",
            {Operation.CREATE: r.replay},
            sudo=every,
            fields=(
                Field("policies", "object: name to text; null for one that is removed", "map"),
                Field("services", "object: name to service; null for one that is removed", "map"),
                Field("egress", "deny, allow or log"),
                Field("agent", "only its calls"),
                Field("after", "only calls since then"),
                Field("examples", f"calls of each kind that are told in full, {_EXAMPLES} unless said", "integer"),
            ),
            help="What changed rules would have decided otherwise of calls that were noted; nothing is changed.",
        ),
    )
