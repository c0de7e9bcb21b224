"""Sends one packet that is made by hand, as a program with CAP_NET_RAW may, and carries a text out in it.

    raw_packets.py KIND SOURCE TARGET TEXT

KIND is a name of KINDS4 or KINDS6, according to the addresses.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Callable

PORT = 4444
UDP, TCP, ICMP, ICMP6 = 17, 6, 1, 58

Packets = list[tuple[bytes, str]]
"""Packets with their headers, each with where it goes."""


def checksum(data: bytes) -> int:
    """The Internet checksum, RFC 1071."""
    padded = data + b"\0" * (len(data) % 2)
    total = sum(int.from_bytes(padded[index : index + 2], "big") for index in range(0, len(padded), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def header4(
    source: str, target: str, protocol: int, length: int, *, options: bytes = b"", fragment: int = 0, ttl: int = 64
) -> bytes:
    """An IPv4 header (RFC 791) for `length` bytes behind it; `fragment` is the field of flags and offset."""
    size = 20 + len(options)
    head = struct.pack("!BBHHHBBH", 0x40 | size // 4, 0, size + length, 7, fragment, ttl, protocol, 0)
    head += socket.inet_aton(source) + socket.inet_aton(target) + options
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:]


def pseudo_header(source: str, target: str, protocol: int, length: int) -> bytes:
    """What upper layers' checksums are taken over besides."""
    if ":" in source:
        addresses = b"".join(socket.inet_pton(socket.AF_INET6, address) for address in (source, target))
        return addresses + struct.pack("!II", length, protocol)
    return socket.inet_aton(source) + socket.inet_aton(target) + struct.pack("!HH", protocol, length)


def udp(source: str, target: str, text: bytes, source_port: int = 5555, port: int = PORT) -> bytes:
    datagram = struct.pack("!HHHH", source_port, port, 8 + len(text), 0) + text
    sum = checksum(pseudo_header(source, target, UDP, len(datagram)) + datagram) or 0xFFFF
    return datagram[:6] + struct.pack("!H", sum) + datagram[8:]


def tcp(source: str, target: str, flags: int, text: bytes, port: int = PORT, options: bytes = b"") -> bytes:
    offset = (20 + len(options)) // 4 << 4
    segment = struct.pack("!HHIIBBHHH", 5555, port, 1000, 2000, offset, flags, 65535, 0, 0) + options + text
    sum = checksum(pseudo_header(source, target, TCP, len(segment)) + segment)
    return segment[:16] + struct.pack("!H", sum) + segment[18:]


def icmp(kind: int, code: int, body: bytes) -> bytes:
    message = struct.pack("!BBH", kind, code, 0) + body
    return message[:2] + struct.pack("!H", checksum(message)) + message[4:]


def icmp6(source: str, target: str, kind: int, body: bytes) -> bytes:
    message = struct.pack("!BBH", kind, 0, 0) + body
    sum = checksum(pseudo_header(source, target, ICMP6, len(message)) + message)
    return message[:2] + struct.pack("!H", sum) + message[4:]


def padded(text: bytes, unit: int = 8, less: int = 0) -> bytes:
    """`text` with NULs until it and `less` bytes before it fill whole units."""
    return text + bytes(-(len(text) + less) % unit)


# IPv4


def plain4(protocol: int, body: Callable[[str, str, bytes], bytes], ttl: int = 64) -> Callable[..., Packets]:
    def make(source: str, target: str, text: bytes) -> Packets:
        inner = body(source, target, text)
        return [(header4(source, target, protocol, len(inner), ttl=ttl) + inner, target)]

    return make


def as_it_is(source: str, target: str, text: bytes) -> bytes:
    return text


def options4(number: int) -> Callable[..., Packets]:
    """A datagram whose header carries the text in an option."""

    def make(source: str, target: str, text: bytes) -> Packets:
        options = padded(bytes([number, 2 + len(text)]) + text, 4)
        inner = udp(source, target, b"")
        return [(header4(source, target, UDP, len(inner), options=options) + inner, target)]

    return make


def fragments4(source: str, target: str, text: bytes) -> Packets:
    """The first fragment ends with the UDP header, so that ports and data are never seen together."""
    whole = udp(source, target, text)
    first = header4(source, target, UDP, 8, fragment=0x2000) + whole[:8]
    return [(first, target), (header4(source, target, UDP, len(whole) - 8, fragment=1) + whole[8:], target)]


