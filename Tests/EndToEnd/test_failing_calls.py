"""Every call by which Sandgate speaks with the kernel fails once, or ends the process, while a program inside floods.

What each test tries by default is a selection: of each kind of call some places in the program, each with one of the
faults that can befall such a call; the faults take turns. SANDGATE_SEED=N tries another selection, SANDGATE_LONG=1 every
place with every fault.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import os
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import pytest

from lab import plan
from lab.daemon import Answer, Daemon, Sandbox, attachment
from lab.effort import LONG, SEED
from lab.faults import FAULTS, KILL, Call, Fault, Faults, selection
from lab.flood_watch import Watch, flooder, flooding, starting
from lab.internet import Internet
from lab.machine import Snapshot, processes_with
from lab.namespaces import NODE_LINK, Namespace
from lab.processes import check, wait_until
from lab.sandgate import Sandgate, allowing, shell
from lab.sidecar import sidecar
from lab.tool import binary
from lab.visitors import Visit, Visitors, visitors


@pytest.fixture
def clients(internet: Internet) -> Iterator[Visitors]:
    with visitors(internet.certificates.authority, 1) as made:
        yield made


@pytest.fixture
def faults(internet: Internet, tmp_path: Path) -> Iterator[Faults]:
    with contextlib.closing(Faults(tmp_path)) as made:
        yield made


def chosen(calls: Sequence[Call], at_most: int) -> list[tuple[Call, Fault]]:
    """What is tried: everything, or a selection."""
    assert {"netlink-send", "netlink-receive"} <= {call.kind for call in calls}, "the library is not there"
    found = selection(calls, SEED, None if LONG else at_most)
    print(f"SANDGATE_SEED={SEED}: {len(found)} of {len(calls)} calls and their faults")
    return found


def expect_strikes(struck: Counter[str]) -> None:
    """That enough was spoiled for the trials to mean something: a program that does more or less than the last time has
    another call in the same place, or none."""
    print(f"spoiled: {dict(struck)}")
    assert struck["nowhere"] <= max(2, struck.total() // 10), struck


def describe(trial: tuple[Call, Fault] | None) -> str:
    return "nothing fails" if trial is None else f"{trial[0]}: {trial[1]}"


EBUSY = Fault("fail", errno.EBUSY)
LIST_RULES = 10 << 8 | 7
"""NFNL_SUBSYS_NFTABLES and NFT_MSG_GETRULE: the type of a question to the kernel."""

# A run


TRY = f"""
/usr/bin/python3 - <<'END'
import http.client, time
for attempt in range(5):
    try:
        client = http.client.HTTPConnection("{plan.ALLOWED}", 80, timeout=5)
        client.request("GET", "/")
        print(client.getresponse().read().decode())
        break
    except OSError as error: print(attempt, error)
