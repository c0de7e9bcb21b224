"""Leaves something in a network namespace that goes on by itself, as a program that has CAP_NET_ADMIN there once can.

    prepare_network.py tcx DEVICE PLACE ADDRESS TARGET  a BPF program at a device's tcx hook (ingress, egress)
    prepare_network.py free DEVICE PLACE                takes one away from there
    prepare_network.py xdp DEVICE ADDRESS TARGET        a generic XDP program on a device
    prepare_network.py route PREFIX DEVICE TARGET       a route whose packets a BPF program is given
    prepare_network.py entry SOURCE PORT PEER PORT      an entry of connection tracking: PEER is said to have begun to talk to SOURCE

The programs redirect to the device TARGET what goes to ADDRESS, or all they are given. Nothing is loaded from a file: they are
a few instructions.
"""

from __future__ import annotations

import ctypes
import platform
import socket
import struct
import sys

_libc = ctypes.CDLL(None, use_errno=True)
BPF = {"x86_64": 321, "aarch64": 280}[platform.machine()]
PROG_LOAD, PROG_ATTACH, PROG_DETACH = 5, 8, 9
SCHED_CLS, XDP, LWT_XMIT = 3, 6, 12
"""Types of programs, of linux/bpf.h as the numbers below."""
TCX = {"ingress": 46, "egress": 47}
REDIRECT, CHANGE_HEAD = 23, 43
FIRST = 1 << 3
"""BPF_F_BEFORE."""
NEXT, PASS = -1, 2
"""TCX_NEXT and XDP_PASS."""

ROUTE, NETFILTER = 0, 12
REQUEST, ACK, CREATE, EXCLUSIVE = 1, 4, 0x400, 0x200
NESTED = 0x8000


def bpf(command: int, attributes: bytes) -> int:
    buffer = ctypes.create_string_buffer(attributes, 128)
    result = int(_libc.syscall(BPF, command, buffer, 128))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"bpf command {command}")
    return result


def instruction(code: int, destination: int, source: int, value: int, offset: int = 0) -> bytes:
    return struct.pack("=BBhi", code, source << 4 | destination, offset, value)


END = instruction(0x95, 0, 0, 0)
DESTINATION = 14 + 16
"""Where an IPv4 packet has its destination, behind an Ethernet header."""


def move(register: int, value: int) -> bytes:
    return instruction(0xB7, register, 0, value)


def copy(register: int, source: int) -> bytes:
    return instruction(0xBF, register, source, 0)


def call(helper: int) -> bytes:
    return instruction(0x85, 0, 0, helper)


def load(kind: int, program: bytes) -> int:
    """Has the kernel verify a program; returns its descriptor."""
    text, license = ctypes.create_string_buffer(program), ctypes.create_string_buffer(b"GPL")
    log = ctypes.create_string_buffer(65536)
    attributes = struct.pack(
        "=IIQQIIQ", kind, len(program) // 8, ctypes.addressof(text), ctypes.addressof(license), 1, len(log), ctypes.addressof(log)
    )
    try:
        return bpf(PROG_LOAD, attributes)
    except OSError as error:
        raise OSError(error.errno, log.value.decode()) from error


