"""pip's configuration and ``.pypirc``: addresses of indexes with a name and a password, and passwords for uploads."""

from __future__ import annotations

import re
from urllib.parse import unquote

from keyhole.core.value import Secret
from keyhole.importers.address import Address, addresses
from keyhole.importers.collect import Collector, segment
from keyhole.importers.found import Binding, Found, Origin, Report, Spot
from keyhole.importers.ini import Setting, settings
from keyhole.importers.text import decoded, scan

TITLE = "pip configuration"
PLACES = (
    "~/.config/pip/pip.conf",
    "~/.pip/pip.conf",
    "~/Library/Application Support/pip/pip.conf",
    "$APPDATA/pip/pip.ini",
    "$PIP_CONFIG_FILE",
    "$VIRTUAL_ENV/pip.conf",
    "~/.pypirc",
)

_REPOSITORY = re.compile(r"(https?)://(?:[^/@\s]*@)?([^/\s]+)")
# The two repositories that are meant where none is named.
_REPOSITORIES = {"pypi": ("upload", "pypi", "org"), "testpypi": ("test", "pypi", "org")}


def parse(content: bytes, origin: Origin) -> Report:
    """See the contract of the shelf."""
    found = Collector(origin)
    sections: dict[str, dict[str, Setting]] = {}
    for setting in settings(scan(content)):
        for address in addresses(setting.raw, setting.start):
            _index(address, setting, found)
        if setting.name:
            sections.setdefault(setting.section, {})[setting.name.lower()] = setting
    for section, named in sections.items():
        if "password" in named:
            _upload(section, named, found)
    return found.report()


def _index(address: Address, setting: Setting, found: Collector) -> None:
    name = setting.name or "index"
    if not address.has_secret:
        return
    if found.refused(name, address.secret, setting.where):
        return
    fields = {"username": address.user or "", "password": address.password or ""}
    found.add(
        Found(
            name=f"pip/{segment(address.host)}",
            fields={key: Secret(value) for key, value in fields.items()},
            where=setting.where,
            kind="password",
            binding=Binding(address.host, {"kind": "basic"}, address.scheme),
            spots=(address.spot,),
        )
    )


def _upload(section: str, named: dict[str, Setting], found: Collector) -> None:
    """A section of ``.pypirc``."""
    setting = named["password"]
    value = decoded(setting.raw)
    if found.refused(f"{section}: password", value, setting.where) or value is None:
        return
    user = named.get("username")
    repository = _REPOSITORY.match(unquote(named["repository"].raw)) if "repository" in named else None
    host = repository[2].lower() if repository else ".".join(_REPOSITORIES.get(section, ()))
    fields = {"username": (decoded(user.raw) if user else "") or "__token__", "password": value}
    found.add(
        Found(
            name=f"pip/{segment(host or section)}-upload",
            fields={key: Secret(text) for key, text in fields.items()},
            where=setting.where,
            kind="password",
            binding=Binding(host, {"kind": "basic"}, repository[1] if repository else "https") if host else None,
            spots=(Spot(setting.start, setting.end, "password"),),
        )
    )
