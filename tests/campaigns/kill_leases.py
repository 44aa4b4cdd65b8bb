"""Kill a server that makes and takes back users of a real PostgreSQL, and hold it to its word each time.

    python tests/campaigns/kill_leases.py --rounds 100 --seed 1

Three clients ask for credentials, revoke some of them and revoke tokens together with what was made for them. One
request more goes by way of a gate before the database, which holds up one of its messages, or the answer to it: that is
where the server is killed, so all rounds together kill it at every step. In other rounds it is killed at random, or in
the midst of a change of its own password. It starts again, and after a sweep: no user without a live lease, no active
lease without a user, whatever was acknowledged holds, and the server can still log in.
"""

import argparse
import contextlib
import http.client
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import database_server
from database_gate import Gate
from engines.database_world import CREATION

CLIENTS = 3
ROLE = "killed"
MAKING = 3.0  # seconds after which what was half made is taken back
PATIENCE = 60.0
ACTIONS = ("issue", "revoke", "token", "renew", "rotate")


class Gone(Exception):
    """The server was killed before it answered."""


class Server:
    """``keyhole server`` on one vault, again and again."""

    def __init__(self, folder):
        self.program = [sys.executable, "-m", "keyhole"]
        self.where = ["--vault", f"sqlite:{folder}/vault.db", "--seal", f"keyfile:{folder}/key"]
        self.environment = {**os.environ, "KEYHOLE_HOME": str(folder), "KEYHOLE_LEASE_MAKING": str(MAKING)}
        made = subprocess.run(
            [*self.program, "init", *self.where, "--make-keyfile", "--json"],
            env=self.environment,
            check=True,
            stdout=subprocess.PIPE,
        )
        self.token = json.loads(made.stdout)["root_token"]
        self.folder = folder
        self.process = None

    def start(self):
        listen = ["--listen", "127.0.0.1:0", "--proxy-listen", "127.0.0.1:0", "--data", str(self.folder), "--json"]
        command = [*self.program, "server", *self.where, *listen]
        self.process = subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE)
        started = json.loads(self.process.stdout.readline())
        self.address = started["api"].rpartition("/")[2]

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()

    def ask(self, method, path, data=None, *, token=None):
        """Status and answer. Raises ``Gone``."""
        connection = http.client.HTTPConnection(self.address, timeout=PATIENCE)
        try:
            body = None if data is None else json.dumps(data)
            connection.request(method, f"/v1/{path}", body, {"X-Vault-Token": token or self.token})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"{}")
        except (OSError, http.client.HTTPException):
            raise Gone from None
        finally:
            connection.close()

    def must(self, method, path, data=None, *, token=None):
        status, answer = self.ask(method, path, data, token=token)
        assert status < 300, (method, path, status, answer)
        return answer


class Told:
    """What the clients were told: leases that live, with their users, and users that have to be gone."""

    def __init__(self):
        self.live, self.gone = {}, set()
        self.acknowledged = 0
        self.lock = threading.Lock()

    def take(self, rng):
        """One lease that nobody else will touch."""
        with self.lock:
            if not self.live:
                return None
            lease = rng.choice(sorted(self.live))
            return lease, self.live.pop(lease)

    def revoked(self, user):
        with self.lock:
            self.gone.add(user)
            self.acknowledged += 1

    def issued(self, answer, into=None):
        with self.lock:
            found = self.live if into is None else into
            found[answer["lease_id"]] = answer["data"]["username"]
            self.acknowledged += 1


class Client:
    """Asks for one thing after another."""

    def __init__(self, server, told, rng):
        self.server, self.told, self.rng = server, told, rng

    def issue(self):
        self.told.issued(self.server.must("GET", f"database/creds/{ROLE}"))

    def revoke(self):
        taken = self.told.take(self.rng)
        if taken is None:
            self.issue()
            return
        self.server.must("POST", "sys/leases/revoke", {"lease_id": taken[0], "sync": True})
        self.told.revoked(taken[1])

    def token(self):
        """A token with two users, revoked with them."""
        made = self.server.must("POST", "auth/token/create", {"policies": ["reader"], "ttl": "1h"})
        token, mine = made["auth"]["client_token"], {}
        for _ in range(2):
            self.told.issued(self.server.must("GET", f"database/creds/{ROLE}", token=token), mine)
        self.server.must("POST", "auth/token/revoke", {"token": token})
        for user in mine.values():
            self.told.revoked(user)

    def renew(self):
        taken = self.told.take(self.rng)
        if taken is None:
            self.issue()
            return
        self.server.must("POST", "sys/leases/renew", {"lease_id": taken[0], "increment": 7000})
        with self.told.lock:
            self.told.live[taken[0]] = taken[1]

    def rotate(self):
        status, answer = self.server.ask("POST", "database/rotate-root/pg", {})
        assert status < 300 or "at this moment" in str(answer), answer

    def for_ever(self):
        with contextlib.suppress(Gone):
            while True:
                getattr(self, self.rng.choices(("issue", "revoke", "token", "renew"), weights=(6, 4, 1, 1))[0])()


