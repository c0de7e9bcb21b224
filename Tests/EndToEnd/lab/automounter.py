"""An automounter, as automount(8) is one, that mounts nothing and notes for which names it was asked (autofs(5))."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

_PACKET = struct.Struct("iiIIQIIIII")
"""struct autofs_v5_packet up to the name: its fifth field from the end is the token, its last the name's length."""
_FAIL = 0x9361
"""AUTOFS_IOC_FAIL: what was asked for is not there."""


class Automounter:
    """Made by :func:`automounter`."""

    def __init__(self, requests: int, directory: int, group: int) -> None:
        self._requests, self._directory, self._group = requests, directory, group
        self._asked: list[str] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while packet := os.read(self._requests, 4096):
            _, _, token, *_, length = _PACKET.unpack_from(packet)
            self._asked.append(packet[_PACKET.size : _PACKET.size + length].decode())
            fcntl.ioctl(self._directory, _FAIL, token)

    def asked(self) -> list[str]:
        """For which names it was asked since this was last called. Who asked has its answer already."""
        names, self._asked = self._asked, []
        return names

    def make(self, directory: Path) -> None:
        """Makes a directory, as the automounter does for somebody who looked it up: nobody else can."""
        subprocess.run(["mkdir", directory], process_group=self._group, check=True)

    def wait_for_end(self) -> None:
        """Waits until the kernel has closed the file system."""
        self._thread.join(10)


@contextlib.contextmanager
def automounter(place: Path) -> Iterator[Automounter]:
    """The automounter of directory `place`."""
    requests, kernels_end = os.pipe()
    with subprocess.Popen(["sleep", "infinity"], process_group=0) as leader:
        # Who is in its group is not taken for somebody who looks a name up.
        options = f"fd={kernels_end},pgrp={leader.pid},minproto=5,maxproto=5,indirect"
        try:
            subprocess.run(["mount", "-t", "autofs", "-o", options, "lab", place], pass_fds=[kernels_end], check=True)
            os.close(kernels_end)
            directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
            made = Automounter(requests, directory, leader.pid)
            try:
                yield made
            finally:
                os.close(directory)
                subprocess.run(["umount", "--lazy", place], check=True)
                made.wait_for_end()
                os.close(requests)
        finally:
            leader.kill()
