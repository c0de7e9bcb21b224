"""A server that sends without pause on every connection and to every peer, and reads what comes.

Runs as a program of its own inside a namespace: streams.py ADDRESS CERTIFICATE KEY. Prints "serving" when it listens.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import sys
import threading
import time

TLS_PORT, CONNECT_PORT, PLAIN_PORT, HTTP_PORT, KEEP_ALIVE_PORT, UDP_PORT = 9441, 9442, 9443, 9444, 9445, 9446
"""One for each kind of flow, so that a capture tells them apart."""
BLOCK = b"down" * 64
PAUSE = 0.001


def go_on(connection: socket.socket, block: bytes) -> None:
    """Sends whatever comes, and reads it. One thread does both: two must not use one TLS connection at once."""
    with contextlib.suppress(OSError):
        while True:
            connection.sendall(block)
            until = time.monotonic() + PAUSE
            while select.select([connection], [], [], max(until - time.monotonic(), 0))[0]:
                if not connection.recv(65536):
                    return


def both_ways(connection: socket.socket) -> None:
    """What the client says first decides what the proxy takes it for."""
    connection.recv(65536)
    go_on(connection, BLOCK)


def read_head(connection: socket.socket) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head and (piece := connection.recv(65536)):
        head += piece
    return head


def http(connection: socket.socket) -> None:
    """Answers a request that has not ended with an answer that does not end."""
    read_head(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    go_on(connection, b"%x\r\n%s\r\n" % (len(BLOCK), BLOCK))


def keep_alive(connection: socket.socket) -> None:
    """Answers one request after the other."""
    with contextlib.suppress(OSError):
        while read_head(connection):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


def datagrams(address: str) -> None:
    """Answers with ten datagrams to each."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((address, UDP_PORT))
        while True:
            _, peer = server.recvfrom(65536)
            for _ in range(10):
                server.sendto(BLOCK, peer)


def main(address: str, certificate: str, key: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    def tls(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            both_ways(context.wrap_socket(connection, server_side=True))

    def serve(port: int, treat: object) -> None:
        listener = socket.create_server((address, port), backlog=64)

        def accept() -> None:
            while True:
                threading.Thread(target=treat, args=(listener.accept()[0],), daemon=True).start()  # type: ignore[arg-type]

        threading.Thread(target=accept, daemon=True).start()

    for port in (CONNECT_PORT, PLAIN_PORT):
        serve(port, both_ways)
    serve(TLS_PORT, tls)
    serve(HTTP_PORT, http)
    serve(KEEP_ALIVE_PORT, keep_alive)
    threading.Thread(target=datagrams, args=(address,), daemon=True).start()
    print("serving", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