def redirecting(kind: int, device: str, address: str = "") -> int:
    """A program that sends to a device what goes to an address, or all it is given."""
    program = move(1, socket.if_nametoindex(device)) + move(2, 0) + call(REDIRECT) + END
    if kind == LWT_XMIT:
        # What has a route has no link-layer header yet, which the other device wants.
        program = copy(6, 1) + move(2, 14) + move(3, 0) + call(CHANGE_HEAD) + program
    elif kind == SCHED_CLS:
        wanted = int.from_bytes(socket.inet_aton(address), "big", signed=True)
        # r0 = the destination, in the machine's order; if it is another one, TCX_NEXT.
        test = copy(6, 1) + instruction(0x20, 0, 0, DESTINATION) + instruction(0x16, 0, 0, wanted, 2) + move(0, NEXT) + END
        program = test + program
    elif kind == XDP:
        wanted = int.from_bytes(socket.inet_aton(address), sys.byteorder, signed=True)
        # r2 = data, r3 = data_end; if r2 + 34 > r3, or the destination is another one, XDP_PASS.
        test = instruction(0x61, 2, 1, 0) + instruction(0x61, 3, 1, 0, 4) + copy(4, 2) + instruction(0x07, 4, 0, DESTINATION + 4)
        test += instruction(0x2D, 4, 3, 0, 2) + instruction(0x61, 5, 2, 0, DESTINATION) + instruction(0x16, 5, 0, wanted, 2)
        program = test + move(0, PASS) + END + program
    return load(kind, program)


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def ask(bus: int, kind: int, flags: int, body: bytes) -> None:
    """Sends a netlink message and hears that it was done."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, bus) as netlink:
        netlink.bind((0, 0))
        netlink.send(struct.pack("=IHHII", 16 + len(body), kind, REQUEST | ACK | flags, 1, 0) + body)
        answer = netlink.recv(65536)
    length, code, _, _, _, error = struct.unpack_from("=IHHIIi", answer)
    if code != 2 or error != 0:
        raise OSError(-error, f"netlink message {kind}")


def tcx(device: str, place: str, address: str, target: str) -> None:
    program = redirecting(SCHED_CLS, target, address)
    bpf(PROG_ATTACH, struct.pack("=IIII", socket.if_nametoindex(device), program, TCX[place], 0))


def free(device: str, place: str) -> None:
    bpf(PROG_DETACH, struct.pack("=IIII", socket.if_nametoindex(device), 0, TCX[place], FIRST))


def xdp(device: str, address: str, target: str) -> None:
    """RTM_SETLINK with IFLA_XDP: the program's descriptor, and XDP_FLAGS_SKB_MODE."""
    program = redirecting(XDP, target, address)
    body = struct.pack("=BxHiII", 0, 0, socket.if_nametoindex(device), 0, 0)
    body += attribute(43 | NESTED, attribute(1, struct.pack("=i", program)) + attribute(3, struct.pack("=I", 2)))
    ask(ROUTE, 19, 0, body)


def route(prefix: str, device: str, target: str) -> None:
    """RTM_NEWROUTE with RTA_ENCAP_TYPE and RTA_ENCAP: LWT_BPF_XMIT, a program and its name."""
    address, length = prefix.split("/")
    program = attribute(1, struct.pack("=I", redirecting(LWT_XMIT, target))) + attribute(2, b"redirect\0")
    body = struct.pack("=BBBBBBBBI", socket.AF_INET, int(length), 0, 0, 254, 4, 253, 1, 0)
    body += attribute(1, socket.inet_aton(address)) + attribute(4, struct.pack("=I", socket.if_nametoindex(device)))
    body += attribute(21, struct.pack("=H", 6)) + attribute(22 | NESTED, attribute(3 | NESTED, program))
    ask(ROUTE, 24, CREATE | EXCLUSIVE, body)


def entry(source: str, source_port: str, peer: str, peer_port: str) -> None:
    """IPCTNL_MSG_CT_NEW: a flow over UDP that the peer began, which was answered and has the mark of served connections."""

    def tuple_of(kind: int, sender: str, sender_port: str, receiver: str, receiver_port: str) -> bytes:
        addresses = attribute(1, socket.inet_aton(sender)) + attribute(2, socket.inet_aton(receiver))
        ports = attribute(1, b"\x11") + attribute(2, struct.pack("!H", int(sender_port)))
        ports += attribute(3, struct.pack("!H", int(receiver_port)))
        return attribute(kind | NESTED, attribute(1 | NESTED, addresses) + attribute(2 | NESTED, ports))

    body = struct.pack("=BBH", socket.AF_INET, 0, 0)
    body += tuple_of(1, peer, peer_port, source, source_port) + tuple_of(2, source, source_port, peer, peer_port)
    # IPS_SEEN_REPLY, IPS_ASSURED and IPS_CONFIRMED.
    body += attribute(3, struct.pack("!I", 0b1110))
    body += attribute(7, struct.pack("!I", 100_000)) + attribute(8, struct.pack("!I", 2))
    ask(NETFILTER, 1 << 8, CREATE | EXCLUSIVE, body)


WAYS = {"tcx": tcx, "free": free, "xdp": xdp, "route": route, "entry": entry}

if __name__ == "__main__":
    WAYS[sys.argv[1]](*sys.argv[2:])  # type: ignore[operator]
