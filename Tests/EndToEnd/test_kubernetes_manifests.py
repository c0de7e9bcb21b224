"""The manifests of deploy/kubernetes, held to the API's types as the Python client has them. No cluster is here to run them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.kubernetes_pod import MANIFEST, client, examine
from lab.pod_security import violations
from lab.sandgate import REPOSITORY
from lab.tool import tool


@pytest.fixture(scope="module")
def python() -> Path:
    return client()


def test_manifests_are_of_the_types_of_the_api(python: Path) -> None:
    files = sorted((REPOSITORY / "deploy/kubernetes").glob("*.yaml"))
    examined = examine(python, *files)
    assert MANIFEST in files and examined["problems"] == []
    assert [found["kind"] for found in examined["objects"]] == ["Namespace", "Secret", "ConfigMap", "Pod"]


@pytest.mark.parametrize(
    ("right", "wrong", "problem"),
    [
        ("restartPolicy: Always", "restartpolicy: Always", "restartpolicy: V1Container has no such field"),
        ("readOnlyRootFilesystem: true", 'readOnlyRootFilesystem: "yes"', "readOnlyRootFilesystem: expected bool"),
        ("periodSeconds: 1\n", 'periodSeconds: "1"\n', "periodSeconds: expected int"),
        ("containerPort: 18080", "hostIP: 192.0.2.1", "containerPort: V1ContainerPort requires it"),
        ("drop: [ALL]", "drop: ALL", "drop: expected a list"),
    ],
)
def test_mistakes_are_found(python: Path, tmp_path: Path, right: str, wrong: str, problem: str) -> None:
    text = MANIFEST.read_text()
    assert right in text
    changed = tmp_path / "changed.yaml"
    changed.write_text(text.replace(right, wrong))
    assert any(problem in found for found in examine(python, changed)["problems"])


def test_policy_is_one(python: Path, tmp_path: Path) -> None:
    (policy,) = [found["data"]["policy"] for found in examine(python, MANIFEST)["objects"] if found["kind"] == "ConfigMap"]
    file = tmp_path / "policy.json"
    file.write_text(policy)
    checked = tool("policy", "check", file)
    assert checked.returncode == 0, checked


def test_workload_waits_and_has_no_privilege(python: Path) -> None:
    """What holds the start-up race and the sandbox: each is one line that somebody could take away."""
    (pod,) = [found["spec"] for found in examine(python, MANIFEST)["objects"] if found["kind"] == "Pod"]
    (sidecar,), (workload,) = pod["initContainers"], pod["containers"]
    assert sidecar["restartPolicy"] == "Always" and sidecar["startupProbe"]["httpGet"]["path"] == "/healthz"
    assert sidecar["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]}
    assert workload["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert workload["securityContext"]["allowPrivilegeEscalation"] is False
    assert not pod["hostNetwork"] and not pod["shareProcessNamespace"]


# Pod Security Standards


@pytest.fixture(scope="module")
def spec(python: Path) -> dict[str, Any]:
    """Of the Pod."""
    found: list[dict[str, Any]] = [found["spec"] for found in examine(python, MANIFEST)["objects"] if found["kind"] == "Pod"]
    return found[0]


SIDECAR_IS_MORE = {
    "sandgate: capabilities are added: NET_ADMIN, NET_RAW",
    "sandgate: runs as root",
    "sandgate: may run as root",
}
"""All in which the Pod is less than "restricted", which asks for most: what the sidecar cannot be without."""


def test_pod_is_restricted_but_for_what_the_sidecar_needs(spec: dict[str, Any]) -> None:
    """The workload is as the standards' strictest profile has it; beside it, two capabilities of a user root."""
    assert set(violations(spec)) == SIDECAR_IS_MORE


def _of_workload(**members: object) -> Callable[[dict[str, Any]], None]:
    def change(spec: dict[str, Any]) -> None:
        spec["containers"][0]["securityContext"].update(members)

    return change


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda spec: spec.update(hostNetwork=True), "the node's network"),
        (lambda spec: spec.update(hostPID=True), "the node's processes"),
        (lambda spec: spec["volumes"].append({"name": "x", "hostPath": {"path": "/"}}), "volume x is a hostPath"),
        (lambda spec: spec.update(securityContext={"sysctls": [{"name": "net.ipv4.ip_forward", "value": "1"}]}), "sysctl"),
        (lambda spec: spec["initContainers"][0]["ports"][0].update(hostPort=18080), "sandgate: a port of the node"),
        (_of_workload(privileged=True), "workload: is privileged"),
        (_of_workload(allowPrivilegeEscalation=True), "workload: may gain privileges"),
        (_of_workload(capabilities={"drop": ["NET_RAW"]}), "workload: keeps capabilities"),
        (_of_workload(capabilities={"drop": ["ALL"], "add": ["SYS_ADMIN"]}), "workload: capabilities are added: SYS_ADMIN"),
        (_of_workload(runAsUser=0), "workload: runs as root"),
        (_of_workload(runAsNonRoot=False), "workload: may run as root"),
        (_of_workload(seccompProfile={"type": "Unconfined"}), "workload: no system call filter"),
        (_of_workload(procMount="Unmasked"), "workload: all of /proc"),
        (lambda spec: spec["containers"][0].pop("securityContext"), "workload: keeps capabilities"),
    ],
)
def test_what_is_not_restricted_is_found(
    spec: dict[str, Any], change: Callable[[dict[str, Any]], None], problem: str
) -> None:
    changed = copy.deepcopy(spec)
    change(changed)
    assert any(problem in found for found in set(violations(changed)) - SIDECAR_IS_MORE)
