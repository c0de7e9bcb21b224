"""A network namespace in which the enforcer's own sockets are beside the sandbox's: `sandgate sidecar`, as OpenSandbox's server
puts it there, or a daemon that opens them inside (:class:`Insider`)."""

from __future__ import annotations

import abc
import contextlib
import http.client
import json
import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from . import plan
from .daemon import Answer, Daemon, Sandbox, attachment
from .internet import Internet
from .namespaces import Namespace
from .processes import wait_until
from .sandgate import find_binary

OUTSIDE4, INSIDE4, OUTSIDE6, INSIDE6 = "10.81.0.1", "10.81.0.2", "fd81::1", "fd81::2"
RAW = ("setpriv", "--bounding-set", "-net_admin,-sys_admin", "--inh-caps", "-net_admin,-sys_admin")
"""Docker's capabilities, as far as they matter: CAP_NET_RAW is among them."""


class SharedNetwork(abc.ABC):
    """A network with a way to the Internet, and what guards it from the first :meth:`start` on."""

    def __init__(self, internet: Internet, directory: Path, namespace: Namespace, link: str) -> None:
        self.internet, self.directory, self.namespace = internet, directory, namespace
        self.link = link
        """The Internet's end of the network's link."""

    @abc.abstractmethod
    def start(self, policy: object = None, **variables: str) -> None:
        """Has it guarded. `DNS_UPSTREAM` is the nameserver to ask."""

    @abc.abstractmethod
    def stop(self) -> None:
        """Ends what guards it, if it runs."""

    def command(self, *command: str) -> list[str]:
        """A command as the sandbox's programs are run."""
        return self.namespace.command(*RAW, *command)

    def run(self, *command: str, timeout: float = 30) -> subprocess.CompletedProcess[str]:
        """Runs a program in the sandbox."""
        return subprocess.run(
            self.command(*command),
            env=self.internet.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def reaches(self, name: str, *options: str) -> bool:
        """Whether a web server answers the sandbox."""
        return f"served {name}" in self.run("curl", "-sS", "-m", "8", *options, f"https://{name}/").stdout


class Insider(SharedNetwork):
    """A daemon whose sockets to the outside are opened in the network that it guards."""

    def __init__(self, internet: Internet, directory: Path, namespace: Namespace, link: str) -> None:
        super().__init__(internet, directory, namespace, link)
        self.daemon: Daemon | None = None
        self.sandbox: Sandbox | None = None

    def start(self, policy: object = None, **variables: str) -> None:
        self.daemon = Daemon(self.internet, self.directory, upstream_dns=variables.get("DNS_UPSTREAM", plan.DNS4))
        self.daemon.start()
        self.sandbox = self.daemon.create(policy, attachment=attachment(self.namespace, upstreamInside=True))

    def stop(self) -> None:
        if self.daemon is not None:
            self.daemon.clean_up()


class Sidecar(SharedNetwork):
    """A sidecar and the network that it guards."""

    def __init__(self, internet: Internet, directory: Path, namespace: Namespace, link: str) -> None:
        super().__init__(internet, directory, namespace, link)
        self.audit = directory / "audit"
        self._log = directory / "sidecar.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.variables: dict[str, str] = {}
        """Of its environment besides its settings, from the next start on."""

    def start(self, policy: object = None, **variables: str) -> None:
        """Starts it, and waits until it says that it is well."""
        self.launch(policy, **variables)
        wait_until(lambda: self.ended() or self.is_healthy(), "the sidecar", 30)
        assert not self.ended(), self.log

    def refuses(self, policy: object = None, **variables: str) -> str:
        """Has it refuse to start; what it said."""
        self.launch(policy, **variables)
        wait_until(self.ended, "its end", 20)
        assert self.process is not None and self.process.returncode != 0, self.log
        return self.log

    def launch(self, policy: object = None, **variables: str) -> None:
        """Starts it."""
        binary = find_binary() or pytest.fail("no binary: swift build -c release")
        environment = {**os.environ, **self.variables, "SANDGATE_AUDIT_DIR": str(self.audit)}
        environment["SANDGATE_RULES_DIR"] = str(self.directory / "rules")
        environment |= {
            name if name.startswith("SANDGATE") else f"OPENSANDBOX_EGRESS_{name}": value
            for name, value in variables.items()
        }
        environment.setdefault("OPENSANDBOX_EGRESS_DNS_UPSTREAM", plan.DNS4)
        if policy is not None:
            environment["OPENSANDBOX_EGRESS_RULES"] = json.dumps(policy)
        # A container sees the devices of its own network at /sys.
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self.namespace.command(binary, "sidecar"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
            )

    @property
    def log(self) -> str:
        """What it said, records included."""
        return self._log.read_text()

    def ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def end(self, number: int) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(20)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def is_healthy(self) -> bool:
        with contextlib.suppress(OSError):
            return self.request("GET", "/healthz").status == 200
        return False

    def request(self, method: str, path: str, body: object = None, token: str | None = None) -> Answer:
        """Asks it from outside, as the server does."""
        connection = http.client.HTTPConnection(INSIDE4, 18080, timeout=10)
        # Connected in the Internet's namespace, which is the sidecar's outside.
        with inside(self.internet.namespace.name):
            connection.sock = socket.create_connection((INSIDE4, 18080), 5)
        try:
            headers = {} if token is None else {"OPENSANDBOX-EGRESS-AUTH": token}
            text = body if body is None or isinstance(body, (str, bytes)) else json.dumps(body)
            connection.request(method, path, text, headers)
            response = connection.getresponse()
            fields = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, fields, response.read().decode())
        finally:
            connection.close()

    def policy(self) -> Any:
        return self.request("GET", "/policy").json["policy"]

    # The sandbox

    def ask(self, method: str, *options: str) -> str:
        """Asks the API from within the sandbox; the status."""
        command = ["curl", "-sS", "-m", "8", "-o", "/dev/null", "-w", "%{http_code}", "-X", method, *options]
        return self.run(*command).stdout

    def records(self) -> list[dict[str, Any]]:
        """What it recorded so far."""
        return [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]


