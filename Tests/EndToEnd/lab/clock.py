"""Clocks that jump: a library (faults/clock.c) between sandgate and what it knows of the time."""

from __future__ import annotations

import contextlib
import mmap
import signal
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

from .faults import SOURCE, build
from .processes import status_of, wait_until

_SECONDS = struct.Struct("=q")
FILE, LIBRARY = "clock", "clock.so"
"""What the program needs: the seconds to add, and what adds them."""


class Clock:
    """The clocks of one program: as they are, or some seconds ahead."""

    def __init__(self, directory: Path) -> None:
        """`directory` gets what the program needs, or has it already: for one that is seen in a container."""
        self._path = directory / FILE
        if not self._path.exists():
            build(directory / LIBRARY, SOURCE.with_name("clock.c"))
            self._path.write_bytes(_SECONDS.pack(0))
        self._directory = directory
        with self._path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)

    def environment(self, directory: Path | None = None) -> dict[str, str]:
        """What the program is started with, which sees the files in a directory of perhaps another name; it hands neither
        variable on."""
        place = directory or self._directory
        return {"LD_PRELOAD": str(place / LIBRARY), "SANDGATE_CLOCK": str(place / FILE)}

    def jump(self, seconds: int) -> None:
        """From now on, all clocks are this much further ahead."""
        (ahead,) = _SECONDS.unpack_from(self._memory)
        _SECONDS.pack_into(self._memory, 0, ahead + seconds)

    def close(self) -> None:
        self._memory.close()


@contextlib.contextmanager
def paused(process: subprocess.Popen[bytes] | None, clock: Clock, seconds: int) -> Iterator[None]:
    """A pause of so many seconds, as far as the process knows."""
    assert process is not None
    pid = process.pid
    process.send_signal(signal.SIGSTOP)
    wait_until(lambda: "T" in status_of(pid)["State"], "its stop")
    clock.jump(seconds)
    yield
    process.send_signal(signal.SIGCONT)
