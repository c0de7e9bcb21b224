"""Opens sockets of families that are not for a sandbox, by ways that a system call filter may forget.

    families.py WAY FAMILY…        WAY: direct, pair, io_uring, i386, x32, wide

Prints a line for each family that was opened, and at the end that all was tried.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import socket
import struct
import sys
from collections.abc import Callable

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long
SYS_SOCKET, SYS_IO_URING_SETUP, SYS_IO_URING_ENTER, SYS_IO_URING_REGISTER = 41, 425, 426, 427
X32 = 0x40000000
IORING_OP_NOP, IORING_OP_SOCKET = 0, 45
IORING_REGISTER_PERSONALITY = 9
IORING_OFF_SQ_RING, IORING_OFF_SQES, IORING_ENTER_GETEVENTS = 0, 0x10000000, 1
KINDS = (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET)


class Ring:
    """An io_uring, with its rings in one mapping."""

    def __init__(self) -> None:
        parameters = ctypes.create_string_buffer(120)
        self._descriptor = LIBC.syscall(SYS_IO_URING_SETUP, 4, parameters)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "io_uring_setup")
        submission, completion = struct.unpack_from("8I", parameters, 40), struct.unpack_from("8I", parameters, 80)
        self._tail, self._mask, self._array = submission[1], submission[2], submission[6]
        self._head, self._completion_tail, self._completion_mask, self._events = (
            completion[index] for index in (0, 1, 2, 5)
        )
        self._rings = mmap.mmap(self._descriptor, 4096, mmap.MAP_SHARED | mmap.MAP_POPULATE, offset=IORING_OFF_SQ_RING)
        self._entries = mmap.mmap(self._descriptor, 4096, mmap.MAP_SHARED | mmap.MAP_POPULATE, offset=IORING_OFF_SQES)
        self._submitted = 0

    def register_credentials(self) -> int:
        """Has it keep those that this process has now; a number for ``socket``."""
        number = LIBC.syscall(SYS_IO_URING_REGISTER, self._descriptor, IORING_REGISTER_PERSONALITY, None, 0)
        if number < 0:
            raise OSError(ctypes.get_errno(), "io_uring_register")
        return int(number)

    def socket(self, family: int, kind: int, protocol: int = 0, credentials: int = 0) -> int:
        entry = struct.pack("<BBHiQQII", IORING_OP_SOCKET, 0, 0, family, kind, 0, protocol, 0)
        entry += struct.pack("<QHH", 0, 0, credentials)
        self._entries[0:64] = entry.ljust(64, b"\0")
        mask = struct.unpack_from("<I", self._rings, self._mask)[0]
        struct.pack_into("<I", self._rings, self._array + 4 * (self._submitted & mask), 0)
        self._submitted += 1
        struct.pack_into("<I", self._rings, self._tail, self._submitted)
        if LIBC.syscall(SYS_IO_URING_ENTER, self._descriptor, 1, 1, IORING_ENTER_GETEVENTS, None, 0) < 0:
            raise OSError(ctypes.get_errno(), "io_uring_enter")
        tail = struct.unpack_from("<I", self._rings, self._completion_tail)[0]
        mask = struct.unpack_from("<I", self._rings, self._completion_mask)[0]
        _, result, _ = struct.unpack_from("<QiI", self._rings, self._events + 16 * ((tail - 1) & mask))
        # It has been read, and makes room for another one.
        struct.pack_into("<I", self._rings, self._head, tail)
        return int(result)


def direct(family: int, kind: int) -> int:
    return socket.socket(family, kind).detach()


def pair(family: int, kind: int) -> int:
    one, other = socket.socketpair(socket.AddressFamily(family), kind)
    other.close()
    return one.detach()


def x32(family: int, kind: int) -> int:
    """The system call's number as programs of the x32 interface have it."""
    return int(LIBC.syscall(SYS_SOCKET | X32, family, kind, 0))


def wide(family: int, kind: int) -> int:
    """A number whose upper half the kernel does not look at (CVE-2019-7303 of snapd, with another call)."""
    return int(LIBC.syscall(SYS_SOCKET, ctypes.c_uint64(1 << 32 | family), kind, 0))


def i386(family: int, kind: int) -> int:
    """The system call as 32-bit programs make it, whose numbers are others."""
    code = bytes.fromhex("53 89fb 89f1 31d2 b867010000 cd80 5b c3")
    memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(code)
    call = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int)(
        ctypes.addressof(ctypes.c_char.from_buffer(memory))
    )
    return int(call(family, kind))


def main(way: str, families: list[int]) -> None:
    ways: dict[str, Callable[[int, int], int]] = {"direct": direct, "pair": pair, "x32": x32, "i386": i386, "wide": wide}
    if way == "io_uring":
        ring = Ring()
        ways[way] = lambda family, kind: ring.socket(family, kind)
    attempt = ways[way]
    for family in families:
        for kind in KINDS:
            try:
                descriptor = attempt(family, kind)
            except OSError:
                continue
            if descriptor >= 0:
                os.close(descriptor)
                print("opened", family, flush=True)
                break
    print("tried everything")


if __name__ == "__main__":
    try:
        main(sys.argv[1], list(map(int, sys.argv[2:])))
    except OSError as error:
        print("refused", error)
