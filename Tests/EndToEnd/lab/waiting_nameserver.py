"""A nameserver that tells an accomplice of each query, and answers it only when it is told to.

Runs as a program of its own inside a namespace: waiting_nameserver.py SERVER ADDRESS. Prints a line for each query (the
client's address and port, and the message in hexadecimal); for a line that it reads, answers all of them with ADDRESS.
"""

from __future__ import annotations

import select
import socket
import sys

import dns.message
import dns.rdatatype
import dns.rrset


def answer(wire: bytes, address: str) -> bytes:
    """The answer to a query for addresses."""
    query = dns.message.from_wire(wire)
    response = dns.message.make_response(query)
    question = query.question[0]
    kind = dns.rdatatype.AAAA if ":" in address else dns.rdatatype.A
    if question.rdtype == kind:
        response.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, address))
    return response.to_wire()


def main(server: str, address: str) -> None:
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as listener:
        listener.bind((server, 53))
        print("serving", flush=True)
        last: list[tuple[bytes, object]] = []
        while True:
            for ready in select.select([listener, sys.stdin], [], [])[0]:
                if ready is listener:
                    wire, client = listener.recvfrom(4096)
                    last.append((wire, client))
                    print(client[0], client[1], wire.hex(), flush=True)
                elif not sys.stdin.readline():
                    return
                else:
                    # Those that were sent again, too.
                    for wire, client in last:
                        listener.sendto(answer(wire, address), client)
                    last.clear()


if __name__ == "__main__":
    main(*sys.argv[1:])
