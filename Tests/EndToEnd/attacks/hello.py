"""A TLS client whose ClientHello goes out as the attacker likes; then one HTTP request, and the answer on stdout.

    hello.py ADDRESS PORT [--sni NAME] [--host NAME] [--split bytes|records] [--pad N] [--hold SECONDS]

--split bytes sends the hello byte by byte, records cuts it into TLS records of 16 bytes; --pad adds ALPN entries until
the hello has more than N bytes; --hold waits so long between the handshake and the request. With HTTPS_PROXY set and
--connect AUTHORITY, it goes through the proxy with CONNECT first.
"""

from __future__ import annotations

import argparse
import os
import socket
import ssl
import sys
import time
import urllib.parse

TIMEOUT = 10.0

Session = tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]
"""A TLS session, and the bytes on their way in and out of it."""


def split(hello: bytes, how: str | None) -> list[bytes]:
    """The pieces that are sent one by one."""
    if how == "bytes":
        return [hello[index : index + 1] for index in range(len(hello))]
    if how == "records":
        kind_and_version, body = hello[:3], hello[5:]
        cut = [body[index : index + 16] for index in range(0, len(body), 16)]
        return [kind_and_version + len(piece).to_bytes(2, "big") + piece for piece in cut]
    return [hello]


def connect_through_proxy(authority: str) -> socket.socket:
    """A tunnel to `authority`; a refusal of the proxy is printed and ends the program."""
    proxy = urllib.parse.urlparse(os.environ["HTTPS_PROXY"])
    connection = socket.create_connection((proxy.hostname or "", proxy.port or 3128), TIMEOUT)
    connection.sendall(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head:
        piece = connection.recv(4096)
        if not piece:
            break
        head += piece
    print("proxy:", head.decode("latin-1").splitlines()[0] if head else "closed", flush=True)
    if b" 200 " not in head.split(b"\r\n")[0]:
        print(head.decode("latin-1"))
        sys.exit(1)
    return connection


def handshake(connection: socket.socket, context: ssl.SSLContext, sni: str | None, how: str | None) -> Session:
    """Does the TLS handshake by hand, so that the hello's bytes are ours to split."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = context.wrap_bio(incoming, outgoing, server_hostname=sni)
    pieces_of_hello = True
    while True:
        try:
            session.do_handshake()
            done = True
        except ssl.SSLWantReadError:
            done = False
        output = outgoing.read()
        for piece in split(output, how) if pieces_of_hello else [output]:
            connection.sendall(piece)
        if pieces_of_hello:
            print("hello:", len(output), flush=True)
        pieces_of_hello = False
        if done:
            return session, incoming, outgoing
        received = connection.recv(65536)
        if not received:
            raise ConnectionError("closed during the handshake")
        incoming.write(received)


def request(connection: socket.socket, tls: Session, host: str) -> bytes:
    """One HTTP request and everything that comes back."""
    session, incoming, outgoing = tls
    session.write(f"GET /hello HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    connection.sendall(outgoing.read())
    answer = b""
    while True:
        try:
            piece = session.read(65536)
            if not piece:
                return answer
            answer += piece
        except ssl.SSLWantReadError:
            received = connection.recv(65536)
            if not received:
                return answer
            incoming.write(received)
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return answer


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("--sni")
    parser.add_argument("--host")
    parser.add_argument("--split", choices=["bytes", "records"])
    parser.add_argument("--pad", type=int, default=0)
    parser.add_argument("--hold", type=float, default=0)
    parser.add_argument("--connect")
    arguments = parser.parse_args()
    context = ssl.create_default_context()
    if arguments.sni is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if arguments.pad:
        entries = [f"padding-{index:03}-{'x' * 40}" for index in range(arguments.pad // 53 + 1)]
        context.set_alpn_protocols(["http/1.1", *entries])
    if arguments.connect:
        connection = connect_through_proxy(arguments.connect)
    else:
        connection = socket.create_connection((arguments.address, arguments.port), TIMEOUT)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    tls = handshake(connection, context, arguments.sni, arguments.split)
    time.sleep(arguments.hold)
    print(request(connection, tls, arguments.host or arguments.sni or "none").decode("latin-1"))


if __name__ == "__main__":
    main()
