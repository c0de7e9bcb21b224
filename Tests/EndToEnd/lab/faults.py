"""Failing calls: a library (faults/faults.c) between sandgate and the kernel that counts its calls and spoils chosen ones."""

from __future__ import annotations

import contextlib
import errno
import mmap
import re
import shutil
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from .processes import check, wait_until

SOURCE = Path(__file__).resolve().parents[1] / "faults" / "faults.c"

KINDS = (
    *("netlink-socket", "netlink-bind", "netlink-option", "netlink-send", "netlink-receive", "socket", "bind", "listen"),
    *("option", "accept", "mount", "unmount", "setns", "unshare", "clone", "open", "list", "write", "synchronise", "rename"),
    *("epoll", "descriptor"),
)
"""What is counted, in the library's order."""

_ACTIONS = ("count", "fail", "shorten", "lose", "kill")


@dataclass(frozen=True)
class Fault:
    """What becomes of a call: it fails with `error`; `shorten` does half of it; `lose` does it, and what came is lost."""

    action: str
    error: int = 0

    def __str__(self) -> str:
        return errno.errorcode[self.error] if self.action == "fail" else self.action


def _failing(*errors: int) -> tuple[Fault, ...]:
    return tuple(Fault("fail", error) for error in errors)


KILL = Fault("kill")
FAULTS: dict[str, tuple[Fault, ...]] = {
    "netlink-socket": _failing(errno.ENOBUFS, errno.EMFILE, errno.ENOMEM),
    "netlink-bind": _failing(errno.ENOMEM, errno.EADDRINUSE),
    "netlink-option": _failing(errno.ENOBUFS, errno.EPERM),
    "netlink-send": (
        *_failing(errno.ENOBUFS, errno.EINTR, errno.EBUSY, errno.ENOMEM, errno.EAGAIN),
        Fault("shorten", errno.ENOBUFS),
    ),
    "netlink-receive": (
        *_failing(errno.ENOBUFS, errno.EINTR, errno.EBUSY, errno.ENOMEM, errno.EAGAIN),
        Fault("shorten", errno.ENOBUFS),
        Fault("lose", errno.ENOBUFS),
    ),
    "socket": _failing(errno.EMFILE, errno.ENOBUFS),
    "bind": _failing(errno.EADDRINUSE, errno.ENOMEM),
    "listen": _failing(errno.EADDRINUSE),
    "option": _failing(errno.ENOBUFS, errno.EPERM),
    "accept": _failing(errno.EMFILE, errno.ENFILE, errno.EINTR, errno.ENOBUFS),
    "mount": _failing(errno.ENOMEM, errno.EPERM, errno.EBUSY),
    "unmount": _failing(errno.EBUSY),
    "setns": _failing(errno.ENOMEM, errno.EPERM),
    "unshare": _failing(errno.ENOSPC, errno.EPERM),
    "clone": _failing(errno.EAGAIN, errno.ENOSPC),
    "open": _failing(errno.EMFILE, errno.ENFILE, errno.ENOMEM),
    "list": _failing(errno.EMFILE, errno.ENOMEM, errno.EIO),
    "write": (*_failing(errno.ENOSPC, errno.EIO), Fault("shorten", errno.ENOSPC)),
    "synchronise": _failing(errno.EIO, errno.ENOSPC),
    "rename": _failing(errno.ENOSPC, errno.EIO),
    "epoll": _failing(errno.ENOMEM, errno.ENOSPC),
    "descriptor": _failing(errno.EMFILE, errno.ENFILE),
}
"""What can happen to each kind of call, besides the end of the process at it."""

_ORDERS = struct.Struct("=IIiIQQQQQQQQQ")
_RECORD = struct.Struct("=IIiiQQ96s")
_PAGE = 4096
_LIBRARIES = 1 << 40
"""Places in the program are counted from its beginning; those in libraries are addresses, which are all above this."""
_ROOM = 60_000


@dataclass(frozen=True)
class Call:
    """One call that was made while it was counted."""

    number: int
    kind: str
    ordinal: int
    """Which of its kind it was, from 1."""
    turn: int
    """Which of its kind from its place it was, from 1."""
    is_spoiled: bool
    process: int
    caller: int
    """Within the program's file, where the program made it: `llvm-symbolizer --obj=…` says which line."""
    context: int
    """A digest of who called that place."""
    text: str

    def __str__(self) -> str:
        return f"{self.kind} {self.ordinal} {self.text} ({self.caller:#x})"

    @property
    def purpose(self) -> str:
        """What it was for, less what differs from one time to the next without meaning."""
        return self.text if self.kind.startswith("netlink") else _VOLATILE.sub("*", self.text)

    @property
    def place(self) -> tuple[int, int]:
        """Where it was made: the same in every process; 0 and 0 when a library did, each of which is elsewhere then."""
        return (self.caller, self.context) if self.caller < _LIBRARIES else (0, 0)

    def is_like(self, other: Call) -> bool:
        """Whether it is the same call, made by another process or at another time."""
        return (self.kind, self.place, self.purpose) == (other.kind, other.place, other.purpose)


