"""Real servers of everyday protocols in the lab's Internet: each is a context manager that has it serve."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from . import plan
from .internet import Internet
from .processes import Child, check, wait_until

BOTH = (plan.EVERYDAY4, plan.EVERYDAY6)


def _listens(port: int) -> bool:
    try:
        socket.create_connection((plan.EVERYDAY4, port), 1).close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _serving(internet: Internet, command: Sequence[str | Path], ready: str, timeout: float = 30) -> Iterator[None]:
    """`command` in the Internet, once it has said `ready`."""
    child = Child(internet.namespace.command(*command), ready, timeout)
    try:
        yield
    finally:
        child.stop()


@contextlib.contextmanager
def _serving_silently(internet: Internet, command: Sequence[str | Path], port: int) -> Iterator[None]:
    """`command` in the Internet, for one that does not say when it serves: once `port` takes connections."""
    begun = ["/bin/sh", "-c", 'echo begun; exec "$@"', "sh", *command]
    with _serving(internet, begun, "begun"):
        wait_until(lambda: _listens(port), f"{command[0]} on port {port}")
        yield


@contextlib.contextmanager
def ssh_server(internet: Internet, directory: Path) -> Iterator[list[str]]:
    """OpenSSH, which lets root in with a key of the lab; yields the client's options."""
    directory.mkdir()
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    for name in ("host", "user"):
        check("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / name)
    configuration = directory / "sshd_config"
    lines = [f"ListenAddress {address}" for address in BOTH]
    lines += [f"HostKey {directory}/host", f"AuthorizedKeysFile {directory}/user.pub", "PidFile none"]
    lines += ["StrictModes no", "UsePAM no", "PermitRootLogin prohibit-password", "PasswordAuthentication no"]
    configuration.write_text("\n".join(lines) + "\n")
    known = directory / "known_hosts"
    known.write_text(f"{plan.SSH} {(directory / 'host.pub').read_text()}")
    with _serving(internet, ["/usr/sbin/sshd", "-D", "-e", "-f", configuration], "listening on 198.51.100"):
        wait_until(lambda: _listens(22), "sshd")
        yield ["-F", "none", "-i", f"{directory}/user", "-o", f"UserKnownHostsFile={known}", "-o", "BatchMode=yes"]


@contextlib.contextmanager
def rsync_server(internet: Internet, directory: Path) -> Iterator[None]:
    """An rsync daemon with one module, `lab`."""
    directory.mkdir()
    (directory / "module").mkdir()
    (directory / "module" / "greeting").write_text("hello from rsync\n")
    configuration = directory / "rsyncd.conf"
    configuration.write_text(
        f"use chroot = no\nuid = root\ngid = root\nlog file = {directory}/log\n[lab]\npath = {directory}/module\n"
    )
    command = ["rsync", "--daemon", "--no-detach", f"--config={configuration}", "--port=873"]
    with _serving_silently(internet, command, 873):
        yield


@contextlib.contextmanager
def mqtt_broker(internet: Internet, directory: Path) -> Iterator[None]:
    """Mosquitto with TLS."""
    directory.mkdir()
    certificates = internet.certificates
    configuration = directory / "mosquitto.conf"
    lines = ["user root", "allow_anonymous true", "log_dest stdout", "per_listener_settings false"]
    for address in BOTH:
        lines += [f"listener 8883 {address}", f"cafile {certificates.authority}"]
        lines += [f"certfile {certificates.certificate}", f"keyfile {certificates.key}"]
    configuration.write_text("\n".join(lines) + "\n")
    with _serving_silently(internet, ["/usr/sbin/mosquitto", "-c", configuration], 8883):
        yield


@contextlib.contextmanager
def postgres_server(internet: Internet) -> Iterator[None]:
    """PostgreSQL that takes only TLS connections. It refuses to be root, so its directory is its own user's."""
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    directory = Path(tempfile.mkdtemp(prefix="sandgate-lab-postgres-", dir="/var/tmp"))
    as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    try:
        shutil.copy(internet.certificates.certificate, directory / "server.pem")
        shutil.copy(internet.certificates.key, directory / "server.key")
        check("chown", "-R", "postgres:postgres", directory)
        check("chmod", "0600", directory / "server.key")
        data = directory / "data"
        check(*as_user, programs / "initdb", "--no-sync", "-A", "trust", "-D", data)
        (data / "pg_hba.conf").write_text("hostssl all all all trust\n")
        settings: dict[str, str | Path] = {
            "ssl": "on",
            "ssl_cert_file": directory / "server.pem",
            "ssl_key_file": directory / "server.key",
            "listen_addresses": ",".join(BOTH),
            "unix_socket_directories": "",
            "fsync": "off",
            "shared_buffers": "16MB",
        }
        options: list[str] = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        server: list[str | Path] = [programs / "postgres", "-D", data, *options]
        with _serving(internet, [*as_user, *server], "ready to accept connections"):
            yield
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def web_sockets_and_grpc(internet: Internet) -> Iterator[None]:
    """What everyday_server.py serves: WebSockets on 80 and 443, gRPC on 50051 with TLS and on 50052 without."""
    program = Path(__file__).with_name("everyday_server.py")
    certificates = internet.certificates
    arguments = [str(certificates.certificate), str(certificates.key), *BOTH]
    with _serving(internet, ["/usr/bin/python3", program, *arguments], "serving"):
        yield