def later_fragment4(source: str, target: str, text: bytes) -> Packets:
    """A fragment whose beginning nobody sends."""
    return [(header4(source, target, UDP, len(text), fragment=100) + text, target)]


def quoting(kind: int, code: int = 0) -> Callable[[str, str, bytes], bytes]:
    """An ICMP error that quotes a datagram, which is the text."""

    def make(source: str, target: str, text: bytes) -> bytes:
        inner = udp(target, source, text)
        return icmp(kind, code, bytes(4) + header4(target, source, UDP, len(inner)) + inner)

    return make


def broadcast4(address: str, port: int) -> Callable[..., Packets]:
    def make(source: str, target: str, text: bytes) -> Packets:
        inner = udp(source, address, text, port=port)
        return [(header4(source, address, UDP, len(inner)) + inner, address)]

    return make


def from_another4(source: str, target: str, text: bytes) -> Packets:
    """A source address that is not the sandbox's."""
    inner = udp("192.0.2.99", target, text)
    return [(header4("192.0.2.99", target, UDP, len(inner)) + inner, target)]


KINDS4: dict[str, Callable[..., Packets]] = {
    "udp": plain4(UDP, udp),
    "udp that lives one hop": plain4(UDP, udp, ttl=1),
    "udp from another source": from_another4,
    "udp from port 53": plain4(UDP, lambda s, t, text: udp(s, t, text, source_port=53)),
    "udp without a checksum": plain4(UDP, lambda s, t, text: struct.pack("!HHHH", 5555, PORT, 8 + len(text), 0) + text),
    "tcp syn with data": plain4(TCP, lambda s, t, text: tcp(s, t, 0x02, text)),
    "tcp ack with data": plain4(TCP, lambda s, t, text: tcp(s, t, 0x18, text)),
    "tcp rst with data": plain4(TCP, lambda s, t, text: tcp(s, t, 0x04, text)),
    "tcp fin with data": plain4(TCP, lambda s, t, text: tcp(s, t, 0x01, text)),
    "tcp without flags": plain4(TCP, lambda s, t, text: tcp(s, t, 0, text)),
    "tcp fast open": plain4(TCP, lambda s, t, text: tcp(s, t, 0x02, text, 443, padded(b"\x22\x0a" + b"cookie42", 4))),
    "tcp option": plain4(TCP, lambda s, t, text: tcp(s, t, 2, b"", 443, padded(bytes([253, 2 + len(text)]) + text, 4))),
    "unknown ip option": options4(0x9E),
    "record route": options4(7),
    "fragments": fragments4,
    "later fragment": later_fragment4,
    "echo": plain4(ICMP, lambda s, t, text: icmp(8, 0, b"\0\7\0\1" + text)),
    "echo reply": plain4(ICMP, lambda s, t, text: icmp(0, 0, b"\0\7\0\1" + text)),
    "icmp timestamp": plain4(ICMP, lambda s, t, text: icmp(13, 0, b"\0\7\0\1" + bytes(12) + text)),
    "icmp unreachable": plain4(ICMP, quoting(3, 3)),
    "icmp too big": plain4(ICMP, quoting(3, 4)),
    "icmp source quench": plain4(ICMP, quoting(4)),
    "icmp redirect": plain4(ICMP, quoting(5)),
    "icmp time exceeded": plain4(ICMP, quoting(11)),
    "icmp parameter problem": plain4(ICMP, quoting(12)),
    "icmp router solicitation": plain4(ICMP, lambda s, t, text: icmp(10, 0, bytes(4) + text)),
    "icmp of no type": plain4(ICMP, lambda s, t, text: icmp(250, 0, text)),
    "igmp": plain4(2, lambda s, t, text: struct.pack("!BBH", 0x16, 0, 0) + text),
    "ip in ip": plain4(4, lambda s, t, text: plain4(UDP, udp)(s, t, text)[0][0]),
    "ipv6 in ip": plain4(41, lambda s, t, text: b"\x60\0\0\0" + text),
    "gre": plain4(47, lambda s, t, text: b"\0\0\x08\0" + text),
    "esp": plain4(50, lambda s, t, text: b"\0\0\1\1\0\0\0\1" + text),
    "ah": plain4(51, lambda s, t, text: b"\x11\4\0\0\0\0\1\1\0\0\0\1" + bytes(12) + text),
    "sctp": plain4(132, lambda s, t, text: struct.pack("!HHII", 5555, PORT, 0, 0) + b"\0\3\0\x20" + text),
    "dccp": plain4(33, lambda s, t, text: struct.pack("!HHBBH", 5555, PORT, 4, 0, 0) + bytes(8) + text),
    "udp-lite": plain4(136, lambda s, t, text: struct.pack("!HHHH", 5555, PORT, 8, 0) + text),
    "ospf": plain4(89, as_it_is),
    "pim": plain4(103, as_it_is),
    "vrrp": plain4(112, as_it_is),
    "l2tp": plain4(115, as_it_is),
    "protocol 255": plain4(255, as_it_is),
    "mdns": broadcast4("224.0.0.251", 5353),
    "llmnr": broadcast4("224.0.0.252", 5355),
    "ssdp": broadcast4("239.255.255.250", 1900),
    "dhcp": broadcast4("255.255.255.255", 67),
    "netbios": broadcast4("10.81.0.255", 137),
}

