"""A connection to the sidecar's API, over a socket of our own: nothing of a client's library is in between."""

from __future__ import annotations

import http.client
import socket
from typing import Any

from .daemon import Answer
from .sidecar import INSIDE4, Sidecar, inside


class Connection:
    """A connection to the API from outside, for more than one request."""

    def __init__(self, api: Sidecar) -> None:
        with inside(api.internet.namespace.name):
            self.socket = socket.create_connection((INSIDE4, 18080), 30)
        self._bytes = self.socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def line(self) -> bytes:
        return self._bytes.readline()

    def answer(self, method: str = "GET") -> Answer:
        """The next final answer."""
        response = http.client.HTTPResponse(_Reader(self._bytes), method=method)  # type: ignore[arg-type]
        response.begin()
        fields = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, fields, response.read().decode())

    def has_ended(self) -> bool:
        """Whether the other end has closed, without another byte."""
        try:
            return self._bytes.read(1) == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self._bytes.close()
        self.socket.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Reader:
    """A connection's stream, which outlives the responses that are read from it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def makefile(self, _mode: str) -> Any:
        stream = self._stream

        class Unclosed:
            closed = False
            read, readline, readinto = stream.read, stream.readline, stream.readinto
            read1, peek, flush, close = stream.read1, stream.peek, lambda _: None, lambda _: None

        return Unclosed()
