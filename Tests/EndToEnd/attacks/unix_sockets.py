"""Connects to every Unix socket below the directories given, under whatever name it lies there.

    unix_sockets.py PATH…

Prints a line for each that answered.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path


def try_to_connect(path: Path) -> None:
    for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
        with socket.socket(socket.AF_UNIX, kind) as client:
            try:
                client.connect(str(path))
                print("reached", path, client.recv(64).decode())
            except OSError:
                continue


for argument in sys.argv[1:]:
    try_to_connect(Path(argument))
    for directory, _, names in os.walk(argument):
        for name in names:
            try_to_connect(Path(directory) / name)
print("tried everything")
