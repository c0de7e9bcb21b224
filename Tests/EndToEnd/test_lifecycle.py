"""How a run begins and ends: exit status, signals, the terminal, kill -9, and what is left afterwards."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import plan
from lab.internet import Internet
from lab.machine import Snapshot, namespaces_below, namespaces_in_use, processes_with
from lab.processes import wait_until
from lab.sandgate import Sandgate, allowing, shell, wait_gone
from lab.terminal import Terminal


@pytest.mark.parametrize("status", [0, 1, 7, 125, 255])
def test_exit_status_is_the_commands(internet: Internet, sandgate: Sandgate, status: int) -> None:
    assert sandgate.run(allowing(), *shell(f"exit {status}")).returncode == status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV, signal.SIGINT])
def test_command_ended_by_a_signal(internet: Internet, sandgate: Sandgate, number: signal.Signals) -> None:
    run = sandgate.run(allowing(), *shell(f"kill -{number.value} $$"))
    assert run.returncode == 128 + number.value, run


def test_command_that_does_not_exist(internet: Internet, sandgate: Sandgate) -> None:
    run = sandgate.run(allowing(), "no-such-command-anywhere")
    assert run.returncode == 127 and "no-such-command-anywhere" in run.stderr, run


def test_command_that_cannot_be_executed(internet: Internet, sandgate: Sandgate, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("not executable")
    program.chmod(0o644)
    run = sandgate.run(allowing(), str(program))
    assert run.returncode == 126 and str(program) in run.stderr, run


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_signal_is_passed_on(internet: Internet, sandgate: Sandgate, number: signal.Signals) -> None:
    script = f"trap 'echo caught; exit 42' {number.name[3:]}; echo ready; while :; do sleep 0.05; done"
    running = sandgate.start(allowing(), shell(script))
    running.wait_for("ready")
    running.process.send_signal(number)
    done = running.finish()
    assert done.returncode == 42 and "caught" in done.stdout, done


@pytest.mark.parametrize("number", [signal.SIGWINCH, signal.SIGCONT, signal.SIGTSTP])
def test_signal_before_there_is_a_command(internet: Internet, sandgate: Sandgate, number: signal.Signals) -> None:
    """A window may be resized at any time."""
    running = sandgate.start(allowing(), shell("exit 7"))
    while running.process.poll() is None:
        running.process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            # Not before: a process that has not set up its signals yet ends by no SIGWINCH, but is stopped by a SIGTSTP.
            running.process.wait(0.002)
        if number == signal.SIGTSTP:
            running.process.send_signal(signal.SIGCONT)
    done = running.finish()
    assert done.returncode == 7, done


def test_signal_that_ends_it_before_there_is_a_command(internet: Internet, sandgate: Sandgate) -> None:
    running = sandgate.start(allowing(), shell("echo started; sleep 60"))
    wait_until(lambda: _catches(running.process.pid, signal.SIGTERM), "its signals to be set up")
    running.process.send_signal(signal.SIGTERM)
    done = running.finish()
    assert done.returncode in (125, 128 + signal.SIGTERM) and "Broken pipe" not in done.stderr, done
    assert done.returncode != 125 or "ended by signal 15 before the command was started" in done.stderr, done


def _catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process has blocked a signal, to be told of it by signalfd(2)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return bool(int(status.split("SigBlk:")[1].split()[0], 16) >> (number - 1) & 1)


def test_standard_streams_are_the_commands(internet: Internet, sandgate: Sandgate) -> None:
    running = sandgate.start(allowing(), shell("cat; echo to-stderr >&2"), options=["--quiet"])
    stdout, stderr = running.process.communicate("through the pipe\n", timeout=20)
    assert (stdout, stderr) == ("through the pipe\n", "to-stderr\n")


def test_nothing_refused_is_nothing_said(internet: Internet, sandgate: Sandgate) -> None:
    run = sandgate.run(allowing(plan.ALLOWED), "getent", "hosts", plan.ALLOWED)
    assert (run.returncode, run.stderr) == (0, ""), run


def test_environment_and_directory_are_the_callers(internet: Internet, sandgate: Sandgate) -> None:
    run = sandgate.run(allowing(), *shell('echo "$MARK"; pwd'), environment={"MARK": "a value"})
    assert run.stdout == f"a value\n{os.getcwd()}\n", run


def _converse(descriptor: int, until: str, timeout: float = 15) -> str:
    """Reads from a terminal until it shows a text."""
    shown = ""
    deadline = time.monotonic() + timeout
    while until not in shown:
        assert select.select([descriptor], [], [], max(0, deadline - time.monotonic()))[0], f"no {until!r} in {shown!r}"
        try:
            shown += os.read(descriptor, 4096).decode(errors="replace")
        except OSError as error:
            raise AssertionError(f"ended without {until!r}: {shown!r}") from error
    return shown


def test_terminal_is_a_terminal(internet: Internet, sandgate: Sandgate) -> None:
    line, _ = sandgate.command(allowing(), shell("test -t 0 && test -t 1 && stty size && echo yes"))
    command = ["script", "-qec", f"stty rows 33 cols 99; {' '.join(_quoted(line))}", "/dev/null"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, env=internet.environment())
    assert done.returncode == 0 and "33 99" in done.stdout and "yes" in done.stdout, done


def _quoted(line: list[str]) -> list[str]:
    return ["'" + word.replace("'", "'\\''") + "'" for word in line]


def test_interrupt_key_reaches_the_command(internet: Internet, sandgate: Sandgate) -> None:
    script = "trap 'echo caught; exit 42' INT; echo ready; while :; do sleep 0.05; done"
    line, _ = sandgate.command(allowing(), shell(script))
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(line[0], line, internet.environment())
    try:
        _converse(terminal, "ready")
        os.write(terminal, b"\x03")
        _converse(terminal, "caught")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 42
        pid = 0
    finally:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os.close(terminal)


def test_table_fits_into_the_terminal(internet: Internet, sandgate: Sandgate) -> None:
    name = f"{'a' * 50}.{plan.DENIED}"
    line, _ = sandgate.command(allowing(), ["getent", "hosts", name])
    for columns in (80, 120):
        terminal = Terminal(line, columns=columns, environment=internet.environment())
        try:
            assert terminal.wait() == 2
            rows = [row for row in terminal.screen.lines if "default: no rule allows it" in row]
            assert len(rows) == 1 and rows[0].split()[0].isdigit(), terminal.screen.text
            assert (name in rows[0]) == (columns == 120), rows
        finally:
            terminal.close()


HINT = "sandgate: the run goes on; Ctrl-C ends it; a table at its end has all refusals"


def test_first_refusal_in_a_terminal_says_what_to_do(internet: Internet, sandgate: Sandgate) -> None:
    """Once, and it is so: the command goes on, Ctrl-C ends it, and the table has it all."""
    fetch = "; ".join(f"curl -sS https://{name}/" for name in (plan.DENIED, plan.OTHER))
    line, _ = sandgate.command(allowing(), shell(f"{fetch}; echo went on; exec sleep 600"))
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(line[0], line, internet.environment())
    try:
        shown = _converse(terminal, "went on")
        lines = [one for one in shown.splitlines() if one.startswith("sandgate: ")]
        assert [one == HINT for one in lines] == [False, True, False], shown
        os.write(terminal, b"\x03")
        table = _converse(terminal, "sandgate policy suggest")
        assert "2 names refused" in table and plan.DENIED in table and plan.OTHER in table
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 128 + signal.SIGINT
        pid = 0
    finally:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os.close(terminal)
    # Where no person looks on there is none.
    assert HINT not in sandgate.run(allowing(), "curl", f"https://{plan.DENIED}/").stderr


def test_nothing_is_left(internet: Internet, sandgate: Sandgate) -> None:
    """And while a sandbox lives, no device, route, rule or setting of the node changes."""
    before = Snapshot.take()
    running = sandgate.start(allowing(plan.ALLOWED), shell(f"echo ready; cat; curl -sS https://{plan.ALLOWED}/"))
    running.wait_for("ready")
    namespaces = namespaces_below(running.pid)
    assert {name.partition(":")[0] for name in namespaces} >= {"net", "mnt", "pid"}, namespaces
    assert before.difference(Snapshot.take()) == {}
    done = running.finish()
    assert done.returncode == 0, done
    assert before.difference(Snapshot.take()) == {}
    assert not namespaces & namespaces_in_use()


@pytest.mark.attack("T8", "leaves a process behind that outlives the run", stopped_by="namespaces")
@pytest.mark.parametrize("detach", ["setsid", "nohup"])
def test_grandchildren_do_not_outlive_the_run(internet: Internet, sandgate: Sandgate, detach: str) -> None:
    duration = f"98765.{os.getpid()}"
    before = Snapshot.take()
    command = shell(f"{detach} sleep {duration} >/dev/null 2>&1 </dev/null & sleep 0.2; echo started")
    run = sandgate.run(allowing(), *command)
    assert run.returncode == 0 and "started" in run.stdout, run
    assert processes_with(duration) == []
    assert before.difference(Snapshot.take()) == {}


ESCAPE_ATTEMPTS = """\
import socket, time
attempts = [('{allowed}', 80), ('{shared}', 80), ('{sink}', 4444), ('{sink6}', 4444)]
kept = socket.create_connection(('{sink_name}', 4444), 5)
kept.sendall(b'before\\n'); kept.recv(10)
print('ready', flush=True)
while True:
    for host, port in attempts:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            try:
                with socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET, kind) as attempt:
                    attempt.settimeout(0.2)
                    attempt.connect((host, port))
                    attempt.sendall(b'after the end')
            except OSError: pass
    try: kept.sendall(b'after the end')
    except OSError: pass
    try: socket.getaddrinfo('after-the-end.{wild}', 80)
    except OSError: pass
    with open('{journal}', 'a') as file: file.write('tried\\n')
    time.sleep(0.01)
