"""`sandgate policy detect` and `run --detect`, with real tools and made-up configuration: nothing of this machine's own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from lab import plan
from lab.internet import Internet
from lab.sandgate import Sandgate
from lab.tool import binary

Detect = Callable[..., subprocess.CompletedProcess[str]]


def script(path: Path, text: str) -> Path:
    """An executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty home directory."""
    path = tmp_path / "home"
    path.mkdir()
    return path


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """An empty working directory."""
    path = tmp_path / "project"
    path.mkdir()
    return path


@pytest.fixture
def environment(home: Path, tmp_path: Path) -> dict[str, str]:
    """Variables that keep tools from this machine's own configuration."""
    return {
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
        "HOME": str(home),
        "NPM_CONFIG_GLOBALCONFIG": "/dev/null",
        "GIT_CONFIG_SYSTEM": "/dev/null",
        "PIP_CONFIG_FILE": str(tmp_path / "pip.conf"),
        "PYENV_ROOT": os.environ.get("PYENV_ROOT", str(Path.home() / ".pyenv")),
        "RUSTUP_HOME": os.environ.get("RUSTUP_HOME", str(Path.home() / ".rustup")),
    }


@pytest.fixture
def detect(environment: dict[str, str], project: Path) -> Detect:
    """Runs `policy detect` in the project."""

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [str(binary()), "policy", "detect", *arguments]
        done = environment | variables
        return subprocess.run(command, capture_output=True, text=True, timeout=60, env=done, cwd=project, check=False)

    return run


def places(done: subprocess.CompletedProcess[str]) -> list[str]:
    """`host:port` of what was detected."""
    assert done.returncode == 0, done.stderr
    return [f"{host['target']}:{host['port']}" for host in json.loads(done.stdout)["hosts"]]


def need(tool: str) -> None:
    """Skips a test on a machine without the tool."""
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")


def test_rules_have_ports_and_comments_and_no_passwords(detect: Detect, tmp_path: Path) -> None:
    need("pip")
    (tmp_path / "pip.conf").write_text("[global]\nindex-url = https://name:secret@index.example:8443/simple\n")
    done = detect("pip")
    assert done.returncode == 0, done.stderr
    assert "secret" not in done.stdout
    assert f"    # pip: index-url of {tmp_path}/pip.conf\n" in done.stdout
    rule = '    - {action: allow, target: "index.example", ports: [8443], protocol: tcp}\n'
    assert rule in done.stdout
    policy = tmp_path / "policy.yaml"
    policy.write_text(done.stdout)
    checked = subprocess.run([binary(), "policy", "check", policy], capture_output=True, text=True, check=False)
    assert checked.returncode == 0 and "valid: 1 rule" in checked.stdout, checked.stderr


@pytest.mark.parametrize("end", ["\u2028", "\u2029", "\u0085"])
def test_name_that_would_be_a_rule(detect: Detect, project: Path, tmp_path: Path, end: str) -> None:
    """YAML's lines end in more ways than one, and a terminal obeys more than ASCII's control characters."""
    need("git")
    subprocess.run(["git", "init", "--quiet", project], check=True)
    name = f"a{end}    - {{action: allow, target: 0.0.0.0/0}}{end}    # \u009b2J\u202e"
    with (project / ".git" / "config").open("a") as file:
        file.write(f'[remote "{name}"]\n\turl = https://git.example/x\n')
    done = detect("git")
    assert done.returncode == 0 and done.stdout.isascii(), done
    policy = tmp_path / "policy.yaml"
    policy.write_text(done.stdout)
    checked = subprocess.run([binary(), "policy", "check", "--json", policy], capture_output=True, text=True, check=True)
    assert json.loads(checked.stdout)[0]["rules"] == 1, done.stdout


def test_pip_variables(detect: Detect) -> None:
    need("pip")
    variables = {"PIP_INDEX_URL": "https://one.example/simple", "PIP_EXTRA_INDEX_URL": "http://two.example/ https://[2001:db8::3]/"}
    assert places(detect("pip", "--json", **variables)) == ["one.example:443", "two.example:80", "2001:db8::3:443"]


def test_npm_registries(detect: Detect, home: Path, project: Path) -> None:
    need("npm")
    (home / ".npmrc").write_text(
        "registry=https://user.example/\n@corp:registry=http://corp.example:4873/\n//corp.example:4873/:_authToken=secret\n"
    )
    assert set(places(detect("npm", "--json"))) == {"user.example:443", "corp.example:4873"}
    (project / "package.json").write_text("{}")
    (project / ".npmrc").write_text("registry=https://project.example/\n")
    assert set(places(detect("npm", "--json"))) == {"project.example:443", "corp.example:4873"}
    assert "secret" not in detect("npm").stdout


def test_cargo_source_replacement(detect: Detect, home: Path, tmp_path: Path) -> None:
    need("cargo")
    (tmp_path / "cargo").mkdir()
    (tmp_path / "cargo" / "config.toml").write_text(
        '[source.crates-io]\nreplace-with = "mirror"\n\n[source.mirror]\nregistry = "sparse+https://crates.example/index/"\n'
    )
    assert places(detect("cargo", "--json", CARGO_HOME=str(tmp_path / "cargo"))) == ["crates.example:443"]


