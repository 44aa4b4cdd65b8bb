"""A stand-in for a MongoDB server: the wire protocol, users with SCRAM-SHA-256, and rights by database. No MongoDB.

It speaks OP_MSG with the driver's own ``bson``, checks every proof of a login (RFC 5802, RFC 7677), and knows the
commands that manage users as MongoDB's manual describes them. What a real server does beyond that, no test here shows.
"""

import base64
import contextlib
import hashlib
import hmac
import re
import secrets
import socketserver
import struct
import threading
from dataclasses import dataclass, field

import bson

ADMIN, PASSWORD = "vaultroot", "first password of root"
_OP_MSG = 2013
_ITERATIONS = 4096
_OPEN = {"hello", "ismaster", "isMaster", "saslStart", "saslContinue", "authenticate", "endSessions", "buildInfo"}
_MANAGE = {"createUser", "updateUser", "dropUser", "usersInfo", "killAllSessions"}
_READ = {"find"}
_WRITE = {"insert"}


class Refusal(Exception):
    def __init__(self, code, name, words):
        self.reply = {"ok": 0.0, "errmsg": words, "code": code, "codeName": name}


def _failed():
    return Refusal(18, "AuthenticationFailed", "Authentication failed.")


def _hmac(key, text):
    return hmac.digest(key, text, "sha256")


@dataclass
class User:
    roles: list
    salt: bytes = b""
    stored: bytes = b""
    server: bytes = b""

    def set_password(self, password):
        self.salt = secrets.token_bytes(28)
        salted = hashlib.pbkdf2_hmac("sha256", password.encode(), self.salt, _ITERATIONS)
        self.stored = hashlib.sha256(_hmac(salted, b"Client Key")).digest()
        self.server = _hmac(salted, b"Server Key")


class Login:
    """One SCRAM-SHA-256 exchange."""

    def __init__(self, users, database, payload):
        header, _, self.bare = payload.decode().partition(",,")
        if header != "n":
            raise _failed()
        said = dict(part.split("=", 1) for part in self.bare.split(","))
        self.key = database, said["n"].replace("=2C", ",").replace("=3D", "=")
        self.user = users.get(self.key)
        if self.user is None:
            raise _failed()
        self.nonce = said["r"] + base64.b64encode(secrets.token_bytes(18)).decode()
        self.first = f"r={self.nonce},s={base64.b64encode(self.user.salt).decode()},i={_ITERATIONS}"

    def finish(self, payload):
        without, _, proof = payload.decode().rpartition(",p=")
        said = dict(part.split("=", 1) for part in without.split(","))
        text = f"{self.bare},{self.first},{without}".encode()
        signature = _hmac(self.user.stored, text)
        key = bytes(a ^ b for a, b in zip(base64.b64decode(proof), signature, strict=True))
        right = hmac.compare_digest(hashlib.sha256(key).digest(), self.user.stored)
        if not right or said["r"] != self.nonce or said["c"] != "biws":
            raise _failed()
        return b"v=" + base64.b64encode(_hmac(self.user.server, text))


@dataclass
class State:
    """All that the stand-in knows, and what tests want of it.

    ``faults`` has what happens at the next command of a name: ``"lost"`` does it and hangs up without an answer,
    ``"refused"`` hangs up without doing it, and a document is the answer.
    """

    users: dict = field(default_factory=dict)
    primary: bool = True
    commands: list = field(default_factory=list)
    faults: dict = field(default_factory=dict)
    logins: list = field(default_factory=list)
    port: int = 0

    def reset(self):
        self.users.clear()
        self.users["admin", ADMIN] = root = User([{"role": "root", "db": "admin"}])
        root.set_password(PASSWORD)
        self.primary = True
        for each in (self.commands, self.faults, self.logins):
            each.clear()

    def names(self, prefix="v-"):
        return {name for _, name in self.users if name.startswith(prefix)}

    def url(self, host="127.0.0.1", more=""):
        return f"mongodb://{{{{username}}}}:{{{{password}}}}@{host}:{self.port}/admin{more}"


