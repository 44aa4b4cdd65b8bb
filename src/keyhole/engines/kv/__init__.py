"""Secrets as fields under a path: with versions, as Vault's KV version 2 has them, or without, as version 1.

``make`` takes the mount's option ``version``, which is 2 unless it is said.
"""

from __future__ import annotations

from collections.abc import Mapping

from keyhole.core.errors import InvalidRequest
from keyhole.core.path import DEFAULT_FIELD
from keyhole.core.request import Operation, Reply
from keyhole.engines import Call, Context, Ending, Engine, Field, Route
from keyhole.engines.kv import versions
from keyhole.engines.kv.document import CONFIG, exists
from keyhole.engines.kv.metadata import (
    DESCRIPTIVE,
    TYPES,
    list_details,
    list_names,
    patch_metadata,
    read_config,
    read_metadata,
    write_config,
    write_metadata,
)

_METADATA_FIELDS = (
    Field("max_versions", "versions to keep; 0 for the engine's default", "integer"),
    Field("cas_required", "refuse writes without options.cas", "boolean"),
    Field("delete_version_after", "delete each version this long after it was written", "duration"),
    Field("custom_metadata", "map of texts", "map"),
    Field("type", f"one of {', '.join(TYPES)}", "string"),
    Field("owner", "who is to be asked about it", "string"),
    Field("tags", "list of texts", "list"),
    Field("expires_at", "RFC 3339 or seconds since the epoch: after that it is not given out any more"),
    Field("expires_in", "the same as a duration from now", "duration"),
    Field("rotate_every", "a new value is due this long after the last one; 0 for never", "duration"),
)
_DATA_FIELDS = (
    Field("data", "map of fields to values", "map"),
    Field("options", f"cas: the version that must be current; and {', '.join(DESCRIPTIVE)} of metadata", "map"),
)
_VERSIONS = (Field("versions", "list of version numbers", "list"),)
_EVERY = (Operation.READ, Operation.CREATE, Operation.PATCH, Operation.DELETE, Operation.LIST)


async def _bring_over(context: Context) -> None:
    from keyhole.engines.kv.upgrade import from_v1  # noqa: PLC0415  # few mounts are without versions

    await from_v1(context)


async def _tell_of_end(context: Context, path: str) -> str:
    from keyhole.engines.kv.ending import tell_of_end  # noqa: PLC0415  # a command does not sweep

    return await tell_of_end(context, path)


async def _all_ends(context: Context) -> list[Ending]:
    from keyhole.engines.kv.ending import all_ends  # noqa: PLC0415  # few commands ask

    return await all_ends(context)


def _marking(pattern: str, handler: versions.Marking, help_text: str) -> Route:
    return Route(pattern, {Operation.CREATE: handler}, fields=_VERSIONS, help=help_text)


ENGINE = Engine(
    "kv",
    (
        Route(
            CONFIG,
            {Operation.READ: read_config, Operation.CREATE: write_config},
            fields=_METADATA_FIELDS[:3],
            help="Defaults of the engine.",
        ),
        Route(
            "data/{path...}",
            {
                Operation.READ: versions.read,
                Operation.CREATE: versions.write,
                Operation.PATCH: versions.patch,
                Operation.DELETE: versions.delete,
            },
            exists=exists,
            fields=_DATA_FIELDS,
            help="Read, write, patch and soft delete a secret.",
            source=DEFAULT_FIELD,
        ),
        Route(
            "subkeys/{path...}",
            {Operation.READ: versions.read_subkeys},
            fields=(
                Field("version", "which; the current one unless it is said", "integer"),
                Field("depth", "0 for all levels", "integer"),
            ),
            help="The names of a secret's fields, without their values.",
        ),
        Route(
            "metadata/{path...}",
            {
                Operation.READ: read_metadata,
                Operation.CREATE: write_metadata,
                Operation.PATCH: patch_metadata,
                Operation.DELETE: versions.delete_all,
                Operation.LIST: list_names,
            },
            exists=exists,
            fields=_METADATA_FIELDS,
            help="All about a secret but its values; delete removes it altogether.",
        ),
        Route("metadata", {Operation.LIST: list_names}, help="Names of secrets."),
        *(
            Route(pattern, {Operation.LIST: list_details}, help="Names of secrets with their metadata.")
            for pattern in ("detailed-metadata", "detailed-metadata/{path...}")
        ),
        _marking("delete/{path...}", versions.delete_versions, "Soft delete versions."),
        _marking("undelete/{path...}", versions.undelete, "Take a soft delete back."),
        _marking("destroy/{path...}", versions.destroy, "Remove versions for good."),
        Route("", {Operation.LIST: versions.unversioned}, help="Not versioned."),
        Route("{path...}", dict.fromkeys(_EVERY, versions.unversioned), help="Not versioned."),
    ),
    lend=versions.lend,
    marks=versions.marks,
    due=_tell_of_end,
    ends=_all_ends,
    upgrade=_bring_over,
    options={"version": "2"},
)


async def _wait(_context: Context, _call: Call) -> Reply:
    from keyhole.engines.kv.v1 import UPGRADING as SAID  # noqa: PLC0415  # as above

    raise InvalidRequest(SAID, "try again")


UPGRADING = Engine(
    "kv",
    tuple(
        Route(pattern, dict.fromkeys(_EVERY, _wait), help="The mount is being given versions.")
        for pattern in ("", "{path...}")
    ),
    options={"version": "2"},
)
"""Answers at a mount that is being given versions, until all of its secrets are brought over."""


def make(options: Mapping[str, str]) -> Engine:
    """The table of the version that the options name. Raises ``InvalidRequest`` for a version that does not exist."""
    version = str(options.get("version") or "2")
    if version not in {"1", "2"}:
        raise InvalidRequest("the option version of kv is 1 or 2", 'send {"options": {"version": "2"}}')
    if version == "2":
        return ENGINE
    from keyhole.engines.kv import v1  # noqa: PLC0415  # as above

    return v1.ENGINE
