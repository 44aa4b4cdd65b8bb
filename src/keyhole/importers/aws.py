"""AWS's ``credentials`` and ``config``: the access keys of profiles. What other means give a profile is said."""

from __future__ import annotations

from keyhole.core.value import Secret
from keyhole.importers.collect import Collector, segment
from keyhole.importers.found import Found, Origin, Report, Spot
from keyhole.importers.ini import Setting, settings
from keyhole.importers.text import decoded, scan

TITLE = "AWS credentials"
PLACES = ("~/.aws/credentials", "~/.aws/config", "$AWS_SHARED_CREDENTIALS_FILE", "$AWS_CONFIG_FILE")

_ID, _SECRET, _TOKEN = "aws_access_key_id", "aws_secret_access_key", "aws_session_token"
_FIELDS = {_ID: "access_key_id", _SECRET: "secret_access_key", _TOKEN: "session_token"}
_MEANS = {
    "credential_process": "comes from a program of its own",
    "sso_session": "comes from a single sign-on",
    "sso_start_url": "comes from a single sign-on",
    "web_identity_token_file": "comes from a token file",
    "role_arn": "is a role, which AWS gives out for a while",
    "credential_source": "comes from the machine that it runs on",
    "source_profile": "comes from another profile",
}


def parse(content: bytes, origin: Origin) -> Report:
    """See the contract of the shelf."""
    found = Collector(origin)
    profiles: dict[str, dict[str, Setting]] = {}
    for setting in settings(scan(content)):
        kind, _, rest = setting.section.partition(" ")
        profile = rest.strip() if kind == "profile" and rest else setting.section
        if setting.name and kind not in {"sso-session", "services"}:
            named = profiles.setdefault(profile, {})
            key = setting.name.lower()
            if key in named and key in _FIELDS:
                found.skip(f"{profile}: {key}", named[key].where, f"is given again in {setting.where}, which counts")
            named[key] = setting
    for profile, named in profiles.items():
        _take(profile, named, found)
    return found.report()


def _take(profile: str, named: dict[str, Setting], found: Collector) -> None:
    name = decoded(profile) or "unnamed"
    if not {_ID, _SECRET} <= named.keys():
        means = next((key for key in _MEANS if key in named), "")
        if means:
            found.skip(name, named[means].where, _MEANS[means])
        elif _SECRET in named:
            found.skip(name, named[_SECRET].where, "has a secret key without an access key id")
        return
    there = {key: named[key] for key in _FIELDS if key in named}
    values = {key: decoded(setting.raw) for key, setting in there.items()}
    if any(found.refused(f"{name}: {key}", values[key], there[key].where) for key in there):
        return
    several = [key for key, value in values.items() if len((value or "").split()) != 1]
    if several:
        found.skip(f"{name}: {several[0]}", there[several[0]].where, "has more than one word")
        return
    if _TOKEN in there:
        found.note(f"the profile {name} has temporary credentials, which end by themselves in hours")
    found.add(
        Found(
            name=f"aws/{segment(name)}",
            fields={_FIELDS[key]: Secret(value or "") for key, value in values.items()},
            where=there[_SECRET].where,
            entry="aws",
            spots=tuple(Spot(setting.start, setting.end, _FIELDS[key]) for key, setting in there.items()),
        )
    )
