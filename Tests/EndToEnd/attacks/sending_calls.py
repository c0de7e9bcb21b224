"""Sends datagrams, or begins connections, by every system call that does: those that a monitor of calls may forget.

    sending_calls.py ADDRESS PORT TEXT

Each datagram says TEXT and by which call it went. Prints which calls worked.
"""

from __future__ import annotations

import ctypes
import os
import socket
import sys
import tempfile
from collections.abc import Callable

LIBC = ctypes.CDLL(None, use_errno=True)
MSG_FASTOPEN, TCP_FASTOPEN_CONNECT, TCP_FASTOPEN_NO_COOKIE, IPPROTO_MPTCP = 0x20000000, 30, 34, 262


class Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class Header(ctypes.Structure):
    """struct mmsghdr of x86_64 and aarch64."""

    _fields_ = [
        *[("name", ctypes.c_void_p), ("name_length", ctypes.c_uint32), ("vectors", ctypes.POINTER(Vector))],
        *[("vector_count", ctypes.c_size_t), ("control", ctypes.c_void_p), ("control_length", ctypes.c_size_t)],
        *[("flags", ctypes.c_int), ("sent", ctypes.c_uint32)],
    ]


class Call:
    """The ways to one destination. Those of datagrams get a socket that is connected, if they are meant for one."""

    def __init__(self, host: str, port: int) -> None:
        self._family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._to = (host, port)

    def connected(self) -> socket.socket:
        made = socket.socket(self._family, socket.SOCK_DGRAM)
        made.connect(self._to)
        return made

    def send(self, data: bytes) -> None:
        self.connected().send(data)

    def sendto(self, data: bytes) -> None:
        socket.socket(self._family, socket.SOCK_DGRAM).sendto(data, self._to)

    def sendmsg(self, data: bytes) -> None:
        socket.socket(self._family, socket.SOCK_DGRAM).sendmsg([data], [], 0, self._to)

    def sendmmsg(self, data: bytes) -> None:
        sender, buffer = self.connected(), ctypes.create_string_buffer(data, len(data))
        vector = Vector(ctypes.cast(buffer, ctypes.c_void_p), len(data))
        header = Header(None, 0, ctypes.pointer(vector), 1)
        if LIBC.sendmmsg(sender.fileno(), ctypes.byref(header), 1, 0) != 1:
            raise OSError(ctypes.get_errno(), "sendmmsg")

    def write(self, data: bytes) -> None:
        sender = self.connected()
        os.write(sender.fileno(), data)

    def writev(self, data: bytes) -> None:
        sender = self.connected()
        os.writev(sender.fileno(), [data[:3], data[3:]])

    def more(self, data: bytes) -> None:
        sender = self.connected()
        sender.send(data[:3], socket.MSG_MORE)
        sender.send(data[3:])

    def splice(self, data: bytes) -> None:
        sender, (reading, writing) = self.connected(), os.pipe()
        os.write(writing, data)
        if LIBC.splice(reading, None, sender.fileno(), None, ctypes.c_size_t(len(data)), 0) < 0:
            raise OSError(ctypes.get_errno(), "splice")

    def sendfile(self, data: bytes) -> None:
        sender = self.connected()
        with tempfile.TemporaryFile() as file:
            file.write(data)
            file.flush()
            os.sendfile(sender.fileno(), file.fileno(), 0, len(data))

    def elsewhere(self, data: bytes) -> None:
        """By a socket that is connected to another destination, the one that was judged at connect(2)."""
        sender = socket.socket(self._family, socket.SOCK_DGRAM)
        sender.connect((self._to[0], 9))
        sender.sendto(data, self._to)

    def dual(self, data: bytes) -> None:
        """By a socket of the other family (RFC 4291 2.5.5.2)."""
        if self._family == socket.AF_INET6:
            raise OSError("there is no such socket")
        sender = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        sender.sendto(data, (f"::ffff:{self._to[0]}", self._to[1]))

    def fast(self, data: bytes) -> None:
        """Data in the first segment (RFC 7413), with no cookie asked for before."""
        sender = socket.socket(self._family)
        sender.settimeout(1)
        sender.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, 1)
        sender.sendto(data, MSG_FASTOPEN, self._to)
        sender.recv(100)

    def fast_connect(self, data: bytes) -> None:
        sender = socket.socket(self._family)
        sender.settimeout(1)
        sender.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, 1)
        sender.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
        sender.connect(self._to)
        sender.send(data)
        sender.recv(100)

    def multipath(self, data: bytes) -> None:
        """Multipath TCP (RFC 8684)."""
        sender = socket.socket(self._family, socket.SOCK_STREAM, IPPROTO_MPTCP)
        sender.settimeout(1)
        sender.connect(self._to)
        sender.send(data)
        sender.recv(100)


def main(host: str, port: str, text: str) -> None:
    call = Call(host, int(port))
    ways: list[Callable[[bytes], None]] = [
        *[call.send, call.sendto, call.sendmsg, call.sendmmsg, call.write, call.writev, call.more, call.splice],
        *[call.sendfile, call.elsewhere, call.dual, call.fast, call.fast_connect, call.multipath],
    ]
    for way in ways:
        try:
            way(f"{text} by {way.__name__};".encode())
        except OSError as error:
            print("failed", way.__name__, error)
        else:
            print("did", way.__name__)
    print("tried everything")


if __name__ == "__main__":
    main(*sys.argv[1:])
