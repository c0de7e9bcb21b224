"""A nameserver whose answers are an attack, chosen by the first label of the name that is asked for.

Runs as a program of its own inside a namespace: hostile_nameserver.py ADDRESS. Prints
"serving" when it listens. dnspython only makes the well-formed parts; what is malformed is made by hand.
"""

from __future__ import annotations

import socket
import socketserver
import sys
import threading
from collections.abc import Callable

import dns.flags
import dns.message
import dns.rdatatype
import dns.rrset

GOOD, OTHER, LATER = "198.51.100.10", "198.51.100.66", "198.51.100.11"
_asked: dict[str, int] = {}


def answer(query: dns.message.Message, *records: tuple[str | None, int, str, str]) -> bytes:
    """A response with records (owner or None for the asked name, TTL, type, data)."""
    response = dns.message.make_response(query)
    response.flags |= dns.flags.RA
    for owner, ttl, kind, data in records:
        name = owner or query.question[0].name.to_text()
        response.answer.append(dns.rrset.from_text_list(name, ttl, "IN", kind, data.split(" | ")))
    return response.to_wire(max_size=65535)


def no_time(query: dns.message.Message) -> bytes:
    """TTL 0."""
    return answer(query, (None, 0, "A", GOOD))


def foreign(query: dns.message.Message) -> bytes:
    """A record of a name that was not asked for rides along (N6)."""
    return answer(query, (None, 60, "A", GOOD), ("bank.example.", 60, "A", OTHER))


def mixed(query: dns.message.Message) -> bytes:
    """Guarded addresses among good ones (N4)."""
    return answer(query, (None, 60, "A", f"127.0.0.1 | {GOOD} | 169.254.169.254 | 10.99.0.1"))


def many(query: dns.message.Message) -> bytes:
    """Thousands of addresses in one answer (N5), none of which anybody has."""
    return answer(query, (None, 60, "AAAA", " | ".join(f"2001:db8:100::1:{number:x}" for number in range(2000))))


def rebind(query: dns.message.Message) -> bytes:
    """The first answer is good, every later one leads to the node itself (N5)."""
    # Resolvers ask in random case.
    name = query.question[0].name.to_text().lower()
    _asked[name] = _asked.get(name, 0) + 1
    return answer(query, (None, 0, "A", GOOD if _asked[name] == 1 else "127.0.0.1"))


def wander(query: dns.message.Message) -> bytes:
    """The first answer is good, every later one is somebody else's address (N5)."""
    name = query.question[0].name.to_text().lower()
    _asked[name] = _asked.get(name, 0) + 1
    return answer(query, (None, 0, "A", GOOD if _asked[name] == 1 else OTHER))


def move(query: dns.message.Message) -> bytes:
    """The first answer is good, every later one another server's address: what an honest name does that moves."""
    name = query.question[0].name.to_text().lower()
    _asked[name] = _asked.get(name, 0) + 1
    return answer(query, (None, 1, "A", GOOD if _asked[name] == 1 else LATER))


def to(query: dns.message.Message) -> bytes:
    """The address that the name says, in hexadecimal: anybody may point a name of theirs anywhere (N4)."""
    data = bytes.fromhex(query.question[0].name.labels[0].decode().lower().removeprefix("to-"))
    family, kind = (socket.AF_INET6, "AAAA") if len(data) == 16 else (socket.AF_INET, "A")
    if query.question[0].rdtype != dns.rdatatype.from_text(kind):
        return answer(query)
    return answer(query, (None, 60, kind, socket.inet_ntop(family, data)))


def chain(query: dns.message.Message) -> bytes:
    """A chain of aliases that ends in a guarded address."""
    return answer(query, (None, 60, "CNAME", "inner.example."), ("inner.example.", 60, "A", "169.254.169.254"))


def circle(query: dns.message.Message) -> bytes:
    """Aliases that lead to each other."""
    name = query.question[0].name.to_text()
    return answer(query, (None, 60, "CNAME", "inner.example."), ("inner.example.", 60, "CNAME", name))


def loop(query: dns.message.Message) -> bytes:
    """The answer's owner is a compression pointer to itself."""
    head = bytearray(query.to_wire())
    head[2:12] = b"\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00"
    end = len(head)
    return bytes(head) + (0xC000 | end).to_bytes(2, "big") + b"\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc6\x33\x64\x0a"


def lying(query: dns.message.Message) -> bytes:
    """Counts and lengths that promise more than there is."""
    wire = bytearray(answer(query, (None, 60, "A", GOOD)))
    wire[6:8] = b"\xff\xff"
    return bytes(wire)


def other_question(query: dns.message.Message) -> bytes:
    """A good answer to another question."""
    other = dns.message.make_query("bank.example.", "A", id=query.id)
    return answer(other, (None, 60, "A", OTHER))


def other_case(query: dns.message.Message) -> bytes:
    """The question in another case than it was asked in: what a forger who cannot see the query would send."""
    wire = answer(query, (None, 60, "A", OTHER))
    label = wire[13 : 13 + wire[12]]
    return wire.replace(label, label.swapcase())


def truncated(query: dns.message.Message) -> bytes:
    """Too long for UDP: ask again over TCP."""
    response = dns.message.make_response(query)
    response.flags |= dns.flags.TC
    return response.to_wire()


def garbage(query: dns.message.Message) -> bytes:
    """Not DNS."""
    return query.id.to_bytes(2, "big") + b"\x81\x80" + b"\xee" * 400


def empty(query: dns.message.Message) -> bytes:
    """A datagram of no bytes, which some take for the end of a connection."""
    return b""


BEHAVIOURS: dict[str, Callable[[dns.message.Message], bytes]] = {
    function.__name__.replace("_", "-"): function
    for function in (
        *(no_time, foreign, mixed, many, move, rebind, wander, chain, circle, loop, lying, other_question, other_case, garbage, empty),
        truncated,
    )
}


def respond(wire: bytes, tcp: bool) -> bytes:
    """The answer to one query. Questions for other types than the behaviour's are answered with nothing."""
    query = dns.message.from_wire(wire)
    behaviour = query.question[0].name.labels[0].decode().lower()
    if behaviour.startswith("to-"):
        return to(query)
    kind = dns.rdatatype.AAAA if behaviour == "many" else dns.rdatatype.A
    if query.question[0].rdtype != kind or behaviour not in BEHAVIOURS:
        return answer(query)
    if behaviour == "many" and not tcp:
        behaviour = "truncated"
    if behaviour == "truncated" and tcp:
        return answer(query, (None, 60, "A", GOOD))
    return BEHAVIOURS[behaviour](query)


class Datagrams(socketserver.BaseRequestHandler):
    """UDP."""

    def handle(self) -> None:
        wire, connection = self.request
        connection.sendto(respond(wire, tcp=False), self.client_address)


class Streams(socketserver.StreamRequestHandler):
    """TCP."""

    def handle(self) -> None:
        while len(length := self.rfile.read(2)) == 2:
            wire = respond(self.rfile.read(int.from_bytes(length, "big")), tcp=True)
            self.wfile.write(len(wire).to_bytes(2, "big") + wire)


class UDPServer(socketserver.ThreadingUDPServer):
    daemon_threads = True


class TCPServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


def main(address: str) -> None:
    udp, tcp = UDPServer((address, 53), Datagrams), TCPServer((address, 53), Streams)
    threading.Thread(target=udp.serve_forever, daemon=True).start()
    print("serving", flush=True)
    tcp.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1])
