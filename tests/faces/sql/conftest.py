"""A world with its real servers, one for each module of tests."""

import pytest

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


@pytest.fixture
def shop(world):
    """A session as the application has it: no password of the database, but the token of the agent."""
    with world.connect() as connection:
        yield connection