# IPv6


def header6(source: str, target: str, next: int, length: int, hops: int = 64) -> bytes:
    """An IPv6 header, RFC 8200."""
    addresses = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, target)
    return struct.pack("!IHBB", 6 << 28, length, next, hops) + addresses


def plain6(
    next: int, body: Callable[[str, str, bytes], bytes], hops: int = 64, to: str | None = None
) -> Callable[..., Packets]:
    def make(source: str, target: str, text: bytes) -> Packets:
        target = to or target
        inner = body(source, target, text)
        return [(header6(source, target, next, len(inner), hops) + inner, target)]

    return make


def extension6(next: int, start: bytes) -> Callable[..., Packets]:
    """An extension header whose rest is the text, before an empty datagram."""

    def make(source: str, target: str, text: bytes) -> bytes:
        rest = padded(text, 8, 2 + len(start))
        length = (2 + len(start) + len(rest)) // 8 - 1
        return bytes([UDP, length]) + start + rest + udp(source, target, b"")

    return plain6(next, make)


def options6(next: int) -> Callable[..., Packets]:
    """An unknown option that routers and hosts pass over (its first two bits are 00)."""

    def make(source: str, target: str, text: bytes) -> bytes:
        fill = -(4 + len(text)) % 8
        padding = b"" if fill == 0 else b"\0" if fill == 1 else bytes([1, fill - 2]) + bytes(fill - 2)
        option = bytes([0x1E, len(text)]) + text + padding
        return bytes([UDP, (2 + len(option)) // 8 - 1]) + option + udp(source, target, b"")

    return plain6(next, make)


def fragments6(source: str, target: str, text: bytes) -> Packets:
    whole = udp(source, target, text)
    first = struct.pack("!BBHI", UDP, 0, 1, 7) + whole[:8]
    second = struct.pack("!BBHI", UDP, 0, 8, 7) + whole[8:]
    return [(header6(source, target, 44, len(part)) + part, target) for part in (first, second)]


def message6(kind: int, start: bytes, hops: int = 255, to: str | None = None) -> Callable[..., Packets]:
    return plain6(ICMP6, lambda s, t, text: icmp6(s, t, kind, start + text), hops, to)


def option_of_discovery(text: bytes) -> bytes:
    """An unknown option of neighbour discovery (RFC 4861 4.6)."""
    body = padded(text, 8, 2)
    return bytes([200, (2 + len(body)) // 8]) + body


def discovery6(kind: int, fixed: int, to: str | None = None) -> Callable[..., Packets]:
    """A message of neighbour discovery: `fixed` bytes of it, in which the target's address is if there is one."""

    def make(source: str, target: str, text: bytes) -> bytes:
        start = bytes(4) + (socket.inet_pton(socket.AF_INET6, "fe80::99") if fixed >= 20 else b"")
        return icmp6(source, target, kind, start + bytes(fixed - len(start)) + option_of_discovery(text))

    return plain6(ICMP6, make, 255, to)


def named_in_target(source: str, target: str, text: bytes) -> bytes:
    """A solicitation whose sixteen bytes of text are the address that it asks for."""
    return icmp6(source, target, 135, bytes(4) + text[:16].ljust(16, b"."))


KINDS6: dict[str, Callable[..., Packets]] = {
    "udp": plain6(UDP, udp),
    "tcp syn with data": plain6(TCP, lambda s, t, text: tcp(s, t, 0x02, text)),
    "tcp ack with data": plain6(TCP, lambda s, t, text: tcp(s, t, 0x18, text)),
    "hop-by-hop option": options6(0),
    "destination option": options6(60),
    "routing header": extension6(43, b"\xfd\0" + bytes(4)),
    "no next header": plain6(59, as_it_is),
    "fragments": fragments6,
    "atomic fragment": plain6(44, lambda s, t, text: struct.pack("!BBHI", UDP, 0, 0, 7) + udp(s, t, text)),
    "mobility": plain6(135, lambda s, t, text: bytes([59, 7, 5, 0, 0, 0]) + padded(text, 58)),
    "host identity": plain6(139, as_it_is),
    "shim": plain6(140, as_it_is),
    "experiment": plain6(253, as_it_is),
    "ipv6 in ipv6": plain6(41, lambda s, t, text: plain6(UDP, udp)(s, t, text)[0][0]),
    "ip in ipv6": plain6(4, as_it_is),
    "gre": plain6(47, lambda s, t, text: b"\0\0\x86\xdd" + text),
    "esp": plain6(50, lambda s, t, text: b"\0\0\1\1\0\0\0\1" + text),
    "sctp": plain6(132, lambda s, t, text: struct.pack("!HHII", 5555, PORT, 0, 0) + b"\0\3\0\x20" + text),
    "udp-lite": plain6(136, lambda s, t, text: struct.pack("!HHHH", 5555, PORT, 8, 0) + text),
    "echo": message6(128, b"\0\7\0\1", 64),
    "echo reply": message6(129, b"\0\7\0\1", 64),
    "icmp unreachable": message6(1, bytes(4), 64),
    "icmp too big": message6(2, b"\0\0\5\0", 64),
    "icmp time exceeded": message6(3, bytes(4), 64),
    "icmp parameter problem": message6(4, bytes(4), 64),
    "icmp of no type": message6(200, b"", 64),
    "node information query": message6(139, bytes(12), 64),
    "router solicitation": discovery6(133, 4, "ff02::2"),
    "router advertisement": discovery6(134, 12, "ff02::1"),
    "redirect": discovery6(137, 36),
    "neighbour solicitation": discovery6(135, 20, "ff02::1:ff00:99"),
    "neighbour solicitation to a router": discovery6(135, 20, "fd81::1"),
    "neighbour solicitation through a router": discovery6(135, 20),
    "neighbour solicitation for a text": plain6(ICMP6, named_in_target, 255, "ff02::1:ff00:99"),
    "neighbour advertisement": discovery6(136, 20, "ff02::1"),
    "neighbour advertisement to a router": discovery6(136, 20, "fd81::1"),
    "listener report": message6(131, bytes(20), 1, "ff02::99"),
    "listener report of version 2": message6(143, bytes(4), 1, "ff02::16"),
    "mdns": plain6(UDP, lambda s, t, text: udp(s, t, text, port=5353), to="ff02::fb"),
    "llmnr": plain6(UDP, lambda s, t, text: udp(s, t, text, port=5355), to="ff02::1:3"),
    "dhcp": plain6(UDP, lambda s, t, text: udp(s, t, text, port=547), to="ff02::1:2"),
}


def main(kind: str, source: str, target: str, text: str) -> None:
    ipv6 = ":" in source
    family = socket.AF_INET6 if ipv6 else socket.AF_INET
    device = next(index for index, name in socket.if_nameindex() if name != "lo")
    for packet, address in (KINDS6 if ipv6 else KINDS4)[kind](source, target, text.encode()):
        with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as sender:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            scope = device if ipv6 and address.startswith("ff") else 0
            sender.sendto(packet, (address, 0, 0, scope) if ipv6 else (address, 0))
    print("sent")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except OSError as error:
        sys.exit(f"{type(error).__name__}: {error}")
