"""A SOCKS client that says what the attacker likes to the proxy of ALL_PROXY, and prints what comes back.

    socks.py HOST PORT [--as name|address|TYPE] [--command N] [--sni NAME | --http HOST | --text TEXT] [--in-a-hurry]
    socks.py --raw HEX…

HOST and PORT are asked for as a name or an address, with any command and address type; once the proxy has said yes, a TLS
handshake and a request (--sni), a cleartext request (--http) or a line (--text) follow. --in-a-hurry sends greeting and
request together. --raw sends bytes, each word a write of its own, and prints the answers in hexadecimal.
"""

from __future__ import annotations

import argparse
import os
import socket
import ssl
import sys
import time
import urllib.parse

import hello

TIMEOUT = 10.0
TYPES = {socket.AF_INET: 1, socket.AF_INET6: 4}


def connect() -> socket.socket:
    proxy = urllib.parse.urlparse(os.environ["ALL_PROXY"])
    connection = socket.create_connection((proxy.hostname or "", proxy.port or 1080), TIMEOUT)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def receive(connection: socket.socket, count: int) -> bytes:
    """`count` bytes, or what came before the end."""
    received = b""
    while len(received) < count:
        try:
            piece = connection.recv(count - len(received))
        except ConnectionError:
            break
        if not piece:
            break
        received += piece
    return received


def destination(host: str, form: str) -> bytes:
    """The address type and the address."""
    if form == "name":
        return bytes([3, len(host)]) + host.encode("latin-1")
    if form == "address":
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return bytes([TYPES[family]]) + socket.inet_pton(family, host)
    return bytes([int(form)]) + bytes(4)


def send_raw(words: list[str]) -> None:
    connection = connect()
    answer = b""
    for word in words:
        connection.sendall(bytes.fromhex(word))
        time.sleep(0.05)
    connection.settimeout(3)
    try:
        while piece := connection.recv(4096):
            answer += piece
    except TimeoutError:
        print("still open")
    except ConnectionError:
        print("reset")
    print("answer:", answer.hex())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("host", nargs="?")
    parser.add_argument("port", nargs="?", type=int)
    parser.add_argument("--as", dest="form", default="name")
    parser.add_argument("--command", type=int, default=1)
    parser.add_argument("--sni")
    parser.add_argument("--http")
    parser.add_argument("--text")
    parser.add_argument("--in-a-hurry", action="store_true")
    parser.add_argument("--raw", nargs="+")
    arguments = parser.parse_args()
    if arguments.raw:
        return send_raw(arguments.raw)
    connection = connect()
    request = bytes([5, arguments.command, 0]) + destination(arguments.host, arguments.form)
    request += arguments.port.to_bytes(2, "big")
    connection.sendall(b"\5\1\0" + (request if arguments.in_a_hurry else b""))
    if receive(connection, 2) != b"\5\0":
        sys.exit("the greeting was not answered")
    if not arguments.in_a_hurry:
        connection.sendall(request)
    reply = receive(connection, 10)
    print("reply:", reply[1] if len(reply) >= 2 else "none", flush=True)
    if reply[1:2] != b"\0":
        sys.exit(1)
    if arguments.sni:
        tls = hello.handshake(connection, ssl.create_default_context(), arguments.sni, None)
        print(hello.request(connection, tls, arguments.sni).decode("latin-1"))
    elif arguments.http:
        connection.sendall(f"GET / HTTP/1.1\r\nHost: {arguments.http}\r\nConnection: close\r\n\r\n".encode())
        print(receive(connection, 65536).decode("latin-1"))
    elif arguments.text:
        connection.sendall(arguments.text.encode())
        print(receive(connection, len(arguments.text)).decode("latin-1"))


if __name__ == "__main__":
    main()
