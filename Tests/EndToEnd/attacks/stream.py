"""Sends and reads without pause on one flow until it ends: stream.py KIND HOST PORT. Says "live" when something came back."""

from __future__ import annotations

import os
import socket
import ssl
import sys
import threading
import time

BLOCK = b"secret" * 40
PAUSE = 0.001


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
    connection.settimeout(20)

    def report(error: object) -> None:
        print("ended", error, flush=True)
        os._exit(0)

    def read() -> None:
        try:
            first = connection.recv(65536)
            print("live", flush=True)
            while first and connection.recv(65536):
                pass
            report("by its other end")
        except OSError as error:
            report(error)

    if kind == "keep-alive":
        # One request at a time: the next waits for the answer to the one before.
        try:
            for number in range(10**9):
                connection.sendall(block)
                assert connection.recv(65536), "by its other end"
                if number == 0:
                    print("live", flush=True)
                time.sleep(PAUSE)
        except (OSError, AssertionError) as error:
            report(error)
    threading.Thread(target=read, daemon=True).start()
    try:
        while True:
            connection.sendall(block)
            time.sleep(PAUSE)
    except OSError as error:
        report(error)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
