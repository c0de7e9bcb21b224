"""Fixtures: one Internet for the session, and the program under test with a directory of its own for each test."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import hostile_nameserver, plan, streams
from lab.daemon import Daemon, running
from lab.effort import LONG
from lab.flood_watch import Watch, watching
from lab.internet import Internet
from lab.internet import internet as make_internet
from lab.namespaces import Namespace
from lab.processes import Child
from lab.sandgate import Sandgate
from lab.sidecar import Insider, SharedNetwork, Sidecar, shared_network
from lab.user import User, ordinary_user

RUN_BY_BOTH = (
    "test_answers_of_runs",
    "test_ask_terminal",
    "test_audit",
    "test_clients",
    "test_confinement",
    "test_escapes_confinement",
    "test_escapes_descriptors",
    "test_escapes_devices",
    "test_escapes_mounts",
    "test_hostile_connections",
    "test_hostile_nameserver",
    "test_lifecycle",
    "test_outside_sockets",
    "test_refusals_",
    "test_udp",
    "test_unread_output",
)
"""The modules whose tests are run by root and by an ordinary user, slow ones too: the same holds for both."""

ON_THE_MACHINE = {
    "test_coding_agent": "asks a package index",
    "test_compose": "a container engine",
    "test_container_pages": "a container engine",
    "test_containers": "a container engine",
    "test_docker_restarts": "a container engine",
    "test_image": "a container engine",
    "test_opensandbox": "a container engine",
    "test_opensandbox_attacks": "a container engine",
    "test_kubernetes_manifests": "asks a package index",
    "test_kubernetes_pod": "a container engine",
    "test_podman": "a container engine",
    "test_podman_rootless": "a container engine",
    "test_packaging": "boots an operating system",
}
"""The modules whose tests run on the machine itself, one module after the other, beside nodes (see in_parallel.py), and why."""

ALONE = {
    "test_serve_scale": "the whole machine",
    "test_floods": "compares what passes while a flood goes on",
    "test_under_pressure": "takes the machine's descriptors, memory and disk",
}
"""The modules whose tests run on the machine itself and with no others beside them, and why."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("in_parallel.py")
    group.addoption("--tests", metavar="FILE", type=Path, help="runs just the tests whose ids are in FILE, as JSON")
    group.addoption("--outcomes", metavar="FILE", type=Path, help="notes in FILE how each phase of each test went")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        for mark, modules in ((pytest.mark.machine, ON_THE_MACHINE), (pytest.mark.alone, ALONE)):
            if (reason := modules.get(item.path.stem)) is not None:
                item.add_marker(mark(reason))
    if (file := config.getoption("--tests")) is not None:
        wanted = {json.loads(line) for line in file.read_text().splitlines()}
        items[:] = [item for item in items if item.nodeid in wanted]


class _Outcomes:
    """Notes how each phase of each test went, as soon as it is known."""

    def __init__(self, file: Path) -> None:
        self._file = file.open("w", buffering=1)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        outcome = "xfailed" if report.skipped and hasattr(report, "wasxfail") else report.outcome
        self._file.write(json.dumps([report.nodeid, report.when, outcome, report.duration]) + "\n")


PATIENCE = 600
"""How many seconds a test may take, or what sets it up or cleans up after it, where it is not asked to take long. The slowest
take about two minutes."""


class Hangs(BaseException):
    """A test took too long. No error that a test may expect and go on from."""


class _Watchdog:
    """Ends what hangs, as a failure that says where: one that waits for ever has nobody hear of those after it."""

    @contextlib.contextmanager
    def _watched(self, what: str) -> Iterator[None]:
        def end(_: int, frame: object) -> None:
            raise Hangs(f"{what} took more than {PATIENCE} s")

        before = signal.signal(signal.SIGALRM, end)
        signal.alarm(PATIENCE)
        try:
            yield
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)

    @pytest.hookimpl(hookwrapper=True)  # type: ignore[misc]
    def pytest_runtest_setup(self, item: pytest.Item) -> Iterator[None]:
        with self._watched(f"the set-up of {item.name}"):
            yield

    @pytest.hookimpl(hookwrapper=True)  # type: ignore[misc]
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        with self._watched(item.name):
            yield

    @pytest.hookimpl(hookwrapper=True)  # type: ignore[misc]
    def pytest_runtest_teardown(self, item: pytest.Item) -> Iterator[None]:
        with self._watched(f"the clean-up after {item.name}"):
            yield