def test_maven_mirrors(detect: Detect, home: Path, tmp_path: Path, project: Path) -> None:
    # A Maven of its own: the one of this machine has settings of its own.
    script(tmp_path / "maven" / "bin" / "mvn", "echo executed >&2; exit 1")
    (tmp_path / "bin").mkdir(exist_ok=True)
    (tmp_path / "bin" / "mvn").symlink_to(tmp_path / "maven" / "bin" / "mvn")
    (tmp_path / "maven" / "conf").mkdir()
    (tmp_path / "maven" / "conf" / "settings.xml").write_text(
        "<settings><mirrors><mirror><mirrorOf>central</mirrorOf><url>https://m2.example/x</url></mirror></mirrors></settings>"
    )
    (project / "pom.xml").write_text(
        "<project><repositories><repository><url>https://corp.example:8081/</url></repository></repositories></project>"
    )
    assert places(detect("maven", "--json")) == ["m2.example:443", "corp.example:8081"]


def test_apt_sources(detect: Detect, tmp_path: Path) -> None:
    need("apt-get")
    (tmp_path / "parts").mkdir()
    (tmp_path / "lists").mkdir()
    (tmp_path / "parts" / "x.sources").write_text(
        "Types: deb\nURIs: https://deb.example/debian http://mirror.example:8080/debian\nSuites: stable\nComponents: main\n\n"
        "Enabled: no\nTypes: deb\nURIs: https://disabled.example/debian\nSuites: stable\nComponents: main\n"
    )
    (tmp_path / "sources.list").write_text("deb [trusted=yes] http://old.example/debian stable main\n")
    configuration = tmp_path / "apt.conf"
    configuration.write_text(
        f'Dir::Etc::sourcelist "{tmp_path}/sources.list";\nDir::Etc::sourceparts "{tmp_path}/parts";\n'
        f'Dir::State::lists "{tmp_path}/lists/";\n'
    )
    found = places(detect("apt", "--json", APT_CONFIG=str(configuration)))
    assert set(found) == {"deb.example:443", "mirror.example:8080", "old.example:80"}


def test_apt_source_without_its_driver(detect: Detect, tmp_path: Path) -> None:
    need("apt-get")
    (tmp_path / "lists").mkdir()
    (tmp_path / "sources.list").write_text(
        "deb tor+http://onion.example/debian stable main\ndeb [trusted=yes] http://old.example/debian stable main\n"
    )
    configuration = tmp_path / "apt.conf"
    configuration.write_text(
        f'Dir::Etc::sourcelist "{tmp_path}/sources.list";\nDir::Etc::sourceparts "/dev/null";\n'
        f'Dir::State::lists "{tmp_path}/lists/";\n'
    )
    done = detect("apt", "--json", APT_CONFIG=str(configuration))
    assert places(done) == ["old.example:80"]
    (note,) = json.loads(done.stdout)["notes"]
    assert "tor+http" in note


def test_git_remotes(detect: Detect, project: Path) -> None:
    need("git")

    def git(*arguments: str) -> None:
        environment = {"PATH": os.environ["PATH"], "GIT_CONFIG_SYSTEM": "/dev/null", "HOME": "/nonexistent"}
        subprocess.run(["git", "-C", str(project), *arguments], check=True, env=environment, capture_output=True)

    assert places(detect("git", "--json")) == []
    git("init")
    git("remote", "add", "origin", "git@ssh.example:owner/project.git")
    git("remote", "add", "up", "https://web.example/owner/project.git")
    git("config", "url.https://mirror.example/.insteadOf", "https://web.example/")
    assert set(places(detect("git", "--json"))) == {"ssh.example:22", "mirror.example:443"}


STAND_INS = {
    "go": (
        'test "$*" = "env GOPROXY GOSUMDB GONOPROXY" && '
        'printf "https://goproxy.example,direct\\nsum.example\\n*.corp.example\\n"',
        "go",
    ),
    "gem": ('test "$1 $2" = "sources --list" && printf "*** CURRENT SOURCES ***\\n\\nhttps://gems.example/\\n"', "gem"),
}
"""Tools that not every machine has, as far as they are asked."""


def test_go_and_gem(detect: Detect, tmp_path: Path) -> None:
    for name, (text, _) in STAND_INS.items():
        script(tmp_path / "bin" / name, text)
    assert places(detect("go", "gem", "--json")) == ["goproxy.example:443", "sum.example:443", "gems.example:443"]
    said = detect("go").stdout
    assert "# go: GOPROXY also says direct" in said
    assert "# go: GONOPROXY or GOPRIVATE says *.corp.example" in said


@pytest.mark.parametrize(
    ("tool", "message"),
    [
        ("npm", "npm is not installed: no such program on PATH"),
        ("leftpad", '"leftpad" is not a tool whose configuration is known: expected pip, npm, cargo'),
        ("docker", "a daemon, which runs outside of the sandbox"),
    ],
)
def test_what_cannot_be_asked_is_an_error(detect: Detect, tool: str, message: str) -> None:
    done = detect(tool, PATH="/nonexistent")
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr


