"""`sandgate run --ask-terminal`: a person is asked in another terminal than the command's, which the command cannot reach."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import plan
from lab.asking import listed
from lab.internet import Internet
from lab.sandgate import Running, Sandgate, allowing, shell
from lab.user import User
from lab.window import Window, opened

FETCH = f"curl -sS -m 25 https://{plan.DENIED}/"


@pytest.fixture
def window(user: User | None) -> Iterator[Window]:
    """A window of whoever runs the program under test."""
    with opened(user) as made:
        yield made


def asking(sandgate: Sandgate, window: Window, script: str, *options: str) -> Running:
    """A run whose questions are asked in the window."""
    return sandgate.start(allowing(plan.ALLOWED), shell(script), options=("--ask-terminal", window.name, *options))


def go(running: Running) -> None:
    """Lets a script go on that reads a line."""
    assert running.process.stdin is not None
    running.process.stdin.write("go\n")
    running.process.stdin.flush()


# Answers


def test_a_person_is_asked_and_answers(internet: Internet, sandgate: Sandgate, window: Window) -> None:
    internet.forget()
    running = asking(sandgate, window, f"{FETCH}; curl -sS -m 25 https://{plan.OTHER}/; curl -sS https://{plan.ALLOWED}/")
    window.wait_for("are asked here: /bin/sh -c curl")
    window.wait_for(f"#1 {plan.DENIED}, ports 80 and 443, denied in ")
    assert plan.DENIED not in internet.dns.names()
    window.answer("once", f"{plan.DENIED} is allowed once\r\n")
    window.wait_for(f"#2 {plan.OTHER}, ports 80 and 443, denied in ")
    window.answer("deny", f"{plan.OTHER} is denied\r\n")
    window.wait_for("the run has ended")
    done = running.finish()
    assert done.returncode == 0 and f"served {plan.DENIED}" in done.stdout and f"served {plan.ALLOWED}" in done.stdout
    assert f"served {plan.OTHER}" not in done.stdout and plan.OTHER not in internet.dns.names()
    answers = done.audit.where(event="question.answered")
    assert [one["detail"] for one in answers] == ["allow once, by --ask-terminal", "deny, by --ask-terminal"]
    # The command's own terminal shows nothing of it.
    assert "once" not in done.stdout + done.stderr and "#1" not in done.stderr, done


def test_an_answer_has_a_time_and_ports(internet: Internet, sandgate: Sandgate, window: Window) -> None:
    running = asking(sandgate, window, f"{FETCH}; curl -sS -m 25 http://{plan.DENIED}/")
    window.wait_for("#1 ")
    for line, problem in (
        ("yes", "expected once, deny, allow or always, with a duration (10m) or ports (8443) behind it if need be"),
        ("", "expected once, deny, allow or always"),
        ("once 10m", "ttl: stands beside once: only allow is for a time"),
        ("allow soon", "ttl: expected "),
    ):
        window.answer(line, problem)
    window.answer("Allow 443, 10m", f"{plan.DENIED} is allowed until 20")
    # The other port is a question of its own.
    window.wait_for(f"#2 {plan.DENIED}")
    window.type("\x04")
    while window.wait_for(f"{plan.DENIED} is denied", "that was too soon") != f"{plan.DENIED} is denied":
        window.type("\x04")
    done = running.finish()
    assert done.stdout.count(f"served {plan.DENIED}") == 1 and "ask-denied" in done.stdout, done


def test_an_answer_for_always_is_for_the_next_run(
    internet: Internet, sandgate: Sandgate, window: Window, tmp_path: Path
) -> None:
    file = tmp_path / "answers.yaml"
    running = asking(sandgate, window, FETCH, "--answers", str(file))
    window.wait_for("once, allow, allow 10m, always or deny? ")
    window.answer("always", f"{plan.DENIED} is allowed for always\r\n")
    assert f"served {plan.DENIED}" in running.finish().stdout
    assert [rule.target for rule in listed(file)] == [plan.DENIED]
    done = asking(sandgate, window, FETCH, "--answers", str(file)).finish()
    assert f"served {plan.DENIED}" in done.stdout and not done.audit.where(event="question.asked"), done
    # Without a file it is said that there is none.
    running = asking(sandgate, window, FETCH)
    window.wait_for("once, allow, allow 10m or deny? ")
    window.answer("always", "there is no file that answers for always are kept in")
    window.answer("deny", f"{plan.DENIED} is denied\r\n")
    assert "served" not in running.finish().stdout


def test_what_is_typed_before_a_question_can_be_read_answers_nothing(
    internet: Internet, sandgate: Sandgate, window: Window
) -> None:
    """The sandbox chooses when it asks: at the moment at which somebody answers another question."""
    running = asking(sandgate, window, f"read go; {FETCH}", "--ask-timeout", "3")
    window.wait_for("are asked here")
    window.type("allow\nallow\nall")
    go(running)
    window.wait_for("#1 ")
    window.type("ow\n")
    window.wait_for("that was too soon to be an answer to #1", "expected once, deny, allow or always")
    window.wait_for(f"{plan.DENIED} is not asked about any more")
    done = running.finish()
    assert done.returncode != 0 and plan.DENIED not in internet.dns.names(), done
    assert done.audit.where(event="question.answered") == [] and done.audit.where(reason="ask-deadline")


def test_what_nobody_has_seen_nobody_answers(internet: Internet, sandgate: Sandgate, window: Window) -> None:
    """Ctrl-S stops what is shown: what is typed meanwhile was typed for something else."""
    running = asking(sandgate, window, f"read go; {FETCH}; {FETCH}; read end", "--ask-timeout", "3")
    window.wait_for("are asked here")
    termios.tcflow(window.terminal, termios.TCOOFF)
    go(running)
    window.type("allow\n" * 20)
    done_at_once = running.process.stderr
    assert done_at_once is not None
    while "ask-deadline" not in (line := done_at_once.readline()):
        assert line, "ended without a denial"
    termios.tcflow(window.terminal, termios.TCOON)
    go(running)
    done = running.finish()
    assert done.audit.where(event="question.answered") == [] and plan.DENIED not in internet.dns.names(), done


def test_closing_the_terminal_denies(internet: Internet, sandgate: Sandgate, window: Window) -> None:
    """What waits at once, long before its time, and what is asked later."""
    internet.forget()
    script = f"{FETCH}; curl -sS -m 25 https://{plan.OTHER}/; curl -sS https://{plan.ALLOWED}/"
    running = asking(sandgate, window, script, "--ask-timeout", "600")
    window.wait_for("#1 ")
    window.close()
    done = running.finish()
    assert f"served {plan.ALLOWED}" in done.stdout, done
    assert "the terminal of --ask-terminal has gone: whatever no rule speaks of is denied" in done.stderr
    answers = done.audit.where(event="question.answered")
    assert [(one["host"], one["detail"]) for one in answers] == [
        (name, "deny, by --ask-terminal, which has gone") for name in (plan.DENIED, plan.OTHER)
    ]
    assert not {plan.DENIED, plan.OTHER} & set(internet.dns.names())


def test_what_the_command_is_called_moves_no_cursor(internet: Internet, sandgate: Sandgate, window: Window) -> None:
    running = sandgate.start(
        allowing(),
        ["/bin/sh", "-c", FETCH, "\x1b[2J\x07\u202e", "x" * 400],
        options=("--ask-terminal", window.name, "--ask-timeout", "1"),
    )
    window.wait_for("the run has ended")
    running.finish()
    assert r"\u{1b}[2J\u{7}\u{202e}" in window.shown
    assert all(" " <= character <= "~" for character in window.shown.replace("\r\n", ""))


# What the command reaches

REACH = """\
import glob, os, select, sys
print("ready", flush=True)
sys.stdin.readline()
opened = []
places = [place for pattern in sys.argv[1:] for place in glob.glob(pattern) or [pattern]]
for place in places:
    try: opened.append(os.open(place, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK))
    except OSError: continue
    try: os.isatty(opened[-1]) and os.write(opened[-1], b"forged")
    except OSError: pass
