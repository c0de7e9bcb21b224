"""Answers for always in runs: the next one asks no more, and no command answers for itself."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lab import plan
from lab.asking import asker, listed
from lab.internet import Internet
from lab.sandgate import Sandgate, allowing, shell


def test_run_keeps_answers(internet: Internet, sandgate: Sandgate, tmp_path: Path) -> None:
    """The next run with the file asks no more; a run without it does."""
    file = tmp_path / "answers.yaml"
    program, log = asker(tmp_path, denied_example={"answer": "always"})
    fetch = ("curl", "-sS", "-m", "20", f"https://{plan.DENIED}/")
    options = ("--ask-command", program, "--answers", str(file), "--ask-timeout", "5")
    for _ in range(2):
        finished = sandgate.run(allowing(plan.ALLOWED), *fetch, options=options)
        assert f"served {plan.DENIED}" in finished.stdout, finished
    assert len(log.read_text().splitlines()) == 1
    assert [rule.target for rule in listed(file)] == [plan.DENIED]
    finished = sandgate.run(allowing(plan.ALLOWED), *fetch, options=("--ask-command", "cat >/dev/null", *options[4:]))
    assert finished.returncode == 6 and finished.audit.where(reason="ask-deadline"), finished


@pytest.mark.attack("T16", "writes an answer for always itself", stopped_by="namespaces")
def test_the_command_cannot_write_answers(internet: Internet, sandgate: Sandgate, tmp_path: Path) -> None:
    """Before and after the file is written, it is not the command's to change, to replace, or, of an ordinary user's, to move away with
    its directory."""
    file = tmp_path / "answers.yaml"
    program, _ = asker(tmp_path, other_example={"answer": "always"})
    line = f"'    - {{action: allow, target: {plan.DENIED}}}'"
    attack = (
        f"echo {line} >>{file}; cp {file} {file}.x; echo {line} >>{file}.x; mv -f {file}.x {file}; rm -f {file}; "
        f"umount {file}; "
    )
    if sandgate.user:
        attack += f"mv {file.parent} {file.parent}.gone; "
    # Without us this is all it takes.
    file.write_text("networkPolicy:\n  egress:\n")
    assert internet.unenforced(["/bin/sh", "-c", f"echo {line} >>{file}"]).returncode == 0
    assert plan.DENIED in file.read_text()
    file.unlink()
    finished = sandgate.run(
        allowing(plan.ALLOWED),
        *("/bin/sh", "-c", f"{attack} curl -sS -m 20 https://{plan.OTHER}/; {attack} curl -sS -m 20 https://{plan.DENIED}/"),
        options=("--ask-command", program, "--answers", str(file), "--ask-timeout", "2"),
    )
    assert f"served {plan.OTHER}" in finished.stdout and f"served {plan.DENIED}" not in finished.stdout, finished
    assert [rule.target for rule in listed(file)] == [plan.OTHER], finished


@pytest.mark.attack(
    "T16", "locks the file that answers for always are written to, to have its guard wait for it", stopped_by="limits"
)
def test_the_command_locks_the_answers(internet: Internet, sandgate: Sandgate, tmp_path: Path) -> None:
    """Whoever may read a file may lock it."""
    file = tmp_path / "answers.yaml"
    program, _ = asker(tmp_path, denied_example={"answer": "always"}, other_example={"answer": "always"})
    denied, other = (f"curl -sS -m 20 https://{name}/" for name in (plan.DENIED, plan.OTHER))
    script = f"exec 9<{file}; flock 9 || exit 9; {denied}; flock -u 9; {other}"
    options = ("--ask-command", program, "--answers", str(file), "--ask-timeout", "4")
    # Without us it takes no more than this.
    file.touch()
    assert subprocess.run(["/bin/sh", "-c", f"exec 9<{file}; flock 9"], timeout=20).returncode == 0
    file.unlink()
    finished = sandgate.run(allowing(), *shell(script), options=options)
    assert finished.returncode == 0, finished
    # Who has it for good gets nothing; the next answer is kept.
    assert f"{file}: another process has locked it" in finished.stderr, finished
    assert f"served {plan.OTHER}" in finished.stdout and f"served {plan.DENIED}" not in finished.stdout, finished
    assert [rule.target for rule in listed(file)] == [plan.OTHER]


def test_answer_that_is_none_is_shown_how_one_looks(internet: Internet, sandgate: Sandgate) -> None:
    options = ("--ask-command", "read line; echo yes", "--ask-timeout", "2")
    run = sandgate.run(allowing(), "curl", "-sS", "-m", "20", f"https://{plan.DENIED}/", options=options)
    assert run.returncode == 6 and run.audit.where(reason="ask-deadline"), run
    assert "--ask-command:1:1: expected a JSON value\n" in run.stderr, run
    assert 'sandgate: --ask-command: expected a line such as {"question": 1, "answer": "once"}\n' in run.stderr, run


def test_options_that_need_each_other(sandgate: Sandgate, tmp_path: Path) -> None:
    file = tmp_path / "answers.yaml"
    refused = sandgate.tool("run", "--answers", str(file), "--", "true")
    assert refused.returncode == 125 and "--answers needs --ask-command" in refused.stderr
    assert not file.exists()
