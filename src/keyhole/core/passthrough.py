"""Services whose tunnels are passed on and not looked into: what is said of them. Pure.

For hosts whose clients trust no certificate but the host's own, and for SSH. Nothing is lent to such a tunnel, and
nothing in it is judged or scrubbed: what is judged is who opens it and where it leads. The keys of SSH are lent beside
it (``core.ssh``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keyhole.core.errors import InvalidRequest
from keyhole.core.ssh import SSH

PASSTHROUGH = "passthrough"
SCHEMES = ("tls", "ssh")
PORTS = {"tls": 443, "ssh": 22}
_OF_REQUESTS = (
    "methods",
    "paths",
    "deny_paths",
    "placeholder",
    "placeholders",
    "variables",
    "files",
    "test",
    "certificate",
    "capture",
    "conditions",
    "approval",
)


def check_service(data: Mapping[str, Any], schemes: tuple[str, ...], kind: str) -> None:
    """Refuse a service of a tunnel that says what holds for requests.

    Args:
        data: of the service, as given.
        schemes: of the service, read.
        kind: of its injection.

    Raises:
        InvalidRequest: naming what does not fit.
    """
    passed = [scheme for scheme in schemes if scheme in SCHEMES]
    if kind == SSH and schemes != (SSH,):
        raise InvalidRequest("the injection ssh is for the scheme ssh alone", "say --scheme ssh")
    if not passed:
        return
    if len(schemes) > 1:
        raise InvalidRequest(
            f"{passed[0]} passes a tunnel on as it is, so it is the only scheme of its service",
            "make another service for requests",
        )
    if kind not in {"none", *([SSH] if passed == [SSH] else [])}:
        hint = "say --inject none, or for the keys of SSH --inject ssh"
        raise InvalidRequest(f"nothing can be attached in a tunnel of {passed[0]}, which nobody looks into", hint)
    for name in _OF_REQUESTS:
        if data.get(name):
            raise InvalidRequest(
                f"{name} means requests, and a tunnel of {passed[0]} is not looked into", f"leave {name} out"
            )
