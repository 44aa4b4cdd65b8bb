"""A world with its real servers, one for each module of tests."""

import pytest

import mariadb_server
import sql_postgres
from sql_world import World


@pytest.fixture(scope="module")
def world():
    port = sql_postgres.started()
    with World(sql_postgres.ca_pem(), [sql_postgres.HOST, "other.test"]) as world:
        world.secret("db/app", username=sql_postgres.APP, password=sql_postgres.APP_PASSWORD)
        world.service("shop", "postgres", sql_postgres.HOST, port, "db/app")
        world.token = world.agent("coder", "shop")
        yield world


@pytest.fixture(scope="module")
def maria():
    """The same with MariaDB."""
    mariadb_server.started()
    with mariadb_server.root() as cursor:
        cursor.execute(f"CREATE OR REPLACE USER 'app'@'%' IDENTIFIED BY '{sql_postgres.APP_PASSWORD}'")
        cursor.execute("GRANT ALL ON shop.* TO 'app'@'%'")
    with World(mariadb_server.authority().cert_pem.bytes(), [sql_postgres.HOST, "other.test"]) as world:
        world.secret("db/app", username=sql_postgres.APP, password=sql_postgres.APP_PASSWORD)
        world.service("maria", "mysql", sql_postgres.HOST, mariadb_server.port(), "db/app", database="shop")
        world.token = world.agent("coder", "maria")
        yield world


@pytest.fixture
def shop(world):
    """A session as the application has it: no password of the database, but the token of the agent."""
    with world.connect() as connection:
        yield connection
