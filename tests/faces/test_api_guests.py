"""Clients of the API that only hold connections open."""

import asyncio

from keyhole.faces.api.server import ApiServer
from keyhole.net.http1.limits import ListenerLimits

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


async def application(_scope, _receive, send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


async def asked(address: tuple[str, int], data: bytes = GET) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(data)
    if data == GET:
        assert (await asyncio.wait_for(reader.readuntil(b"ok"), 30)).startswith(b"HTTP/1.1 200")
    return reader, writer


async def gone(client: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> bool:
    """Whether the server has let a client go."""
    try:
        return not await asyncio.wait_for(client[0].read(), 30)
    except ConnectionError:
        return True


def test_clients_that_say_nothing_or_nothing_more_keep_nobody_out_of_the_api():
    async def main() -> None:
        noted: list[str] = []
        server = ApiServer(application, ListenerLimits(connections=8, strangers=2), noted=noted.append)
        address = await server.listen("127.0.0.1", 0)
        clients: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        try:
            clients += [await asked(address) for _ in range(5)]  # all of one address, which may be a proxy's
            assert noted == []
            clients += [await asked(address, b"GET / HT") for _ in range(4)]
            assert await gone(clients[5])  # there is no room, so it has no moment to go on
            clients += [await asked(address) for _ in range(6)]
            assert await gone(clients[6])
            assert len(server.guests.all) == 8
            assert await gone(clients[0])
        finally:
            for _, writer in clients:
                writer.transport.abort()
            await server.close(0.1)
            await asyncio.sleep(0)
        assert set(noted) == {"strangers", "connections"}

    asyncio.run(main())
