"""Fixtures: one Internet for the session, and the program under test with a directory of its own for each test."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.internet import Internet
from lab.internet import internet as make_internet
from lab.sandgate import Sandgate
from lab.user import User, ordinary_user

RUN_BY_BOTH = (
    "test_audit",
    "test_clients",
    "test_confinement",
    "test_hostile_connections",
    "test_hostile_nameserver",
    "test_lifecycle",
    "test_outside_sockets",
    "test_refusals_",
    "test_udp",
    "test_unread_output",
)
"""The modules whose tests are run by root and by an ordinary user, slow ones too: the same holds for both."""


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