class Handler(socketserver.BaseRequestHandler):
    def setup(self):
        self.state, self.login, self.user = self.server.state, None, None
        if self.server.context is not None:
            self.request = self.server.context.wrap_socket(self.request, server_side=True)

    def finish(self):
        self.request.close()

    def handle(self):
        with contextlib.suppress(OSError, EOFError):
            while True:
                self.one()

    def exactly(self, count):
        found = b""
        while len(found) < count:
            data = self.request.recv(count - len(found))
            if not data:
                raise EOFError
            found += data
        return found

    def one(self):
        length, number, _, code = struct.unpack("<iiii", self.exactly(16))
        body = self.exactly(length - 16)
        assert code == _OP_MSG, code
        size = struct.unpack_from("<i", body, 5)[0]
        assert body[4] == 0  # the document comes first; what follows it are documents of an insert
        command = bson.decode(body[5 : 5 + size])
        try:
            reply = {"ok": 1.0, **self.answer(command)}
        except Refusal as error:
            reply = error.reply
        said = struct.pack("<IB", 0, 0) + bson.encode(reply)
        self.request.sendall(struct.pack("<iiii", 16 + len(said), 0, number, _OP_MSG) + said)

    def answer(self, command):
        name, state = next(iter(command)), self.state
        if name not in _OPEN:
            self.require(name, command["$db"])
            state.commands.append(command)
        fault = state.faults.pop(name, None)
        if fault == "refused":
            raise EOFError
        if isinstance(fault, dict):
            return fault
        found = getattr(self, f"do_{name.lower()}")(command)
        if fault == "lost":
            raise EOFError
        return found

    def require(self, name, database):
        """The rights of who is logged in, as they are now: a user that was dropped has none."""
        user = self.state.users.get(self.user)
        if user is None:
            raise Refusal(13, "Unauthorized", f"Command {name} requires authentication")
        held = {(role["role"], role["db"]) for role in user.roles}
        reads = {("readWrite", database)} | ({("read", database)} if name in _READ else set())
        if ("root", "admin") not in held and not (name in _READ | _WRITE and held & reads):
            raise Refusal(13, "Unauthorized", f"not authorized on {database} to execute command")

    def do_hello(self, command):
        about = {"maxWireVersion": 21, "minWireVersion": 0, "maxBsonObjectSize": 2**24, "maxWriteBatchSize": 100_000}
        about |= {"maxMessageSizeBytes": 48_000_000, "helloOk": True, "readOnly": False}
        about |= {"isWritablePrimary": self.state.primary, "ismaster": self.state.primary}
        if not self.state.primary:
            about |= {"setName": "set", "secondary": True, "hosts": ["elsewhere:27017"], "primary": "elsewhere:27017"}
        if "saslSupportedMechs" in command:
            about["saslSupportedMechs"] = ["SCRAM-SHA-256"]
        return about

    do_ismaster = do_hello

    def do_saslstart(self, command):
        if command["mechanism"] != "SCRAM-SHA-256":
            raise Refusal(334, "MechanismUnavailable", "Unsupported mechanism")
        self.login = Login(self.state.users, command["$db"], command["payload"])
        return {"conversationId": 1, "done": False, "payload": self.login.first.encode()}

    def do_saslcontinue(self, command):
        signature = self.login.finish(command["payload"])
        self.user = self.login.key
        self.state.logins.append(self.user)
        return {"conversationId": 1, "done": True, "payload": signature}

    def do_authenticate(self, command):
        """MONGODB-X509: the subject of the certificate that the handshake has proved."""
        if command["mechanism"] != "MONGODB-X509" or command["$db"] != "$external":
            raise _failed()
        [[(_, name)]] = self.request.getpeercert()["subject"][-1:]
        if ("$external", f"CN={name}") not in self.state.users:
            raise _failed()
        self.user = "$external", f"CN={name}"
        self.state.logins.append(self.user)
        return {"dbname": "$external", "user": self.user[1]}

    def do_createuser(self, command):
        key = command["$db"], command["createUser"]
        if key in self.state.users:
            raise Refusal(51003, "Location51003", f'User "{key[1]}@{key[0]}" already exists')
        given = [{"role": role, "db": key[0]} if isinstance(role, str) else role for role in command["roles"]]
        for role in given:
            if role["role"] not in {"read", "readWrite", "root"}:
                raise Refusal(31, "RoleNotFound", f"Could not find role: {role['role']}@{role['db']}")
        user = User(given)
        user.set_password(command["pwd"])
        self.state.users[key] = user
        return {}

    def existing(self, command, name):
        key = command["$db"], command[name]
        if key not in self.state.users:
            raise Refusal(11, "UserNotFound", f"User '{key[1]}@{key[0]}' not found")
        return key

    def do_updateuser(self, command):
        self.state.users[self.existing(command, "updateUser")].set_password(command["pwd"])
        return {}

    def do_dropuser(self, command):
        del self.state.users[self.existing(command, "dropUser")]
        return {}

    def do_usersinfo(self, command):
        pattern = re.compile(command["filter"]["user"]["$regex"])
        found = [{"user": name, "db": db} for db, name in self.state.users if pattern.search(name)]
        everywhere = isinstance(command["usersInfo"], dict)
        return {"users": [each for each in found if everywhere or each["db"] == command["$db"]]}

    def do_killallsessions(self, _command):
        return {}

    def do_find(self, command):
        return {"cursor": {"id": bson.Int64(0), "ns": f"{command['$db']}.{command['find']}", "firstBatch": []}}

    def do_insert(self, _command):
        return {"n": 1}

    def do_endsessions(self, _command):
        return {}


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, context=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.context = context
        self.state = State(port=self.server_address[1])
        self.state.reset()

    def handle_error(self, request, client_address):
        pass  # a handshake that a test wants to fail


@contextlib.contextmanager
def serving(context=None):
    """Runs one; gives its state."""
    with Server(context) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server.state
        finally:
            server.shutdown()
            thread.join()
