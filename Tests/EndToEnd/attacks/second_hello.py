"""A TLS client that names another server in its second ClientHello than in its first, where the server asks for a second one
(HelloRetryRequest); then one request to the second, and the answer on stdout.

    second_hello.py ADDRESS PORT FIRST SECOND [--connect AUTHORITY] [--waits] [--again]

--connect goes through the proxy of HTTPS_PROXY. With --waits it says "asked" and reads a line before the second hello, with
--again it reads one after the answer, and asks once more. OpenSSL writes each hello when it is due, so that its name can be
changed between them and the handshake ends well.
"""

from __future__ import annotations

import argparse
import ctypes
import ctypes.util
import socket
import sys

import hello

TIMEOUT = 5.0
SET_SERVER_NAME, SET_GROUPS = 55, 92
WANTS_READ = 2

Handle = ctypes.c_void_p
SSL = ctypes.CDLL(ctypes.util.find_library("ssl") or "libssl.so.3")
CRYPTO = ctypes.CDLL(ctypes.util.find_library("crypto") or "libcrypto.so.3")
for library, functions in ((SSL, ("TLS_client_method", "SSL_CTX_new", "SSL_new")), (CRYPTO, ("BIO_s_mem", "BIO_new"))):
    for function in functions:
        getattr(library, function).restype = Handle


class Session:
    """A TLS session over a connected socket, whose server is not authenticated."""

    def __init__(self, connection: socket.socket) -> None:
        context = Handle(SSL.SSL_CTX_new(Handle(SSL.TLS_client_method())))
        # A key is sent for the first one alone; a server that wants the second asks for another hello.
        if SSL.SSL_CTX_ctrl(context, SET_GROUPS, ctypes.c_long(0), ctypes.c_char_p(b"X25519:P-256")) != 1:
            sys.exit("no groups")
        self._connection = connection
        self._handle = Handle(SSL.SSL_new(context))
        # Over a socket of its own it might have the answer to the first hello before its name is changed.
        self._incoming, self._outgoing = (Handle(CRYPTO.BIO_new(Handle(CRYPTO.BIO_s_mem()))) for _ in range(2))
        SSL.SSL_set_bio(self._handle, self._incoming, self._outgoing)

    def name(self, server: str) -> None:
        """What the next hello says."""
        SSL.SSL_ctrl(self._handle, SET_SERVER_NAME, ctypes.c_long(0), ctypes.c_char_p(server.encode()))

    def send(self) -> None:
        """Sends what is to be sent."""
        room = ctypes.create_string_buffer(65536)
        while (count := CRYPTO.BIO_read(self._outgoing, room, len(room))) > 0:
            self._connection.sendall(room.raw[:count])

    def wait(self, result: int) -> None:
        """Waits for what the last call has to wait for; ends the program when there is nothing to wait for."""
        if SSL.SSL_get_error(self._handle, result) != WANTS_READ:
            sys.exit("ended")
        self.send()
        received = self._connection.recv(65536)
        if not received:
            sys.exit("closed")
        CRYPTO.BIO_write(self._incoming, received, len(received))

    def shake_hands(self, names: list[str], waits: bool) -> None:
        """Does the handshake; each hello has the next name."""
        self.name(names.pop(0))
        while (result := SSL.SSL_connect(self._handle)) != 1:
            is_first = bool(names)
            if is_first:
                self.name(names.pop(0))
            self.wait(result)
            if is_first and waits:
                print("asked", flush=True)
                sys.stdin.readline()
        self.send()
        print("shook hands", flush=True)

    def ask(self, request: bytes) -> bytes:
        """One request, and what is answered."""
        SSL.SSL_write(self._handle, request, len(request))
        self.send()
        room = ctypes.create_string_buffer(65536)
        while (result := SSL.SSL_read(self._handle, room, len(room))) <= 0:
            self.wait(result)
        return room.raw[:result]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("first")
    parser.add_argument("second")
    parser.add_argument("--connect")
    parser.add_argument("--waits", action="store_true")
    parser.add_argument("--again", action="store_true")
    arguments = parser.parse_args()
    if arguments.connect:
        connection = hello.connect_through_proxy(arguments.connect)
    else:
        connection = socket.create_connection((arguments.address, arguments.port), TIMEOUT)
    connection.settimeout(TIMEOUT)
    session = Session(connection)
    session.shake_hands([arguments.first, arguments.second], arguments.waits)
    request = f"GET / HTTP/1.1\r\nHost: {arguments.second}\r\n\r\n".encode()
    print(session.ask(request).decode("latin-1"), flush=True)
    if arguments.again:
        sys.stdin.readline()
        print("again", session.ask(request).decode("latin-1"))


if __name__ == "__main__":
    main()
