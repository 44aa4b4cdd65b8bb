"""What the tests of identities share: logins by AppRole over the API, and what they make."""

import contextlib
from dataclasses import dataclass

from keyhole.core.errors import InvalidRequest


@dataclass
class Machine:
    """A role that can log in."""

    role_id: str
    secret_id: str

    @property
    def proof(self):
        return {"role_id": self.role_id, "secret_id": self.secret_id}


async def accessor_of(vault, path="auth/approle/", *, token=None):
    """The accessor of a login method of an org, which is enabled when it is not."""
    kind = path.strip("/").rpartition("/")[2]
    with contextlib.suppress(InvalidRequest):
        await vault.ask("update", f"sys/auth/{kind}", {"type": kind}, token=token)
    return (await vault.ask("read", "sys/auth", token=token)).data[f"{kind}/"]["accessor"]


async def machine(ask, name="app", *, token="root", **fields):
    """A role of the method AppRole, which is enabled when it is not."""
    await ask("POST", "sys/auth/approle", {"type": "approle"}, token=token)
    made = await ask("POST", f"auth/approle/role/{name}", {"token_policies": "app", **fields}, token=token)
    assert made.status == 204, made.body
    role = (await ask("GET", f"auth/approle/role/{name}/role-id", token=token)).json["data"]["role_id"]
    secret = (await ask("POST", f"auth/approle/role/{name}/secret-id", token=token)).json["data"]["secret_id"]
    return Machine(role, secret)


async def login(ask, who, **options):
    """The ``auth`` block of a login."""
    answer = await ask("POST", "auth/approle/login", who.proof, token=None, **options)
    assert answer.status == 200, answer.body
    return answer.json["auth"]


async def make(ask, path, /, **fields):
    """The ``data`` of what was written."""
    answer = await ask("POST", f"identity/{path}", fields)
    assert answer.status in (200, 204), answer.body
    return answer.json.get("data")


async def read(ask, path, **options):
    """The ``data`` of what is read."""
    answer = await ask("GET", f"identity/{path}", **options)
    assert answer.status == 200, answer.body
    return answer.json["data"]
