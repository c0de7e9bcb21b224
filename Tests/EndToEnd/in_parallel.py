"""Runs the end-to-end tests several files at a time, each file on a node of its own; then alone what has to be alone.

    in_parallel.py [--workers N] [ARG…]        with ARG as for pytest

A node of its own is a network, mount, process and IPC namespace with its own /run, /tmp, /var/tmp, /dev/shm and
/etc/netns: the lab's addresses, links, rules, lock and names are there once more, and everything ends with the
namespace's first process. Tests marked `machine` run on the machine itself, a file after the other, while nodes do the rest;
those marked `alone` in the end, when no other runs.

Every test that was collected has to be reported on: what a pytest that died did not tell counts as failed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import pytest

from lab.effort import LONG

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PRIVATE = ("/run", "/tmp", "/var/tmp", "/dev/shm", "/etc/netns")
"""The directories that each node has for itself."""
PATIENCE = 900
"""How many seconds a job may tell of no test before it is ended: conftest.py ends a test that hangs well before, but not what
hangs when all tests are done."""
MOST_AT_ONCE = 100
"""Tests of a file that one node runs; those of a longer file are divided among several."""


@dataclass
class Job:
    """Tests of one file, or those that run alone."""

    name: str
    tests: list[str]
    directory: Path
    has_node: bool = True
    """Whether they run on a node of their own, rather than on the machine itself."""
    process: subprocess.Popen[bytes] | None = None
    began: float = 0
    took: float = 0
    outcomes: dict[str, str] = field(default_factory=dict)
    """By test: passed, skipped, xfailed or failed; nothing for one that was not reported on to its end."""
    durations: list[tuple[float, str]] = field(default_factory=list)

    @property
    def output(self) -> Path:
        """What its pytest printed."""
        return self.directory / "output"

    def command(self) -> list[str]:
        """The pytest that runs just these tests, and writes down how each went."""
        self.directory.mkdir()
        (self.directory / "tests").write_text("".join(f"{json.dumps(test)}\n" for test in self.tests))
        own = [f"--tests={self.directory / 'tests'}", f"--outcomes={self.directory / 'outcomes'}"]
        # Parameters of tests depend on nothing but the files, so that the same tests are found as before.
        files = sorted({test.split("::")[0] for test in self.tests})
        python = ["/usr/bin/python3", "-m", "pytest", "-c", str(HERE / "pytest.ini"), "--color=no"]
        return [*python, *own, *(str(HERE / file) for file in files)]

    def note_outcomes(self) -> None:
        """Reads what the pytest wrote down."""
        ended: set[str] = set()
        file = self.directory / "outcomes"
        for line in file.read_text().splitlines() if file.exists() else []:
            try:
                test, when, outcome, seconds = json.loads(line)
            except ValueError:
                continue  # The last line of one that was killed.
            self.durations.append((seconds, f"{when:8} {test}"))
            if outcome != "passed" or when == "call":
                if self.outcomes.get(test) != "failed":
                    self.outcomes[test] = outcome
            if when == "teardown":
                ended.add(test)
        for test in self.tests:
            if test not in ended:
                self.outcomes.pop(test, None)

    def failed(self) -> list[str]:
        """Tests that failed, or of which nothing is known."""
        found = [f"FAILED   {test}" for test in self.tests if self.outcomes.get(test) == "failed"]
        silent = [test for test in self.tests if test not in self.outcomes]
        if silent:
            found.append(f"NOT TOLD {silent[0]}, and {len(silent) - 1} after it in {self.name}")
        return found

    def is_good(self) -> bool:
        """Whether all tests were reported on and passed, and pytest says so too."""
        return not self.failed() and self.process is not None and self.process.returncode == 0

    def is_silent(self) -> bool:
        """Whether it has told of no test for too long."""
        file = self.directory / "outcomes"
        told = time.time() - file.stat().st_mtime if file.exists() else time.monotonic() - self.began
        return told > PATIENCE and not LONG

    def processes(self) -> str:
        """What its processes are and what they wait for, each in a line."""
        assert self.process is not None
        children: dict[str, list[str]] = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                children.setdefault(path.read_text().rpartition(")")[2].split()[1], []).append(path.parent.name)
        lines, left = [], [str(self.process.pid)]
        while left:
            pid = left.pop()
            left += children.get(pid, [])
            with contextlib.suppress(OSError):
                place = Path("/proc") / pid
                state = place.joinpath("stat").read_text().rpartition(")")[2].split()[0]
                command = place.joinpath("cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:200]
                stack = place.joinpath("stack").read_text().replace("\n", " ")[:400]
                lines.append(f"{pid} {state} {command or '-'} {stack}")
        return "\n".join(lines)

    def counts(self) -> str:
        """How many tests went how."""
        counted = Counter(self.outcomes.get(test, "not told") for test in self.tests)
        return ", ".join(f"{number} {outcome}" for outcome, number in sorted(counted.items()))


class Collected:
    """The ids of tests, and which of them have which mark."""

    tests: list[str] = []
    machine: set[str] = set()
    alone: set[str] = set()
    slow: set[str] = set()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.tests = [item.nodeid for item in session.items]
        self.machine, self.alone, self.slow = (
            {item.nodeid for item in session.items if item.get_closest_marker(mark)} for mark in ("machine", "alone", "slow")
        )


def collect(arguments: list[str]) -> Collected:
    """The tests that `arguments` select."""
    collector = Collected()
    options = ["-c", str(HERE / "pytest.ini"), "--collect-only", "-qq", "--no-summary", *arguments]
    if not any(Path(argument.split("::")[0]).exists() for argument in arguments):
        options.append(str(HERE))
    standard, null = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    try:
        status = pytest.main(options, plugins=[collector])
    finally:
        sys.stdout.flush()
        os.dup2(standard, 1)
        os.close(standard)
        os.close(null)
    if status != 0:
        sys.exit(f"in_parallel.py: the tests could not be collected (pytest ends with {int(status)}): "
                 "pytest --collect-only says why")
    if len(set(collector.tests)) != len(collector.tests):
        sys.exit("in_parallel.py: two tests have the same id")
    return collector


def divided(collected: Collected, directory: Path) -> list[Job]:
    """One job for each file, several for a long one, and one for those of its tests that run on the machine itself: these
    first, for they wait for each other; then those that take longest. Those that are alone are in none."""
    jobs: list[Job] = []
    tests = [test for test in collected.tests if test not in collected.alone]
    for file, its in _by_file(test for test in tests if test in collected.machine).items():
        jobs.append(Job(f"{file}, on the machine", its, directory / f"{len(jobs)}", has_node=False))
    for file, its in _by_file(test for test in tests if test not in collected.machine).items():
        parts = -(-len(its) // MOST_AT_ONCE)
        for part in range(parts):
            piece = its[len(its) * part // parts : len(its) * (part + 1) // parts]
            name = f"{file} ({part + 1} of {parts})" if parts > 1 else file
            jobs.append(Job(name, piece, directory / f"{len(jobs)}"))
    # A slow one takes about as long as so many others.
    weights = {job.name: len(job.tests) + 20 * len(collected.slow.intersection(job.tests)) for job in jobs}
    return sorted(jobs, key=lambda job: (job.has_node, -weights[job.name]))


def _by_file(tests: Iterable[str]) -> dict[str, list[str]]:
    files: dict[str, list[str]] = {}
    for test in tests:
        files.setdefault(test.split("::")[0], []).append(test)
    return files


def start(job: Job) -> None:
    """Starts a job, on a node of its own unless it needs the machine. A node ends when we do, however that comes about."""
    pytest_command = job.command()
    if not job.has_node:
        return launch(job, pytest_command)
    for path in PRIVATE:
        (job.directory / "node" / path.strip("/").replace("/", "-")).mkdir(parents=True, mode=0o755)
    # The first `setpriv` has unshare killed when we end, and `--kill-child` the namespace's first process with it.
    own = ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--ipc", "--mount", "--propagation", "private"]
    own += ["--pid", "--fork", "--kill-child", "--mount-proc"]
    launch(job, [*own, "/usr/bin/python3", str(Path(__file__).resolve()), "--node", str(job.directory), *pytest_command])


def launch(job: Job, command: list[str]) -> None:
    """Starts a job's command, with its output in a file."""
    job.began = time.monotonic()
    with job.output.open("wb") as output:
        job.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def be_node(directory: Path, command: list[str]) -> int:
    """The first process of a node: makes the node's own directories and network, runs `command`, and reaps orphans."""
    Path("/etc/netns").mkdir(exist_ok=True)
    tree = os.open(ROOT, os.O_PATH)
    sources = [(path, directory / "node" / path.strip("/").replace("/", "-")) for path in PRIVATE]
    for path, source in sources:
        # A new machine has no /etc/netns.
        Path(path).mkdir(parents=True, exist_ok=True)
        source.chmod(Path(path).stat().st_mode & 0o7777)
    # What a lab on the machine has mounted there would be covered, and vanish from this node's mounts when that lab ends.
    for point in _covered(directory):
        subprocess.run(["umount", "--lazy", str(point)], capture_output=True)
    # It may have vanished meanwhile.
    if left := _covered(directory):
        sys.exit(f"in_parallel.py: {left[0]} cannot be unmounted")
    opened = [(path, os.open(source, os.O_PATH)) for path, source in sources]
    if any(ROOT.is_relative_to(path) for path in PRIVATE):
        opened.append((str(ROOT), tree))  # It was covered just now.
    for path, descriptor in opened:
        subprocess.run(["mount", "--bind", f"/proc/self/fd/{descriptor}", path], check=True, pass_fds=[descriptor])
    for descriptor in {tree, *(descriptor for _, descriptor in opened)}:
        os.close(descriptor)
    os.chdir(ROOT)
    # What shows devices shows those of the namespace that it was mounted in.
    groups = subprocess.run(["findmnt", "-rno", "TARGET", "/sys/fs/cgroup"], capture_output=True).returncode == 0
    kept = os.open("/sys/fs/cgroup", os.O_PATH)
    subprocess.run(["mount", "-t", "sysfs", "sysfs", "/sys"], check=True)
    if groups:
        subprocess.run(["mount", "--rbind", f"/proc/self/fd/{kept}", "/sys/fs/cgroup"], check=True, pass_fds=[kept])
    os.close(kept)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    main = os.posix_spawn(command[0], command, os.environ)
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == main:
            return os.waitstatus_to_exitcode(status) & 0xFF


