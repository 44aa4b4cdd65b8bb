"""Clients of SOCKS 5 at the proxy's port: the same tunnels by the same rules."""

import asyncio
import ssl
import subprocess

import pytest
from tests.broker.stack import HOST, SECRET, Stack, server_context, until

CONNECT = b"\x05\x01\x00"


async def furnished(stack):
    await stack.secret("stripe/key")
    await stack.service("ours")
    return await stack.agent("coder", "ours")


async def curl(stack, tmp_path, user, url):
    ca = tmp_path / "ca.pem"
    ca.write_text((await stack.ask("read", "sys/keyhole"))["ca"])
    proxy = f"socks5h://{user}@{stack.address[0]}:{stack.address[1]}"
    process = await asyncio.create_subprocess_exec(
        "curl", "-sS", "--proxy", proxy, "--cacert", str(ca), "-w", "%{http_code}", "-o", "/dev/null", url,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


def test_curl_goes_through_with_its_token_as_user_or_password_and_without_one_nowhere(run, tmp_path):
    async def scene():
        async with Stack() as stack:
            token = await furnished(stack)
            url = f"https://{HOST}:{stack.secure}/v1/x"
            done = [await curl(stack, tmp_path, user, url) for user in (f"agent:{token}", f"{token}:x")]
            seen = [SECRET.encode() in request.head for request in stack.upstream.requests]
            stack.upstream.forget()
            wrong = await curl(stack, tmp_path, "agent:kh.nothing", url)
            elsewhere = await curl(stack, tmp_path, f"agent:{token}", f"https://evil.test:{stack.secure}/")
            refused = [r["result"] for r in await stack.records() if r["phase"] == "refused"]
            return done, seen, (wrong[0], elsewhere[0]), stack.upstream.requests, refused

    done, seen, codes, requests, refused = run(scene())
    assert [(code, out) for code, out, _ in done] == [(0, "200"), (0, "200")], done
    assert seen == [True, True]
    assert codes == (97, 97), "curl's code for a proxy that says no"
    assert requests == []
    assert refused == ["unauthenticated", "no_service"]


def greeting(token):
    return b"\x05\x01\x02", b"\x01\x05agent" + bytes([len(token)]) + token


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ([b"\x05\x01\x00"], b"\x05\xff"),
        ([b"\x05\x00"], b"\x05\xff"),
        (["login", CONNECT + b"\x02xx"], b"\x05\x08"),
        (["login", b"\x05\x02\x00\x01\x7f\0\0\x01\0\x50"], b"\x05\x07"),
        (["login", b"\x05\x03\x00\x01\x7f\0\0\x01\0\x50"], b"\x05\x07"),
        (["login", b"\x04\x01\x00\x01\x7f\0\0\x01\0\x50"], b"\x05\x07"),
        (["login", CONNECT + b"\x03\x03a b\0\x50"], b"\x05\x08"),
        (["login", CONNECT + b"\x03\x00\0\x50"], b"\x05\x08"),
        (["login", CONNECT + b"\x03\x02\xff\xfe\0\x50"], b"\x05\x08"),
        (["login", CONNECT + b"\x03\x10api.allowed.test\0\0"], b"\x05\x08"),
        (["login", CONNECT + b"\x01\x7f\0\0\x01\0\x50"], b"\x05\x02"),
        (["login", CONNECT + b"\x04" + bytes(15) + b"\x01\0\x50"], b"\x05\x02"),
    ],
)
def test_what_is_no_request_for_an_allowed_tunnel_is_told_so_and_recorded(run, said, answer):
    async def scene():
        async with Stack() as stack:
            token = await furnished(stack)
            noted = []
            stack.keyhole.broker.note_refusal = lambda _error, _remote: noted.append("refused")
            reader, writer = await stack.open()
            for each in said:
                if each == "login":
                    first, second = greeting(token.encode())
                    writer.write(first)
                    assert await reader.readexactly(2) == b"\x05\x02"
                    writer.write(second)
                    assert await reader.readexactly(2) == b"\x01\x00"
                else:
                    writer.write(each)
            found = await reader.readexactly(2)
            writer.close()
            await until(lambda: stack.proxy.connections == 0)
            refused = [r["phase"] for r in await stack.records() if r["phase"] == "refused"]
            return found, refused + noted

    assert run(scene()) == (answer, ["refused"])


def test_a_greeting_byte_by_byte_is_one_and_what_follows_is_a_tunnel(run):
    async def scene():
        async with Stack() as stack:
            token = await furnished(stack)
            reader, writer = await stack.open()
            first, second = greeting(token.encode())
            request = CONNECT + b"\x03" + bytes([len(HOST)]) + HOST.encode() + stack.secure.to_bytes(2, "big")
            for part, size in ((first, 2), (second, 2), (request, 10)):
                for at in range(len(part)):
                    writer.write(part[at : at + 1])
                    await writer.drain()
                answer = await reader.readexactly(size)
            await writer.start_tls(stack.client, server_hostname=HOST)
            reply = await stack.send((reader, writer), "/v1/x", host=f"{HOST}:{stack.secure}")
            return answer[:2], reply.status

    assert run(scene()) == (b"\x05\x00", 200)


def test_a_port_with_tls_speaks_it_inside_of_tls(run):
    async def scene():
        async with Stack() as stack:
            token = (await furnished(stack)).encode()
            address = await stack.proxy.listen(tls=server_context())
            trusted = ssl.create_default_context(cafile=stack.config.upstream_ca)
            reader, writer = await asyncio.open_connection(*address, ssl=trusted, server_hostname=HOST)
            writer.write(b"\x05\x01\x02\x01\x05agent" + bytes([len(token)]) + token)
            host = HOST.encode()
            writer.write(CONNECT + b"\x03" + bytes([len(host)]) + host + stack.secure.to_bytes(2, "big"))
            said = await reader.readexactly(2 + 2 + 10)
            writer.close()
            return said

    assert run(scene())[:6] == b"\x05\x02\x01\x00\x05\x00"
