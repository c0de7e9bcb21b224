"""What a process costs; the peers' servers; and the load generator's client, which takes commands by a pipe."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from lab.namespaces import Namespace
from lab.processes import wait_until


def cpu_seconds(pid: int) -> float:
    """The CPU time of a process so far, with that of its threads that have ended, to the nanosecond."""
    # clock_getcpuclockid(3): the complement of the id, and CPUCLOCK_SCHED for the whole process.
    return time.clock_gettime((~pid << 3) | 2)


def wait_for_ports(count: int) -> None:
    """Waits until this namespace has so many ports left to dial from: after a connection its port is out of use for a
    minute, and who finds none fails, whoever it is that is measured."""
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())

    def used() -> int:
        fields = Path("/proc/net/sockstat").read_text().partition("TCP:")[2].split()
        return int(fields[fields.index("inuse") + 1]) + int(fields[fields.index("tw") + 1])

    wait_until(lambda: high - low - used() >= count, f"{count} ports to dial from", timeout=90)


def memory_bytes(pid: int, field: Literal["Rss", "Anonymous"]) -> int:
    """A line of a process's memory map in sum: what is resident, or what of it is no file's."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == field:
            return int(rest.split()[0]) * 1024
    raise RuntimeError(f"no {field} of process {pid}")


def milliseconds(command: list[str]) -> float:
    """What a command takes to its end."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - start) * 1e3


@contextlib.contextmanager
def on_one_processor(pids: Sequence[int]) -> Iterator[None]:
    """Keeps processes on one processor while a `with` lasts: two that wait for each other take more than twice as long on
    two of them, and where the scheduler puts them changes from sample to sample."""
    tasks = [int(task.name) for pid in pids for task in Path(f"/proc/{pid}/task").iterdir()]
    before = {task: os.sched_getaffinity(task) for task in tasks}
    one = {min(before[tasks[0]])}
    try:
        for task in tasks:
            os.sched_setaffinity(task, one)
        yield
    finally:
        for task, processors in before.items():
            # Some may have ended.
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(task, processors)


class Server:
    """A peer that stays our child, for as long as a `with` lasts. `ip netns exec` becomes the program it runs."""

    def __init__(self, command: Sequence[str]) -> None:
        self._output = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            list(command), stdin=subprocess.DEVNULL, stdout=self._output, stderr=subprocess.STDOUT
        )
        self.pid = self._process.pid

    def wait_for_port(self, namespace: Namespace, protocol: str, port: int) -> None:
        """Waits until it serves."""
        listed = ("ss", "-Hln", "--tcp" if protocol == "tcp" else "--udp", f"sport = :{port}")

        def serves() -> bool:
            if self._process.poll() is not None:
                self._output.seek(0)
                raise RuntimeError(f"{self._process.args!r} ended: {self._output.read().decode()}")
            return bool(namespace.check(*listed).strip())

        wait_until(serves, f"{self._process.args!r} to serve")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._output.close()


class Client:
    """A running `load client`, for as long as a `with` lasts."""

    def __init__(self, command: Sequence[str]) -> None:
        self.process = subprocess.Popen(
            list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._read()

    def _read(self) -> dict[str, float]:
        assert self.process.stdout is not None and self.process.stderr is not None
        # Longer than the client itself waits for anything.
        if not select.select([self.process.stdout], [], [], 150)[0]:
            raise RuntimeError(f"{self.process.args!r} does not answer")
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args!r} ended: {self.process.stderr.read()}")
        answer: dict[str, float] = json.loads(line)
        if "error" in answer:
            raise RuntimeError(str(answer["error"]))
        return answer

    def ask(self, *words: object) -> dict[str, float]:
        """Has one command carried out."""
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return self._read()

    def connections(
        self,
        origin: tuple[str, int],
        name: str,
        *,
        reply: int,
        concurrency: int,
        count: int,
        stay: bool = False,
        via: tuple[str, int] | None = None,
    ) -> dict[str, float]:
        """`count` connections, every one of which has to get its whole reply."""
        words: list[object] = ["connections", *origin, name, reply, concurrency, count, "stay" if stay else "close"]
        return self.ask(*words, *(("via", *via) if via else ()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends it, and whatever runs it, by the end of its input."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
