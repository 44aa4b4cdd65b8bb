"""The house rules that can be read off the source: who may import whom, who may wait, who may see a value.

Everything here reads syntax trees; nothing of the package is imported but the errors. When a rule is to change, change
its table and say why in an architecture decision record.
"""

import ast
import functools
import pprint
import re
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import pytest

from keyhole.core import errors

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "keyhole"

# Layer -> layers that it may import besides itself. Of a shelf only the contract: see SHELVES.
FLOORS = {
    "core": "",
    "crypto": "core",
    "config": "core crypto",
    "catalog": "core crypto",
    "process": "core",
    "scrub": "core crypto config",
    "injections": "core crypto config",
    "stores": "core crypto config",
    "net": "core crypto config",
    "keepers": "core crypto",  # the keychain of the system and hardware tokens
    "repo": "core crypto keepers",  # files of a folder, and what they mean
    "client": "core crypto config net repo",
    "adapters": "core client scrub",  # functions as tools of agents
    "logs": "core client scrub",  # filters and processors of the libraries that write logs
    "engines": "core crypto config net stores repo",
    "seals": "core crypto config net stores keepers",
    "remotes": "core crypto config net stores repo",
    "rotators": "core crypto config net stores",
    "notifiers": "core crypto config net stores",
    "importers": "core crypto catalog",  # they look at bytes that are handed to them, and open what is sealed
    "sprawl": "core crypto config scrub catalog importers",  # looks for credentials where they should not be
    "auth": "core crypto config net stores engines seals",
    "vault": "core crypto config net stores engines seals remotes rotators notifiers importers auth",
    "broker": "core crypto config net scrub injections vault engines",  # engines: the contract of a route only
    "telemetry": "core config vault broker",  # door and road as they are watched
    # process: what shuts in those whom they start
    # net: the wire code of their servers; scrub: the gateway of tools, whose servers answer it and not the broker
    "faces": "core crypto config net scrub client vault broker process",
}
# May import everything: they put the house together.
COMPOSITION = {"app", "bounds", "guests", "upkeep", "workers", "cli", "demo", "trial", "testing", "__main__"}

# Shelves: the folder's own modules are the contract, the members that its MEMBERS names are loaded by name.
SHELVES = {"stores", "seals", "engines", "auth", "injections", "remotes", "rotators", "notifiers", "importers"}
MEMBER_READERS = {"injections": {"broker"}}


THIRD_PARTY_ONLY_IN = {"cryptography": {"crypto"}, "pyrage": {"crypto"}}
CORE_MAY_IMPORT = {"idna"}

PURE = ("core", "crypto", "scrub", "injections", "importers")
# app: the listening sockets; client: the way to a server and its proxy; demo, trial: the API that they play with
MAY_OPEN_SOCKETS = {"net", "client", "faces", "stores", "engines", "remotes", "seals", "app", "demo", "trial"}
MAY_OPEN_SOCKETS |= {"testing"}
MAY_OPEN_SOCKETS |= {"workers"}  # the ports that they share, and the socket pairs between them and their parent
OPENERS = {
    "socket.socket",
    "socket.create_connection",
    "socket.create_server",
    "asyncio.open_connection",
    "asyncio.open_unix_connection",
    "asyncio.start_server",
    "asyncio.start_unix_server",
}
LOOP_OPENERS = {
    "create_connection",
    "create_unix_connection",
    "create_server",
    "create_unix_server",
    "create_datagram_endpoint",
    "sock_connect",
}
HTTP_CLIENTS = {
    "aiohttp",
    "ftplib",
    "http.client",
    "httpx",
    "httpx2",
    "imaplib",
    "niquests",
    "poplib",
    "requests",
    "smtplib",
    "telnetlib",
    "urllib.request",
    "urllib3",
    "websockets",
    "xmlrpc",
}

# Layer -> HTTP clients that it may use all the same.
HTTP_CLIENTS_OF = {
    "client": {"http.client", "requests"},  # it asks the server that its user named, and must start fast
    "seals": {"http.client"},  # they block in a thread of their own, before there is a vault and a guard for it
}

MAX_FILE = 450
MAX_FUNCTION = 60
# File -> lines that it may have all the same.
LONG_FILES: dict[str, int] = {}

