"""Findings in SARIF 2.1.0 (OASIS), which code hosts and editors show at the line; without values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from keyhole.sprawl.finding import Finding

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def sarif(findings: Iterable[Finding], version: str, names: Mapping[str, str]) -> dict[str, Any]:
    """A log with one run.

    Args:
        findings: what was found.
        version: of this program.
        names: fingerprint to the secret of the vault that it is.
    """
    found = list(findings)
    titles = {each.rule: each.title for each in found}
    rules = [
        {"id": rule, "shortDescription": {"text": title}, "defaultConfiguration": {"level": "error"}}
        for rule, title in sorted(titles.items())
    ]
    number = {rule["id"]: index for index, rule in enumerate(rules)}
    driver = {"name": "keyhole", "version": version, "rules": rules}
    results = [_result(each, number[each.rule], names.get(each.fingerprint, "")) for each in found]
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]}


def _result(finding: Finding, index: int, name: str) -> dict[str, Any]:
    at = {"startLine": finding.line, "startColumn": finding.column}
    region = at if finding.line else {"byteOffset": finding.column - 1}
    place = {"artifactLocation": {"uri": quote(finding.path)}, "region": region}
    text = f"{finding.title}{f', which is {name} of the vault' if name else ''}"
    return {
        "ruleId": finding.rule,
        "ruleIndex": index,
        "level": "error",
        "message": {"text": text},
        "locations": [{"physicalLocation": place}],
        "partialFingerprints": {"keyhole/v1": finding.fingerprint},
    }
