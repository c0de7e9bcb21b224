"""What the content names serve: a git repository, a package index with one wheel, and a big file."""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .processes import check

GIBIBYTE = 1 << 30
_BIG_FILE = "big.bin"
WHEEL_NAME, WHEEL_VERSION = "sandgate-lab-wheel", "1.2.3"
GIT_FILE, GIT_TEXT = "GREETING", "hello from the lab's repository\n"


@dataclass(frozen=True)
class Content:
    """The served tree."""

    directory: Path

    @functools.cached_property
    def big_file_digest(self) -> str:
        """What a client that fetched the big file whole has to find: SHA-256. Few ask, and it takes a second or two."""
        with (self.directory / _BIG_FILE).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def content(directory: Path) -> Iterator[Content]:
    """Everything, under `directory`, for as long as the `with` lasts. In memory: on a disk that is told what is free (mount
    option discard), the big file's 16,384 pieces take the better part of a minute to be removed."""
    directory.mkdir(parents=True)
    check("mount", "-t", "tmpfs", "-o", "mode=0755", "sandgate-lab", directory)
    try:
        yield _make_content(directory)
    finally:
        check("umount", "--lazy", directory)


def _make_content(directory: Path) -> Content:
    (directory / "index.html").write_text("content of the lab\n")
    _make_repository(directory)
    _make_index(directory / "simple" / WHEEL_NAME)
    _make_big_file(directory / _BIG_FILE)
    return Content(directory)


def _make_repository(directory: Path) -> None:
    """A bare repository for git's dumb HTTP transport, which needs nothing but a file server."""
    work, bare = directory / "work", directory / "project.git"
    identity = ("-c", "user.name=lab", "-c", "user.email=lab@example", "-c", "init.defaultBranch=main")
    check("git", *identity, "init", "-q", work)
    (work / GIT_FILE).write_text(GIT_TEXT)
    check("git", "-C", work, "add", GIT_FILE)
    check("git", "-C", work, *identity, "commit", "-q", "-m", "Greet")
    check("git", "clone", "-q", "--bare", work, bare)
    check("git", "-C", bare, "update-server-info")


def _make_index(directory: Path) -> None:
    """A simple package index (PEP 503) with one hand-made wheel: nothing is needed to build it."""
    directory.mkdir(parents=True)
    distribution = WHEEL_NAME.replace("-", "_")
    information = f"{distribution}-{WHEEL_VERSION}.dist-info"
    files = {
        f"{distribution}.py": "GREETING = 'hello from the lab index'\n",
        f"{information}/METADATA": f"Metadata-Version: 2.1\nName: {WHEEL_NAME}\nVersion: {WHEEL_VERSION}\n",
        f"{information}/WHEEL": "Wheel-Version: 1.0\nGenerator: lab\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    records = [f"{name},sha256={_wheel_digest(text)},{len(text)}" for name, text in files.items()]
    files[f"{information}/RECORD"] = "\n".join([*records, f"{information}/RECORD,,"]) + "\n"
    wheel = directory / f"{distribution}-{WHEEL_VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    page = f'<!DOCTYPE html><html><body><a href="{wheel.name}#sha256={digest}">{wheel.name}</a></body></html>\n'
    (directory / "index.html").write_text(page)


def _wheel_digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def _make_big_file(path: Path) -> None:
    """A sparse file of one GiB with random bytes every 64 KiB, so that a lost, doubled or moved piece is noticed."""
    with path.open("wb") as file:
        for offset in range(0, GIBIBYTE, 1 << 16):
            file.seek(offset)
            file.write(os.urandom(256))
        file.truncate(GIBIBYTE)