def test_a_tool_that_fails_says_why(detect: Detect, tmp_path: Path) -> None:
    script(tmp_path / "bin" / "go", "echo 'go: no home' >&2; exit 2")
    done = detect("go")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "sandgate: cannot ask go env GOPROXY: exit status 2: go: no home\n"


def run_detected(
    sandgate: Sandgate, environment: Mapping[str, str], command: list[str], policy: str | None = None
) -> tuple[subprocess.CompletedProcess[str], list[dict[str, object]]]:
    line, audit = sandgate.command(policy, command, options=["--detect"])
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, env=dict(environment), check=False)
    records = [json.loads(text) for text in audit.read_text().splitlines()] if audit.exists() else []
    return done, records


def test_run_allows_what_the_command_is_configured_for(
    internet: Internet, sandgate: Sandgate, environment: dict[str, str], tmp_path: Path
) -> None:
    """A stand-in for npm that says where its registry is, and when it is run goes there and elsewhere."""
    script(
        tmp_path / "bin" / "npm",
        f"""case "$1 $2" in
        "config list") echo 'registry = "https://{plan.ALLOWED}/"' ;;
        *) for name in {plan.ALLOWED} {plan.DENIED}; do
               curl -sS -o /dev/null --max-time 10 https://$name/ && echo reached $name
           done; true ;;
        esac""",
    )
    done, records = run_detected(sandgate, internet.environment(environment), ["npm", "ci"])
    assert done.returncode == 0, done
    assert done.stdout == f"reached {plan.ALLOWED}\n", done
    assert f"--detect: allowed {plan.ALLOWED}, port 443 (npm: registry of" in done.stderr
    assert [record["host"] for record in records if record["event"] == "dns.denied"][:1] == [plan.DENIED]


def test_run_takes_no_orders_from_the_working_directory(
    internet: Internet, sandgate: Sandgate, environment: dict[str, str], project: Path, home: Path
) -> None:
    need("npm")
    (home / ".npmrc").write_text("registry=https://user.example/\n")
    (project / ".npmrc").write_text("registry=https://project.example/\n")
    (project / "package.json").write_text("{}")
    line, _ = sandgate.command(None, ["npm", "config", "get", "registry"], options=["--detect"])
    env = internet.environment(environment)
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, env=env, cwd=project, check=False)
    assert done.returncode == 0, done
    assert done.stdout.strip() == "https://project.example/"
    assert "allowed user.example, port 443" in done.stderr and "project.example" not in done.stderr, done


@pytest.mark.parametrize("directory", ["outside", "project"])
def test_run_reads_settings_that_the_command_line_names(
    internet: Internet, sandgate: Sandgate, environment: dict[str, str], project: Path, tmp_path: Path, directory: str
) -> None:
    (tmp_path / "outside").mkdir()
    settings = tmp_path / directory / "settings.xml"
    settings.write_text("<mirror><mirrorOf>*</mirrorOf><url>https://mirror.example/m2</url></mirror>")
    script(tmp_path / "bin" / "mvn", "exit 0")
    line, _ = sandgate.command(None, ["mvn", "-s", str(settings), "package"], options=["--detect"])
    env = internet.environment(environment)
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, env=env, cwd=project, check=False)
    assert done.returncode == 0, done
    is_read = directory == "outside"
    assert ("allowed mirror.example, port 443" in done.stderr) == is_read, done
    assert ("the file of --settings was not read" in done.stderr) != is_read, done


def test_run_asks_the_tool_on_path_and_not_the_commands(
    internet: Internet, sandgate: Sandgate, environment: dict[str, str], project: Path, tmp_path: Path
) -> None:
    mark = tmp_path / "asked-outside"
    script(tmp_path / "bin" / "npm", f'echo \'registry = "https://{plan.ALLOWED}/"\'')
    local = script(project / "npm", f'test "$1" = config && touch {mark}; curl -sS -o /dev/null https://{plan.ALLOWED}/')
    done, _ = run_detected(sandgate, internet.environment(environment), [str(local), "ci"])
    assert done.returncode == 0, done
    assert not mark.exists()


@pytest.mark.parametrize(
    ("command", "policy", "message"),
    [
        (["touch"], None, '--detect: "touch" is not a tool'),
        (["npm", "touch"], None, "--detect: npm is not installed"),
        (["git", "touch"], "defaultAction: allow\n", "--detect has no effect"),
    ],
)
def test_run_that_cannot_detect_starts_nothing(
    internet: Internet, sandgate: Sandgate, tmp_path: Path, command: list[str], policy: str | None, message: str
) -> None:
    mark = tmp_path / "started"
    script(tmp_path / "bin" / "git", f"touch {mark}-asked")
    environment = internet.environment({"PATH": f"{tmp_path}/bin", "HOME": str(tmp_path)})
    done, _ = run_detected(sandgate, environment, [*command, str(mark)], policy)
    assert done.returncode == 125 and message in done.stderr, done
    assert not mark.exists()
