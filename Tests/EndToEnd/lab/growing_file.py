"""A file to which another program appends lines while the tests read it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from .processes import wait_until


class GrowingFile:
    """The lines of a server's log, read once each."""

    def __init__(self, path: Path, what: str) -> None:
        self._path = path
        self._what = what
        self._read = 0
        path.touch()

    def lines_until(self, marker: str, send: Callable[[], object] | None = None) -> str:
        """Waits for the line that has `marker` in it, and gives the whole lines that came since the last call.

        A marker that can be lost on its way is sent by `send`: now, and again each second.
        A reader can meet the beginning of a line that is just being written; its rest belongs to the next call.
        """
        sent = 0.0

        def there() -> bool:
            nonlocal sent
            if send and time.monotonic() > sent + 1:
                send()
                sent = time.monotonic()
            return "\n" in self._path.read_text().partition(marker)[2]

        wait_until(there, self._what)
        text = self._path.read_text()
        begin, self._read = self._read, text.rindex("\n") + 1
        return text[begin : self._read]