"""


@pytest.fixture
def escaping(internet: Internet, sandgate: Sandgate, tmp_path: Path) -> Iterator[tuple[object, Path]]:
    """A run whose command tries every way out again and again, without end."""
    journal = tmp_path / "attempts"
    journal.touch()
    journal.chmod(0o666)
    script = ESCAPE_ATTEMPTS.format(
        **{"allowed": plan.ALLOWED, "shared": plan.SHARED4, "sink": plan.SINK4, "sink6": plan.SINK6},
        **{"sink_name": plan.SINK, "wild": plan.WILD, "journal": journal},
    )
    running = sandgate.start(allowing(plan.ALLOWED, plan.SINK, f"*.{plan.WILD}"), ["/usr/bin/python3", "-c", script])
    running.wait_for("ready")
    wait_until(lambda: len(journal.read_text().splitlines()) >= 2, "the first attempts")
    yield running, journal
    for pid in processes_with(str(journal)):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.attack(
    "T4 T8 B4",
    "tries every way out, on kept connections too, after the supervisor was killed",
    stopped_by="kernel, namespaces",
)
def test_killed_supervisor_leaves_no_way_out(
    internet: Internet, escaping: tuple[object, Path], sandgate: Sandgate
) -> None:
    """After kill -9 the command may be gone or not, but nothing it does arrives anywhere."""
    running, journal = escaping
    os.kill(running.pid, signal.SIGKILL)  # type: ignore[attr-defined]
    running.process.wait(10)  # type: ignore[attr-defined]
    internet.forget()
    with internet.capture("(tcp[tcpflags] & tcp-syn != 0) or udp or icmp or icmp6 or (ip6 and tcp)") as outside:
        rounds = len(journal.read_text().splitlines())

        def enough() -> bool:
            return not processes_with(str(journal)) or len(journal.read_text().splitlines()) >= rounds + 20

        wait_until(enough, "twenty more rounds of attempts, or the end of them", 60)
    assert b"after the end" not in outside.payload, outside
    assert b"after-the-end" not in outside.payload, outside
    assert not [line for line in outside.lines if "Flags [S]" in line], outside
    assert internet.dns.queries() == [] and internet.web.requests() == []
    assert "after the end" not in internet.sinks.data()


def test_killed_run_leaves_nothing_behind(internet: Internet, sandgate: Sandgate) -> None:
    duration = f"98764.{os.getpid()}"
    before = Snapshot.take()
    running = sandgate.start(allowing(), shell(f"echo ready; exec sleep {duration}"))
    running.wait_for("ready")
    namespaces = namespaces_below(running.pid)
    os.kill(running.pid, signal.SIGKILL)
    running.process.wait(10)
    # What is left is removed at once, or on the next start.
    assert sandgate.run(allowing(plan.ALLOWED), "getent", "hosts", plan.ALLOWED).returncode == 0
    wait_until(lambda: not processes_with(duration), "the command's end")
    wait_until(lambda: not namespaces & namespaces_in_use(), "the namespaces' last processes to go")
    assert before.difference(Snapshot.take()) == {}


def test_terminated_run_ends_its_command(internet: Internet, sandgate: Sandgate) -> None:
    duration = f"98763.{os.getpid()}"
    running = sandgate.start(allowing(), shell(f"echo ready; exec sleep {duration}"))
    running.wait_for("ready")
    os.kill(running.pid, signal.SIGTERM)
    assert running.finish().returncode == 128 + signal.SIGTERM
    wait_gone(running.pid)
    assert processes_with(duration) == []


@pytest.mark.attack("T6", "uses what another sandbox on the node may reach", stopped_by="namespaces")
def test_two_runs_do_not_see_each_other(internet: Internet, sandgate: Sandgate) -> None:
    one = sandgate.start(allowing(plan.ALLOWED), shell(f"echo ready; read line; curl -sS https://{plan.ALLOWED}/"))
    both = f"curl -sS https://{plan.OTHER}/; curl -sS https://{plan.ALLOWED}/"
    two = sandgate.start(allowing(plan.OTHER), shell(f"echo ready; read line; {both}"))
    for running in (one, two):
        running.wait_for("ready")
    assert one.process.stdin is not None and two.process.stdin is not None
    finished = []
    for running in (one, two):
        stdout, stderr = running.process.communicate("go\n", timeout=30)
        finished.append((running.process.returncode, stdout, stderr))
    assert finished[0][0] == 0 and f"served {plan.ALLOWED}" in finished[0][1], finished
    assert f"served {plan.OTHER}" in finished[1][1] and f"served {plan.ALLOWED}" not in finished[1][1], finished


@pytest.mark.attack("T6 T5", "starts a sandbox in the sandbox with a policy of its own", stopped_by="start")
def test_run_inside_a_run_is_refused_or_confined(internet: Internet, sandgate: Sandgate) -> None:
    """Sandgate started inside a sandbox cannot open what the outer policy closed."""
    inner = [str(sandgate.binary), "run", "--allow", plan.DENIED, "--upstream-dns", plan.DNS4, "--"]
    run = sandgate.run(allowing(plan.ALLOWED), *inner, "curl", "-sS", f"https://{plan.DENIED}/")
    assert run.returncode != 0, run
    assert internet.web.requests() == []
