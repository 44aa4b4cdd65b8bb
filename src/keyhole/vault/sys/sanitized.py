"""``sys/config/state/sanitized``: the settings of a server, without anything that is secret."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from keyhole.core.request import Operation, Reply
from keyhole.engines import Call, Context, Route
from keyhole.vault.sys.server import root_only

# Of Vault's settings those that Keyhole has no counterpart of, with the value that describes it.
_FIXED: Mapping[str, Any] = {
    "cache_size": 0,
    "cluster_addr": "",
    "cluster_cipher_suites": "",
    "cluster_name": "",
    "default_lease_ttl": 0,
    "default_max_request_duration": 0,
    "disable_cache": False,
    "disable_clustering": True,
    "disable_indexing": False,
    "disable_mlock": True,
    "disable_performance_standby": True,
    "disable_printable_check": False,
    "disable_sealwrap": False,
    "disable_sentinel_trace": False,
    "enable_response_header_hostname": False,
    "enable_response_header_raft_node_id": False,
    "enable_ui": False,
    "log_format": "standard",
    "log_level": "warning",
    "max_lease_ttl": 0,
    "pid_file": "",
    "plugin_directory": "",
    "raw_storage_endpoint": False,
}


def routes(settings: Callable[[], Mapping[str, Any]]) -> tuple[Route, ...]:
    """The table; ``settings`` gives ``api_addr``, ``listeners``, ``seals`` and ``storage`` of this server."""

    async def read(_context: Context, _call: Call) -> Reply:
        return Reply({**_FIXED, **settings()})

    return (
        Route(
            "config/state/sanitized",
            {Operation.READ: root_only(read)},
            sudo=frozenset({Operation.READ}),
            help="The settings of this server, without secrets.",
        ),
    )
