"""Sends one packet or connection below HTTP and TLS, and prints what came back. Exit 1 and the error if it could not.

    packets.py tcp|udp ADDRESS PORT TEXT [--device]    (a name will do; --device: bound to the outer device)
    packets.py quic ADDRESS PORT [VERSION]                packets.py icmp ADDRESS TEXT
    packets.py packet-socket ADDRESS TEXT                 packets.py protocol ADDRESS NUMBER TEXT
    packets.py socktype ADDRESS PORT sctp|dccp|udplite TEXT
"""

from __future__ import annotations

import argparse
import os
import socket
import struct
import sys
from collections.abc import Callable

TIMEOUT = 1.5


def family_of(host: str) -> socket.AddressFamily:
    return socket.AddressFamily(socket.getaddrinfo(host, None)[0][0])


def checksum(data: bytes) -> int:
    """The Internet checksum, RFC 1071."""
    padded = data + b"\0" * (len(data) % 2)
    total = sum(int.from_bytes(padded[index : index + 2], "big") for index in range(0, len(padded), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def outer_device() -> str:
    """The device that is not lo."""
    return next(name for _, name in socket.if_nameindex() if name != "lo")


def tcp(address: str, port: str, text: str, device: bool = False) -> bytes:
    with socket.socket(family_of(address), socket.SOCK_STREAM) as connection:
        connection.settimeout(TIMEOUT)
        if device:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, outer_device().encode())
        connection.connect((address, int(port)))
        connection.sendall(text.encode() + b"\n")
        return connection.recv(65536).rstrip()


def udp(address: str, port: str, text: str, device: bool = False) -> bytes:
    with socket.socket(family_of(address), socket.SOCK_DGRAM) as sender:
        sender.settimeout(TIMEOUT)
        if device:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, outer_device().encode())
        sender.connect((address, int(port)))
        sender.send(text.encode())
        return sender.recv(65536)


def quic(address: str, port: str, version: str = "1") -> bytes:
    """A datagram with the form of a QUIC Initial packet (RFC 9000 17.2.2, RFC 9369 3.2), 1200 bytes long."""
    number = int(version, 0)
    header = bytes([0xD3 if number == 0x6B3343CF else 0xC3]) + number.to_bytes(4, "big") + b"\x08" + os.urandom(8) + b"\x00\x00" + b"\x44\x9e"
    with socket.socket(family_of(address), socket.SOCK_DGRAM) as sender:
        sender.settimeout(TIMEOUT)
        sender.connect((address, int(port)))
        sender.send(header.ljust(1200, b"\x5a"))
        return b"%d bytes" % len(sender.recv(65536))


def icmp(address: str, text: str) -> bytes:
    """An echo request with a payload, by a raw socket or, where the kernel grants it, a ping socket."""
    ipv6 = ":" in address
    protocol = socket.IPPROTO_ICMPV6 if ipv6 else socket.IPPROTO_ICMP
    message = struct.pack("!BBHHH", 128 if ipv6 else 8, 0, 0, 77, 1) + text.encode()
    if not ipv6:
        message = message[:2] + struct.pack("!H", checksum(message)) + message[4:]
    try:
        sender = socket.socket(family_of(address), socket.SOCK_RAW, protocol)
    except PermissionError:
        sender = socket.socket(family_of(address), socket.SOCK_DGRAM, protocol)
    with sender:
        sender.settimeout(TIMEOUT)
        sender.sendto(message, (address, 0))
        while text.encode() not in (answer := sender.recv(65536)):
            pass
        return answer[-len(text) :]


def packet_socket(address: str, text: str) -> bytes:
    """A UDP packet written to the wire by hand: no hook of the IP layer sees it."""
    device = outer_device()
    source = socket.inet_aton("192.0.2.99")
    payload = struct.pack("!HHHH", 4444, 4444, 8 + len(text), 0) + text.encode()
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, 64, 17, 0) + source + socket.inet_aton(address)
    header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800)) as sender:
        sender.sendto(header + payload, (device, 0x0800, 0, 0, b"\xff" * 6))
    return b"sent"


def protocol(address: str, number: str, text: str) -> bytes:
    """An IP packet of any protocol by a raw socket."""
    with socket.socket(family_of(address), socket.SOCK_RAW, int(number)) as sender:
        sender.sendto(text.encode(), (address, 0))
    return b"sent"


def socktype(address: str, port: str, kind: str, text: str) -> bytes:
    """A transport other than TCP and UDP."""
    types = {"sctp": (socket.SOCK_STREAM, 132), "dccp": (6, 33), "udplite": (socket.SOCK_DGRAM, 136)}
    with socket.socket(family_of(address), *types[kind]) as sender:
        sender.settimeout(TIMEOUT)
        sender.connect((address, int(port)))
        sender.send(text.encode())
    return b"sent"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("attack", choices=["tcp", "udp", "quic", "icmp", "packet-socket", "protocol", "socktype"])
    parser.add_argument("arguments", nargs="+")
    parser.add_argument("--device", action="store_true")
    parsed = parser.parse_args()
    attacks: dict[str, Callable[..., bytes]] = {
        **{"tcp": tcp, "udp": udp, "quic": quic, "icmp": icmp},
        **{"packet-socket": packet_socket, "protocol": protocol, "socktype": socktype},
    }
    options = {"device": True} if parsed.device else {}
    try:
        answer = attacks[parsed.attack](*parsed.arguments, **options)
    except OSError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    print(answer.decode("latin-1"))


if __name__ == "__main__":
    main()
