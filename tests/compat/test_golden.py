"""Every request of the recorded session of a real Vault (1.8): the answers are the same, or differ on purpose."""

import asyncio
import sys
from pathlib import Path

from compat.replay import Replay, differences, exchanges
from faces.api_client import Client
from keyhole.app import assemble
from keyhole.config import Config

ROOT = "hvs." + "r" * 24
COUNT = 389

# Requests of somebody else than root: number of the exchange -> number of the one that made the token.
OTHERS = {
    **dict.fromkeys((115, 121, 125, 129, 130, 131, 132, 133, 134, 135, 146), 114),
    **dict.fromkeys((137, 138, 139), 136),
    **dict.fromkeys((157, 158), 142),
    247: 246,
    253: 251,
}

DENIED = ["permission denied"]
DIFFERENT: dict[int, dict] = {}


def differs(*numbers, why, **how):
    """Say that these exchanges differ, how (``status``, ``errors``, or fields to ``skip``), and why."""
    assert why
    for number in numbers:
        known = DIFFERENT.setdefault(number, {})
        known.update({**how, "skip": known.get("skip", set()) | set(how.get("skip", ()))})


differs(30, status=403, errors=DENIED, why="1.10 and later say no more to who has no token")
differs(65, why="1.10 and later show one mount", status=200)
differs(107, why="1.10 and later have it", status=200)
differs(87, why="1.9 and later patch; without its own content type it is refused, and so is this", status=415)
differs(201, why="an update says nothing, as of every other login method", status=204)
differs(217, 240, why="1.11 and later answer what was written", status=200)
differs(271, why="1.12 and later answer 400 where some of a batch fail, with the results", status=400)
differs(361, why="1.10 and later move in the background and name the move", status=200)
differs(260, status=400, errors=["missing data fields"], why="it is the caller's mistake")
differs(185, 186, status=400, errors=["invalid role or secret id"], why="newer ones do not say which was wrong")
differs(383, status=503, errors=["Vault is sealed"], why="as newer ones say it")
differs(
    47,
    status=400,
    errors=['failed to parse policy: path "x": invalid capability "zap" on line 1'],
    why="the line helps whoever wrote it",
)
differs(118, status=400, errors=["invalid accessor"], why="the text without the punctuation of a list of one")
differs(
    254,
    status=400,
    errors=["error parsing X-Vault-Wrap-TTL header: X-Vault-Wrap-TTL is not a duration"],
    why="no answer repeats what was sent, and none speaks Go",
)
differs(199, 200, 237, 311, skip={"errors"}, why="the same refusal in words of our own")
differs(205, 206, 207, skip={"errors"}, why="whether a method is configured shows in no answer to a stranger")
differs(144, 231, skip={"warnings"}, why="the same warning, which is true of us")
differs(11, 12, skip={"data.policy", "data.rules", "rules"}, why="a default policy of our own")
differs(1, 29, 381, 386, skip={"storage_type"}, why="stores have names of their own")
differs(24, 376, skip={"otp_length"}, why="tokens are longer since 1.10, and so is the pad that hides one")
differs(6, 7, 15, 63, 333, skip={"*.description"}, why="words of our own for mounts that are always there")
differs(6, 15, 63, skip={"*.passthrough_request_headers"}, why="no header is passed to a mount that did not ask")
differs(18, skip={"data.auth", "data.database", "data.secret"}, why="what can be mounted is what we have")
differs(222, 236, skip={"data.keys"}, why="the names of leases and certificates that were made here")
differs(223, skip={"data.keys"}, why="a token is no lease: it ends with its own time")
differs(332, skip={"*.name"}, why="names that are made differ")
differs(175, skip={"data.secret_id_bound_cidrs"}, why="an empty list rather than null")
differs(202, skip={"data.allowed_redirect_uris", "data.oidc_scopes"}, why="an empty list rather than null")
differs(234, skip={"type"}, why="1.10 and later name PEM as what it is")
differs(292, skip={"data.keys"}, why="a key of our own")
differs(309, skip={"data.algorithm_signer", "data.key_bits"}, why="1.10 and later say default, and bound no bits")
differs(
    20,
    skip={"*.description", "*.summary", "*.title", "*.tags", "*.format", "*.default"},
    why="a description of our own; what it describes is compared",
)
differs(20, skip={"*.external_entropy_access", "*.plugin_name"}, why="there are no plugins and no other entropy")
INCREMENT = "paths./sys/leases/renew.post.requestBody.content.application/json.schema.properties.increment.type"
differs(20, skip={INCREMENT}, why="a number or a text such as 1h")
differs(20, skip={"*.url_lease_id"}, why="a field of the path is no field of the body")
differs(20, skip={"paths./auth/token/lookup.get"}, why="a token in a path or query ends up in logs")

differs(4, why="1.10 and later have it", status=200)
differs(5, skip={"*.encryptions"}, why="it counts what this session sealed")
differs(13, skip={f"data.{part}" for part in ("cpu", "cpu_times", "disk", "host", "memory")}, why="another machine")
differs(14, why="metrics are on", status=200)
SETTINGS = ("api_addr", "disable_clustering", "disable_performance_standby", "listeners", "log_format", "log_level")
differs(21, skip={f"data.{name}" for name in (*SETTINGS, "seals", "storage")}, why="settings of another server")
differs(209, why="1.9 and later trust the system's CAs where none is given", status=204)
differs(210, why="and so there is a configuration", status=200)
differs(213, why="and the login comes as far as its token", status=400)
differs(333, skip={"*.options"}, why="no options are none")

# What is not served yet, by topic. Empty in the end.
NOT_YET: dict[str, set[int]] = {"database": set(range(314, 330))}


async def replayed(folder):
    """Each exchange with what a client would notice."""
    keyhole = await assemble(Config(vault="memory:"), create=True)
    node = keyhole.node
    await node.init("shares:5:3", hand_out=lambda _shares: None, token=ROOT)
    replay = Replay(Client(node), ROOT, folder, OTHERS)
    found = []
    try:
        for exchange in exchanges():
            answer = await replay.send(exchange)
            found.append((exchange, differences(exchange, answer, replay.translate, **DIFFERENT.get(exchange.n, {}))))
    finally:
        await keyhole.close()
    return found


def test_recorded_requests_get_the_answers_of_a_real_vault(tmp_path):
    found = asyncio.run(replayed(tmp_path))
    assert len(found) == COUNT
    late = {number for numbers in NOT_YET.values() for number in numbers}
    wrong = [f"{exchange.where}: {'; '.join(each)}" for exchange, each in found if each and exchange.n not in late]
    assert not wrong, "\n".join(wrong)


def test_what_differs_on_purpose_does_differ(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "DIFFERENT", {})
    same = {exchange.n for exchange, each in asyncio.run(replayed(tmp_path)) if not each}
    late = {number for numbers in NOT_YET.values() for number in numbers}
    assert not (same & set(DIFFERS)) - late, "these answer as a real Vault does: take them out of the table"


DIFFERS = tuple(DIFFERENT)

if __name__ == "__main__":
    for asked, noticed in asyncio.run(replayed(Path(sys.argv[1]))):
        if noticed:
            print(asked.where, *noticed, sep="\n    ")
