"""Sends by the file behind a network device, as a program that has it open and no privilege.

    held_device.py tap DEVICE SOURCE TARGET TEXT      SOURCE, outside, seems to connect to TARGET, one's own; the answer is TEXT
    held_device.py tun DEVICE SOURCE TARGET TEXT      the same, by a device without a link layer
    held_device.py file PATH MAC SOURCE TARGET TEXT   writes a frame with a datagram to a macvtap device's file
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lab import raw_packets

SET_DEVICE = 0x400454CA
"""TUNSETIFF."""
TUN, TAP, NO_HEADER = 1, 2, 0x1000
NOBODY = 65534
PORT = 8080
SYN = 2


def become_nobody() -> None:
    """Gives up every capability for good, and the user."""
    libc = ctypes.CDLL(None)
    for number in range(64):
        libc.prctl(24, number, 0, 0, 0)  # PR_CAPBSET_DROP
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def hold(device: str, kind: int) -> int:
    """Whatever the mode of /dev/net/tun is here; elsewhere everybody may open it."""
    file = os.open("/dev/net/tun", os.O_RDWR)
    become_nobody()
    fcntl.ioctl(file, SET_DEVICE, struct.pack("16sH22x", device.encode(), kind | NO_HEADER))
    return file


def frame(target: bytes, packet: bytes) -> bytes:
    return target + bytes.fromhex("020000000002") + struct.pack("!H", 0x0800) + packet


def connect(device: str, kind: int, source: str, target: str, text: str) -> None:
    """With data in the first segment (TCP Fast Open), so that the answer need not wait for one more."""
    file = hold(device, kind)
    with socket.create_server((target, PORT)) as server:
        server.setsockopt(socket.IPPROTO_TCP, 23, 5)  # TCP_FASTOPEN
        segment = raw_packets.tcp(source, target, SYN, b"hello", PORT)
        packet = raw_packets.header4(source, target, raw_packets.TCP, len(segment)) + segment
        address = Path(f"/sys/class/net/{device}/address").read_text() if kind == TAP else ""
        os.write(file, frame(bytes.fromhex(address.strip().replace(":", "")), packet) if kind == TAP else packet)
        server.settimeout(2)
        try:
            client = server.accept()[0]
        except TimeoutError:
            print("nobody connected")
            return
        print("heard", client.recv(100))
        client.sendall(text.encode())
        client.settimeout(1)
        try:
            client.recv(100)
        except OSError as error:
            print(error)


def write(path: str, address: str, source: str, target: str, text: str) -> None:
    """Behind the header of virtio, which says nothing."""
    file = os.open(path, os.O_RDWR)
    become_nobody()
    datagram = raw_packets.udp(source, target, text.encode())
    packet = raw_packets.header4(source, target, raw_packets.UDP, len(datagram)) + datagram
    os.write(file, bytes(10) + frame(bytes.fromhex(address.replace(":", "")), packet))


if __name__ == "__main__":
    way, *arguments = sys.argv[1:]
    if way == "file":
        write(*arguments)
    else:
        connect(arguments[0], TAP if way == "tap" else TUN, *arguments[1:])