def pytest_configure(config: pytest.Config) -> None:
    if (file := config.getoption("--outcomes")) is not None:
        config.pluginmanager.register(_Outcomes(file))
    if not LONG:
        config.pluginmanager.register(_Watchdog())


@pytest.fixture(scope="session")
def net() -> Iterator[Internet]:
    """The lab's Internet, made once."""
    if os.geteuid() != 0:
        pytest.fail("the end-to-end tests make network namespaces: run them as root (deploy/test does)")
    # Not below pytest's own directory, which every session that starts closes to other users.
    with tempfile.TemporaryDirectory(prefix="sandgate-lab-") as directory:
        with make_internet(Path(directory) / "lab") as made:
            yield made


@pytest.fixture
def internet(net: Internet) -> Internet:
    """The lab's Internet with empty logs."""
    net.forget()
    return net


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "user" in metafunc.fixturenames and metafunc.module.__name__.startswith(RUN_BY_BOTH):
        metafunc.parametrize("user", ["root", "user"], indirect=True)


@pytest.fixture(scope="session")
def somebody(net: Internet) -> Iterator[User]:
    """An ordinary user, who may read what the lab's clients read."""
    with ordinary_user() as user:
        user.open_way(net.certificates.authority)
        yield user


@pytest.fixture
def user(request: pytest.FixtureRequest) -> User | None:
    """Who runs the program under test; `None` for root."""
    return request.getfixturevalue("somebody") if getattr(request, "param", "root") == "user" else None


@pytest.fixture
def tmp_path(tmp_path: Path, user: User | None) -> Path:
    """An empty directory of whoever runs the program under test."""
    return user.directory(tmp_path.name) if user else tmp_path


@pytest.fixture
def sandgate(net: Internet, tmp_path: Path, user: User | None) -> Iterator[Sandgate]:
    """The program under test."""
    program = Sandgate(net, tmp_path, user)
    yield program
    program.stop_all()


@pytest.fixture
def box(internet: Internet) -> Iterator[Namespace]:
    """A namespace with a way to the Internet that nobody guards, as a container engine makes one."""
    made = Namespace("box")
    link = f"sgbox-{os.getpid()}"
    outside = internet.namespace
    try:
        outside.ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", made.name)
        for namespace, name, number in ((outside, link, 1), (made, "eth0", 2)):
            namespace.ip("address", "add", f"10.78.0.{number}/30", "dev", name)
            namespace.ip("address", "add", f"fd78::{number}/64", "dev", name, "nodad")
            namespace.ip("link", "set", name, "up")
        made.ip("route", "add", "default", "via", "10.78.0.1")
        made.ip("-6", "route", "add", "default", "via", "fd78::1")
        yield made
    finally:
        subprocess.run(outside.command("ip", "link", "delete", link), capture_output=True)
        made.remove()


@pytest.fixture
def daemon(internet: Internet, tmp_path: Path) -> Iterator[Daemon]:
    """A daemon with nothing configured."""
    with running(internet, tmp_path) as made:
        yield made


@pytest.fixture(params=[Sidecar, Insider], ids=["sidecar", "daemon"])
def either(request: pytest.FixtureRequest, internet: Internet, tmp_path: Path) -> Iterator[SharedNetwork]:
    """A network that whoever guards it shares with the sandbox: once a sidecar's, once a daemon's that opens its sockets there."""
    with shared_network(request.param, internet, tmp_path) as made:
        yield made


@pytest.fixture
def watch(internet: Internet) -> Iterator[Watch]:
    """Counts what of a flood gets out."""
    with watching(internet) as made:
        yield made


@pytest.fixture(scope="module")
def nameserver(net: Internet) -> Iterator[None]:
    """The hostile nameserver, in the lab's Internet."""
    program = Path(hostile_nameserver.__file__)
    child = Child(net.namespace.command("/usr/bin/python3", program, plan.SCRIPTED_DNS4), "serving")
    yield
    child.stop()


@pytest.fixture(scope="module")
def stream_server(net: Internet) -> Iterator[None]:
    """What sends without pause, in the lab's Internet."""
    certificates = net.certificates
    arguments = (plan.SINK4, str(certificates.certificate), str(certificates.key))
    child = Child(net.namespace.command("/usr/bin/python3", Path(streams.__file__), *arguments), "serving")
    yield
    child.stop()