print("tried", len(places), flush=True)
terminals = [one for one in opened if os.isatty(one)]
while terminals:
    ready = select.select([sys.stdin, *terminals], [], [])[0]
    for one in ready:
        try: one is sys.stdin or print("read", os.read(one, 100), flush=True)
        except BlockingIOError: pass
    if sys.stdin in ready: break
else: sys.stdin.readline()
"""


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """The terminals of the machine by another name, as in a chroot."""
    place = tmp_path / "chroot-pts"
    place.mkdir()
    subprocess.run(["mount", "--bind", "/dev/pts", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.attack(
    "T13 T16", "reads and writes the terminal in which somebody is asked about it, by every name", stopped_by="mounts"
)
def test_terminal_that_somebody_is_asked_in(
    internet: Internet, sandgate: Sandgate, window: Window, user: User | None, elsewhere: Path
) -> None:
    def names(of: Window) -> list[str]:
        return [of.name, str(elsewhere / Path(of.name).name)]

    attack = ["/usr/bin/python3", "-c", REACH]
    with opened(user) as other:
        line = [*attack, *names(other)]
        plain = subprocess.Popen(
            user.command(*line) if user else line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert plain.stdin is not None and plain.stdout is not None
        plain.stdin.write("go\n")
        plain.stdin.flush()
        for _ in names(other):
            other.wait_for("forged")
        other.type("a secret\n")
        assert any("a secret" in line for line in iter(plain.stdout.readline, ""))
        plain.communicate("end\n", timeout=10)

    everything = ["/dev/pts/*", "/dev/tty*", "/dev/console", f"{elsewhere}/*", "/proc/[0-9]*/fd/*"]
    running = sandgate.start(
        allowing(),
        [*shell(f'{FETCH} & exec "$0" "$@"'), *attack, *names(window), *everything],
        options=("--ask-terminal", window.name),
    )
    said = running.wait_for("ready")
    window.wait_for("#1 ")
    go(running)
    said += running.wait_for("tried")
    window.answer("a secret", "expected once, deny, allow or always")
    window.answer("deny", f"{plan.DENIED} is denied")
    go(running)
    window.wait_for("the run has ended")
    said += running.finish().stdout
    assert "forged" not in window.shown.replace(REACH, "")
    # What it reads is its own echo, in terminals that it has made.
    assert "secret" not in said and "deny" not in said, said


# What is no terminal for it


@pytest.mark.parametrize(
    ("place", "problem"),
    [
        ("/dev/null", "expected a terminal, such as tty(1) names in its window"),
        ("/dev/ptmx", "expected a pseudo-terminal below /dev/pts, or a virtual console (/dev/tty1, …)"),
        ("/nowhere", "cannot open /nowhere: No such file or directory"),
        ("{link}", None),
    ],
)
def test_other_places(sandgate: Sandgate, window: Window, tmp_path: Path, place: str, problem: str | None) -> None:
    (tmp_path / "link").symlink_to(window.name)
    place = place.format(link=tmp_path / "link")
    done = sandgate.run(allowing(), "true", options=("--ask-terminal", place))
    if problem is None:
        assert done.returncode == 0, done
    else:
        assert done.returncode == 125 and "--ask-terminal" in done.stderr and problem in done.stderr, done


def test_the_commands_own_terminal_is_refused(
    internet: Internet, sandgate: Sandgate, window: Window, user: User | None
) -> None:
    """As a standard stream, by each of its names, and as what controls its session."""
    line, _ = sandgate.command(allowing(), ["true"], options=("--ask-terminal", window.name))
    for stream, name in (("stdin", "standard input"), ("stdout", "standard output"), ("stderr", "standard error")):
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        streams[stream] = window.terminal
        done = subprocess.run(line, env=internet.environment(), timeout=30, check=False, **streams)  # type: ignore[call-overload]
        problem = f"it is the command's {name}: expected another terminal, which the command cannot use"
        assert done.returncode == 125
        if stream == "stderr":
            window.wait_for(problem)
        else:
            assert problem in done.stderr.decode(), done
    for place in ("$(tty)", "/dev/tty"):
        line, _ = sandgate.command(allowing(), ["true"], options=("--ask-terminal", "PLACE"))
        words = " ".join(place if word == "PLACE" else f"'{word}'" for word in line)
        pid, screen = pty.fork()
        if pid == 0:
            if user:
                os.chown(os.ttyname(0), user.id, user.id)
            script = f"terminal=$(tty); {words.replace('$(tty)', '$terminal')} </dev/null 2>&1 | cat"
            os.execve("/bin/sh", ["/bin/sh", "-c", script], internet.environment())
        said = ""
        with contextlib.suppress(OSError):
            while piece := os.read(screen, 4096).decode():
                said += piece
        os.waitpid(pid, 0)
        os.close(screen)
        assert "it is the command's /dev/tty: expected another terminal" in said


def test_one_party_is_asked(sandgate: Sandgate, window: Window) -> None:
    done = sandgate.tool("run", "--ask-terminal", window.name, "--ask-command", "true", "--", "true")
    assert done.returncode == 125 and "only one of them can be asked" in done.stderr, done