@contextlib.contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Has sockets made in a namespace."""
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    other = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        _setns(other)
        yield
    finally:
        _setns(own)
        os.close(other)
        os.close(own)


def _setns(descriptor: int) -> None:
    import ctypes

    if ctypes.CDLL(None, use_errno=True).setns(descriptor, 0x40000000) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def sidecar(
    internet: Internet, directory: Path, addresses: Sequence[str] = ("4", "6")
) -> contextlib.AbstractContextManager[Sidecar]:
    """A network for a sidecar and its sandbox."""
    return shared_network(Sidecar, internet, directory, addresses)


Kind = TypeVar("Kind", bound=SharedNetwork)


@contextlib.contextmanager
def shared_network(
    kind: type[Kind], internet: Internet, directory: Path, addresses: Sequence[str] = ("4", "6")
) -> Iterator[Kind]:
    """A network with a way to the Internet, which nobody guards yet."""
    namespace = Namespace("shared")
    link = f"sgside-{os.getpid()}"
    outside = internet.namespace
    made: Kind | None = None
    try:
        namespace.use_nameserver(plan.DNS4)
        outside.ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", namespace.name)
        for end, name, own4, own6 in ((outside, link, OUTSIDE4, OUTSIDE6), (namespace, "eth0", INSIDE4, INSIDE6)):
            if "4" in addresses:
                end.ip("address", "add", f"{own4}/24", "dev", name)
            if "6" in addresses:
                end.ip("address", "add", f"{own6}/64", "dev", name, "nodad")
            end.ip("link", "set", name, "up")
        namespace.ip("route", "add", "default", "via", OUTSIDE4)
        if "6" in addresses:
            namespace.ip("-6", "route", "add", "default", "via", OUTSIDE6)
        made = kind(internet, directory, namespace, link)
        yield made
    finally:
        if made is not None:
            made.stop()
        subprocess.run(outside.command("ip", "link", "delete", link), capture_output=True)
        namespace.remove()
