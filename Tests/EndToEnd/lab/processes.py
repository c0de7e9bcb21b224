"""Commands and servers of the lab: run to their end, or ended by their process id when the lab goes."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path


def check(*command: str | Path, timeout: float = 60) -> str:
    """Runs `command` and returns its output; a failure raises with what it said."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=timeout)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit {done.returncode}: {done.stderr or done.stdout}")
    return done.stdout


def wait_until(condition: Callable[[], object], what: str, timeout: float = 10) -> None:
    """Waits for what has no event to wait for (a line in another program's log), for `timeout` seconds at most."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout} s in vain for {what}")
        time.sleep(0.005)


def status_of(pid: int) -> dict[str, str]:
    """What /proc/PID/status says of a process (proc_pid_status(5))."""
    return dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())


def kibibytes(pid: int, field: str = "VmRSS") -> int:
    """How much memory a process has; with VmHWM, how much it had at most."""
    return int(status_of(pid)[field].split()[0])


def is_alive(pid: int) -> bool:
    """Whether a process with this id exists and is not merely waiting to be reaped."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def end_process(pid: int, timeout: float = 5) -> None:
    """Ends a process that need not be a child: SIGTERM, and after `timeout` seconds SIGKILL. Waits until it is gone."""
    end_processes([pid], timeout)


def end_processes(pids: Iterable[int], timeout: float = 5) -> None:
    """Ends processes that need not be children: SIGTERM to all, after `timeout` seconds SIGKILL to those that are left.

    Waits until they are gone. Together: dnsmasq's children that serve an idle connection do not end at SIGTERM.
    """
    left: set[int] = set()
    try:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                left.add(os.pidfd_open(pid))
        for number in (signal.SIGTERM, signal.SIGKILL):
            for descriptor in left:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, number)
            deadline = time.monotonic() + timeout
            while left and (ended := select.select(left, [], [], max(0, deadline - time.monotonic()))[0]):
                for descriptor in ended:
                    left.remove(descriptor)
                    os.close(descriptor)
    finally:
        for descriptor in left:
            os.close(descriptor)


class Daemon:
    """A server that goes to the background by itself once it serves, and says in a file which process it is."""

    def __init__(self, command: list[str], pid_file: Path) -> None:
        check(*command)
        wait_until(lambda: pid_file.exists() and pid_file.read_text().strip(), f"{pid_file}")
        self.pid = int(pid_file.read_text())

    def stop(self) -> None:
        end_process(self.pid)


class Child:
    """A server that stays our child and prints a line when it serves."""

    def __init__(self, command: list[str], ready: str, timeout: float = 10) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self._drainer: threading.Thread | None = None
        assert self.process.stdout is not None
        said = b""
        deadline = time.monotonic() + timeout
        while ready.encode() not in said:
            left = max(0, deadline - time.monotonic())
            piece = b""
            if select.select([self.process.stdout], [], [], left)[0]:
                # Unbuffered: what a buffer held, select would not see.
                piece = os.read(self.process.stdout.fileno(), 65536)
            if not piece:
                self.stop()
                raise RuntimeError(f"{' '.join(command)} did not say {ready!r} but {said.decode()!r}")
            said += piece
        # Nobody needs the rest, but a full pipe would stop the server.
        self._drainer = threading.Thread(target=self._drain, daemon=True)
        self._drainer.start()

    def _drain(self) -> None:
        assert self.process.stdout is not None
        while os.read(self.process.stdout.fileno(), 65536):
            pass

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ends it and reaps it."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self._drainer is not None:
            self._drainer.join(5)
