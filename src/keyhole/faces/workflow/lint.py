"""A document, judged: is it a workflow, and is nothing of a credential in it?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keyhole.faces.workflow.credentials import known_in, problems
from keyhole.faces.workflow.loading import Loaded, load
from keyhole.faces.workflow.reading import Node
from keyhole.scrub import Scrubber


def lint(content: bytes, inputs: Mapping[str, Any] | None = None, known: Scrubber | None = None) -> Loaded:
    """Read a document and look for credentials in it.

    Args:
        content: of the file.
        inputs: what is said for a run, in place of defaults.
        known: values to look for besides.

    Returns:
        the workflow where there is no problem, and all problems in the order of the document.
    """
    loaded = load(content)
    if loaded.root is None:
        return loaded
    found = problems(loaded.root, loaded.text, _defaults(loaded.root) | dict(inputs or {}))
    if known is not None:
        found += known_in(loaded.root, loaded.text, known)
    every = tuple(sorted({*loaded.problems, *found}))
    return Loaded(None if every else loaded.workflow, every, loaded.root, loaded.text)


def _defaults(root: Node) -> dict[str, Any]:
    inputs = root.value.get("inputs") if isinstance(root.value, dict) else None
    if inputs is None or not isinstance(inputs.value, dict):
        return {}
    return {
        name: each.value["default"].value
        for name, each in inputs.value.items()
        if isinstance(each.value, dict) and "default" in each.value
    }
