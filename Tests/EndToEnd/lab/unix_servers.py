"""Unix sockets as programs of the node have them: under other names than those they were bound under.

    unix_servers.py DIRECTORY

Every server says "outside" to whoever connects. Prints `serving` and the paths that lead to them, then serves until it is
ended.
"""

from __future__ import annotations

import os
import selectors
import socket
import sys
from pathlib import Path


def bound(name: str) -> socket.socket:
    server = socket.socket(socket.AF_UNIX)
    server.bind(name)
    server.listen()
    return server


def main(directory: Path) -> None:
    servers = {directory / "plain": bound(f"{directory}/plain")}
    servers[directory / "linked"] = bound(f"{directory}/linked.XXXX")
    os.link(directory / "linked.XXXX", directory / "linked")
    os.unlink(directory / "linked.XXXX")
    servers[directory / "renamed"] = bound(f"{directory}/before")
    os.rename(directory / "before", directory / "renamed")
    (directory / ".agent").mkdir()
    os.chdir(directory / ".agent")
    servers[directory / ".agent/relative"] = bound("relative")
    os.chdir("/")
    descriptor = os.open(directory / ".agent", os.O_RDONLY)
    servers[directory / ".agent/described"] = bound(f"/proc/self/fd/{descriptor}/described")
    selector = selectors.DefaultSelector()
    for server in servers.values():
        selector.register(server, selectors.EVENT_READ)
    print("serving", *servers, flush=True)
    while True:
        for key, _ in selector.select():
            assert isinstance(key.fileobj, socket.socket)
            client, _ = key.fileobj.accept()
            client.sendall(b"outside")
            client.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
