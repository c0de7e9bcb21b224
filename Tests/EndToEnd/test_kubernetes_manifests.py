"""The manifests of deploy/kubernetes, held to the API's types as the Python client has them. No cluster is here to run them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lab.processes import check
from lab.python_environment import python_environment
from lab.sandgate import REPOSITORY
from lab.tool import tool

MANIFEST = REPOSITORY / "deploy/kubernetes/sidecar.yaml"
VERSION = ">=37,<38"


@pytest.fixture(scope="module")
def python() -> Path:
    """A Python environment with the client, made once."""
    return python_environment("kubernetes", (f"kubernetes{VERSION}",)) / "bin/python"


def examine(python: Path, *files: Path) -> Any:
    return json.loads(check(python, Path(__file__).parent / "lab/kubernetes_models.py", *files))


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