def _covered(directory: Path) -> list[Path]:
    """What is mounted below the private directories, those last that others are mounted on; but for what leads to this tree or
    to `directory`."""
    points = [Path(line.split(" ")[4]) for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [
        point
        for point in reversed(points)
        if any(point != Path(path) and point.is_relative_to(path) for path in PRIVATE)
        and not any(place.is_relative_to(point) for place in (ROOT, directory))
    ]


def run_beside(jobs: list[Job], workers: int) -> None:
    """Runs jobs, `workers` at a time, of which one at most is on the machine itself, and says of each how it went."""
    waiting, running, done = list(jobs), dict[int, Job](), 0

    def next_job() -> Job | None:
        is_taken = any(not job.has_node for job in running.values())
        return next((job for job in waiting if job.has_node or not is_taken), None)

    while waiting or running:
        while len(running) < workers and (job := next_job()) is not None:
            waiting.remove(job)
            start(job)
            assert job.process is not None
            running[os.pidfd_open(job.process.pid)] = job
        ended = select.select(list(running), [], [], 60)[0]
        for descriptor, job in list(running.items()):
            assert job.process is not None
            if descriptor in ended:
                job.process.wait()
            elif job.is_silent():
                print(f"======== {job.name} has told of nothing for {PATIENCE} s\n{job.processes()}", flush=True)
                end(job.process, job.has_node)
            else:
                continue
            os.close(descriptor)
            del running[descriptor]
            done += 1
            finish(job, f"[{done}/{len(jobs)}]")


def end(process: subprocess.Popen[bytes], has_node: bool) -> None:
    """Ends a job. What it made on a node goes with the node; elsewhere it is asked to clean up."""
    if not has_node:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
    process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(60)


def finish(job: Job, number: str) -> None:
    """Takes a job's outcomes in and says how it went, with the output of one that failed."""
    job.took = time.monotonic() - job.began
    job.note_outcomes()
    word = "passed" if job.is_good() else "FAILED"
    print(f"{number:8} {word}  {job.name}: {job.counts()}, {job.took:.0f} s", flush=True)
    if not job.is_good() and job.output.exists():
        # At once: who ends us may not wait for the end.
        text = job.output.read_text(errors="replace")
        begins = [place for title in ("ERRORS", "FAILURES") if (place := text.find(f"= {title} =")) >= 0]
        print(f"\n======== {job.name}, exit status {job.process.returncode if job.process else None}")
        print(text[text.rfind("\n", 0, min(begins)) + 1 :] if begins else text, flush=True)


def run_alone(job: Job) -> None:
    """Runs what has to be alone, on the machine itself."""
    command = job.command()
    job.began = time.monotonic()
    job.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    job.process.wait()
    finish(job, "[alone]")


def report(jobs: list[Job], alone: Job | None) -> bool:
    """Prints what failed, and the slowest; whether all is good."""
    every = [*jobs, *([alone] if alone else [])]
    durations = sorted((entry for job in every for entry in job.durations), reverse=True)[:20]
    print("\n======== slowest")
    print("\n".join(f"{seconds:7.2f} s  {what}" for seconds, what in durations))
    failed = [line for job in every for line in job.failed()]
    wrong = [job for job in every if not job.is_good() and not job.failed()]
    failed += [f"FAILED   {job.name}: pytest's exit status says so" for job in wrong]
    counted = Counter(job.outcomes.get(test, "not told") for job in every for test in job.tests)
    used = os.times()
    went = ", ".join(f"{number} {outcome}" for outcome, number in sorted(counted.items()))
    seconds = used.children_user + used.children_system
    print(f"\n======== {sum(counted.values())} tests: {went}; {seconds:.0f} s of the processors")
    print("\n".join(failed), end="\n" if failed else "")
    return not failed


def main() -> int:
    """Runs what the command line asks for."""
    if sys.argv[1:2] == ["--node"]:
        return be_node(Path(sys.argv[2]), sys.argv[3:])
    description = "Runs the end-to-end tests several files at a time."
    parser = argparse.ArgumentParser(description=description, allow_abbrev=False)
    parser.add_argument("--workers", type=int, default=3, help="how many files at a time (%(default)s)")
    options, arguments = parser.parse_known_args()

    def leave(number: int, _: FrameType | None) -> None:
        sys.exit(128 + number)

    # The clean-up of `with` and of the nodes is to happen on a polite signal too; the nodes end when we do.
    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    collected = collect(arguments)
    (ROOT / ".build").mkdir(exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="nodes-", dir=ROOT / ".build"))
    jobs: list[Job] = []
    try:
        jobs = divided(collected, directory)
        last = [test for test in collected.tests if test in collected.alone]
        print(f"{len(collected.tests)} tests: {len(collected.tests) - len(last)} in {len(jobs)} parts, {options.workers} at a time; "
              f"{len(last)} alone at the end", flush=True)
        run_beside(jobs, options.workers)
        alone = Job("alone", last, directory / "alone") if last else None
        if alone:
            run_alone(alone)
        return 0 if report(jobs, alone) else 1
    finally:
        for job in jobs:
            if job.process is not None and job.process.poll() is None:
                end(job.process, job.has_node)
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
