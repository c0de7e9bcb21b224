"""A WebSocket and gRPC server: everyday_server.py CERTIFICATE KEY ADDRESS… Prints "serving" when all listen.

WebSockets echo on port 80 and, with TLS, on 443. gRPC has /lab.Greeter/Greet (one answer) and /lab.Greeter/Count (a
stream of as many answers as the request says) on port 50051 with TLS and on 50052 without.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from websockets.server import serve


async def echo(connection: Any) -> None:
    async for message in connection:
        await connection.send(message)


def greet(request: bytes, _context: Any) -> bytes:
    return b"hello " + request


def count(request: bytes, _context: Any) -> Iterator[bytes]:
    return (str(number).encode() for number in range(int(request)))


def serve_grpc(certificate: Path, key: Path, addresses: list[str]) -> Any:
    handlers = {
        "Greet": grpc.unary_unary_rpc_method_handler(greet),
        "Count": grpc.unary_stream_rpc_method_handler(count),
    }
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("lab.Greeter", handlers),))
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
    for address in addresses:
        host = f"[{address}]" if ":" in address else address
        server.add_secure_port(f"{host}:50051", credentials)
        server.add_insecure_port(f"{host}:50052")
    server.start()
    return server


async def main(certificate: str, key: str, *addresses: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    for address in addresses:
        await serve(echo, address, 80)
        await serve(echo, address, 443, ssl=context)
    _server = serve_grpc(Path(certificate), Path(key), list(addresses))
    print("serving", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
