"""What an ordinary program does beside a flood: quiet.py NAMESERVER NAME ADDRESS.

For each line of standard input, which is a number, so many times: a DNS query and a request over HTTP. Answers with a line
of JSON: how long each took, in milliseconds, and what failed.
"""

from __future__ import annotations

import json
import random
import socket
import sys
import time

from shared_namespace import question

TIMEOUT = 20.0


def query(nameserver: str, name: str) -> None:
    message = question(name, random.getrandbits(16))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(TIMEOUT)
        asking.connect((nameserver, 53))
        asking.send(message)
        answer = asking.recv(4096)
        assert answer[:2] == message[:2] and answer[3] & 15 == 0 and answer[7] > 0, answer


def request(name: str, address: str) -> None:
    with socket.create_connection((address, 80), TIMEOUT) as connection:
        connection.sendall(f"GET / HTTP/1.0\r\nHost: {name}\r\n\r\n".encode())
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    assert f"served {name}".encode() in answer, answer


def main(nameserver: str, name: str, address: str) -> None:
    print("ready", flush=True)
    for line in sys.stdin:
        found: dict[str, list[float]] = {"query": [], "request": []}
        failures: list[str] = []
        for _ in range(int(line)):
            for kind in ("query", "request"):
                begun = time.perf_counter()
                try:
                    if kind == "query":
                        query(nameserver, name)
                    else:
                        request(name, address)
                    found[kind].append((time.perf_counter() - begun) * 1e3)
                except (OSError, AssertionError) as error:
                    failures.append(f"{kind}: {error!r}")
        print(json.dumps({**found, "failures": failures}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
