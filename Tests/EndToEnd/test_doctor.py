"""`sandgate doctor`: what works, what is missing and what to do about it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lab.tool import binary, tool


def doctor(*prefix: str | Path) -> tuple[int, dict[str, Any]]:
    """The exit status and the JSON of a run behind `prefix`."""
    command = [*map(str, prefix), str(binary()), "doctor", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == "", done
    return done.returncode, json.loads(done.stdout)


def mode(document: dict[str, Any], name: str) -> dict[str, Any]:
    """One of the modes, its findings by their names."""
    modes: list[dict[str, Any]] = document["modes"]
    (found,) = [one for one in modes if one["mode"] == name]
    return found | {"findings": {finding["name"]: finding for finding in found["findings"]}}


def test_all_that_is_needed_is_here() -> None:
    status, document = doctor()
    assert status == 0 and document["ready"] is True
    run = mode(document, "run")
    assert run["needed"] and run["ready"]
    needed = {"privileges", "namespaces", "nftables", "redirects", "refusal log", "confinement", "name servers"}
    assert needed <= run["findings"].keys()
    assert all(run["findings"][name]["outcome"] == "works" for name in needed), run
    assert all("remedy" not in finding for finding in run["findings"].values() if finding["outcome"] == "works")
    assert document["kernel"] == os.uname().release


def test_nothing_is_left_behind() -> None:
    mine = set(Path("/sys/class/net").iterdir())
    assert tool("doctor").returncode == 0
    assert set(Path("/sys/class/net").iterdir()) == mine
    listed = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False)
    assert "sandgate" not in listed.stdout


def test_lines_for_a_person() -> None:
    done = tool("doctor")
    assert done.returncode == 0, done
    assert "\nrun (a sandbox as root): ready\n" in done.stdout
    assert "\n  works    redirects " in done.stdout


def test_a_missing_capability_has_a_remedy() -> None:
    without = ["setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin"]
    status, document = doctor(*without)
    assert status == 1 and document["ready"] is False
    run = mode(document, "run")
    assert run["findings"]["privileges"]["outcome"] == "missing"
    assert "CAP_NET_ADMIN" in run["findings"]["privileges"]["detail"]
    assert "--cap-add" in run["findings"]["privileges"]["remedy"]
    assert run["findings"]["kernel"]["outcome"] == "untried"


def test_root_without_capabilities_is_told_of_capabilities() -> None:
    status, document = doctor("setpriv", "--bounding-set", "-all", "--inh-caps", "-all")
    assert status == 1
    kernel = mode(document, "run")["findings"]["kernel"]
    assert kernel["outcome"] == "untried" and "capabilities" in kernel["detail"]


def test_masked_proc_has_a_remedy_of_its_own(tmp_path: Path) -> None:
    """As in a container."""
    hide = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /proc/bus && exec "$@"', "sh"]
    _, document = doctor(*hide)
    finding = mode(document, "rootless")["findings"]["confinement"]
    assert finding["outcome"] == "missing"
    assert "systempaths=unconfined" in finding["remedy"] and "systempaths" not in finding["detail"], finding


@pytest.mark.parametrize("kind", ["mnt", "pid", "ipc"])
def test_limits_for_ordinary_users_are_named(kind: str) -> None:
    _, document = doctor(*limited(f"max_{kind}_namespaces"))
    finding = mode(document, "rootless")["findings"]["user namespaces"]
    assert finding["outcome"] == "missing" and f"user.max_{kind}_namespaces" in finding["remedy"], finding


def test_an_ordinary_user_needs_what_rootless_takes(tmp_path: Path) -> None:
    # The binary may lie where only root can read.
    program = Path("/tmp") / f"sandgate-doctor-{os.getpid()}"
    program.write_bytes(binary().read_bytes())
    program.chmod(0o755)
    try:
        command = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", str(program), "doctor"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd="/")
    finally:
        program.unlink()
    assert done.stderr == "", done
    assert "not root" in done.stdout and "remedy: use sudo, or run without root" in done.stdout
    ready = "\nrootless (what the kernel allows an ordinary user): ready\n" in done.stdout
    assert done.returncode == (0 if ready else 1), done


def limited(setting: str) -> list[str]:
    """Root of a user namespace where a kind of namespace cannot be made."""
    return ["unshare", "--user", "--map-root-user", "sh", "-c", f'echo 0 > /proc/sys/user/{setting}; exec "$@"', "sh"]


def test_a_limit_on_namespaces_is_named_with_its_remedy() -> None:
    probe = subprocess.run([*limited("max_net_namespaces"), "true"], capture_output=True, check=False)
    if probe.returncode != 0:
        pytest.skip("no user namespaces here")
    status, document = doctor(*limited("max_net_namespaces"))
    assert status == 1
    findings = mode(document, "run")["findings"]
    assert findings["namespaces"]["outcome"] == "missing"
    assert "user.max_net_namespaces" in findings["namespaces"]["remedy"]
    assert findings["nftables"]["outcome"] == "untried"


def test_what_an_ordinary_user_may_do_is_tried() -> None:
    _, document = doctor()
    rootless = mode(document, "rootless")
    as_nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    tried = subprocess.run(
        [*as_nobody, "unshare", "--user", "--map-root-user", "--net", "--mount", "true"], capture_output=True, check=False
    )
    assert rootless["ready"] is (tried.returncode == 0), (rootless, tried.stderr)
    assert rootless["needed"] is False
    if rootless["ready"]:
        assert {"user namespaces", "enforcement", "confinement"} <= rootless["findings"].keys()