def play_round(server, gate, told, rng, action, step):
    """Ask, and kill: at the step, or a moment after the answer where there is no such step. What happened, in words."""
    clients = [Client(server, told, random.Random(rng.random())) for _ in range(CLIENTS)]
    one = Client(server, told, random.Random(rng.random()))
    running = []
    if step is None:
        running = [threading.Thread(target=client.for_ever) for client in clients]

    def ask():
        with contextlib.suppress(Gone):
            getattr(one, action)()
        answered.set()

    answered = threading.Event()
    if step is None:
        for thread in running:
            thread.start()
        time.sleep(rng.uniform(0, 0.6))
    else:
        gate.hold(step // 2, answer=bool(step % 2))
    asking = threading.Thread(target=ask)
    asking.start()
    if step is None:
        time.sleep(rng.uniform(0, 0.05))
        where = "at random"
    else:
        while not (gate.reached.is_set() or answered.is_set()):
            gate.reached.wait(0.01)
        where = f"at message {step // 2}{', answered' * (step % 2)}" if gate.reached.is_set() else "after the answer"
    server.kill()
    gate.release()
    for thread in (asking, *running):
        thread.join()
    return where


def users():
    """Of this campaign."""
    return {name for name in database_server.users() if f"-{ROLE}-" in name}


def settle(server):
    """Sweep until nothing is on the way any more: active leases, and users of the database."""
    until = time.monotonic() + PATIENCE
    while True:
        swept = server.must("POST", "sys/leases/sweep")["data"]
        leases = below(server, "database")
        there = users()
        if not swept["waiting"] and len(leases) == len(there):
            return set(leases), there
        assert time.monotonic() < until, f"{len(leases)} active leases, {len(there)} users, {swept}"
        time.sleep(0.2)


def below(server, path):
    status, answer = server.ask("LIST", f"sys/leases/lookup/{path}")
    found = []
    for key in answer["data"]["keys"] if status == 200 else ():
        whole = f"{path}/{key.rstrip('/')}"
        found += below(server, whole) if key.endswith("/") else [whole]
    return found


def verify(server, told):
    """Hold it to its word; active leases, which are as many as users."""
    leases, there = settle(server)
    assert told.live.keys() <= leases, "a lease that was given out is gone"
    assert set(told.live.values()) <= there, "an active lease has no user"
    assert not told.gone & there, "a user lives whose lease was taken back"
    status, answer = server.ask("GET", f"database/creds/{ROLE}")
    assert status == 200, f"the server cannot log in any more: {answer}"
    user, password = answer["data"]["username"], answer["data"]["password"]
    assert database_server.may_log_in(user, password)
    server.must("POST", "sys/leases/revoke", {"lease_id": answer["lease_id"], "sync": True})
    assert not database_server.may_log_in(user, password)
    told.gone.add(user)
    return len(leases)


def prepare(server, gate):
    server.start()
    server.must("POST", "sys/mounts/database", {"type": "database"})
    config = {"plugin_name": "postgresql-database-plugin", "allowed_roles": "*", "connection_url": gate.url}
    login = {"username": database_server.ADMIN, "password": database_server.PASSWORD}
    server.must("POST", "database/config/pg", {**config, **login})
    role = {"db_name": "pg", "creation_statements": CREATION, "default_ttl": "1h", "max_ttl": "24h"}
    server.must("POST", f"database/roles/{ROLE}", role)
    server.must("POST", "sys/policies/acl/reader", {"policy": 'path "database/creds/*" { capabilities = ["read"] }'})


def count_steps(server, gate, told, rng):
    """Each action with each of its messages to the database, before it is passed on and before its answer is."""
    found, client = [], Client(server, told, rng)
    for action in ACTIONS:
        gate.hold(1 << 30)
        getattr(client, action)()
        found += [(action, step) for step in range(2 * gate.count)]
    rng.shuffle(found)
    return found


def plan(rounds, steps, rng):
    """What is killed where: every fifth round at random, the others at a step that was not killed at yet."""
    for number in range(rounds):
        yield (rng.choice(ACTIONS), None) if number % 5 == 4 or not steps else steps.pop()


def campaign(folder, rounds, seed, *, report=print):
    """Run all rounds on one vault and one database; raises ``AssertionError`` at the first broken promise."""
    database_server.reset_root()
    rng, told, gate = random.Random(seed), Told(), Gate()
    server = Server(folder)
    prepare(server, gate)
    try:
        steps = count_steps(server, gate, told, rng)
        report(f"{len(steps)} steps at which {', '.join(ACTIONS)} can be killed")
        for number, (action, step) in enumerate(plan(rounds, steps, rng), start=1):
            where = play_round(server, gate, told, rng, action, step)
            server.start()
            active = verify(server, told)
            report(
                f"round {number}: {action} killed {where}; {told.acknowledged} acknowledged, "
                f"{active} active leases and as many users"
            )
        server.must("POST", "sys/leases/revoke-prefix/database", {"sync": True})
        assert not users(), "users are left when all leases were taken back"
    finally:
        server.kill()
        gate.close()
    return told


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="keyhole-campaign-"))
    campaign(folder, options.rounds, options.seed)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
