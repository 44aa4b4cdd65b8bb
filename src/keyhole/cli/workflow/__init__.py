"""``workflow``: the noun with all of its verbs."""

from __future__ import annotations

from keyhole.cli.workflow import checked, running, shown
from keyhole.cli.workflow.noun import workflow

__all__ = ["checked", "running", "shown", "workflow"]
