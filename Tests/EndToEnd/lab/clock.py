"""Clocks that jump: a library (faults/clock.c) between sandgate and what it knows of the time."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from .faults import SOURCE, build

_SECONDS = struct.Struct("=q")


class Clock:
    """The clocks of one program: as they are, or some seconds ahead."""

    def __init__(self, directory: Path) -> None:
        self._path, self._library = directory / "clock", directory / "clock.so"
        build(self._library, SOURCE.with_name("clock.c"))
        self._path.write_bytes(_SECONDS.pack(0))
        with self._path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)

    def environment(self) -> dict[str, str]:
        """What the program is started with; it hands neither variable on."""
        return {"LD_PRELOAD": str(self._library), "SANDGATE_CLOCK": str(self._path)}

    def jump(self, seconds: int) -> None:
        """From now on, all clocks are this much further ahead."""
        (ahead,) = _SECONDS.unpack_from(self._memory)
        _SECONDS.pack_into(self._memory, 0, ahead + seconds)

    def close(self) -> None:
        self._memory.close()
