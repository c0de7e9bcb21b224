"""Servers of the lab that are no web or name server: those that speak first, and sinks that record what reaches them.

Runs as a program of its own inside a namespace: services.py LOG SERVICE… where a service is tcp-sink, udp-sink, smtp or
mysql, a comma, an address, a comma and a port. Prints "serving" when all of them listen, and writes a JSON line to LOG
for every connection and every piece of data. A datagram that begins with "marker-" is noted behind all that arrived
before it, at whichever of the services.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
import sys
import time
from typing import TextIO

SMTP_BANNER = b"220 mail.example ESMTP ready\r\n"
MARKER = b"marker-"
QUIET_TURNS = 20
MYSQL_GREETING = b"\x4a\x00\x00\x00\x0a8.0.36-lab\x00" + bytes(65)

# <asm-generic/socket.h>
SO_RCVBUFFORCE = 33
RECEIVE_BUFFER = 16 << 20


class Journal:
    """The log: one JSON object a line, written at once."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.noted = 0
        """How many events, so that it can be seen whether more come."""

    def note(self, event: str, service: str, local: tuple[str, int], peer: tuple[str, int], data: bytes = b"") -> None:
        record = {"event": event, "service": service, "address": local[0], "port": local[1]}
        record |= {"peer": peer[0], "peer_port": peer[1], "data": data.decode("latin-1")}
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        self.noted += 1


class DatagramSink(asyncio.DatagramProtocol):
    """Notes every datagram and sends it back; markers wait for what came before them."""

    def __init__(self, journal: Journal, local: tuple[str, int]) -> None:
        self._journal, self._local = journal, local
        self._marking: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        if data.startswith(MARKER):
            marking = asyncio.ensure_future(self._mark(data, address))
            self._marking.add(marking)
            return marking.add_done_callback(self._marking.discard)
        self._journal.note("data", "udp-sink", self._local, address, data)
        self._transport.sendto(data, address)

    async def _mark(self, data: bytes, address: tuple[str, int]) -> None:
        """Notes a marker when nothing else has come for some turns of the loop: one datagram of each socket is read in
        a turn, and a connection takes several turns to its first byte. For who sends without a pause it waits a second.
        """
        deadline, quiet = time.monotonic() + 1, 0
        while quiet < QUIET_TURNS and time.monotonic() < deadline:
            before = self._journal.noted
            await asyncio.sleep(0)
            quiet = quiet + 1 if self._journal.noted == before else 0
        self._journal.note("data", "udp-sink", self._local, address, data)


async def serve_connection(
    journal: Journal, service: str, local: tuple[str, int], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """One TCP connection: a sink echoes, the others greet first and then answer each piece with one of their own."""
    peer = writer.get_extra_info("peername")
    journal.note("open", service, local, peer)
    greeting = {"smtp": SMTP_BANNER, "mysql": MYSQL_GREETING}.get(service)
    try:
        if greeting:
            writer.write(greeting)
            await writer.drain()
        while data := await reader.read(65536):
            journal.note("data", service, local, peer, data)
            writer.write(data if greeting is None else b"250 OK\r\n" if service == "smtp" else b"\x01\x00\x00\x02\x00")
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        journal.note("close", service, local, peer)
        writer.close()


async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """One direction of a proxy's tunnel."""
    try:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    except ConnectionError:
        pass
    sink.close()


async def serve_socks(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
    """A SOCKS5 proxy without a policy (RFC 1928): every command is answered as if it were CONNECT."""
    try:
        _, methods = await client.readexactly(2)
        await client.readexactly(methods)
        to_client.write(b"\5\0")
        _, _, _, kind = await client.readexactly(4)
        if kind == 3:
            host = (await client.readexactly((await client.readexactly(1))[0])).decode("latin-1")
        else:
            host = str(ipaddress.ip_address(await client.readexactly(4 if kind == 1 else 16)))
        port = int.from_bytes(await client.readexactly(2), "big")
    except (asyncio.IncompleteReadError, ConnectionError):
        return to_client.close()
    try:
        server, to_server = await asyncio.open_connection(host, port)
    except OSError:
        to_client.write(b"\5\4\0\1" + bytes(6))
        return to_client.close()
    to_client.write(b"\5\0\0\1" + bytes(6))
    await asyncio.gather(copy(client, to_server), copy(server, to_client))


async def serve_proxy(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
    """A CONNECT proxy without a policy: what an attack on a proxy is first tried at."""
    try:
        head = await client.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return to_client.close()
    host, _, port = head.split()[1].decode().rpartition(":")
    try:
        server, to_server = await asyncio.open_connection(host.strip("[]"), int(port))
    except OSError:
        to_client.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
        return to_client.close()
    to_client.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
    await asyncio.gather(copy(client, to_server), copy(server, to_client))


async def start(journal: Journal, service: str, address: str, port: int) -> None:
    """Makes one service listen."""
    local = (address, port)
    if service == "udp-sink":
        sink = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        # A thousand datagrams at once are more than the kernel keeps otherwise: each counts with its buffer.
        sink.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
        sink.setblocking(False)
        sink.bind(local)
        await asyncio.get_running_loop().create_datagram_endpoint(lambda: DatagramSink(journal, local), sock=sink)
    elif service == "proxy":
        await asyncio.start_server(serve_proxy, address, port)
    elif service == "socks":
        await asyncio.start_server(serve_socks, address, port)
    else:
        await asyncio.start_server(lambda r, w: serve_connection(journal, service, local, r, w), address, port)


async def main(log: str, services: list[str]) -> None:
    with open(log, "a", encoding="utf-8") as file:
        journal = Journal(file)
        for service in services:
            kind, address, port = service.split(",")
            await start(journal, kind, address, int(port))
        print("serving", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
