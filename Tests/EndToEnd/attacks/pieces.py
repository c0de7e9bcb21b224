"""Sends bytes over one TCP connection, as they are, and prints everything that comes back.

    pieces.py ADDRESS PORT [--together] PIECE…

A piece is text with Python's escapes ("GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n"). Each waits for the answer to the one
before, unless --together sends all at once. The connection's end is not an error: it is one of the answers.
"""

from __future__ import annotations

import argparse
import socket

TIMEOUT = 1.5


def read_response(connection: socket.socket) -> bytes:
    """One HTTP response with a Content-Length, or whatever comes before a pause or the end."""
    data = b""
    try:
        while True:
            head, separator, body = data.partition(b"\r\n\r\n")
            if separator:
                lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                if lengths and len(body) >= int(lengths[0].split(b":")[1]):
                    return data
            piece = connection.recv(65536)
            if not piece:
                return data + b"\n[closed]\n"
            data += piece
    except TimeoutError:
        return data + b"\n[silent]\n"
    except ConnectionResetError:
        return data + b"\n[reset]\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("--together", action="store_true")
    parser.add_argument("pieces", nargs="+")
    arguments = parser.parse_args()
    pieces = [piece.encode().decode("unicode_escape").encode("latin-1") for piece in arguments.pieces]
    with socket.create_connection((arguments.address, arguments.port), TIMEOUT) as connection:
        if arguments.together:
            connection.sendall(b"".join(pieces))
        for piece in pieces:
            try:
                if not arguments.together:
                    connection.sendall(piece)
            except (BrokenPipeError, ConnectionResetError):
                print("[reset]")
                break
            answer = read_response(connection)
            print(answer.decode("latin-1"))
            if answer.endswith((b"[closed]\n", b"[reset]\n")):
                break


if __name__ == "__main__":
    main()