class Faults:
    """Orders for one program at a time, and what it did."""

    def __init__(self, directory: Path) -> None:
        self._path, self._library = directory / "faults", directory / "faults.so"
        build(self._library, SOURCE)
        with self._path.open("wb") as file:
            file.truncate(_PAGE + _ROOM * _RECORD.size)
        with self._path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)
        self.disarm()

    def close(self) -> None:
        self._memory.close()

    def environment(self) -> dict[str, str]:
        """What a program is started with. Only programs called sandgate obey, and hand neither variable on."""
        return {"LD_PRELOAD": str(self._library), "SANDGATE_FAULTS": str(self._path)}

    def arm(
        self,
        kinds: Sequence[str] = KINDS,
        fault: Fault | None = None,
        at: int = 1,
        *,
        count: int = 1,
        step: int = 1,
        place: tuple[int, int] = (0, 0),
    ) -> None:
        """From now on counts calls of these kinds, from 1, and spoils the one that is `at`, or of those from there on
        every `step`th, `count` altogether; without a fault only counts. With a place (see :attr:`Call.place`) there are
        no others."""
        self.disarm()
        action = "count" if fault is None else fault.action
        mask = sum(1 << KINDS.index(kind) for kind in kinds)
        error = 0 if fault is None else fault.error
        orders = (0, _ACTIONS.index(action), error, 0, mask, at, at + (count - 1) * step, step, 0, 0, _ROOM, *place)
        _ORDERS.pack_into(self._memory, 0, *orders)
        struct.pack_into("=I", self._memory, 0, 1)

    def begin(self, trial: tuple[Call, Fault] | None) -> None:
        """From now on spoils this call when it is made again; of several of a kind from one place, the one whose turn it
        is. What else the program does meanwhile differs from one time to the next. Without one, counts all."""
        if trial is None:
            self.arm()
        else:
            call, fault = trial
            self.arm((call.kind,), fault, call.turn, place=call.place)

    def struck(self, trial: tuple[Call, Fault]) -> str:
        """What was spoiled since it began: the call that was meant ("there"), another of its kind ("elsewhere"), or
        none ("nowhere")."""
        spoiled = [call for call in self.calls if call.is_spoiled]
        return "there" if any(call.is_like(trial[0]) for call in spoiled) else "elsewhere" if spoiled else "nowhere"

    def wait_for_strike(self) -> None:
        """Until something was spoiled, for two seconds at most: what a program does by itself once a second it may have done
        late in what was counted, and not yet now."""
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: self.spoiled, "the call that is to be spoiled", timeout=2)

    def disarm(self) -> None:
        """Counts and spoils no more; what was counted stays."""
        struct.pack_into("=I", self._memory, 0, 0)

    @property
    def is_deadly(self) -> bool:
        """Whether the orders are to end the process."""
        action: int = _ORDERS.unpack_from(self._memory)[1]
        return _ACTIONS[action] == "kill"

    @property
    def count(self) -> int:
        """How many calls there were."""
        number: int = _ORDERS.unpack_from(self._memory)[8]
        return number

    @property
    def spoiled(self) -> int:
        """How many of them were spoiled."""
        number: int = _ORDERS.unpack_from(self._memory)[9]
        return number

    @property
    def calls(self) -> list[Call]:
        """The calls, in their order."""
        assert self.count <= _ROOM, "more calls than there is room for"
        return list(self._calls())

    def _calls(self) -> Iterator[Call]:
        ordinals, turns = Counter[str](), Counter[tuple[object, ...]]()
        for index in range(self.count):
            values = _RECORD.unpack_from(self._memory, _PAGE + index * _RECORD.size)
            kind, spoiled, process, _, caller, context, text = values
            name = text.partition(b"\0")[0].decode(errors="replace")
            ordinals[KINDS[kind]] += 1
            call = Call(index + 1, KINDS[kind], ordinals[KINDS[kind]], 0, spoiled != 0, process, caller, context, name)
            turns[call.kind, call.place] += 1
            yield replace(call, turn=turns[call.kind, call.place])


def build(library: Path, source: Path) -> None:
    """Builds a library to be preloaded; the machine that builds sandgate has a compiler."""
    compiler = shutil.which("cc") or shutil.which("clang")
    if compiler is None:
        pytest.fail("no C compiler: clang comes with Swift")
    check(compiler, "-shared", "-fPIC", "-O1", "-fno-omit-frame-pointer", "-Wall", "-Wextra", "-Werror", "-o", library, source)


_VOLATILE = re.compile(rf"\d+|^/tmp/.*|^{re.escape(str(SOURCE.parents[3]))}/.*")
"""What differs from one call for files to the next without meaning: process ids, places of tests."""


def selection(calls: Sequence[Call], seed: int, at_most: int | None) -> list[tuple[Call, Fault]]:
    """Calls and what shall become of each.

    Of the calls that one place in the program makes for one purpose, the first stands for all. `None` takes each with
    each fault of its kind, and with the end of the process; otherwise `at_most` of a kind are taken, each with one fault.
    The faults take turns, the end of the process among them; `seed` says which calls and whose turn is first.
    """
    places: dict[tuple[str, int, int, str], Call] = {}
    for call in calls:
        places.setdefault((call.kind, call.caller, call.context, call.purpose), call)
    found: list[tuple[Call, Fault]] = []
    for kind in KINDS:
        own = [call for call in places.values() if call.kind == kind]
        faults = (*FAULTS[kind], KILL)
        if at_most is None:
            found += [(call, fault) for call in own for fault in faults]
            continue
        number = min(at_most, len(own))
        taken = [own[(seed + index * len(own) // number) % len(own)] for index in range(number)]
        found += [(call, faults[(seed + turn) % len(faults)]) for turn, call in enumerate(taken)]
    return found
