"""Floods: floods.py KIND ARGUMENT… as the functions in KINDS say.

Says "begun" when the flood is under way, goes on until a line comes on standard input, and then says in JSON what it did.
Runs as root inside a sandbox; with SIGSTOP it pauses, so that what goes on beside it can be measured with and without it.
"""

from __future__ import annotations

import collections
import errno
import itertools
import json
import os
import random
import resource
import select
import socket
import string
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator

from shared_namespace import question

counts: collections.Counter[str] = collections.Counter()
ended = threading.Event()
begun = threading.Event()


def names(pattern: str) -> Iterator[str]:
    """The pattern again and again; each RANDOM in it is a label of its own each time."""
    while True:
        label = "".join(random.choices(string.ascii_lowercase + string.digits, k=24))
        yield pattern.replace("RANDOM", label)


def note(answer: bytes) -> None:
    counts["answered"] += 1
    counts[f"rcode {answer[3] & 15}"] += 1


def queries(server: str, pattern: str, window: str) -> None:
    """Asks over UDP with so many queries under way at once, and looks at every answer."""
    waiting: dict[int, float] = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.connect((server, 53))
        asking.settimeout(20)
        for number, name in enumerate(names(pattern)):
            if ended.is_set():
                break
            identifier = number & 0xFFFF
            asking.send(question(name, identifier))
            counts["sent"] += 1
            waiting[identifier] = time.monotonic()
            while len(waiting) >= int(window):
                answer = asking.recv(4096)
                waiting.pop(int.from_bytes(answer[:2], "big"), None)
                note(answer)
            if number == 200:
                begun.set()
        while waiting:
            answer = asking.recv(4096)
            waiting.pop(int.from_bytes(answer[:2], "big"), None)
            note(answer)


def blind_queries(server: str, pattern: str, pause: str) -> None:
    """Asks over UDP without waiting for anything."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        asking.connect((server, 53))
        for number, name in enumerate(names(pattern)):
            if ended.is_set():
                break
            asking.send(question(name, number & 0xFFFF))
            counts["sent"] += 1
            while select.select([asking], [], [], 0)[0]:
                note(asking.recv(4096))
            if number == 1_000:
                begun.set()
            time.sleep(float(pause))
        while select.select([asking], [], [], 1)[0]:
            note(asking.recv(4096))


def tcp_queries(server: str, pattern: str, clients: str, reads: str) -> None:
    """So many TCP clients of DNS that ask without pause, and read the answers or do not."""
    sockets: list[socket.socket] = []
    generator = names(pattern)
    while not ended.is_set():
        while len(sockets) < int(clients):
            try:
                connection = socket.create_connection((server, 53), 10)
            except OSError:
                counts["refused"] += 1
                break
            connection.setblocking(False)
            counts["connected"] += 1
            sockets.append(connection)
        for connection in list(sockets):
            message = question(next(generator), 1)
            try:
                if reads == "reads":
                    while connection.recv(65536):
                        counts["read"] += 1
                    raise ConnectionResetError
            except BlockingIOError:
                pass
            except OSError:
                sockets.remove(connection)
                counts["reset"] += 1
                continue
            try:
                connection.send((len(message).to_bytes(2, "big") + message) * 20)
                counts["sent"] += 20
            except BlockingIOError:
                counts["full"] += 1
            except OSError:
                sockets.remove(connection)
                counts["reset"] += 1
        if not begun.is_set() and counts["connected"] >= int(clients):
            begun.set()


def waiting_clients(server: str, slow: str, quick: str, count: str) -> None:
    """So many TCP clients of DNS that each ask for two names: the answer for the second says that the first waits."""
    kept = []
    for _ in range(int(count)):
        try:
            client = socket.create_connection((server, 53), 20)
            kept.append(client)
            for identifier, name in enumerate((slow, quick)):
                message = question(next(names(name)), identifier)
                client.sendall(len(message).to_bytes(2, "big") + message)
            counts["waiting" if client.recv(4096) else "reset"] += 1
        except OSError:
            counts["reset"] += 1
    begun.set()
    ended.wait()


def silent_queries(server: str, pattern: str, count: str) -> None:
    """Asks so many times over UDP, and then looks at what has come back when it is told to end."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        asking.connect((server, 53))
        for number, name in zip(range(int(count)), names(pattern)):
            asking.send(question(name, number & 0xFFFF))
            counts["sent"] += 1
        begun.set()
        ended.wait()
        while select.select([asking], [], [], 0)[0]:
            note(asking.recv(4096))


def look_up(pattern: str, *words: str) -> None:
    """Looks names up with the C library, one for each word; counts those that have an address."""
    for word in words:
        try:
            socket.getaddrinfo(pattern.replace("WORD", word), 1, socket.AF_INET)
            counts["resolved"] += 1
        except OSError:
            counts["unresolved"] += 1