# File -> calls of Secret.reveal(). This is the list of every place where a value leaves its container: a new line here
# is a decision. The failure prints the table of today.
REVEALS = {
    "broker/loan.py": 3,  # also what is lent instead of a refused value, and what is masked besides
    "broker/watched.py": 1,
    "cli/add.py": 1,
    "cli/external.py": 2,  # credentials of a source, to the vault
    "cli/import_files.py": 1,  # is a value still in the file, in another place?
    "cli/import_store.py": 1,  # into the vault
    "cli/init.py": 2,  # a new passphrase, to the server that makes the vault; new shares, to who made it
    "cli/migrate.py": 3,  # new shares, to who made them; shares of the old seal, joined
    "cli/rekey.py": 2,  # a share, to the server; a one-time pad
    "cli/notice.py": 1,  # the URL of a channel, and its key, to the vault
    "cli/login.py": 1,  # a token, into its file
    "cli/mcp/login.py": 1,  # the secret of a client, to the vault that keeps it
    "cli/oauth.py": 2,  # a client's secret, to the vault that keeps it
    "cli/operator.py": 2,  # the passphrase or a share, to the server that it unseals
    "cli/secrets.py": 2,
    "cli/agent_vault.py": 1,
    "cli/moving/kv.py": 1,  # a token, to the server for which it is
    "cli/moving/past.py": 1,  # does a value stand in the history of its file?
    "cli/repo/moving.py": 1,  # an export, which is asked about and recorded
    "cli/repo/secrets.py": 1,
    "client/local.py": 1,
    "client/repo.py": 1,
    "engines/external/sources.py": 1,  # a credential, to the source for which it is
    "faces/api/envelope.py": 1,
    "faces/run/environment.py": 2,  # into the command's environment, and out of what it prints
    "importers/agenticmail.py": 3,  # a password, to open and to seal envelopes; is what was opened text?
    "importers/bitwarden.py": 2,  # a password, to open and to seal exports
    "importers/recognise.py": 1,  # the shape of a value says whose it is
    "logs/scrubber.py": 2,  # what is known, to be found in logs
    "net/via.py": 2,
    "engines/repo.py": 1,  # from a vault of files into an answer, where it is one again
    "repo/into_keychain.py": 1,  # into the keychain of the system
    "repo/changes.py": 1,  # a value, to be sealed for its readers
    "vault/sources.py": 1,  # from the answer of a mount, into what is lent
    "vault/devices/entries.py": 1,  # hashed for an audit device
    "rotators/aws_iam.py": 2,  # a key signs, and its id names it
    "rotators/command.py": 1,  # to the stdin of a program
    "rotators/http.py": 2,  # into the requests of a recipe
    "vault/rotating.py": 3,  # the secret as it is, and its next version
    "vault/rotation.py": 1,  # into the store, where it is sealed
    "seals/passphrase.py": 1,
    "crypto/age_plugin.py": 1,  # a PIN, to the program that asks for it
    "crypto/age_scrypt.py": 1,  # a passphrase, to be stretched
    "crypto/age_ssh.py": 1,  # a passphrase, to the key that it opens
    "keepers/token.py": 1,  # the PIN, to the token
    "seals/shares.py": 1,
    "vault/tool_use.py": 2,  # hashed, to see whether a value is another; a token that its server has refused
    "workers/parent.py": 1,  # the passphrase, to the worker that opens the vault
    "vault/wrapping.py": 1,  # into the drawer of the wrapping token, where it is sealed again
    "vault/sealing.py": 2,  # new shares: to who made them, and to see what they are known by
}


@dataclass(frozen=True)
class Module:
    path: str  # below src/keyhole
    name: str  # without the package, "" for the package itself
    tree: ast.Module

    @property
    def layer(self):
        return self.name.partition(".")[0]

    @property
    def is_package(self):
        return self.path.endswith("__init__.py")


@functools.cache
def modules():
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        relative = path.relative_to(PACKAGE)
        name = ".".join(relative.with_suffix("").parts).removesuffix("__init__").removesuffix(".")
        found[name] = Module(relative.as_posix(), name, ast.parse(path.read_text("utf-8"), str(path)))
    return found


