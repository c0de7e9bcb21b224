"""A server that accepts all connections and holds them, silent: holder.py ADDRESS PORT…. Says "serving" when it listens.

Datagrams are not answered either.
"""

from __future__ import annotations

import resource
import select
import socket
import sys


def main(address: str, *ports: str) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    poll = select.epoll()
    listeners: dict[int, socket.socket] = {}
    for port in ports:
        listener = socket.create_server((address, int(port)), backlog=4096)
        listener.setblocking(False)
        listeners[listener.fileno()] = listener
        poll.register(listener.fileno(), select.EPOLLIN)
    held: dict[int, socket.socket] = {}
    print("serving", flush=True)
    while True:
        for descriptor, _ in poll.poll(maxevents=4096):
            if descriptor in listeners:
                try:
                    connection = listeners[descriptor].accept()[0]
                except OSError:
                    continue
                connection.setblocking(False)
                held[connection.fileno()] = connection
                poll.register(connection.fileno(), select.EPOLLIN)
                continue
            try:
                if held[descriptor].recv(65536):
                    continue
            except BlockingIOError:
                continue
            except OSError:
                pass
            poll.unregister(descriptor)
            held.pop(descriptor).close()


if __name__ == "__main__":
    main(*sys.argv[1:])
