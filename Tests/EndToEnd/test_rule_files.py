"""Files of rules that are replaced by what nobody can read: nothing opens, it is told, and the rules stay as they were."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import plan
from lab.daemon import Daemon, running
from lab.internet import Internet
from lab.processes import wait_until
from lab.sandgate import allowing
from lab.sidecar import Sidecar, sidecar
from lab.tool import tool

STAYED = "the rules stay as they were: "


def closed(path: Path) -> None:
    """To everybody: of capabilities that would open it, the program keeps none."""
    path.write_text("")
    path.chmod(0)


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 30)


UNREADABLE: dict[str, Callable[[Path], object]] = {
    "closed file": closed,
    "directory": Path.mkdir,
    "pipe": os.mkfifo,
    "link to itself": lambda path: path.symlink_to(path.name),
    "link to nothing": lambda path: path.symlink_to("nothing"),
    "huge file": huge,
    "bytes that are no text": lambda path: path.write_bytes(b"\xff\xfe\x00*\n"),
    "half a line": lambda path: path.write_text(f"{plan.OTHER} half"),
}


def replace(path: Path, make: Callable[[Path], object]) -> None:
    """Puts something in a file's place. There is never nothing there, unless there is something of another kind."""
    beside = path.with_name("beside")
    # A link leads from where it will stand.
    holder = path.parent / "holder"
    holder.mkdir()
    made = holder / path.name
    make(made)
    if made.is_dir() and not made.is_symlink():
        path.rename(beside)
        made.rename(path)
        beside.unlink()
    else:
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        made.rename(path)
    holder.rmdir()


def make_unreadable(path: Path, name: str, server: Sidecar | Daemon) -> None:
    """Replaces a file by what cannot be read, and waits until the server complains of it by its path."""
    before = server.log.count(STAYED)
    replace(path, UNREADABLE[name])
    wait_until(lambda: server.log.count(STAYED) > before, f"the complaint about a {name}", 30)
    assert str(path) in server.log.rpartition(STAYED)[2].splitlines()[0]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where the files are, and nothing else that is written meanwhile."""
    made = tmp_path / "rules"
    made.mkdir()
    return made


def test_sidecar(internet: Internet, tmp_path: Path, directory: Path) -> None:
    deny, allow = directory / "deny.always", directory / "allow.always"
    deny.write_text(f"{plan.OTHER}\n")
    allow.write_text(f"{plan.ALLOWED}\n")
    with sidecar(internet, tmp_path) as shared:
        shared.start(allowing(plan.OTHER, plan.DENIED))

        def is_as_it_was() -> bool:
            return shared.reaches(plan.ALLOWED) and shared.reaches(plan.DENIED) and not shared.reaches(plan.OTHER)

        assert is_as_it_was(), shared.log
        for name in UNREADABLE:
            for path in (deny, allow):
                text = path.read_text()
                make_unreadable(path, name, shared)
                assert is_as_it_was(), name
                # The API answers meanwhile, and a change of the policy does not bring the missing rules down.
                assert shared.request("PATCH", "/policy", [{"action": "allow", "target": "another.example"}]).status == 200
                assert is_as_it_was(), name
                replace(path, lambda made: made.write_text(text))
        # What can be read holds again.
        replace(deny, lambda made: made.write_text(f"{plan.DENIED}\n"))
        wait_until(lambda: not shared.reaches(plan.DENIED) and shared.reaches(plan.OTHER), "the file to be read", 30)


def test_daemon(internet: Internet, tmp_path: Path, directory: Path) -> None:
    deny, allow, default = directory / "deny.always", directory / "allow.always", directory / "default.yaml"
    deny.write_text(f"{plan.OTHER}\n")
    allow.write_text(f"{plan.ALLOWED}\n")
    default.write_text(f"egress: [{{action: allow, target: {plan.OTHER}}}, {{action: allow, target: {plan.DENIED}}}]\n")
    config = tmp_path / "config.yaml"
    config.write_text(f"denyAlways: {deny}\nallowAlways: {allow}\ndefaultPolicy: {default}\n")
    with running(internet, tmp_path, "--config", str(config)) as daemon:
        sandbox = daemon.create()

        def is_as_it_was() -> bool:
            return sandbox.reaches(plan.ALLOWED) and sandbox.reaches(plan.DENIED) and not sandbox.reaches(plan.OTHER)

        assert is_as_it_was(), daemon.log
        for name in UNREADABLE:
            for path in (deny, allow, default):
                text = path.read_text()
                make_unreadable(path, name, daemon)
                replace(path, lambda made: made.write_text(text))
            assert is_as_it_was(), name
        # A sandbox that is created while one of them cannot be read has the old ones too.
        replace(deny, os.mkfifo)
        other = daemon.create()
        assert other.reaches(plan.DENIED) and not other.reaches(plan.OTHER)
        replace(deny, lambda made: made.write_text(f"{plan.DENIED}\n"))
        wait_until(lambda: not sandbox.reaches(plan.DENIED) and sandbox.reaches(plan.OTHER), "the file to be read", 30)


# At the start it is found that a closed file needs CAP_DAC_OVERRIDE, which is kept then.
AT_START = [name for name in UNREADABLE if name != "closed file"]


@pytest.mark.parametrize("name", AT_START)
def test_daemon_does_not_start(tmp_path: Path, directory: Path, name: str) -> None:
    deny = directory / "deny.always"
    UNREADABLE[name](deny)
    config = tmp_path / "config.yaml"
    config.write_text(f"denyAlways: {deny}\nstateDir: {tmp_path / 'state'}\nauditDir: {tmp_path / 'audit'}\n")
    socket = tmp_path / "api.sock"
    done = tool("serve", "--config", config, "--upstream-dns", plan.DNS4, "--socket", socket, timeout=60)
    assert done.returncode != 0 and str(deny) in done.stderr, done


@pytest.mark.parametrize("name", AT_START)
def test_sidecar_does_not_start(internet: Internet, tmp_path: Path, directory: Path, name: str) -> None:
    deny = directory / "deny.always"
    UNREADABLE[name](deny)
    with sidecar(internet, tmp_path) as shared:
        assert str(deny) in shared.refuses(allowing(plan.OTHER))


# What changes while a daemon begins


def test_change_while_sandboxes_are_taken_up(internet: Internet, tmp_path: Path, directory: Path) -> None:
    """The daemon has read the file, and takes up many sandboxes: a line that is written then is not passed over."""
    deny = directory / "deny.always"
    deny.write_text("")
    (tmp_path / "config.yaml").write_text(f"denyAlways: {deny}\n")
    with running(internet, tmp_path, "--config", str(tmp_path / "config.yaml")) as daemon:
        box = daemon.create(allowing(plan.OTHER))
        for _ in range(200):
            daemon.create(allowing(plan.OTHER))
        assert box.reaches(plan.OTHER)

        def beginnings() -> int:
            return sum(file.read_text().count('"daemon.started"') for file in daemon.audit.glob("*.jsonl"))

        def is_taking_up() -> bool:
            daemon.end()
            begun = beginnings()
            daemon.launch()
            wait_until(lambda: beginnings() > begun, "the next daemon")
            return "sandboxes taken up" not in daemon.log.rpartition("stopping")[2]

        # One that was through before it could be seen is asked to begin again.
        assert any(is_taking_up() for _ in range(5))
        deny.write_text(f"{plan.OTHER}\n")
        wait_until(lambda: "rules read again" in daemon.log, "that the file is read again", 30)
        assert not box.reaches(plan.OTHER)
