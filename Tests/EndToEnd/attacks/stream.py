"""Sends and reads without pause on one flow until it ends: stream.py KIND HOST PORT. Says "live" when something came back."""

from __future__ import annotations

import os
import select
import socket
import ssl
import sys
import time

BLOCK = b"secret" * 40
PAUSE = 0.001
SILENCE = 20
"""How long nothing may come back, in seconds."""


def proxied(host: str, port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", 64128), 10)
    connection.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
    answer = connection.recv(1000)
    assert b" 200 " in answer, answer
    return connection


def secured(host: str, port: int) -> socket.socket:
    context = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
    return context.wrap_socket(socket.create_connection((host, port), 10), server_hostname=host)


def uploading(host: str, port: int) -> socket.socket:
    connection = socket.create_connection((host, port), 10)
    connection.sendall(f"POST / HTTP/1.1\r\nHost: {host}:{port}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    return connection


def datagrams(host: str, port: int) -> socket.socket:
    connection = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    connection.connect((host, port))
    return connection


def take_turns(connection: socket.socket, block: bytes) -> None:
    """One request at a time: the next waits for the answer to the one before."""
    for number in range(10**9):
        connection.sendall(block)
        hear(connection, is_first=number == 0)
        time.sleep(PAUSE)


def go_on(connection: socket.socket, block: bytes) -> None:
    """Sends whatever comes, and takes what comes. One thread does both: two must not use one TLS connection at once."""
    heard: float | None = None
    began = time.monotonic()
    while True:
        connection.sendall(block)
        until = time.monotonic() + PAUSE
        while select.select([connection], [], [], max(until - time.monotonic(), 0))[0]:
            hear(connection, is_first=heard is None)
            heard = time.monotonic()
        if time.monotonic() - (heard or began) > SILENCE:
            raise TimeoutError("nothing came back")


def hear(connection: socket.socket, *, is_first: bool) -> None:
    if not connection.recv(65536):
        raise ConnectionError("by its other end")
    if is_first:
        print("live", flush=True)


def main(kind: str, host: str, port: int) -> None:
    block = BLOCK
    if kind == "connect":
        connection = proxied(host, port)
    elif kind == "tls":
        connection = secured(host, port)
    elif kind == "http":
        connection, block = uploading(host, port), b"%x\r\n%s\r\n" % (len(BLOCK), BLOCK)
    elif kind == "udp":
        connection = datagrams(host, port)
    else:
        connection = socket.create_connection((host, port), 10)
        if kind == "keep-alive":
            block = f"GET / HTTP/1.1\r\nHost: {host}:{port}\r\nX-Data: {BLOCK.decode()}\r\n\r\n".encode()
    connection.settimeout(SILENCE)
    try:
        if kind == "keep-alive":
            take_turns(connection, block)
        else:
            go_on(connection, block)
    except OSError as error:
        print("ended", error, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
