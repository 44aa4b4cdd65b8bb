"""``keyhole run`` lets a command open sessions with databases, and gives it no password by which it could alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import mariadb_server
import nursery
import sql_postgres
from children import child
from sql_postgres import APP_PASSWORD, HOST

KEYHOLE = Path(sys.executable).with_name("keyhole")
SHOWS = """
import json, os, psycopg, subprocess, sys
with psycopg.connect("") as session:
    user = session.execute("SELECT current_user").fetchone()[0]
    psql = subprocess.Popen(["psql", "-At"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    seen = {}
    for process in ("self", str(psql.pid)):
        for name in ("environ", "cmdline"):
            with open(f"/proc/{process}/{name}", "rb") as file:
                seen[f"{process}/{name}"] = file.read().decode("latin-1")
    said = psql.communicate(b"SELECT 'psql', '';")[0].decode()
print(json.dumps({"user": user, "seen": seen, "psql": said, "environ": dict(os.environ)}))
"""


class Local:
    """A vault on this machine whose agent ``default`` has a database."""

    def __init__(self, folder):
        self.folder, self.program = folder, nursery.program(folder)
        (folder / "key").write_bytes(os.urandom(32))
        (folder / "key").chmod(0o600)
        (folder / "ca.pem").write_bytes(sql_postgres.ca_pem() + mariadb_server.authority().cert_pem.bytes())
        self.env = {
            "PATH": f"{KEYHOLE.parent}:{os.environ['PATH']}",
            "HOME": str(folder),
            "KEYHOLE_SEAL": f"keyfile:{folder / 'key'}",
            "KEYHOLE_UPSTREAM_CA": str(folder / "ca.pem"),
            "KEYHOLE_RESOLVE": f"{HOST}:127.0.0.1",
        }
        self("init")
        self("set", "db/app", "--json-in", input=json.dumps({"username": "app", "password": APP_PASSWORD}))
        self.add("shop", "postgres", sql_postgres.started())
        self("agent", "add", "default")
        self("grant", "default", "shop")

    def add(self, name, scheme, port):
        place = f"{HOST}:{port}"
        self("service", "add", name, "--scheme", scheme, "--host", place, "--secret", "db/app", "--sql",
             "--database", "shop", "--allow-address", "127.0.0.1/32")  # fmt: skip

    def __call__(self, *words, code=0, env=None, **more):
        done = subprocess.run(
            [self.program, *words],
            env=self.env | (env or {}),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            **more,
        )
        assert code is None or done.returncode == code, done.stderr
        return done


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    return Local(tmp_path_factory.mktemp("local"))


def test_a_command_opens_sessions_and_has_no_password_anywhere(local):
    inherited = {"PGPASSWORD": "of the caller", "DATABASE_URL": "postgres://u:of-the-caller@prod/x"}
    done = local("run", "--", sys.executable, "-c", SHOWS, env=inherited)
    found = json.loads(done.stdout)
    assert (found["user"], found["psql"]) == ("app", "psql|\n")
    for text in (*found["seen"].values(), done.stderr):
        assert APP_PASSWORD not in text
        assert "of the caller" not in text
        assert "of-the-caller" not in text
    env = found["environ"]
    assert (env["PGHOST"], env["PGUSER"], env["PGDATABASE"]) == ("127.0.0.1", "shop", "shop")
    assert env["DATABASE_URL"] == f"postgresql://shop@127.0.0.1:{env['PGPORT']}/shop?sslmode=disable"
    assert env["SHOP_DATABASE_URL"] == env["DATABASE_URL"]
    files = [path for path in local.folder.rglob("*") if path.is_file()]
    assert not [path for path in files if APP_PASSWORD.encode() in path.read_bytes()]


def test_sqlalchemy_takes_the_url_as_it_is(local):
    program = (
        "import os, sqlalchemy as s\n"
        "url = s.make_url(os.environ['DATABASE_URL']).set(drivername='postgresql+psycopg')\n"
        "with s.create_engine(url).connect() as c: print(c.execute(s.text('SELECT count(*) FROM notes')).scalar())\n"
    )
    assert local("run", "--", sys.executable, "-c", program).stdout.strip().isdecimal()


def test_somebody_outside_the_command_gets_no_session(local):
    program = f"{sys.executable} -c 'import os; print(os.environ[\"PGPORT\"], flush=True)'; read line"
    command = [KEYHOLE, "run", "--network", "host", "--", "sh", "-c", program]
    with child(
        command, env=local.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        port = running.stdout.readline().strip()
        outside = subprocess.run(
            ["psql", "-h", "127.0.0.1", "-p", port, "-U", "shop", "-c", "SELECT 1", "shop"],
            env={"PATH": os.environ["PATH"], "PGSSLMODE": "disable"},
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        said = running.communicate("\n", timeout=30)[1]
    assert outside.returncode == 2
    assert "a process outside the command tried to use its port for a database, and was refused" in said


def test_a_refusal_is_told_to_the_client_in_its_own_words(local):
    done = local("run", "--", "psql", "-c", "SELECT 1", "postgres", code=2)
    assert "policy_denied: the service 'shop' opens the database 'shop' only" in done.stderr


def test_clients_of_mysql_find_theirs_too(local):
    mariadb_server.started()
    with mariadb_server.root() as cursor:
        cursor.execute(f"CREATE OR REPLACE USER 'app'@'%' IDENTIFIED BY '{APP_PASSWORD}'")
        cursor.execute("GRANT ALL ON shop.* TO 'app'@'%'")
    local.add("maria", "mysql", mariadb_server.port())
    local("grant", "default", "maria")
    program = (
        "import os, pymysql\n"
        "where = {'host': os.environ['MYSQL_HOST'], 'port': int(os.environ['MYSQL_TCP_PORT'])}\n"
        "c = pymysql.connect(**where, user=os.environ['MYSQL_USER'], database=os.environ['MYSQL_DATABASE']).cursor()\n"
        "c.execute('SELECT CURRENT_USER()'); print(c.fetchone()[0])\n"
    )
    try:
        done = local("run", "--", "mariadb", "-N", "-e", "SELECT CURRENT_USER()", env={"MYSQL_PWD": "of the caller"})
        assert done.stdout == "app@%\n"
        assert local("run", "--", sys.executable, "-c", program).stdout == "app@%\n"
        assert local("run", "--", "psql", "-Atc", "SELECT 1").stdout == "1\n"
    finally:
        local("revoke", "default", "maria")


def test_several_databases_are_told_apart_by_the_names_of_their_services(local):
    local.add("shop-two", "postgres", sql_postgres.started())
    local("grant", "default", "shop-two")
    try:
        done = local("run", "--", "sh", "-c", "env; psql -Atc 'SELECT 1' $SHOP_TWO_DATABASE_URL", code=0)
        env = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
        assert env["SHOP_PGPORT"] != env["SHOP_TWO_PGPORT"]
        assert not {"PGHOST", "PGPORT", "DATABASE_URL"} & env.keys()
        assert done.stdout.splitlines()[-1] == "1"
    finally:
        local("revoke", "default", "shop-two")
