"""Writes a frame through the transmit ring of an AF_XDP socket, behind every hook of the network stack.

    xdp_socket.py DEVICE WAY SOURCE TARGET PORT MAC

Needs CAP_NET_RAW and nothing else: no program is loaded. Ends with 3 where the kernel has no such sockets, and with 4 where
the device's queues are not to be had. WAY is how the queue is asked for: "own" memory for it, or memory "shared" with a
socket on the loopback. With "hold" nothing is sent, and the queue is kept until a line is read. DEVICE may be "-" for
the first that is not the loopback.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import socket
import struct
import sys

from shared_namespace import datagram

AF_XDP, SOL_XDP = 44, 283
"""Of linux/if_xdp.h, as are the numbers below."""
RX_RING, TX_RING, UMEM_REG, FILL_RING, COMPLETION_RING, MMAP_OFFSETS = 2, 3, 4, 5, 6, 1
SHARED_UMEM, COPY = 1, 2
TX_OFFSET = 0x80000000
FRAME, FRAMES, ENTRIES = 2048, 8, 8

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), what)
    return result


class Ring:
    """An AF_XDP socket with a transmit ring, and the memory that its frames are in if it has one of its own."""

    def __init__(self, has_memory: bool) -> None:
        self.descriptor = _check(_libc.socket(AF_XDP, socket.SOCK_RAW, 0), "socket")
        self.memory = mmap.mmap(-1, FRAME * FRAMES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if has_memory:
            address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
            self._set(UMEM_REG, struct.pack("QQIIII", address, FRAME * FRAMES, FRAME, 0, 0, 0))
        for option in (FILL_RING, COMPLETION_RING, RX_RING, TX_RING):
            self._set(option, struct.pack("I", ENTRIES))

    def _set(self, option: int, value: bytes) -> None:
        _check(_libc.setsockopt(self.descriptor, SOL_XDP, option, value, len(value)), f"setsockopt {option}")

    def bind(self, device: str, queue: int, share: Ring | None = None) -> None:
        """Takes a queue of a device."""
        flags, other = (SHARED_UMEM, share.descriptor) if share else (COPY, 0)
        address = struct.pack("HHIII", AF_XDP, flags, socket.if_nametoindex(device), queue, other)
        _check(_libc.bind(self.descriptor, address, len(address)), "bind")

    def send(self, memory: mmap.mmap, frame: bytes) -> None:
        """Puts a frame in the ring, and has the kernel send it."""
        offsets, size = ctypes.create_string_buffer(128), ctypes.c_uint(128)
        _check(_libc.getsockopt(self.descriptor, SOL_XDP, MMAP_OFFSETS, offsets, ctypes.byref(size)), "offsets")
        # Receive, transmit, fill and completion ring: producer, consumer, descriptors and flags each.
        producer, _, descriptors, _ = struct.unpack_from("QQQQ", offsets, 32)
        length = descriptors + 16 * ENTRIES
        _libc.mmap.restype = ctypes.c_void_p
        _libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
        ring = _libc.mmap(None, length, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, self.descriptor, TX_OFFSET)
        memory[: len(frame)] = frame
        ctypes.memmove(ring + descriptors, struct.pack("QII", 0, len(frame), 0), 16)
        ctypes.memmove(ring + producer, struct.pack("I", 1), 4)
        _check(_libc.sendto(self.descriptor, None, 0, socket.MSG_DONTWAIT, None, 0), "send")


def take(device: str, way: str) -> tuple[Ring, mmap.mmap]:
    """A socket that is bound to one of the device's queues, and the memory of its frames."""
    busy = 0
    for queue in range(256):
        try:
            if way == "shared":
                first, ring = Ring(True), Ring(False)
                first.bind("lo", 0)
                ring.bind(device, queue, first)
                return ring, first.memory
            ring = Ring(True)
            ring.bind(device, queue)
            return ring, ring.memory
        except OSError as error:
            if error.errno == errno.EINVAL and queue > 0:
                break
            if error.errno != errno.EBUSY:
                raise
            busy += 1
    print(f"all {busy} queues are taken", file=sys.stderr)
    sys.exit(4)


def main(device: str, way: str, source: str, target: str, port: str, mac: str) -> None:
    if device == "-":
        device = next(name for _, name in socket.if_nameindex() if name != "lo")
    try:
        ring, memory = take(device, way)
    except OSError as error:
        if error.errno == errno.EAFNOSUPPORT:
            print("this kernel has no AF_XDP sockets", file=sys.stderr)
            sys.exit(3)
        raise
    if way == "hold":
        print("held", flush=True)
        sys.stdin.readline()
        return
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as any_socket:
        any_socket.bind((device, 0))
        own = any_socket.getsockname()[4]
    frame = bytes.fromhex(mac.replace(":", "")) + own + struct.pack("!H", 0x0800)
    ring.send(memory, frame + datagram(source, target, 5555, int(port), b"stolen through a ring"))
    os.close(ring.descriptor)


if __name__ == "__main__":
    main(*sys.argv[1:])
