"""Files of sops (YAML, JSON, dotenv, INI, binary) that are sealed for age.

Which values are sealed is read off the values, not off the file's rules (``encrypted_regex``, suffixes): only what is
sealed is taken, each value opens in its place alone, and the MAC holds them together, so a rule that somebody changed
gains nothing, and no pattern of a stranger is run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.core.path import DEFAULT_FIELD
from keyhole.crypto.age import Recipient
from keyhole.crypto.importers.sops import DataKey, Digest, is_sealed
from keyhole.importers.collect import Collector, shown
from keyhole.importers.found import LIMITS, Item, Origin, Report
from keyhole.importers.ordered import Branch, Scalar, Tree, from_json, from_yaml, require_unique
from keyhole.importers.text import decoded, first, scan

TITLE = "sops file"
PLACES: tuple[str, ...] = ()
VERSION = "3.9.0"
"""Of sops, to whose readers the files that are written here speak."""
_OTHER_MASTERS = ("pgp", "kms", "gcp_kms", "azure_kv", "hc_vault")
_FLAT = re.compile(r"age__list_([0-9]{1,3})__map_(recipient|enc)")
_ENV_FILE, _INI_FILE = re.compile(r"^sops_version=", re.MULTILINE), re.compile(r"^\[sops\]", re.MULTILINE)
_MAX_KEYS = 256
_DEFAULT = "DEFAULT"
_BINARY = ("data",)


@dataclass(slots=True)
class _Metadata:
    """What the file says of itself."""

    keys: list[str] = field(default_factory=list)
    mac: str = ""
    changed: str = ""
    sealed_only: bool = False
    others: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Leaf:
    """A value with the keys that lead to it; what stands in a list has its number, which is no part of its place."""

    path: tuple[str, ...]
    place: str
    text: str


def parse(content: bytes, origin: Origin) -> Report:
    """See the contract of the shelf. Also raises ``NotFound`` where no identity opens it, ``IntegrityError``."""
    tree, metadata = _read(content)
    key = _data_key(metadata, origin)
    found, digest = Collector(origin), Digest(sealed_only=metadata.sealed_only)
    values = list[tuple[_Leaf, bytes | None]]()
    for leaf in _leaves(tree):
        if len(values) > LIMITS.entries * 8:
            raise InvalidRequest("it has more values than any file of secrets", "split it")
        sealed = is_sealed(leaf.text)
        value, kind = key.open_value(leaf.text, leaf.place) if sealed else (leaf.text.encode(), "str")
        value = value.title() if kind == "bool" else value
        if kind != "comment":
            digest.add(value, sealed=sealed)
            values.append((leaf, value if sealed else None))
    digest.verify(key, metadata.mac, metadata.changed)
    _take(values, found)
    return found.report()


def _take(values: list[tuple[_Leaf, bytes | None]], found: Collector) -> None:
    """What stands below the same keys is one secret with fields."""
    groups: dict[tuple[str, ...], dict[str, str | None]] = {}
    if [leaf.path for leaf, _ in values] == [_BINARY]:  # a whole file, which is called as it is
        name = found.origin.label.replace("\\", "/").rpartition("/")[2]
        values = [(replace(leaf, path=(name,)), value) for leaf, value in values]
    for leaf, value in values:
        if value is None:
            why = "is not encrypted in the file" if leaf.text else "is empty"
            found.skip(".".join(leaf.path), "sops", why)
            continue
        *above, last = leaf.path
        parts, name = (tuple(above), last) if above else ((last,), DEFAULT_FIELD)
        parts = tuple(part for key in parts for part in key.split("/"))
        if name in groups.setdefault(parts, {}):
            found.skip(".".join(leaf.path), "sops", "has the name of another value")
            continue
        try:
            groups[parts][name] = value.decode()
        except UnicodeDecodeError:
            groups[parts][name] = None
    # A file whose names have two parts each says the groups itself; else all of it is in one.
    before = (found.origin.group,) if any(len(parts) == 1 for parts in groups) else ()
    for parts, fields in groups.items():
        found.take((*before, *parts), fields, shown(".".join(parts)), kind="custom")


def _data_key(metadata: _Metadata, origin: Origin) -> DataKey:
    if not metadata.keys:
        others = f"; it is for {', '.join(metadata.others)}" if metadata.others else ""
        raise InvalidRequest(f"the file is not sealed for age{others}", "add an age key to it: sops rotate --add-age")
    if not origin.opens.identities:
        raise NotFound("there is no age key to open the file with", "--identity FILE, or SOPS_AGE_KEY_FILE")
    for armored in metadata.keys:
        try:
            return DataKey.open(armored, origin.opens.identities)
        except NotFound:
            continue
    raise NotFound("the file is not for any of these age keys", "--identity FILE with another key")


def _read(content: bytes) -> tuple[Tree, _Metadata]:
    text = scan(content)
    body = text[first(text) :]
    if _ENV_FILE.search(body):
        pairs = [(key, value) for key, value in _env_lines(body)]
        return _flat([(k, v) for k, v in pairs if not k.startswith("sops_")]), _flat_metadata(
            {k.removeprefix("sops_"): v for k, v in pairs if k.startswith("sops_")}
        )
    if _INI_FILE.search(body):
        sections = _ini_sections(body)
        about = dict(sections.pop("sops", []))
        return Branch([(name, _flat(pairs)) for name, pairs in sections.items()]), _flat_metadata(about)
    tree = from_json(content) if body.lstrip().startswith("{") else from_yaml(content)
    require_unique(tree)
    about_it = tree.get("sops") if isinstance(tree, Branch) else None
    if not isinstance(tree, Branch) or not isinstance(about_it, Branch):
        raise InvalidRequest("it is no file of sops: it has no part 'sops'", "encrypt it with sops, or name another")
    return Branch([(key, node) for key, node in tree.items if key != "sops"]), _metadata(about_it)


def _flat(pairs: Sequence[tuple[str, str]]) -> Branch:
    branch = Branch([(key, Scalar(value)) for key, value in pairs])
    require_unique(branch)
    return branch


def _metadata(about: Branch) -> _Metadata:
    found = _Metadata()
    for name, node in about.items:
        if name == "age" and isinstance(node, list):
            keys = [each.get("enc") for each in node if isinstance(each, Branch)]
            found.keys = [key.text for key in keys if isinstance(key, Scalar) and key.text]
        elif name in _OTHER_MASTERS and isinstance(node, list) and node:
            found.others.append(name)
        elif isinstance(node, Scalar) and node.text is not None:
            _setting(found, name, node.text)
        elif name == "key_groups" and node:
            raise _key_groups()
    return _bounded(found)


def _flat_metadata(about: Mapping[str, str]) -> _Metadata:
    found = _Metadata()
    for name, value in about.items():
        match = _FLAT.fullmatch(name)
        if match is not None and match[2] == "enc":
            found.keys.append(value.replace("\\n", "\n"))
        elif name.startswith("key_groups"):
            raise _key_groups()
        elif name.partition("__")[0] in _OTHER_MASTERS:
            found.others.append(name.partition("__")[0])
        else:
            _setting(found, name, value)
    return _bounded(found)


def _setting(found: _Metadata, name: str, text: str) -> None:
    if name == "mac":
        found.mac = text
    elif name == "lastmodified":
        found.changed = text
    elif name == "mac_only_encrypted":
        found.sealed_only = text.lower() in {"true", "1", "t"}
    elif name == "shamir_threshold" and text not in {"", "0"}:
        raise _key_groups()


def _bounded(found: _Metadata) -> _Metadata:
    found.others = sorted(set(found.others))
    if len(found.keys) > _MAX_KEYS or not found.mac or not found.changed:
        raise InvalidRequest("it is no whole file of sops: its MAC or its time is missing", "restore it")
    return found


def _key_groups() -> InvalidRequest:
    return InvalidRequest("the data key is shared among key groups, which is not read here", "sops decrypt it first")


def _leaves(tree: Tree) -> Iterator[_Leaf]:
    """Every value that is not null, in the order of the file; the depth is bounded by who read it."""
    stack: list[tuple[tuple[str, ...], str, Tree]] = [((), "", tree)]
    while stack:
        path, place, node = stack.pop()
        if isinstance(node, Branch):
            below = [((*path, key), f"{place}{key}:", each) for key, each in node.items]
            stack += reversed(below)
        elif isinstance(node, list):
            stack += reversed([((*path, str(number)), place, each) for number, each in enumerate(node)])
        elif node.text is not None:
            inner = path[1:] if len(path) > 1 and path[0] == _DEFAULT else path
            yield _Leaf(inner, place, node.text)


def _env_lines(body: str) -> Iterator[tuple[str, str]]:
    for line in body.split("\n"):
        name, equals, value = line.partition("=")
        if not line or line.startswith("#"):
            continue
        if not equals:
            raise InvalidRequest("it is no dotenv file of sops: a line has no '='", "restore it")
        yield _text(name), _text(value).replace("\\n", "\n")


def _ini_sections(body: str) -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {_DEFAULT: []}
    section = _DEFAULT
    for raw in body.splitlines():
        line = raw.strip()
        if not line or line[0] in "#;":
            continue
        if line.startswith("[") and line.endswith("]"):
            section = _text(line[1:-1].strip())
            if section in found and section != _DEFAULT:
                raise InvalidRequest("a section stands twice", "join them")
            found.setdefault(section, [])
            continue
        name, equals, value = line.partition("=")
        if not equals:
            raise InvalidRequest("it is no INI file of sops: a line has no '='", "restore it")
        value = value.strip()
        if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'`":
            value = value[1:-1]
        found[section].append((_text(name.strip()), _text(value)))
    return found


def _text(scanned: str) -> str:
    text = decoded(scanned)
    if text is None:
        raise InvalidRequest("it is not UTF-8", "save it as UTF-8")
    return text


def write(items: Sequence[Item], recipients: Sequence[Recipient], now: datetime, shape: str = "yaml") -> bytes:
    """A file that sops opens with the key of any of these recipients.

    Args:
        items: to be written; each value is sealed as a text.
        recipients: of age.
        now: the time, with its zone.
        shape: ``yaml``, ``json``, ``dotenv`` or ``ini``.

    Raises:
        InvalidRequest: there are no recipients, or two items would stand in one place.
    """
    if not recipients:
        raise InvalidRequest("nobody could open the file", "--recipient age1…; sops reads it with that key")
    key, digest = DataKey.fresh(), Digest()
    tree = _flat_tree(items) if shape == "dotenv" else _nested(items, sections=shape == "ini")
    keys = {part for leaf in _leaves(tree) for part in leaf.path}
    sealed = _sealed(tree, "", key, digest)
    changed = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    about = {
        "lastmodified": changed,
        "mac": digest.seal(key, changed),
        # The usual rule would leave a value in clear whose key ends so.
        **({"encrypted_regex": ".*"} if any(k.endswith("_unencrypted") for k in keys) else _USUAL),
        "version": VERSION,
    }
    wrapped = [(recipient.text, key.seal_for(recipient)) for recipient in recipients]
    return _WRITERS[shape](sealed, wrapped, about).encode()


_USUAL = {"unencrypted_suffix": "_unencrypted"}


def _nested(items: Sequence[Item], *, sections: bool) -> Branch:
    """Names as keys above fields: they read again as the same names."""
    top = Branch([])
    for item in items:
        branch = top
        for part in [item.name] if sections else item.name.split("/"):
            below = branch.get(part)
            if below is None:
                below = Branch([])
                branch.items.append((part, below))
            if not isinstance(below, Branch):
                raise InvalidRequest(f"{item.name} would stand where a field of another secret does", "leave one out")
            branch = below
        for name, value in item.fields.items():
            if branch.get(name) is not None:
                raise InvalidRequest(f"{item.name}#{name} would stand where another secret does", "leave one out")
            branch.items.append((name, Scalar(value)))
    if any(key == "sops" for key, _ in top.items):
        raise InvalidRequest("a secret below 'sops' would stand where sops keeps its own", "leave it out")
    require_unique(top)
    return top


def _flat_tree(items: Sequence[Item]) -> Branch:
    top = Branch([])
    for item in items:
        for name, value in item.fields.items():
            whole = item.name if name == DEFAULT_FIELD else f"{item.name}_{name}"
            variable = re.sub(r"[^A-Z0-9]+", "_", whole.upper())
            if top.get(variable) is not None:
                raise InvalidRequest(f"two values would be called {variable}", "leave one out, or write YAML")
            top.items.append((variable, Scalar(value)))
    return top


def _sealed(node: Tree, place: str, key: DataKey, digest: Digest) -> Tree:
    if isinstance(node, Branch):
        return Branch([(name, _sealed(each, f"{place}{name}:", key, digest)) for name, each in node.items])
    if isinstance(node, list) or node.text is None:
        return node
    digest.add(node.text.encode(), sealed=True)
    return Scalar(key.seal_value(node.text.encode(), "str", place) if node.text else "")


def _as_yaml(tree: Tree, wrapped: list[tuple[str, str]], about: Mapping[str, str]) -> str:
    lines = list(_yaml_lines(tree, ""))
    lines += ["sops:", "    age:"]
    for recipient, armored in wrapped:
        lines += [f"        - recipient: {recipient}", "          enc: |"]
        lines += [f"            {line}" for line in armored.splitlines()]
    lines += [f"    {name}: {json.dumps(value)}" for name, value in about.items()]
    return "\n".join([*lines, ""])


def _yaml_lines(node: Tree, indent: str) -> Iterator[str]:
    for key, below in node.items if isinstance(node, Branch) else ():
        if isinstance(below, Branch):
            yield f"{indent}{json.dumps(key)}:"
            yield from _yaml_lines(below, f"{indent}    ")
        elif isinstance(below, Scalar):
            yield f"{indent}{json.dumps(key)}: {below.text or json.dumps('')}"


def _as_json(tree: Tree, wrapped: list[tuple[str, str]], about: Mapping[str, str]) -> str:
    data = _plain(tree)
    data["sops"] = {"age": [{"recipient": who, "enc": armored} for who, armored in wrapped], **about}
    return json.dumps(data, indent="\t", ensure_ascii=False) + "\n"


def _plain(node: Tree) -> dict[str, object]:
    items = node.items if isinstance(node, Branch) else []
    return {key: _plain(each) if isinstance(each, Branch) else getattr(each, "text", "") for key, each in items}


def _as_dotenv(tree: Tree, wrapped: list[tuple[str, str]], about: Mapping[str, str]) -> str:
    lines = [f"{key}={value}" for key, value in _plain(tree).items()]
    return "\n".join([*lines, *(f"sops_{key}={value}" for key, value in _flat_about(wrapped, about)), ""])


def _as_ini(tree: Tree, wrapped: list[tuple[str, str]], about: Mapping[str, str]) -> str:
    lines = list[str]()
    for section, below in tree.items if isinstance(tree, Branch) else ():
        lines += [f"[{section}]", *(f"{key} = {value}" for key, value in _plain(below).items()), ""]
    return "\n".join([*lines, "[sops]", *(f"{key} = {value}" for key, value in _flat_about(wrapped, about)), ""])


def _flat_about(wrapped: list[tuple[str, str]], about: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for number, (recipient, armored) in enumerate(wrapped):
        yield f"age__list_{number}__map_recipient", recipient
        yield f"age__list_{number}__map_enc", armored.replace("\n", "\\n")
    yield from about.items()


_WRITERS = {"yaml": _as_yaml, "json": _as_json, "dotenv": _as_dotenv, "ini": _as_ini}
