"""`sandgate serve` as a contender: a node with any number of sandboxes, asked through its API."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lab.unix_http import UnixConnection
from lab.visitor import inside

from .processes import Client
from .proxies import Contender
from .stage import NAMESERVER, ORIGIN_NAME, QUERY_NAMES, Stage

CONNECTIONS = 8
"""Over how many the API is asked when much is asked."""
DESCRIPTORS = 8
"""Of the daemon for a sandbox."""
SPARE_DESCRIPTORS = 500
DISTINCT = 20
"""Names that are asked for in turn; every sandbox may resolve them."""
ALLOWED = (ORIGIN_NAME, *(QUERY_NAMES % number for number in range(DISTINCT)))


def allowing(*targets: str) -> dict[str, Any]:
    """A policy that denies all but these."""
    return {"defaultAction": "deny", "egress": [{"action": "allow", "target": target} for target in targets]}


class Node:
    """A daemon with its state, its audit trail and its socket in `directory`. Made by :func:`node`."""

    def __init__(self, stage: Stage, directory: Path) -> None:
        self._directory = directory
        self._program = stage.programs.sandgate
        self._socket = self._directory / "api" / "api.sock"
        self.namespaces = self._directory / "run" / "netns"
        self._notifications = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notifications.bind(str(self._directory / "notify.sock"))
        self._process: subprocess.Popen[bytes] | None = None
        self.count = 0
        """How many sandboxes it has; they are called 0, 1, …"""
        self.start()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Starts the daemon and returns when it serves, with every sandbox taken up."""
        command = [str(self._program), "serve", "--socket", str(self._socket), "--upstream-dns", NAMESERVER[0]]
        for kind in ("state", "runtime", "audit"):
            place = self.namespaces.parent if kind == "runtime" else self._directory / kind
            command += [f"--{kind}-dir", str(place)]
        log = self._directory / "log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, "NOTIFY_SOCKET": str(self._directory / "notify.sock")},
            )
        deadline = time.monotonic() + 150
        while time.monotonic() < deadline and self._process.poll() is None:
            # Not for longer at once: a process that ended says nothing more.
            if select.select([self._notifications], [], [], 0.2)[0] and b"READY=1" in self._notifications.recv(4096):
                return
        raise RuntimeError(f"the daemon did not begin to serve: {log.read_text()}")

    def kill(self) -> None:
        """Ends the daemon as a crash would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def remove(self) -> None:
        """Ends the daemon and takes away its namespaces."""
        if self._process is not None:
            self.kill()
        self._notifications.close()
        mounted = [str(path) for path in self.namespaces.iterdir()] if self.namespaces.is_dir() else []
        for first in range(0, len(mounted), 500):
            subprocess.run(["umount", "-l", *mounted[first : first + 500]], capture_output=True)

    def most_sandboxes(self) -> int:
        """How many fit into the descriptors that the daemon may have."""
        limits = Path(f"/proc/{self.pid}/limits").read_text()
        found = re.search(r"^Max open files\s+(\d+)", limits, re.MULTILINE)
        if found is None:
            raise RuntimeError(f"no limit of open files in {limits}")
        return (int(found.group(1)) - SPARE_DESCRIPTORS) // DESCRIPTORS

    # API

    def connection(self) -> contextlib.closing[UnixConnection]:
        """A connection to the API, closed at the end of a `with`."""
        return contextlib.closing(UnixConnection(self._socket, 60))

    @staticmethod
    def attach(connection: UnixConnection, id: str) -> str:
        """Makes a sandbox and returns where its namespace is."""
        body = {"id": id, "attachment": {"create": True}, "networkPolicy": allowing(*ALLOWED)}
        status, answer = connection.ask("POST", "/v1/sandboxes", body)
        if status != 201:
            raise RuntimeError(f"the daemon did not make sandbox {id}: {status} {answer}")
        return str(answer["networkNamespace"])

    @staticmethod
    def detach(connection: UnixConnection, id: str) -> None:
        """Releases a sandbox."""
        status, answer = connection.ask("DELETE", f"/v1/sandboxes/{id}")
        if status != 204:
            raise RuntimeError(f"the daemon did not release sandbox {id}: {status} {answer}")

    def grow(self, count: int) -> float:
        """Makes sandboxes until there are `count`, over a few connections; returns the seconds for each one made."""
        ids = iter(range(self.count, count))
        taking = threading.Lock()

        def serve() -> None:
            with self.connection() as connection:
                while True:
                    with taking:
                        id = next(ids, None)
                    if id is None:
                        return
                    self.attach(connection, str(id))

        begun = time.perf_counter()
        with ThreadPoolExecutor(CONNECTIONS) as threads:
            for done in [threads.submit(serve) for _ in range(CONNECTIONS)]:
                done.result()
        taken = (time.perf_counter() - begun) / max(count - self.count, 1)
        self.count = max(self.count, count)
        return taken

    def check_all_run(self) -> None:
        """Raises unless every sandbox is listed as running."""
        with self.connection() as connection:
            _, answer = connection.ask("GET", "/v1/sandboxes?limit=10000")
        running = [item for item in answer["items"] if item["status"]["state"] == "Running"]
        if len(running) != self.count:
            raise RuntimeError(f"of {self.count} sandboxes {len(running)} run")

    # Inside

    @contextlib.contextmanager
    def client(self, stage: Stage) -> Iterator[Contender]:
        """A load client in the first sandbox, with the origin's address pinned."""
        command = ["nsenter", f"--net={self.namespaces}/0", *stage.client_command()]
        with Client(command) as client:
            client.ask("queries", *NAMESERVER, 1, ORIGIN_NAME, 0, 1, 1, 0, 1)
            yield Contender(client, self.pid)

    def socket_inside(self, kind: socket.SocketKind) -> socket.socket:
        """A socket in the first sandbox's network: it stays there, whoever uses it."""
        with inside(f"{self.namespaces}/0"):
            return socket.socket(socket.AF_INET, kind)


class PolicyRequest:
    """A change of the first sandbox's policy that is sent at one moment and whose answer is read at another."""

    def __init__(self, connection: UnixConnection, targets: tuple[str, ...]) -> None:
        self._connection = connection
        headers = {"Content-Type": "application/json"}
        connection.request("PUT", "/v1/sandboxes/0/policy", json.dumps(allowing(*targets)), headers)

    def finish(self) -> None:
        """Reads the answer."""
        response = self._connection.getresponse()
        text = response.read()
        if response.status != 200:
            raise RuntimeError(f"the policy was not changed: {response.status} {text.decode()}")


@contextlib.contextmanager
def node(stage: Stage) -> Iterator[Node]:
    """A node without sandboxes, for as long as the `with` lasts.

    In memory: the daemon synchronises what it acknowledges to the disk, and on a disk that others use as well an fsync
    takes from a third of a millisecond to a third of a second. That would be measured, and nothing else.
    """
    with tempfile.TemporaryDirectory(prefix="sandgate-benchmark-", dir="/dev/shm") as directory:
        made = Node(stage, Path(directory))
        try:
            yield made
        finally:
            made.remove()
