"""Uses of credentials as their records tell of them: each with what it was for, when it was, and how it ended. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from keyhole.core.record import Phase
from keyhole.core.times import parse_time

HEAD = ("time", "run", "step", "agent", "credential", "for", "result", "ms")
_CONTEXT = ("workflow", "run", "step", "tool", "on_behalf_of", "trace", "span", "claimed")
_ALWAYS = frozenset({"use", "mint"})
_TOOLS = "tools/"
_ABOUT = ("/metadata/", "/subkeys/")  # of a KV mount, where nothing of a value is answered
_UNENDED = "no end"
_SECURE = ":443"


def uses(records: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One entry for each use, in the order in which they began.

    A use is a call through a service or a tool, or what revealed or leased a credential: with its outcome; refused; or
    without an end so far, because it still runs or whoever did it was killed.

    Args:
        records: as ``sys/audit-log`` gives them.
    """
    found: dict[str, dict[str, Any]] = {}
    begun: dict[str, str] = {}  # of all requests: that one leases something is known at its end only
    for record in records:
        began = begun.setdefault(record.get("id", ""), record["time"])
        if not _is_use(record):
            continue
        entry = found.setdefault(record["id"], {})
        entry.update(_entry(record), time=began)
        if record["operation"] == "read" and record["phase"] == Phase.OUTCOME:
            entry["ms"] = round((parse_time(record["time"]) - parse_time(began)) * 1000)
    order = {number: place for place, number in enumerate(begun)}
    return sorted(found.values(), key=lambda entry: order[entry["id"]])


def cells(use: Mapping[str, Any]) -> list[str]:
    """What a person sees of one, in the order of ``HEAD``. Run and step are marked where only the caller said so."""
    result = use["result"] or _UNENDED
    claimed = use.get("claimed", "").split(",")
    said = {name: f"{use[name]} (said)" if name in claimed else use[name] for name in ("run", "step") if use.get(name)}
    return [
        use["time"],
        said.get("run", ""),
        said.get("step", ""),
        use["agent"].removeprefix("agent/"),
        ",".join(use["secrets"]) or use["path"],
        _purpose(use),
        f"{result} {use['status']}" if use["status"] else result,
        str(use["ms"]) if use["result"] == "ok" or use["ms"] else "",
    ]


def _purpose(use: Mapping[str, Any]) -> str:
    if use["host"]:
        return f"{use['method']} {use['host'].removesuffix(_SECURE)}{use['target']}"
    return str(use.get("tool") or use["operation"])


def _is_use(record: Mapping[str, Any]) -> bool:
    """Not a write, and not a question about anything but a credential."""
    if record["phase"] not in {Phase.INTENT, Phase.OUTCOME, Phase.REFUSED}:
        return False
    operation = record.get("operation", "")
    if operation in _ALWAYS:
        return bool(record.get("secrets") or record.get("service") or record.get("path", "").startswith(_TOOLS))
    return operation == "read" and bool(
        record.get("lease") or any(_reveals(record, it) for it in record.get("secrets", ()))
    )


def _reveals(record: Mapping[str, Any], secret: str) -> bool:
    return not str(record["path"]).removesuffix(secret).endswith(_ABOUT)


def _entry(record: Mapping[str, Any]) -> dict[str, Any]:
    entry = {
        "id": record["id"],
        **{name: record[name] for name in _CONTEXT if record.get(name)},
        "agent": record.get("caller", ""),
        "operation": record.get("operation", ""),
        "path": record.get("path", ""),
        "secrets": list(record.get("secrets", ())),
        "service": record.get("service", ""),
        "method": record.get("method", ""),
        "host": record.get("host", ""),
        "target": record.get("target", ""),
        "result": record.get("result", ""),
        "status": record.get("status", 0),
        "ms": record.get("milliseconds", 0),
    }
    return entry | ({"lease": record["lease"]} if record.get("lease") else {})
