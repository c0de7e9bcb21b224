"""Sends one DNS message to a server of the attacker's choice and prints the answer: a line for the rcode, one a record.

    query.py SERVER NAME TYPE… [--tcp] [--port N] [--keep-case]        an ordinary query for each type
    query.py SERVER --hex MESSAGE [--tcp]                             any bytes
"""

from __future__ import annotations

import argparse
import socket

import dns.flags
import dns.message
import dns.rcode

TIMEOUT = 1.5


def exchange(message: bytes, server: str, port: int, tcp: bool) -> bytes:
    """Sends `message` and returns what came back."""
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
    with socket.socket(family, kind) as connection:
        connection.settimeout(TIMEOUT)
        connection.connect((server, port))
        connection.sendall(len(message).to_bytes(2, "big") + message if tcp else message)
        if not tcp:
            return connection.recv(65535)
        reader = connection.makefile("rb")
        length = reader.read(2)
        if len(length) < 2:
            raise ConnectionError("closed without an answer")
        return reader.read(int.from_bytes(length, "big"))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("server")
    parser.add_argument("name", nargs="?")
    parser.add_argument("types", nargs="*")
    parser.add_argument("--tcp", action="store_true")
    parser.add_argument("--port", type=int, default=53)
    parser.add_argument("--hex")
    arguments = parser.parse_args()
    if arguments.hex:
        messages = [bytes.fromhex(arguments.hex)]
    else:
        messages = [
            dns.message.make_query(arguments.name, kind, use_edns=0).to_wire() for kind in arguments.types or ["A"]
        ]
    for message in messages:
        wire = exchange(message, arguments.server, arguments.port, arguments.tcp)
        answer = dns.message.from_wire(wire, ignore_trailing=True)
        print("rcode", dns.rcode.to_text(answer.rcode()))
        for option in answer.options:
            print("option", option.otype.value if hasattr(option.otype, "value") else option.otype, option.to_text())
        for record in answer.answer:
            print(record.to_text())


if __name__ == "__main__":
    main()
