"""A terminal with a program in it: what is typed, what is to be seen, and in which state the program leaves it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

CONTROL = re.compile(rb"\x1b\[([?0-9;]*)([A-Za-z])")


class Emulator:
    """As much of a terminal as the program under test makes use of. What else a program has it do is in `surprises`."""

    def __init__(self, columns: int, rows: int) -> None:
        self.columns, self.rows = columns, rows
        self.is_alternate, self.has_cursor, self.wraps = False, True, True
        self.surprises: list[bytes] = []
        self._pending = b""
        self._main: list[list[str]] = self._empty()
        self._other: list[list[str]] = self._empty()
        self._row, self._column = 0, 0

    def _empty(self) -> list[list[str]]:
        return [[" "] * self.columns for _ in range(self.rows)]

    @property
    def _cells(self) -> list[list[str]]:
        return self._other if self.is_alternate else self._main

    @property
    def lines(self) -> list[str]:
        """What is to be seen now."""
        return ["".join(row).rstrip() for row in self._cells]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def resize(self, columns: int, rows: int) -> None:
        self.columns, self.rows = columns, rows
        self._main, self._other = self._empty(), self._empty()
        self._row = self._column = 0

    def feed(self, data: bytes) -> None:
        """Shows what a program writes."""
        data, self._pending = self._pending + data, b""
        while data:
            if data[:1] == b"\x1b":
                match = CONTROL.match(data)
                if match is None:
                    if len(data) < 16 and re.fullmatch(rb"\x1b(\[[?0-9;]*)?", data):
                        self._pending = data
                        return
                    self.surprises.append(data[:2])
                    data = data[2:]
                    continue
                self._control(match)
                data = data[match.end() :]
                continue
            self._put(data[0])
            data = data[1:]

    def _put(self, byte: int) -> None:
        if byte == 0x0D:
            self._column = 0
        elif byte == 0x0A:
            if self._row == self.rows - 1:
                self._cells.append([" "] * self.columns)
                del self._cells[0]
            else:
                self._row += 1
        elif 0x20 <= byte <= 0x7E:
            if self._column >= self.columns:
                if not self.wraps:
                    return
                self._put(0x0D)
                self._put(0x0A)
            self._cells[self._row][self._column] = chr(byte)
            self._column += 1
        else:
            self.surprises.append(bytes([byte]))

    def _control(self, match: re.Match[bytes]) -> None:
        words, kind = match[1].decode(), match[2].decode()
        modes = {"?1049": "is_alternate", "?25": "has_cursor", "?7": "wraps"}
        if kind in "hl" and words in modes:
            setattr(self, modes[words], kind == "h")
            if words == "?1049" and kind == "h":
                self._other = self._empty()
        elif kind == "H":
            row, _, column = words.partition(";")
            self._row = min(int(row or 1), self.rows) - 1
            self._column = min(int(column or 1), self.columns) - 1
        elif kind == "K" and words == "2":
            self._cells[self._row] = [" "] * self.columns
        elif kind == "J" and words in ("", "2"):
            for number in range(0 if words == "2" else self._row, self.rows):
                self._cells[number] = [" "] * self.columns
        elif kind != "m":
            self.surprises.append(match[0])


def _begin() -> None:
    """The terminal is the command's own. Signals do what they do after a login: the tests may run under nohup."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)


class Terminal:
    """Runs a program in a session of its own, whose terminal this is."""

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        columns: int = 80,
        rows: int = 24,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.screen = Emulator(columns, rows)
        self._master, self._line = pty.openpty()
        self._set_size()
        self.modes_before = termios.tcgetattr(self._line)
        self.process = subprocess.Popen(
            [str(word) for word in command],
            stdin=self._line,
            stdout=self._line,
            stderr=self._line,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color", **(environment or {})},
            preexec_fn=_begin,
        )

    def _set_size(self) -> None:
        size = struct.pack("HHHH", self.screen.rows, self.screen.columns, 0, 0)
        fcntl.ioctl(self._line, termios.TIOCSWINSZ, size)

    def resize(self, columns: int, rows: int) -> None:
        """As when somebody drags the window: the foreground process is told by the kernel."""
        self.look()
        self.screen.resize(columns, rows)
        self._set_size()

    @property
    def is_restored(self) -> bool:
        """Whether a shell would find everything as it was."""
        screen = self.screen
        shown = screen.has_cursor and screen.wraps and not screen.is_alternate
        return shown and termios.tcgetattr(self._line) == self.modes_before

    def look(self, seconds: float = 0) -> None:
        """Takes what the program has written; waits for some."""
        while select.select([self._master], [], [], seconds)[0]:
            self.screen.feed(os.read(self._master, 65536))
            seconds = 0

    def wait_for(self, pattern: str, timeout: float = 15) -> re.Match[str]:
        """Waits until something is to be seen."""
        deadline = time.monotonic() + timeout
        while (match := re.search(pattern, self.screen.text, re.MULTILINE)) is None:
            assert time.monotonic() < deadline, f"no {pattern!r} in:\n{self.screen.text}"
            self.look(0.1)
        return match

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def wait(self, timeout: float = 15) -> int:
        """The exit status of the program; less than 0 for a signal. Everything that it wrote has been seen then."""
        deadline = time.monotonic() + timeout
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"still runs:\n{self.screen.text}"
            self.look(0.05)
        self.look()
        return self.process.returncode

    def hang_up(self) -> None:
        """As when somebody closes the window."""
        for descriptor in (self._master, self._line):
            if descriptor >= 0:
                os.close(descriptor)
        self._master = self._line = -1

    def close(self) -> None:
        """Ends whatever runs in it."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.hang_up()
