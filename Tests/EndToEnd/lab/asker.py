"""A client that keeps its connection: whether a connection survives is seen by the port that it comes from."""

from __future__ import annotations

import subprocess

PROGRAM = """
import http.client, socket, sys
connection = http.client.HTTPSConnection(sys.argv[1])
if sys.argv[2:]:
    connection._create_connection = lambda _, *rest: socket.create_connection((sys.argv[2], 443), *rest)
for line in sys.stdin:
    connection.request("GET", "/")
    print(connection.sock.getsockname()[1], connection.getresponse().read().decode().strip(), flush=True)
"""


class Asker:
    """Asks a web server, each time it is told to, over one connection."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        """`process` runs `command()`, with pipes for its input and output."""
        self._process = process

    @staticmethod
    def command(name: str, address: str = "") -> list[str]:
        """With an `address`, the name is not looked up but asked for there."""
        return ["/usr/bin/python3", "-c", PROGRAM, name, *([address] if address else [])]

    def ask(self) -> str:
        """What came back: the client's port and the answer, or the beginning of what the client says when it fails."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()
