"""A link that takes time: bytes pass through a port of this machine, each way half of a delay late."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator

_BLOCK = 1 << 18


@contextlib.contextmanager
def slow_link(port: int, delay: float) -> Iterator[int]:
    """Leads to a port of this machine; gives the port to connect to.

    Args:
        port: Of the server.
        delay: Seconds that a request and its reply take more, together.
    """
    loop = asyncio.new_event_loop()
    ready: asyncio.Future[int] = loop.create_future()

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(256)

        async def arrive() -> None:
            while True:
                due, data = await on_the_way.get()
                await asyncio.sleep(max(0.0, due - loop.time()))
                writer.write(data)
                await writer.drain()
                if not data:
                    writer.close()
                    return

        arriving = loop.create_task(arrive())
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(_BLOCK):
                await on_the_way.put((loop.time() + delay / 2, data))
        await on_the_way.put((loop.time() + delay / 2, b""))
        with contextlib.suppress(ConnectionError):
            await arriving

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(late(reader, back), late(there, writer))

    async def serve() -> None:
        server = await asyncio.start_server(connected, "127.0.0.1", 0, limit=1 << 20)
        ready.set_result(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    def run() -> None:
        with contextlib.suppress(RuntimeError, asyncio.CancelledError):
            loop.run_until_complete(serve())

    threading.Thread(target=run, daemon=True).start()
    while not ready.done():
        pass
    try:
        yield ready.result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