def connections(host: str, port: str, end: str) -> None:
    """Connects and hangs up, with a reset or in order."""
    for number in itertools.count():
        if ended.is_set():
            break
        with socket.socket() as connection:
            if end == "reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            try:
                connection.settimeout(10)
                connection.connect((host, int(port)))
                counts["connected"] += 1
            except OSError as error:
                counts[errno.errorcode.get(error.errno or 0, str(error))] += 1
        if number == 200:
            begun.set()


def requests(host: str, port: str, text: str) -> None:
    """Sends requests on one connection without reading an answer; connects again when it is closed."""
    block = text.encode().decode("unicode_escape").encode("latin-1") * 20
    while not ended.is_set():
        connection = socket.create_connection((host, int(port)), 10)
        connection.setblocking(False)
        counts["connected"] += 1
        try:
            while not ended.is_set():
                if select.select([], [connection], [], 0.2)[1]:
                    counts["bytes"] += connection.send(block)
                else:
                    begun.set()
        except OSError:
            counts["reset"] += 1
        begun.set()


def held(host: str, ports: str, count: str, text: str) -> None:
    """Holds so many connections; of `text` each sends a byte a round. Counts what is reset."""
    wanted = int(count)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    data = text.encode().decode("unicode_escape").encode("latin-1")
    targets = itertools.cycle([int(port) for port in ports.split(",")])
    poll = select.epoll()
    sockets: dict[int, tuple[socket.socket, int]] = {}

    def look(timeout: float) -> None:
        for descriptor, event in poll.poll(timeout, 4096):
            connection, _ = sockets[descriptor]
            try:
                if connection.recv(4096):
                    counts["answers"] += 1
                    continue
                counts["closed"] += 1
            except OSError:
                counts["reset"] += 1
            poll.unregister(descriptor)
            del sockets[descriptor]
            connection.close()

    def drip() -> None:
        for descriptor, (connection, sent) in list(sockets.items()):
            if sent < len(data):
                try:
                    connection.send(data[sent : sent + 1])
                    sockets[descriptor] = (connection, sent + 1)
                except OSError:
                    pass

    for number in range(wanted):
        if ended.is_set():
            break
        connection = socket.socket()
        try:
            connection.settimeout(30)
            connection.connect((host, next(targets)))
            connection.setblocking(False)
        except OSError as error:
            counts[errno.errorcode.get(error.errno or 0, str(error))] += 1
            connection.close()
            continue
        counts["connected"] += 1
        sockets[connection.fileno()] = (connection, 0)
        poll.register(connection.fileno(), select.EPOLLIN | select.EPOLLRDHUP)
        if number % 500 == 0:
            look(0)
    drip()
    look(0.5)
    begun.set()
    while not ended.is_set():
        drip()
        look(0.1)
    look(0.5)
    counts["open"] = len(sockets)


def packets(*targets: str) -> None:
    """Datagrams to addresses and ports, as fast as they go."""
    senders = []
    for word in targets:
        host, _, port = word.rpartition(":")
        sender = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        senders.append((sender, (host, int(port))))
    for number in itertools.count():
        if ended.is_set():
            break
        for sender, target in senders:
            try:
                sender.sendto(b"x", target)
            except OSError as error:
                counts[errno.errorcode.get(error.errno or 0, str(error))] += 1
            counts["sent"] += 1
        if number == 1_000:
            begun.set()


def flows(host: str, port: str) -> None:
    """Datagrams from a socket of its own each."""
    kept: collections.deque[socket.socket] = collections.deque(maxlen=2_000)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4_000), hard))
    for number in itertools.count():
        if ended.is_set():
            break
        if len(kept) == kept.maxlen:
            kept.popleft().close()
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        kept.append(sender)
        try:
            sender.sendto(b"a flow", (host, int(port)))
            counts["sent"] += 1
        except OSError as error:
            counts[errno.errorcode.get(error.errno or 0, str(error))] += 1
        if number == 1_000:
            begun.set()


KINDS: dict[str, Callable[..., None]] = {
    "queries": queries,
    "blind-queries": blind_queries,
    "silent-queries": silent_queries,
    "tcp-queries": tcp_queries,
    "waiting-clients": waiting_clients,
    "look-up": look_up,
    "connections": connections,
    "requests": requests,
    "held": held,
    "packets": packets,
    "flows": flows,
}


def main(kind: str, *arguments: str) -> None:
    failure: list[BaseException] = []

    def work() -> None:
        try:
            KINDS[kind](*arguments)
        except BaseException as error:  # noqa: BLE001
            failure.append(error)
        begun.set()

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    begun.wait()
    print("begun" if not failure else f"failed: {failure[0]!r}", flush=True)
    sys.stdin.readline()
    ended.set()
    worker.join()
    if failure:
        counts[f"failed: {failure[0]!r}"] += 1
    print(json.dumps(counts), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
