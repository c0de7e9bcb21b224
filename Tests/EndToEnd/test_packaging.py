"""The Debian package: what is in it, and its service under a systemd that boots for the test."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab import plan
from lab.asker import Asker
from lab.booted import Booted, booted
from lab.daemon import program
from lab.internet import Internet
from lab.namespaces import Namespace
from lab.processes import check, wait_until
from lab.sandgate import REPOSITORY
from lab.tool import binary

EXPOSURE = 47
"""The most that `systemd-analyze security` may find, of 100: what is left when no directive that would be borne is missing."""


@dataclass
class Package:
    """A package that was built, and what it holds."""

    file: Path
    tree: Path

    def field(self, name: str) -> str:
        return check("dpkg-deb", "--field", self.file, name).strip()


def build(directory: Path) -> Path:
    """Builds the package. Packed quickly rather than small."""
    command = [str(REPOSITORY / "deploy/build-deb"), "--binary", str(binary()), "--this-machine-only"]
    command += ["--output", str(directory)]
    quickly = {"DPKG_DEB_COMPRESSOR_TYPE": "gzip", "DPKG_DEB_COMPRESSOR_LEVEL": "1"}
    # What the repository would say, for the source may be tested where there is none.
    said = {"SOURCE_DATE_EPOCH": "1767225600", "DEBFULLNAME": "Tests", "DEBEMAIL": "tests@sandgate.example"}
    environment = {**os.environ, **quickly, **said}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done
    return Path(done.stdout.strip())


@pytest.fixture(scope="module")
def package() -> Iterator[Package]:
    with tempfile.TemporaryDirectory(prefix="sandgate-package-") as directory:
        file = build(Path(directory))
        tree = Path(directory) / "tree"
        check("dpkg-deb", "--raw-extract", file, tree)
        yield Package(file, tree)


@pytest.fixture
def system(internet: Internet, tmp_path: Path) -> Iterator[Booted]:
    """A machine on the Internet that systemd has booted."""
    network = Namespace("booted")
    link = f"sgboot-{os.getpid()}"
    try:
        internet.namespace.ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", network.name)
        for namespace, name, number in ((internet.namespace, link, 1), (network, "eth0", 2)):
            namespace.ip("address", "add", f"10.79.0.{number}/30", "dev", name)
            namespace.ip("address", "add", f"fd79::{number}/64", "dev", name, "nodad")
            namespace.ip("link", "set", name, "up")
        network.ip("route", "add", "default", "via", "10.79.0.1")
        network.ip("-6", "route", "add", "default", "via", "fd79::1")
        with booted(network, tmp_path, plan.DNS4) as made:
            yield made
    finally:
        subprocess.run(internet.namespace.command("ip", "link", "delete", link), capture_output=True)
        network.remove()


# The package


def test_contents(package: Package) -> None:
    tree = package.tree
    paths = {f"/{path.relative_to(tree)}" for path in tree.rglob("*") if path.is_file()}
    assert {
        "/usr/bin/sandgate",
        "/lib/systemd/system/sandgate.service",
        "/etc/sandgate/serve.yaml",
        "/usr/share/man/man1/sandgate.1.gz",
        "/usr/share/man/man1/sandgate-run.1.gz",
        "/usr/share/man/man1/sandgate-serve.1.gz",
        "/usr/share/man/man1/sandgate-policy-check.1.gz",
        "/usr/share/doc/sandgate/copyright",
        "/usr/share/doc/sandgate/changelog.gz",
        "/usr/share/doc/sandgate/pages/Daemon.md",
        "/usr/share/bash-completion/completions/sandgate",
    } <= paths
    assert not [path for path in paths if re.search(r"/\.|~$|\.swift$", path)]
    assert (tree / "DEBIAN/conffiles").read_text() == "/etc/sandgate/serve.yaml\n"
    printed = check(binary(), "serve", "--print-config")
    assert (tree / "etc/sandgate/serve.yaml").read_text() == printed
    listed = check("dpkg-deb", "--contents", package.file)
    assert {line.split()[1] for line in listed.splitlines()} == {"root/root"}
    assert "not stripped" not in check("objdump", "--headers", tree / "usr/bin/sandgate")
    assert ".debug_info" not in check("objdump", "--headers", tree / "usr/bin/sandgate")
    assert check(tree / "usr/bin/sandgate", "--version") == check(binary(), "--version")
    links = re.findall(r"\]\((pages/[^)]+)\)", (tree / "usr/share/doc/sandgate/README.md").read_text())
    assert links and all((tree / "usr/share/doc/sandgate" / link).is_file() for link in links)


def test_control(package: Package) -> None:
    depends = package.field("Depends")
    for library in ("libc6", "libmnl0", "libnftnl11", "libc-ares2"):
        assert re.search(rf"\b{library}\b", depends), depends
    version = check(binary(), "--version").split()[1]
    assert re.fullmatch(rf"{re.escape(version)}(~git\d{{14}}\.[0-9a-f]{{10}})?(\.changed)?", package.field("Version"))
    assert int(package.field("Installed-Size")) > (package.tree / "usr/bin/sandgate").stat().st_size // 1024
    changelog = gzip.decompress((package.tree / "usr/share/doc/sandgate/changelog.gz").read_bytes()).decode()
    assert changelog.startswith(f"sandgate ({package.field('Version')}) ")


def test_same_commit_gives_the_same_package(package: Package, tmp_path: Path) -> None:
    assert build(tmp_path).read_bytes() == package.file.read_bytes()


def test_lintian_finds_no_error(package: Package, tmp_path: Path) -> None:
    command = ["lintian", "--allow-root", "--fail-on", "error,warning"]
    if b"libswiftCore.so" in binary().read_bytes():
        # A program built for tests finds this machine's Swift runtime by a path in it; what is released has none.
        command += ["--suppress-tags", "custom-library-search-path"]
    done = subprocess.run([*command, str(package.file)], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and not done.stdout, done


def test_manual_pages_are_well_formed(package: Package) -> None:
    for page in sorted((package.tree / "usr/share/man/man1").iterdir()):
        command = ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", str(page)]
        done = subprocess.run(command, env={**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "80"}, capture_output=True)
        assert done.returncode == 0 and not done.stderr, done.stderr


@pytest.mark.parametrize("arguments", [["--nonsense"], ["--output"], ["--binary", "/nonexistent"]])
def test_mistakes_are_named(arguments: list[str], tmp_path: Path) -> None:
    done = subprocess.run([REPOSITORY / "deploy/build-deb", *arguments], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1 and "deploy/build-deb: " in done.stderr, done


def test_help() -> None:
    assert "--debug-symbols" in check(REPOSITORY / "deploy/build-deb", "--help")


# The service


def test_unit_leaves_little_open() -> None:
    unit = REPOSITORY / "deploy/sandgate.service"
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE}", "--no-pager", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_unit_names_the_directories_that_the_daemon_uses() -> None:
    unit = (REPOSITORY / "deploy/sandgate.service").read_text()
    defaults = check(binary(), "serve", "--print-config")
    for option, directive, parent in (
        ("runtimeDir", "RuntimeDirectory", "/run"),
        ("stateDir", "StateDirectory", "/var/lib"),
        ("auditDir", "LogsDirectory", "/var/log"),
    ):
        name = re.search(rf"^{directive}=(.*)$", unit, re.MULTILINE)
        assert name and f"\n{option}: {parent}/{name[1]}\n" in defaults


def install(system: Booted, package: Package) -> None:
    shutil.copy(package.file, system.path("/tmp/sandgate.deb"))
    system.check("dpkg", "--install", "/tmp/sandgate.deb", timeout=120)


def served(system: Booted) -> bool:
    """Whether the service says that it is ready."""
    return system.property("sandgate", "ActiveState") == "active"


def wait_for_another(system: Booted, before: str) -> None:
    """Waits until a process other than `before` serves."""
    wait_until(
        lambda: served(system) and system.property("sandgate", "MainPID") not in ("0", before),
        "another process",
        20,
    )


@dataclass
class Box:
    """A sandbox of the service, by the path that container runtimes would use."""

    system: Booted
    internet: Internet
    directory: Path

    def command(self, *command: str) -> list[str]:
        """A command as it is run in the sandbox."""
        resolv_conf = self.directory / "resolv.conf"
        resolv_conf.write_text(f"nameserver {plan.DNS4}\n")
        return program(str(self.system.path("/run/sandgate/netns/box")), command, resolv_conf)

    def reaches(self, name: str) -> bool:
        """Whether a web server answers it."""
        command = self.command("curl", "-sS", "-m", "5", f"https://{name}/")
        done = subprocess.run(command, env=self.internet.environment(), capture_output=True, text=True)
        return f"served {name}" in done.stdout

    def asker(self, name: str) -> Asker:
        """A client in the sandbox that keeps its connection."""
        return Asker(
            subprocess.Popen(
                self.command(*Asker.command(name)),
                env=self.internet.environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )


def test_service_from_installation_to_purge(
    internet: Internet, system: Booted, package: Package, tmp_path: Path
) -> None:
    install(system, package)
    # It runs from then on, and at the next boot.
    assert served(system), system.journal()
    assert system.check("systemctl", "is-enabled", "sandgate") == "enabled\n"
    verified = system.run("systemd-analyze", "verify", "/lib/systemd/system/sandgate.service")
    assert verified.returncode == 0 and not verified.stderr, verified
    for path in ("/run/sandgate", "/var/lib/sandgate", "/var/log/sandgate"):
        assert system.path(path).stat().st_mode & 0o777 == 0o700
    capabilities = system.check("grep", "CapBnd", f"/proc/{system.property('sandgate', 'MainPID')}/status")
    # CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_PTRACE and CAP_SYS_ADMIN; CAP_SYS_RESOURCE where this machine has it.
    assert int(capabilities.split()[1], 16) & ~(1 << 24) == 1 << 12 | 1 << 13 | 1 << 19 | 1 << 21
    system.check("sandgate", "doctor", "--security")

    policy = {"defaultAction": "deny", "egress": [{"action": "allow", "target": plan.ALLOWED}]}
    system.path("/tmp/policy.json").write_text(json.dumps(policy))
    system.check("sandgate", "attach", "--create", "--id", "box", "--policy", "/tmp/policy.json")
    box = Box(system, internet, tmp_path)
    assert box.reaches(plan.ALLOWED) and not box.reaches(plan.DENIED)

    # What opens datagrams needs another socket, and a process that could get around the rules is seen, whoever it is.
    datagrams = {"egress": [{"action": "allow", "target": "192.0.2.0/24", "protocol": "udp", "ports": [53]}]}
    system.path("/tmp/datagrams.json").write_text(json.dumps(datagrams))
    system.check("sandgate", "attach", "--create", "--id", "datagrams", "--policy", "/tmp/datagrams.json")
    system.check("sandgate", "detach", "datagrams")
    system.check("ip", "netns", "add", "existing")
    raw = "setpriv --reuid 65534 --clear-groups --inh-caps +net_raw --ambient-caps +net_raw sleep 60"
    system.check("systemd-run", "--unit=threat", "nsenter", "--net=/run/netns/existing", *raw.split())
    wait_until(lambda: "sleep" in system.run("ps", "-eo", "comm,uid").stdout, "the process")
    refused = system.run("sandgate", "attach", "--netns", "/run/netns/existing", "--id", "existing")
    assert refused.returncode == 1 and "CAP_NET_RAW" in refused.stderr, refused
    system.check("systemctl", "stop", "threat")
    system.check("sandgate", "attach", "--netns", "/run/netns/existing", "--id", "existing")

    # Reload: files of rules are read again.
    system.check("systemctl", "reload", "sandgate")
    wait_until(lambda: "rules read again" in system.journal(), "the reload")
    assert served(system) and box.reaches(plan.ALLOWED)

    # Whatever ends it, it comes back and takes its sandboxes up; with their connections, if it was asked to end.
    for act in ("kill --kill-whom=main --signal=TERM", "restart", "kill --kill-whom=main --signal=KILL"):
        before = system.property("sandgate", "MainPID")
        client = box.asker(plan.ALLOWED)
        answer = client.ask()
        assert f"served {plan.ALLOWED}" in answer
        system.check("systemctl", *act.split(), "sandgate")
        wait_for_another(system, before)
        assert (client.ask() == answer) == ("KILL" not in act), system.journal()
        client.end()
        assert box.reaches(plan.ALLOWED) and not box.reaches(plan.DENIED), system.journal()
    assert system.property("sandgate", "Result") == "success"

    # So does one that hangs.
    settings = system.path("/run/systemd/system/sandgate.service.d/test.conf")
    settings.parent.mkdir()
    settings.write_text("[Service]\nWatchdogSec=1s\nTimeoutAbortSec=1s\n")
    system.check("systemctl", "daemon-reload")
    system.check("systemctl", "restart", "sandgate")
    before = system.property("sandgate", "MainPID")
    system.check("kill", "-STOP", before)
    wait_for_another(system, before)
    assert system.property("sandgate", "NRestarts") == "1"
    assert box.reaches(plan.ALLOWED)

    # While none runs, the sandbox reaches nothing; its namespace stays.
    system.check("systemctl", "stop", "sandgate")
    assert not box.reaches(plan.ALLOWED)
    system.check("systemctl", "start", "sandgate")
    assert box.reaches(plan.ALLOWED)

    # An upgrade replaces the daemon and leaves what the administrator wrote.
    configuration = system.path("/etc/sandgate/serve.yaml")
    configuration.write_text(configuration.read_text() + "# mine\n")
    before = system.property("sandgate", "MainPID")
    install(system, package)
    assert served(system) and system.property("sandgate", "MainPID") != before
    assert configuration.read_text().endswith("# mine\n") and box.reaches(plan.ALLOWED)

    system.check("dpkg", "--remove", "sandgate")
    assert not box.reaches(plan.ALLOWED)
    assert configuration.is_file() and system.path("/var/log/sandgate").is_dir()
    system.check("dpkg", "--purge", "sandgate")
    for path in ("/run/sandgate", "/var/lib/sandgate", "/var/log/sandgate", "/etc/sandgate", "/usr/bin/sandgate"):
        assert not system.path(path).exists(), path
    assert "/run/sandgate" not in Path(f"/proc/{system.pid}/mountinfo").read_text()
    assert system.run("systemctl", "cat", "sandgate").returncode != 0
