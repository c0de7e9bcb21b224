"""A terminal of its own, as a second window has: what is shown there, and somebody who types."""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Iterator

from .user import User


class Window:
    """A pseudo-terminal and who sits at it. Made by :func:`opened`."""

    def __init__(self, owner: User | None) -> None:
        self._screen, self._terminal = os.openpty()
        self.name = os.ttyname(self._terminal)
        self.shown = ""
        """All that was shown so far."""
        self._seen = 0
        if owner:
            os.chown(self.name, owner.id, owner.id)

    @property
    def terminal(self) -> int:
        """The terminal's descriptor, as the programs in the window have it."""
        return self._terminal

    def type(self, text: str) -> None:
        """Types, with Enter where a line ends."""
        os.write(self._screen, text.encode())

    def wait_for(self, *texts: str, timeout: float = 15) -> str:
        """Waits until one of `texts` is shown that was not waited for before, and says which came first."""
        deadline = time.monotonic() + timeout
        begin = self._seen
        while True:
            found = [(place, text) for text in texts if (place := self.shown.find(text, begin)) >= 0]
            if found:
                place, text = min(found)
                self._seen = place + len(text)
                return text
            ready = select.select([self._screen], [], [], max(0, deadline - time.monotonic()))[0]
            assert ready, f"none of {texts} in {self.shown[begin:]!r}"
            self.shown += os.read(self._screen, 4096).decode(errors="replace")

    def answer(self, line: str, outcome: str) -> None:
        """Types an answer until it is not too soon after the question, and waits for what comes of it."""
        self.type(line + "\n")
        while self.wait_for(outcome, "that was too soon") != outcome:
            self.type(line + "\n")

    def close(self) -> None:
        """Closes the window: the programs in it lose their terminal."""
        for descriptor in (self._terminal, self._screen):
            with contextlib.suppress(OSError):
                os.close(descriptor)


@contextlib.contextmanager
def opened(owner: User | None = None) -> Iterator[Window]:
    """A window of `owner`, or of root; closed at the end."""
    window = Window(owner)
    try:
        yield window
    finally:
        window.close()
