"""A vault with a seal that needs nobody, made over Vault's wire format on a server that is set to that seal."""

import asyncio

from faces.api_client import Client
from keyhole.stores import open_store
from keyhole.vault.node import Node
from seals import hsm


def made(*bodies):
    """The answers of a new server to ``sys/init``, and what its status says afterwards."""

    async def main():
        node = Node(await open_store("memory:", create=True))
        node.configured = f"pkcs11:{hsm.spec_of('right', hsm.tokens(), 'init')}"
        ask = Client(node)
        try:
            answers = [await ask("PUT", "sys/init", body, token=None) for body in bodies]
            return *answers, (await ask("GET", "sys/seal-status", token=None)).json
        finally:
            await node.close()

    return asyncio.run(main())


def test_init_answers_with_recovery_keys_and_no_unseal_keys():
    answer, status = made({"recovery_shares": 3, "recovery_threshold": 2})
    assert answer.status == 200, answer.body
    assert answer.json["keys"] == answer.json["keys_base64"] == []
    assert len(answer.json["recovery_keys"]) == len(answer.json["recovery_keys_base64"]) == 3
    assert (status["type"], status["recovery_seal"], status["n"], status["t"]) == ("pkcs11", True, 3, 2)
    assert status["sealed"] is False


def test_five_recovery_shares_are_made_unless_said_otherwise_and_none_if_asked():
    assert len(made({})[0].json["recovery_keys"]) == 5
    answer, status = made({"recovery_shares": 0, "recovery_threshold": 0})
    assert "recovery_keys" not in answer.json
    assert status["recovery_seal"] is False


def test_unseal_shares_make_no_sense_there():
    refused, odd, status = made(
        {"secret_shares": 5, "secret_threshold": 3}, {"recovery_shares": 2, "recovery_threshold": 3}
    )
    assert refused.status == odd.status == 400
    assert refused.json["errors"] == ["parameters secret_shares,secret_threshold not applicable to seal type pkcs11"]
    assert status["initialized"] is False