else: raise SystemExit(9)
END
"""


@pytest.mark.attack(
    "T4 T5",
    "floods in a run of which any one call to the kernel fails, or is the last, from its beginning to its end",
    stopped_by="start, kernel",
)
@pytest.mark.slow
def test_run(internet: Internet, sandgate: Sandgate, watch: Watch, tmp_path: Path) -> None:
    """Either all is well, or the command is never started, and it is said why."""
    mark = f"flood-of-{os.getpid()}"
    flood = " ".join(flooder(0.05))
    script = f"echo started; {flood} & {TRY} status=$?; wait; exit $status # {mark}"
    idle: SimpleQueue[Faults] = SimpleQueue()
    struck: Counter[str] = Counter()
    workers = 3
    # An address has no route while the kernel looks whether somebody else has it.
    wait_until(lambda: not check("ip", "-6", "address", "show", "dev", NODE_LINK, "tentative"), "the lab's own address")
    before = Snapshot.take()
    with contextlib.ExitStack() as stack:
        for number in range(workers):
            directory = tmp_path / f"faults-{number}"
            directory.mkdir()
            idle.put(stack.enter_context(contextlib.closing(Faults(directory))))

        def attempt(trial: tuple[Call, Fault] | None) -> list[Call]:
            faults = idle.get()
            try:
                faults.begin(trial)
                done = sandgate.run(allowing(plan.ALLOWED), *shell(script), environment=faults.environment())
                what = f"{describe(trial)}, {done}\n{[str(one) for one in faults.calls if one.is_spoiled]}"
                if done.returncode == 0:
                    assert f"served {plan.ALLOWED}" in done.stdout, what
                elif fault_was_the_end(faults):
                    assert done.returncode in (-signal.SIGKILL, 125, 128 + signal.SIGKILL), what
                else:
                    assert done.returncode == 125 and "started" not in done.stdout, what
                    assert "sandgate: " in done.stderr, what
                if trial is not None:
                    struck[faults.struck(trial)] += 1
                return faults.calls
            finally:
                idle.put(faults)

        with watch.nothing():
            trials = chosen(attempt(None), 4)
            with ThreadPoolExecutor(workers) as threads:
                failures = [found for found in threads.map(lambda trial: _failure(attempt, trial), trials) if found]
            wait_until(lambda: not processes_with(mark), "the commands' end")
    assert not failures, "\n\n".join(failures)
    expect_strikes(struck)
    assert before.difference(Snapshot.take()) == {}
    assert internet.sinks.arrivals() == []


def _failure(attempt: Callable[[tuple[Call, Fault]], object], trial: tuple[Call, Fault]) -> str:
    """What was wrong, so that one failure does not hide others."""
    try:
        attempt(trial)
    except (AssertionError, subprocess.TimeoutExpired) as error:
        print(str(error)[:4000], flush=True)
        return str(error)[:4000]
    return ""


# The node daemon


DEAD_END = ".dead-end"
OTHERS_RULE = {"target": "203.0.113.9", "protocol": "udp", "ports": [9]}
"""What has nothing to do with the flood, and opens the relay for datagrams."""


@pytest.fixture
def daemon(internet: Internet, tmp_path: Path, faults: Faults) -> Iterator[Daemon]:
    """A daemon whose calls can be made to fail."""
    made = Daemon(internet, tmp_path)
    made.variables = faults.environment()
    try:
        made.start()
        yield made
    finally:
        made.clean_up()


class Trials:
    """Requests to a daemon of which a call fails."""

    def __init__(self, daemon: Daemon, faults: Faults, clients: Visitors) -> None:
        self.daemon, self.faults, self._clients = daemon, faults, clients
        self.failures: list[str] = []
        self.outcomes: Counter[str] = Counter()

    def ask(self, method: str, path: str, body: object = None, trial: tuple[Call, Fault] | None = None) -> Answer | None:
        """Asks; `None` when there was no answer. A daemon that was killed at the call runs again."""
        self.faults.begin(trial)
        answer: Answer | None = None
        try:
            answer = self.daemon.request(method, path, body, timeout=60)
        except TimeoutError:
            raise AssertionError("no answer within a minute") from None
        except (OSError, http.client.HTTPException) as error:
            assert self.faults.spoiled, f"{error!r} {self.daemon.log[-2000:]}"
        finally:
            self.faults.disarm()
        if answer is not None:
            outcome = str(answer.status)
        else:
            # A server that could not take the connection ends it.
            outcome = "killed" if fault_was_the_end(self.faults) else "dropped"
        self.outcomes[outcome] += 1
        self.revive()
        return answer

    def wait_for_end(self) -> int:
        assert self.daemon.process is not None
        return self.daemon.process.wait(30)

    def revive(self) -> None:
        """Starts the daemon again, if it was killed at a call."""
        assert self.daemon.process is not None
        if fault_was_the_end(self.faults):
            assert self.wait_for_end() == -signal.SIGKILL
        if self.daemon.process.poll() is not None:
            assert self.daemon.process.returncode == -signal.SIGKILL, self.daemon.log[-2000:]
            self.daemon.start()

    def state(self, id: str) -> str:
        """Where a sandbox is in its life; "absent" before and after it."""
        answer = self.daemon.request("GET", f"/v1/sandboxes/{id}")
        return str(answer.json["status"]["state"]) if answer.status == 200 else "absent"

    def served(self, namespace: str) -> set[str]:
        """Which of two names a client inside gets; it tries a datagram to the sink as well."""
        (outcome,) = self._clients.go([Visit(namespace, "/trial", (plan.ALLOWED, plan.OTHER))])
        assert "TimeoutError" not in outcome.fetched.values(), outcome
        return outcome.served

    def each(self, trials: Sequence[tuple[Call, Fault]], attempt: Callable[[tuple[Call, Fault]], None]) -> None:
        """Makes each attempt; a failure of one does not hide others."""
        struck: Counter[str] = Counter()
        for trial in trials:
            try:
                # What a program does beside its work comes earlier in one run and later in another: a call at the end of
                # what was counted may be missed once.
                for _ in range(3):
                    attempt(trial)
                    if (found := self.faults.struck(trial)) != "nowhere":
                        break
                struck[found] += 1
                if found != "there":
                    print(f"{found}: {describe(trial)}")
            except (AssertionError, OSError, RuntimeError, http.client.HTTPException, subprocess.TimeoutExpired) as error:
                spoiled = [str(call) for call in self.faults.calls if call.is_spoiled]
                self.failures.append(f"{describe(trial)} {spoiled}\n{type(error).__name__}: {str(error)[:1500]}")
                print(self.failures[-1], flush=True)
                # Whatever state it left, the next one is not to suffer from it.
                self.faults.disarm()
                self.daemon.restart()
        print(f"{len(trials)} trials: {dict(self.outcomes)}")
        expect_strikes(struck)

    def expect_nothing_left(self, *but: str) -> None:
        """Neither a namespace nor a record, but those of these sandboxes."""
        records, names = self.daemon.remains
        assert records == {".lock", *(f"{id}.json" for id in but)}, records
        assert names <= {DEAD_END, *but}, names


def fault_was_the_end(faults: Faults) -> bool:
    """Whether the process was killed at a call."""
    return faults.is_deadly and faults.spoiled > 0


@pytest.fixture
def trials(daemon: Daemon, faults: Faults, clients: Visitors) -> Trials:
    return Trials(daemon, faults, clients)


def forget(trials: Trials, id: str) -> None:
    answer = trials.daemon.request("DELETE", f"/v1/sandboxes/{id}")
    assert answer.status == 204, answer


@pytest.mark.attack(
    "T4 T8",
    "is begun by a daemon of which any one call to the kernel fails, or is the last",
    stopped_by="kernel, start",
)
@pytest.mark.slow
def test_creation(internet: Internet, trials: Trials, watch: Watch) -> None:
    """Either it is enforced, or there is nothing of it: no record, no namespace, also after the next start."""
    body = {"id": "box", "attachment": {"create": True}, "networkPolicy": allowing(plan.ALLOWED)}
    path = str(trials.daemon.directory / "run" / "netns" / "box")
    machine = Snapshot.take()
    neighbour = trials.daemon.create(allowing(plan.OTHER), id="neighbour")

    def attempt(trial: tuple[Call, Fault] | None) -> None:
        answer = trials.ask("POST", "/v1/sandboxes", body, trial)
        if answer is None:
            # What was not acknowledged is there as a whole or not at all.
            wait_until(lambda: trials.state("box") != "Pending", "the creation", 30)
            assert trials.state("box") in ("Running", "absent")
            status = 201 if trials.state("box") == "Running" else 503
        else:
            status = answer.status
            assert status == 201 or answer.json["message"], answer
        if status < 400:
            assert trials.served(path) == {plan.ALLOWED}
            forget(trials, "box")
        else:
            assert trials.daemon.request("GET", "/v1/sandboxes/box").status == 404
        trials.expect_nothing_left("neighbour")
        # The networks that are made end in one that they share.
        assert trials.served(neighbour.namespace) == {plan.OTHER}, "another sandbox suffered"

    with watch.nothing():
        attempt(None)
        calls = trials.faults.calls
        trials.each(chosen(calls, 3), attempt)
        # A daemon that was killed there left a namespace that nobody knew of.
        mounts = [(call, KILL) for call in calls if call.kind in ("mount", "unmount", "unshare", "rename", "setns")]
        trials.each(mounts, attempt)
        # The network in which all end was taken for gone, and made anew.
        shared = [call for call in calls if call.kind == "open" and call.text.endswith(DEAD_END)]
        assert shared
        trials.each([(call, Fault("fail", errno.EMFILE)) for call in shared], attempt)
    assert not trials.failures, "\n\n".join(trials.failures)
    mounted = {Path(mount).name for mount in Snapshot.take().mounts - machine.mounts}
    assert mounted == {DEAD_END, "neighbour"}


def is_guarded(box: Namespace) -> bool:
    return "table inet sandgate" in box.check("nft", "list", "ruleset")


@pytest.mark.attack(
    "T4 T8",
    "floods while it is attached by a daemon of which any one call to the kernel fails, or is the last",
    stopped_by="kernel, start",
)
@pytest.mark.slow
def test_attachment(internet: Internet, trials: Trials, box: Namespace, watch: Watch) -> None:
    """Either it is enforced, or the answer says that it is not: then its network is as it was, or closed and listed."""
    namespace = f"/run/netns/{box.name}"
    body = {"id": "box", "attachment": attachment(box), "networkPolicy": allowing(plan.ALLOWED)}

    def attempt(trial: tuple[Call, Fault] | None) -> None:
        answer = trials.ask("POST", "/v1/sandboxes", body, trial)
        found = trials.daemon.request("GET", "/v1/sandboxes/box")
        try:
            if answer is not None and answer.status == 201:
                with watch.nothing("attached"):
                    assert trials.served(namespace) == {plan.ALLOWED}
            elif found.status == 200 and found.json["status"]["state"] == "Running":
                assert answer is None, answer
                with watch.nothing("attached"):
                    assert trials.served(namespace) == {plan.ALLOWED}
            elif found.status == 200:
                assert found.json["status"]["state"] == "Failed", found
                if is_guarded(box):
                    with watch.nothing("failed"):
                        assert trials.served(namespace) == set()
            else:
                assert found.status == 404 and (answer is None or answer.json["message"]), (answer, found)
                assert not is_guarded(box), "closed, and nobody knows why"
        finally:
            forget(trials, "box")
            if is_guarded(box):
                box.check("nft", "delete", "table", "inet", "sandgate")
                trials.failures.append(f"{describe(trial)}: the rules outlived the release")
        trials.expect_nothing_left()

    with flooding(starting(internet, box)):
        before = watch.count
        wait_until(lambda: watch.count > before, "what arrives without enforcement")
        attempt(None)
        calls = trials.faults.calls
        trials.each(chosen(calls, 1), attempt)
        # The rules stood, and nobody knew of them.
        found = [call for call in calls if call.kind == "listen"]
        trials.each([(call, fault) for call in found for fault in (EBUSY, KILL)], attempt)
    assert not trials.failures, "\n\n".join(trials.failures)


@pytest.mark.attack(
    "T10 T10a",
    "lives in the namespace with CAP_NET_RAW when it is attached by a daemon that fails to list the processes, or to read of "
    "one",
    stopped_by="start",
)
def test_process_that_cannot_be_seen(trials: Trials, box: Namespace) -> None:
    """It was taken for one that had ended."""
    body = {"id": "box", "attachment": {"netns": f"/run/netns/{box.name}"}}

    def attempt(trial: tuple[Call, Fault] | None) -> None:
        answer = trials.ask("POST", "/v1/sandboxes", body, trial)
        assert answer is not None and answer.status >= 400 and answer.json["message"], answer
        assert (answer.status == 422 and "CAP_NET_RAW" in answer.json["message"]) or trials.faults.spoiled, answer
        assert trials.state("box") == "absent" and not is_guarded(box)

    process = subprocess.Popen(box.command("sleep", "infinity"), stdin=subprocess.DEVNULL)
    try:
        attempt(None)
        # It is looked for again and again, in case it is about to leave: the first look is tried. Of the others in there, how
        # many they may be, one stands for all.
        first = {call.text: call for call in reversed(trials.faults.calls) if call.kind == "list" or call.text.endswith("/status")}
        own = [call for call in first.values() if call.kind == "list" or call.text.startswith(f"/proc/{process.pid}/")]
        calls = own + [call for call in first.values() if call not in own][-1:]
        assert {call.kind for call in own} == {"list", "open"}, calls
        trials.each([(call, fault) for call in calls for fault in FAULTS[call.kind]], attempt)
    finally:
        process.kill()
        process.wait()
    assert not trials.failures, "\n\n".join(trials.failures)


def test_pause_and_resume(trials: Trials, box: Namespace) -> None:
    """What could not be paused runs on, and what could not be resumed is asked again for it."""
    sandbox = trials.daemon.create(allowing(plan.ALLOWED), id="box", attachment=attachment(box))

    def attempt(verb: str, trial: tuple[Call, Fault] | None) -> None:
        before, after = ("Running", "Paused") if verb == "pause" else ("Paused", "Running")
        other = "resume" if verb == "pause" else "pause"
        assert sandbox.state == after or sandbox.ask("POST", f"/{verb}").status == 200
        assert sandbox.ask("POST", f"/{other}").json["status"]["state"] == before
        answer = trials.ask("POST", f"{sandbox.path}/{verb}", None, trial)
        state = sandbox.state
        assert state in (before, after)
        assert answer is None or state == (after if answer.status == 200 else before), answer
        for _ in range(2):
            assert trials.served(sandbox.namespace) == ({plan.ALLOWED} if state == "Running" else set()), (state, answer)
            # On the disk as well.
            trials.daemon.restart()
            assert sandbox.state == state

    for verb in ("pause", "resume"):
        attempt(verb, None)
        calls = [call for call in trials.faults.calls if call.kind in ("open", "write", "synchronise", "rename")]
        places = {(call.place, call.kind): call for call in calls if "/sandboxes" in call.text or call.kind != "open"}
        tried = [(call, fault) for call in places.values() for fault in (FAULTS[call.kind][0], KILL)]
        assert {"write", "synchronise", "rename"} <= {call.kind for call, _ in tried}
        trials.each(tried, lambda trial: attempt(verb, trial))
    assert not trials.failures, "\n\n".join(trials.failures)


@pytest.mark.parametrize("is_made", [True, False], ids=["made", "attached"])
def test_release_that_fails(trials: Trials, box: Namespace, is_made: bool) -> None:
    """Its state says what is true, a second one works, and so does trying the sandbox again."""
    outcomes: set[str] = set()

    def attempt(trial: tuple[Call, Fault] | None) -> None:
        assert trials.daemon.request("DELETE", "/v1/sandboxes/box").status == 204
        form = {"create": True} if is_made else attachment(box)
        sandbox = trials.daemon.create(allowing(plan.ALLOWED), id="box", attachment=form)
        answer = trials.ask("DELETE", sandbox.path, None, trial)
        if answer is not None and answer.status != 204:
            found = sandbox.ask("GET")
            # Of a network that is gone what is left is removed by itself.
            status = found.json["status"] if found.status == 200 else {"state": "Terminated", "reason": "released"}
            assert found.status == 200 or is_made, found
            outcomes.add(status["reason"])
            if status["reason"] == "released":
                assert status["state"] == "Terminated" and (is_made or trials.daemon.record("box").exists()), status
                assert not is_guarded(box) and not (is_made and Path(sandbox.namespace).exists())
            else:
                assert (status["state"], status["reason"]) == ("Failed", "release-failed"), status
                assert trials.served(sandbox.namespace) == set()
                if sandbox.ask("POST", "/retry").status == 200:
                    assert sandbox.state == "Running" and trials.served(sandbox.namespace) == {plan.ALLOWED}
            forget(trials, "box")
        elif answer is None:
            forget(trials, "box")
        assert not is_guarded(box)
        trials.expect_nothing_left()
        events = [record["event"] for record in trials.daemon.records(sandbox="box")]
        last = max(index for index, event in enumerate(events) if event == "sandbox.attached")
        assert answer is None or events[last:].count("sandbox.detached") == 1, events

    attempt(None)
    kinds = ("unmount", "setns", "netlink-socket", "netlink-send", "synchronise")
    calls = [call for call in trials.faults.calls if call.kind in kinds]
    places = {(call.place, call.kind): call for call in calls}
    assert {"synchronise", "unmount" if is_made else "netlink-send"} <= {call.kind for call in places.values()}
    trials.each([(call, FAULTS[call.kind][0]) for call in places.values()], attempt)
    assert not trials.failures, "\n\n".join(trials.failures)
    assert outcomes >= {"released"} | (set() if is_made else {"release-failed"}), outcomes


@pytest.mark.attack(
    "T4 T8 N9",
    "floods while its policy is changed by a daemon of which any one call to the kernel fails, or is the last",
    stopped_by="kernel, tls-sni",
)
@pytest.mark.slow
def test_change_of_policy(internet: Internet, trials: Trials, box: Namespace, watch: Watch) -> None:
    """The new policy is in force as a whole, or the answer says that it is not: then the old one is."""
    # The first opens the relay for datagrams; the second takes names, datagrams and pins away.
    changes = [
        (allowing(plan.ALLOWED), allowing(plan.OTHER, OTHERS_RULE)),
        (allowing(plan.OTHER, OTHERS_RULE), allowing(plan.ALLOWED, {"target": "192.0.2.0/24"})),
    ]
    names = [({plan.ALLOWED}, {plan.OTHER}), ({plan.OTHER}, {plan.ALLOWED})]

    def attempt(trial: tuple[Call, Fault] | None, number: int) -> None:
        """Makes one of the changes to a new sandbox: one that has the relay keeps it."""
        old, new = changes[number]
        with not_counted(watch):
            forget(trials, "box")
            sandbox = trials.daemon.create(old, id="box", attachment=attachment(box))
        assert trials.served(sandbox.namespace) == names[number][0]
        revision = sandbox.ask("GET", "/policy").json["revision"]
        answer = trials.ask("PUT", f"{sandbox.path}/policy", new, trial)
        now = sandbox.ask("GET", "/policy").json["revision"]
        assert now in (revision, revision + 1)
        assert answer is None or (answer.status == 200) == (now == revision + 1), answer
        assert answer is None or answer.status == 200 or answer.json["message"], answer
        served = names[number][now - revision]
        assert sandbox.state == "Running"
        assert trials.served(sandbox.namespace) == served, (served, answer)
        if trial is not None and answer is not None and trial[0].kind in ("open", "write", "synchronise", "rename"):
            # On the disk as well.
            trials.daemon.restart()
            assert trials.served(sandbox.namespace) == served, (served, answer)

    with flooding(starting(internet, box)):
        for number in range(len(changes)):
            attempt(None, number)
            watch.forget()
            calls = trials.faults.calls
            trials.each(chosen(calls, 1), lambda trial: attempt(trial, number))
        # Pins were gone that were thought to be there, and a policy was on the disk that was not in force.
        found = [call for call in calls if call.kind in ("netlink-receive", "synchronise")]
        trials.each([(call, EBUSY) for call in found], lambda trial: attempt(trial, len(changes) - 1))
        assert watch.counted == 0
    assert not trials.failures, "\n\n".join(trials.failures)


@pytest.mark.attack(
    "T4 T8", "floods while it is released by a daemon of which any one call to the kernel fails", stopped_by="kernel"
)
@pytest.mark.slow
def test_release(internet: Internet, trials: Trials, box: Namespace, watch: Watch) -> None:
    """Until a release is acknowledged, it is enforced or closed; afterwards there is nothing left of it."""
    def attempt(trial: tuple[Call, Fault] | None) -> None:
        forget(trials, "box")
        sandbox = trials.daemon.create(allowing(plan.ALLOWED), id="box", attachment=attachment(box))
        answer = trials.ask("DELETE", sandbox.path, None, trial)
        if answer is None or answer.status != 204:
            assert answer is None or answer.json["message"], answer
            if is_guarded(box):
                with watch.nothing("not released"):
                    assert trials.served(sandbox.namespace) <= {plan.ALLOWED}
                assert trials.daemon.request("GET", sandbox.path).status == 200, "closed, and nobody knows why"
            forget(trials, "box")
        assert not is_guarded(box)
        trials.expect_nothing_left()

    with flooding(starting(internet, box)):
        attempt(None)
        trials.each(chosen(trials.faults.calls, 1), attempt)
    assert not trials.failures, "\n\n".join(trials.failures)


@pytest.mark.attack(
    "T4 T8",
    "floods while a daemon starts again of which any one call to the kernel fails, or is the last",
    stopped_by="kernel",
)
@pytest.mark.slow
def test_restart(internet: Internet, trials: Trials, box: Namespace, watch: Watch) -> None:
    """It is taken up, or closed, or the daemon ends and says why: the next one takes it up."""
    daemon, faults = trials.daemon, trials.faults
    def create() -> Sandbox:
        return daemon.create(allowing(plan.ALLOWED), id="box", attachment=attachment(box))

    def attempt(trial: tuple[Call, Fault] | None) -> None:
        daemon.end(signal.SIGKILL)
        before = len(daemon.log)
        faults.begin(trial)
        try:
            serves = daemon.tries_to_start()
            if serves and trial is not None:
                faults.wait_for_strike()
        finally:
            faults.disarm()
        try:
            found = daemon.request("GET", "/v1/sandboxes/box") if serves and not fault_was_the_end(faults) else None
        except OSError:
            # The API's socket was there, and nobody can be told of connections to it.
            found = None
        if found is None:
            status, said = trials.wait_for_end(), daemon.log[before:]
            assert status == -signal.SIGKILL if fault_was_the_end(faults) else is_said(status, said, faults), (status, said)
            daemon.start()
            found = daemon.request("GET", "/v1/sandboxes/box")
        if found.status == 404:
            with not_counted(watch):
                create()
        assert found.status == 200, found
        if found.json["status"]["state"] == "Failed":
            assert serves and trials.served(f"/run/netns/{box.name}") == set(), found
            trials.outcomes["failed"] += 1
            daemon.restart()
        assert trials.served(f"/run/netns/{box.name}") == {plan.ALLOWED}

    with flooding(starting(internet, box)):
        create()
        watch.forget()
        attempt(None)
        calls = faults.calls
        trials.each(chosen(calls, 1), attempt)
        # The daemon fell, took a sandbox for gone that it could not look at, or knew nothing of one whose record it could
        # not read for a moment.
        received = {call.place: call for call in reversed(calls) if call.kind == "netlink-receive"}
        found = list(received.values())[:2]
        found += [call for call in calls if call.text == f"/run/netns/{box.name}" or call.text.endswith("/box.json")]
        trials.each([(call, EBUSY) for call in found], attempt)
        # A list of rules that was cut off was taken for a change of them, which closes a sandbox for good.
        lists = {call.text: call for call in reversed(calls) if call.text.startswith(f"after {LIST_RULES:05} ")}
        assert lists
        trials.each([(call, Fault("shorten", errno.ENOBUFS)) for call in lists.values()], attempt)
        assert watch.counted == 0
    assert not trials.failures, "\n\n".join(trials.failures)


def test_service_manager_hears_of_it(internet: Internet, tmp_path: Path, faults: Faults) -> None:
    """A daemon that cannot open a socket any more is not to be taken for one that never began to serve, or that hangs."""
    daemon = Daemon(internet, tmp_path)
    daemon.variables = faults.environment() | {"WATCHDOG_USEC": "300000"}
    try:
        # The first is the one that it speaks with.
        faults.arm(("socket",), Fault("fail", errno.EMFILE), 1, count=1)
        assert not daemon.tries_to_start() and "NOTIFY_SOCKET" in daemon.log, daemon.log
        faults.arm(("socket",))
        daemon.start()
        assert daemon.hears("WATCHDOG=1")
        made = faults.count
        faults.arm(("socket",), Fault("fail", errno.EMFILE), 1, count=1_000_000)
        assert daemon.hears("WATCHDOG=1") and daemon.hears("WATCHDOG=1"), daemon.log
        # What it tells takes none.
        assert faults.spoiled == 0 and made > 0, made
    finally:
        daemon.clean_up()


# The sidecar's policy file


@pytest.mark.attack(
    "T4 T8",
    "is guarded by a sidecar of which any one call that keeps a changed policy fails, or is the last",
    stopped_by="kernel, start",
)
@pytest.mark.slow
def test_policy_file_of_a_sidecar(internet: Internet, faults: Faults, tmp_path: Path) -> None:
    """The file is whole, the old one or the new one, and what it says is in force: at once, and when another sidecar begins."""
    directory = tmp_path / "kept"
    directory.mkdir()
    kept = directory / "policy.json"
    old, new, unkept = allowing(plan.ALLOWED), allowing(plan.OTHER), allowing(plan.DENIED)
    outcomes, struck, failures = Counter[str](), Counter[str](), list[str]()
    with sidecar(internet, tmp_path) as shared:
        shared.variables = faults.environment()

        def start() -> None:
            # What it is started with counts where nothing was kept.
            shared.start(unkept, POLICY_FILE=str(kept))

        def attempt(trial: tuple[Call, Fault] | None) -> None:
            assert shared.request("POST", "/policy", old).status == 200
            assert [path.name for path in directory.iterdir()] == [kept.name], "of a write that was cut off"
            faults.begin(trial)
            answer: Answer | None = None
            try:
                answer = shared.request("POST", "/policy", new)
            except (OSError, http.client.HTTPException):
                assert fault_was_the_end(faults), shared.log[-2000:]
            finally:
                faults.disarm()
            found = json.loads(kept.read_text())
            assert found in (old, new), found
            if answer is None:
                assert shared.process is not None and shared.process.wait(20) == -signal.SIGKILL
                start()
            elif answer.status == 200:
                assert found == new
            else:
                assert answer.status == 500 and answer.text.startswith("failed to persist policy: "), answer
                assert found == old
            outcomes["killed" if answer is None else str(answer.status)] += 1
            assert shared.policy() == found
            assert {name for name in (plan.ALLOWED, plan.OTHER, plan.DENIED) if shared.reaches(name)} == (
                {plan.ALLOWED} if found == old else {plan.OTHER}
            )
            if answer is not None and answer.status != 200:
                shared.end(signal.SIGKILL)
                start()
                assert shared.policy() == old

        start()
        attempt(None)
        calls = [call for call in faults.calls if call.kind in ("open", "write", "synchronise", "rename")]
        names = [call.text.removeprefix(f"{directory}/") for call in calls]
        # From the new file's beginning to when its directory has it for good.
        first, last = names.index(f"{kept.name}.new"), names.index(kept.name)
        calls = calls[first : last + 3]
        assert Counter(call.kind for call in calls) >= Counter(open=2, write=1, synchronise=2, rename=1), calls
        for call in calls:
            for fault in (*FAULTS[call.kind], KILL):
                try:
                    attempt((call, fault))
                    struck[faults.struck((call, fault))] += 1
                except AssertionError as error:
                    failures.append(f"{describe((call, fault))}\n{error}")
                    shared.end(signal.SIGKILL)
                    start()
    print(dict(outcomes))
    assert not failures, "\n\n".join(failures)
    expect_strikes(struck)
    assert outcomes["killed"] >= 6 and outcomes["500"] >= 6, outcomes


def is_said(status: int, said: str, faults: Faults) -> bool:
    """Whether a daemon that could not serve said so and ended by itself. NIO and libdispatch end the process where threads of
    their own cannot wait for events, which only happens before anything is served; the page on faults says so."""
    if status == -signal.SIGILL:
        by_nio = re.search(r"NIOPosix/(MultiThreadedEventLoopGroup|Selector\w+)\.swift", said)
        return bool(by_nio or any(is_of_libdispatch(call) for call in faults.calls if call.is_spoiled)) and (
            "serving" not in said
        )
    return status > 0 and "sandgate: " in said


def is_of_libdispatch(call: Call) -> bool:
    """It is a part of the program, where the Swift runtime is linked into it, and says nothing before it ends it."""
    found = subprocess.run(["addr2line", "-f", "-e", binary(), f"{call.caller:#x}"], capture_output=True, text=True)
    return found.stdout.startswith("_dispatch_")


@contextlib.contextmanager
def not_counted(watch: Watch) -> Iterator[None]:
    """Between a release and what follows it nothing is enforced."""
    before = watch.counted
    yield
    watch.forget(before)
