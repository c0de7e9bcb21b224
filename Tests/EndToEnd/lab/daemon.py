"""`sandgate serve`, its API as a lifecycle server would use it, and programs in the namespaces that it guards."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from . import plan
from .internet import Internet
from .namespaces import Namespace
from .processes import wait_until
from .sandgate import find_binary
from .unix_http import UnixConnection


@dataclass
class Answer:
    """What the API answered."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    def __str__(self) -> str:
        return f"{self.status} {self.headers}\n{self.text}"


def program(namespace: str, command: Sequence[str], resolv_conf: Path) -> list[str]:
    """The command line that runs `command` in a network namespace with a resolv.conf of its own."""
    script = f'mount --bind {resolv_conf} /etc/resolv.conf && exec "$@"'
    return ["nsenter", f"--net={namespace}", "unshare", "-m", "/bin/sh", "-c", script, "sh", *command]


def attachment(box: Namespace, **fields: object) -> dict[str, object]:
    """What has a namespace guarded whose programs, the attacker's among them, may open raw sockets."""
    return {"netns": f"/run/netns/{box.name}", "acceptRawSockets": True, **fields}


class Daemon:
    """A daemon with directories of its own. Ends, with what it guards, when the test does."""

    def __init__(self, internet: Internet, directory: Path, *options: str, upstream_dns: str = plan.DNS4) -> None:
        self.internet, self.directory = internet, directory
        self.socket = directory / "api" / "api.sock"
        self.audit = directory / "audit"
        self._runtime = directory / "run"
        self._options = ("--upstream-dns", upstream_dns, *options)
        self._log = directory / "log"
        self._resolv_conf = directory / "resolv.conf"
        self._resolv_conf.write_text(f"nameserver {plan.DNS4}\n")
        self.process: subprocess.Popen[bytes] | None = None
        self.variables: dict[str, str] = {}
        """Of its environment, from the next start on."""
        self.prefix: list[str] = []
        """What runs it, from the next start on: it becomes the daemon in the end."""
        self._notifications = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notifications.bind(str(directory / "notify.sock"))

    # Life

    def start(self, kept: int | None = None) -> None:
        """Starts it, and waits until it says that it serves. `kept` is a descriptor that the one before had kept, which
        it gets as a service manager passes one on (sd_listen_fds(3))."""
        if not self.tries_to_start(kept):
            pytest.fail(f"the daemon did not begin to serve: {self.log}")

    def tries_to_start(self, kept: int | None = None) -> bool:
        """Starts it. Whether it says that it serves, rather than ending."""
        before = self._log.stat().st_size if self._log.exists() else 0
        self.launch(kept)
        assert self.process is not None
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            if select.select([self._notifications], [], [], 0.2)[0] and b"READY=1" in self._notifications.recv(4096):
                return True
        said = self._log.read_bytes()[before:].decode()
        assert self.process.poll() is not None, f"the daemon neither served nor ended: {said}"
        return False

    def hears(self, word: str, timeout: float = 10) -> bool:
        """Whether the service manager is told something from now on."""
        while select.select([self._notifications], [], [], 0)[0]:
            self._notifications.recv(4096)
        deadline = time.monotonic() + timeout
        while select.select([self._notifications], [], [], max(0, deadline - time.monotonic()))[0]:
            if word.encode() in self._notifications.recv(4096):
                return True
        return False

    def launch(self, kept: int | None = None) -> None:
        """Starts it without waiting."""
        binary = find_binary() or pytest.fail("no binary: swift build -c release")
        command = [*self.prefix, str(binary), "serve", "--socket", str(self.socket), "--state-dir", str(self.directory / "state")]
        command += ["--runtime-dir", str(self._runtime), "--audit-dir", str(self.audit)]
        command += self._options
        environment = {**os.environ, **self.variables, "NOTIFY_SOCKET": str(self.directory / "notify.sock")}
        passed: tuple[int, ...] = ()
        if kept is not None:
            # The process that it becomes is the one that they are for; there they begin at 3.
            shell = f"exec 3<&{kept} {kept}<&-; " if kept != 3 else ""
            command = ["/bin/bash", "-c", f'{shell}LISTEN_PID=$$ exec "$@"', "bash", *command]
            environment |= {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "sandgate-hot-restart"}
            passed = (kept,)
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, pass_fds=passed
            )
        if kept is not None:
            os.close(kept)

    @property
    def log(self) -> str:
        """What it said of itself."""
        return self._log.read_text()

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def descriptors(self) -> int:
        """How many files it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    @property
    def remains(self) -> tuple[set[str], set[str]]:
        """What it has on the disk and in the machine: the files of its records, and those that namespaces are mounted at."""
        records, namespaces = self.directory / "state" / "sandboxes", self._runtime / "netns"
        return {path.name for path in records.iterdir()}, {path.name for path in namespaces.iterdir()}

    def record(self, id: str) -> Path:
        """What it has on the disk of a sandbox."""
        return self.directory / "state" / "sandboxes" / f"{id}.json"

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ends it; what it guards stays. Returns its exit status. What it would have kept is closed."""
        for descriptor in self._end(number):
            os.close(descriptor)
        assert self.process is not None
        return self.process.wait(1)

    def restart(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Ends it and starts another one in its place."""
        self.end(number)
        self.start()

    def hand_over(self) -> None:
        """Replaces it as a service manager does that keeps what it is given (FDSTORE and BARRIER of sd_notify(3))."""
        self.start(self.end_keeping())

    def end_keeping(self, expected_status: int = 0) -> int:
        """Ends it; returns the descriptor that it had kept."""
        kept = self._end(signal.SIGTERM)
        assert self.process is not None
        assert self.process.wait(1) == expected_status and len(kept) == 1, (kept, self.log)
        return kept[0]

    def _end(self, number: signal.Signals) -> list[int]:
        """Ends it, and hears what it has to say until then; returns the descriptors that it had kept."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.kept_at_its_end()

    def kept_at_its_end(self) -> list[int]:
        """Hears what it has to say until it ends; returns the descriptors that it had kept."""
        assert self.process is not None
        kept: list[int] = []
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            has_ended = self.process.poll() is not None
            if not select.select([self._notifications], [], [], 0 if has_ended else 0.05)[0]:
                if has_ended:
                    break
                continue
            text, descriptors, _, _ = socket.recv_fds(self._notifications, 4096, 16)
            if text.startswith(b"FDSTORE=1"):
                assert set(text.splitlines()[1:]) == {b"FDNAME=sandgate-hot-restart", b"FDPOLL=0"}
                kept += descriptors
            else:
                for descriptor in descriptors:
                    os.close(descriptor)
        return kept

    def clean_up(self) -> None:
        """Ends it and removes what it mounted."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._notifications.close()
        namespaces = self._runtime / "netns"
        for path in namespaces.iterdir() if namespaces.is_dir() else []:
            subprocess.run(["umount", "-l", path], capture_output=True)

    # API

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30,
    ) -> Answer:
        """Asks. A body that is no text is sent as JSON."""
        connection = UnixConnection(self.socket, timeout)
        try:
            text = body if body is None or isinstance(body, str) else json.dumps(body)
            connection.request(method, path, text, dict(headers or {}))
            response = connection.getresponse()
            fields = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, fields, response.read().decode())
        finally:
            connection.close()

    def create(self, policy: object = None, **fields: Any) -> Sandbox:
        """Has a namespace put under enforcement; one that the daemon makes unless `attachment` says otherwise."""
        body: dict[str, Any] = {"attachment": {"create": True}, **fields}
        if policy is not None:
            body["networkPolicy"] = policy
        answer = self.request("POST", "/v1/sandboxes", body)
        assert answer.status == 201, answer
        return Sandbox(self, answer.json["id"], answer.json["networkNamespace"])

    def metrics(self) -> dict[str, float]:
        """What there is to measure, by name and labels as they stand in the text."""
        answer = self.request("GET", "/metrics")
        assert answer.status == 200, answer
        lines = [line.rsplit(" ", 1) for line in answer.text.splitlines() if not line.startswith("#")]
        assert len({name for name, _ in lines}) == len(lines), "a sample stands there twice"
        return {name: float(value) for name, value in lines}

    def records(self, **parameters: str) -> list[dict[str, Any]]:
        """Records of the audit trail."""
        query = "&".join(f"{name}={value}" for name, value in {"limit": "10000", **parameters}.items())
        answer = self.request("GET", f"/v1/audit?{query}")
        assert answer.status == 200, answer
        found: list[dict[str, Any]] = answer.json["items"]
        return found

    def events(self, path: str = "/v1/audit/stream", headers: Mapping[str, str] | None = None) -> Iterator[Any]:
        """Records as they happen. Gives `None` once when the stream has begun."""
        connection = UnixConnection(self.socket, 20)
        try:
            connection.request("GET", path, headers=dict(headers or {}))
            response = connection.getresponse()
            assert response.status == 200, response.read()
            for line in response:
                if line.startswith(b": sandgate"):
                    yield None
                elif line.startswith(b"data: "):
                    yield json.loads(line[6:])
        finally:
            connection.close()


@contextlib.contextmanager
def running(internet: Internet, directory: Path, *options: str, upstream_dns: str = plan.DNS4) -> Iterator[Daemon]:
    """A daemon that serves."""
    daemon = Daemon(internet, directory, *options, upstream_dns=upstream_dns)
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.clean_up()


@dataclass
class Sandbox:
    """A sandbox of a daemon."""

    daemon: Daemon
    id: str
    namespace: str

    @property
    def path(self) -> str:
        return f"/v1/sandboxes/{self.id}"

    @property
    def state(self) -> str:
        """Where it is in its life."""
        state: str = self.daemon.request("GET", self.path).json["status"]["state"]
        return state

    def run(self, *command: str, timeout: float = 30) -> subprocess.CompletedProcess[str]:
        """Runs a program in it."""
        return subprocess.run(
            program(self.namespace, command, self.daemon._resolv_conf),
            env=self.daemon.internet.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Starts a program in it."""
        return subprocess.Popen(
            program(self.namespace, command, self.daemon._resolv_conf),
            env=self.daemon.internet.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def fetch(self, name: str, *options: str) -> subprocess.CompletedProcess[str]:
        """Asks a web server in it."""
        return self.run("curl", "-sS", "-m", "10", *options, f"https://{name}/")

    def reaches(self, name: str, *options: str) -> bool:
        """Whether a web server answers it."""
        return f"served {name}" in self.fetch(name, *options).stdout

    def ask(self, method: str, suffix: str = "", body: object = None, **headers: str) -> Answer:
        """Asks the API about it; a header's `_` is a hyphen."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.daemon.request(method, self.path + suffix, body, fields)

    def wait_for(self, state: str, timeout: float = 10) -> None:
        """Waits for a state; "gone" is one too."""

        def arrived() -> bool:
            answer = self.daemon.request("GET", self.path)
            return answer.status == 404 if state == "gone" else bool(answer.json["status"]["state"] == state)

        wait_until(arrived, f"{self.id} to be {state}", timeout)


@contextlib.contextmanager
def hanging(daemon: Daemon, sandbox: Sandbox, *, is_ended: bool = False) -> Iterator[None]:
    """Has a change to a sandbox wait for the disk. With `is_ended`, the daemon ends meanwhile, and nobody is answered."""
    # Where a record is written first: a pipe takes nothing while nobody reads.
    pipe = daemon.record(sandbox.id).with_suffix(".json.new")
    os.mkfifo(pipe)
    pid = daemon.pid

    def waiting() -> int:
        """How many of the daemon's threads wait for somebody at the other end of a pipe that they open."""
        count = 0
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                count += (thread / "wchan").read_text() == "wait_for_partner"
        return count

    def change() -> None:
        try:
            answers.append(sandbox.ask("PUT", "/policy", {"egress": [{"action": "allow", "target": plan.OTHER}]}).status)
        except (OSError, http.client.HTTPException):
            answers.append(None)

    before = waiting()
    answers: list[int | None] = []
    thread = threading.Thread(target=change)
    thread.start()
    try:
        wait_until(lambda: waiting() > before, "the change to wait for the disk")
        yield
        assert not answers or is_ended, answers
    finally:
        os.close(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK))
        thread.join()
    assert answers == [None if is_ended else 503], answers