def imports_of(module, tree=None):
    """Every import below a node as ``(dotted name, line)``; those of the package begin with ``keyhole``."""
    for node in ast.walk(tree or module.tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = f"keyhole.{module.name}".rstrip(".").split(".")
                kept = parts[: len(parts) - node.level + module.is_package]
                base = ".".join([*kept, base]).rstrip(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                is_module = inner.removeprefix("keyhole.") in modules() and base.split(".")[0] == "keyhole"
                yield inner if is_module else base, node.lineno


def internal_imports(module, tree=None):
    for name, line in imports_of(module, tree):
        head, _, rest = name.partition(".")
        if head == "keyhole":
            yield rest, line


def members(shelf):
    """The members that a shelf's package lists; all its modules where it has no list yet."""
    package = modules().get(shelf)
    for node in package.tree.body if package else ():
        if isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if isinstance(target, ast.Name) and target.id == "MEMBERS" and node.value is not None:
                listed = ast.literal_eval(node.value)
                return set(listed.values() if isinstance(listed, dict) else listed)
    return {name.split(".")[1] for name in modules() if name.startswith(f"{shelf}.")}


def member_of(name):
    """``(shelf, member)`` that a module belongs to, or ``None``."""
    shelf, _, rest = name.partition(".")
    member = rest.partition(".")[0]
    return (shelf, member) if shelf in SHELVES and member in members(shelf) else None


def report(offences):
    found = sorted(offences)
    assert not found, "\n" + "\n".join(found)


def test_every_part_of_the_package_has_its_floor():
    layers = {module.layer for module in modules().values()} - {""}
    report(f"{layer} is not in FLOORS" for layer in layers - FLOORS.keys() - COMPOSITION)


def test_imports_only_go_down():
    offences = []
    for module in modules().values():
        if not module.layer or module.layer in COMPOSITION:
            continue
        allowed = {"", module.layer, *FLOORS[module.layer].split()}
        for target, line in internal_imports(module):
            if target.partition(".")[0] not in allowed:
                offences.append(f"{module.path}:{line} imports keyhole.{target}")
    report(offences)


def test_no_floor_may_be_reached_from_below():
    below = {layer: set(allowed.split()) for layer, allowed in FLOORS.items()}
    settled = set()
    while ready := {layer for layer, allowed in below.items() if layer not in settled and allowed <= settled}:
        settled |= ready
    assert settled == below.keys(), f"the table itself goes in a circle: {below.keys() - settled}"


def test_a_member_of_a_shelf_is_loaded_by_name_and_never_imported():
    offences = []
    for module in modules().values():
        home = member_of(module.name)
        for target, line in internal_imports(module):
            there = member_of(target)
            if there is None or there == home or module.layer in COMPOSITION:
                continue
            if module.layer in MEMBER_READERS.get(there[0], ()):
                continue
            offences.append(f"{module.path}:{line} imports the member keyhole.{target}")
    report(offences)


def test_a_face_never_imports_another_face():
    offences = []
    for module in modules().values():
        if module.layer == "faces":
            own = module.name.split(".")[:2]
            for target, line in internal_imports(module):
                if target.startswith("faces.") and target.split(".")[:2] != own:
                    offences.append(f"{module.path}:{line} imports keyhole.{target}")
    report(offences)


def test_core_imports_the_standard_library_and_idna_only():
    known = sys.stdlib_module_names | CORE_MAY_IMPORT | {"keyhole"}
    report(
        f"{module.path}:{line} imports {name}"
        for module in modules().values()
        if module.layer == "core"
        for name, line in imports_of(module)
        if name.partition(".")[0] not in known
    )


def test_a_hazardous_library_stays_in_its_folder():
    report(
        f"{module.path}:{line} imports {name}"
        for module in modules().values()
        for name, line in imports_of(module)
        if module.layer not in THIRD_PARTY_ONLY_IN.get(name.partition(".")[0], {module.layer})
    )


def import_time_nodes(node):
    """What runs when a module is imported: not the bodies of functions, not what is for the type checker only."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            yield from import_time_nodes(ast.Module(child.orelse, []))
            continue
        yield child
        yield from import_time_nodes(child)


def test_no_modules_import_each_other_in_a_circle():
    graph = defaultdict(set)
    for module in modules().values():
        for node in import_time_nodes(module.tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                for target, _ in internal_imports(module, node):
                    # A module's packages are imported before it, unless they are being imported already.
                    packages = {target.rsplit(".", depth)[0] for depth in range(1, target.count(".") + 1)}
                    own = {module.name.rsplit(".", depth)[0] for depth in range(1, module.name.count(".") + 1)}
                    graph[module.name] |= ({target} | (packages - own)) - {module.name}
    done, trail, circles = set(), [], set()

    def visit(name):
        if name in trail:
            circles.add(" -> ".join([*trail[trail.index(name) :], name]))
        elif name not in done:
            trail.append(name)
            for target in sorted(graph[name]):
                visit(target)
            trail.pop()
            done.add(name)

    for name in sorted(modules()):
        visit(name)
    report(circles)


def protocol_signatures(tree):
    """The methods of protocols that have no body but a docstring or an ellipsis."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base).startswith("Protocol") for base in node.bases):
            for method in node.body:
                if isinstance(method, ast.AsyncFunctionDef) and all(
                    isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) for line in method.body
                ):
                    yield method


def test_the_pure_floors_never_wait():
    waiting = ast.Await | ast.AsyncFor | ast.AsyncWith | ast.AsyncFunctionDef
    offences = []
    for module in modules().values():
        if module.layer in PURE:
            signatures = set(protocol_signatures(module.tree)) if module.path == "core/message.py" else set()
            offences += [
                f"{module.path}:{node.lineno} waits"
                for node in ast.walk(module.tree)
                if (isinstance(node, waiting) and node not in signatures)
                or (isinstance(node, ast.comprehension) and node.is_async)
            ]
            offences += [
                f"{module.path}:{line} imports {name}"
                for name, line in imports_of(module)
                if name.partition(".")[0] in {"asyncio", "anyio", "threading", "socket", "subprocess"}
            ]
    report(offences)


def opens_a_socket(call):
    """Whether a call opens a socket of its own; one that is handed in (``sock=``, ``fileno=``) was open before."""
    if not isinstance(call.func, ast.Attribute) or {"sock", "fileno"} & {word.arg for word in call.keywords}:
        return False
    return ast.unparse(call.func) in OPENERS or call.func.attr in LOOP_OPENERS


def test_only_the_floors_that_may_open_sockets():
    offences = []
    for module in modules().values():
        if module.layer in MAY_OPEN_SOCKETS:
            continue
        offences += [
            f"{module.path}:{node.lineno} opens a socket: {ast.unparse(node.func)}"
            for node in ast.walk(module.tree)
            if isinstance(node, ast.Call) and opens_a_socket(node)
        ]
    report(offences)


def test_there_is_one_http_client_and_it_is_ours():
    report(
        f"{module.path}:{line} imports {name}"
        for module in modules().values()
        for name, line in imports_of(module)
        if any(
            name == client or name.startswith(f"{client}.")
            for client in HTTP_CLIENTS - HTTP_CLIENTS_OF.get(module.layer, set())
        )
    )


def reveals(node):
    """Whether ``reveal()`` is called here, or handed on as a function (``map(Secret.reveal, ...)``)."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Attribute) and node.func.attr == "reveal" and not node.args
    return isinstance(node, ast.Attribute) and ast.unparse(node) == "Secret.reveal"


def test_a_value_leaves_its_container_at_the_known_places_only():
    found = Counter(module.path for module in modules().values() for node in ast.walk(module.tree) if reveals(node))
    table = "".join(f'    "{path}": {count},\n' for path, count in sorted(found.items()))
    assert dict(found) == REVEALS, f"if each new place is meant, let the table be\n\nREVEALS = {{\n{table}}}\n"


def test_files_and_functions_stay_short_enough_to_read():
    offences = []
    for module in modules().values():
        lines = (PACKAGE / module.path).read_text("utf-8").count("\n")
        if lines > LONG_FILES.get(module.path, MAX_FILE):
            offences.append(f"{module.path} has {lines} lines")
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = node.end_lineno - node.lineno + 1
                if length > MAX_FUNCTION:
                    offences.append(f"{module.path}:{node.lineno} {node.name} has {length} lines")
    report(offences)


def test_every_error_has_a_code_of_its_own():
    waiting, codes = [errors.KeyholeError], defaultdict(list)
    while waiting:
        for cls in waiting.pop().__subclasses__():
            if cls.__module__ == errors.__name__:
                waiting.append(cls)
                codes[cls.code].append(cls.__name__)
    codes["internal"].remove("IntegrityError")  # a peer does not learn which of our faults it met
    assert all(len(names) == 1 for names in codes.values()), pprint.pformat(dict(codes))
    for code, [name] in codes.items():
        assert errors.by_code(code).__name__ == name


def forbidden():
    """Built from parts, so that this file does not contain what it looks for."""
    dot, slash = re.escape("."), "/"
    hosts = [("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"), ("npmjs", "com"), ("yarnpkg", "com")]
    hosts += [("proxy.golang", "org"), ("crates", "io"), ("rubygems", "org")]
    words = {f"the registry host {a} {b}": re.escape(a) + dot + b for a, b in hosts}
    words["a path of the workshop"] = rf"(?<![\w.-]){slash}work{slash}|(?<![\w./-])shared{slash}"
    prefixes = ["AG", "AP", "AU", "CL", "CR", "HA", "HS", "LS", "MC", "OA", "PX", "RD", "RS", "SS", "ST"]
    words["the number of a case"] = rf"\b(?:{'|'.join(prefixes)})-\d\d\b|(?<![\w-])E\d\d(?![\w.+-])"
    return {what: re.compile(pattern) for what, pattern in words.items()}


def test_no_tracked_file_names_the_workshop_or_a_registry():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout: the tracked files are not known")
    offences = []
    for name in listed.stdout.decode().split("\0"):
        path = ROOT / name
        if not name or not path.is_file():
            continue
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue  # a picture or a binary vector
        for what, pattern in forbidden().items():
            lines = {text.count("\n", 0, match.start()) + 1 for match in pattern.finditer(text)}
            offences += [f"{name}:{line} has {what}" for line in lines]
    report(offences)


@pytest.mark.parametrize(
    ("check", "files"),
    [
        (test_every_part_of_the_package_has_its_floor, {"helpers/x.py": ""}),
        (test_imports_only_go_down, {"core/x.py": "import keyhole.vault.y", "vault/y.py": ""}),
        (test_imports_only_go_down, {"crypto/x.py": "from keyhole import net", "net/__init__.py": ""}),
        (test_imports_only_go_down, {"scrub/x.py": "from .. import stores", "stores/__init__.py": ""}),
        (
            test_imports_only_go_down,
            {"stores/x.py": "if TYPE_CHECKING:\n    from keyhole.engines import Y", "engines/__init__.py": ""},
        ),
        (test_imports_only_go_down, {"net/x.py": "def f():\n    import keyhole.app", "app.py": ""}),
        (
            test_a_member_of_a_shelf_is_loaded_by_name_and_never_imported,
            {
                "seals/__init__.py": "MEMBERS = ('a', 'b')",
                "seals/a.py": "from keyhole.seals import b",
                "seals/b.py": "",
            },
        ),
        (
            test_a_member_of_a_shelf_is_loaded_by_name_and_never_imported,
            {
                "vault/x.py": "from keyhole.stores.sqlite import y",
                "stores/sqlite/y.py": "",
                "stores/sqlite/__init__.py": "",
            },
        ),
        (test_a_face_never_imports_another_face, {"faces/a/x.py": "from keyhole.faces.b import y", "faces/b/y.py": ""}),
        (test_core_imports_the_standard_library_and_idna_only, {"core/x.py": "import brotli"}),
        (test_a_hazardous_library_stays_in_its_folder, {"seals/x.py": "from cryptography import x509"}),
        (
            test_no_modules_import_each_other_in_a_circle,
            {
                "net/a.py": "from keyhole.net import b",
                "net/b.py": "from keyhole.net import c",
                "net/c.py": "from . import a",
            },
        ),
        (
            test_no_modules_import_each_other_in_a_circle,
            {
                "net/__init__.py": "from keyhole.net.a import x",
                "core/x.py": "import keyhole.net.b",
                "net/b.py": "",
                "net/a.py": "import keyhole.core.x",
            },
        ),
        (test_the_pure_floors_never_wait, {"injections/x.py": "async def f(): pass"}),
        (test_the_pure_floors_never_wait, {"core/message.py": "class P(Protocol):\n    async def f(self): return 1"}),
        (test_the_pure_floors_never_wait, {"scrub/x.py": "import asyncio"}),
        (test_only_the_floors_that_may_open_sockets, {"vault/x.py": "s = socket.socket(2, 1)"}),
        (test_only_the_floors_that_may_open_sockets, {"broker/x.py": "await_ = loop.create_connection(f, 'host', 1)"}),
        (test_there_is_one_http_client_and_it_is_ours, {"net/x.py": "import urllib.request"}),
        (test_a_value_leaves_its_container_at_the_known_places_only, {"cli/x.py": "print(secret.reveal())"}),
        (test_a_value_leaves_its_container_at_the_known_places_only, {"cli/x.py": "map(Secret.reveal, secrets)"}),
        (test_files_and_functions_stay_short_enough_to_read, {"net/x.py": "\n" * (MAX_FILE + 1)}),
        (test_files_and_functions_stay_short_enough_to_read, {"net/x.py": "def f():\n" + "    x = 1\n" * MAX_FUNCTION}),
    ],
)
def test_each_check_sees_the_breach_that_it_is_for(check, files, tmp_path, monkeypatch):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    monkeypatch.setattr(sys.modules[__name__], "REVEALS", {})
    modules.cache_clear()
    try:
        with pytest.raises(AssertionError):
            check()
    finally:
        modules.cache_clear()
