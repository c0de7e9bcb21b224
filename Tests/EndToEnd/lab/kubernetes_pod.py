"""The manifests of deploy/kubernetes, and a Pod of theirs whose containers Podman runs. No cluster is here."""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .guarded import ADDRESS
from .podman import Podman
from .processes import check
from .python_environment import python_environment
from .sandgate import REPOSITORY

MANIFEST = REPOSITORY / "deploy/kubernetes/sidecar.yaml"
VERSION = ">=37,<38"


def client() -> Path:
    """A Python with the client of the Kubernetes API, made once."""
    return python_environment("kubernetes", (f"kubernetes{VERSION}",)) / "bin/python"


def examine(python: Path, *files: Path) -> Any:
    """What kubernetes_models.py says of files."""
    return json.loads(check(python, Path(__file__).with_name("kubernetes_models.py"), *files))


class Pod:
    """A Pod whose containers are as its manifest has them, and not begun. Made by :func:`pod`.

    `podman kube play` knows no native sidecars: what a kubelet does about them is done here. They are containers like the
    others, which begin when :meth:`start` is called.
    """

    def __init__(self, podman: Podman, objects: list[dict[str, Any]]) -> None:
        (pod,) = [found for found in objects if found["kind"] == "Pod"]
        self._podman = podman
        self.name: str = pod["metadata"]["name"]
        self._containers = {found["name"]: found for found in pod["spec"]["containers"]}
        infra = podman.docker("pod", "inspect", "--format", "{{.InfraContainerID}}", self.name)
        podman.docker("start", infra)
        self.address = podman.inspect(infra, ADDRESS)
        """Of the Pod."""

    def container(self, name: str) -> str:
        """What Podman calls a container."""
        return f"{self.name}-{name}"

    def start(self, name: str) -> None:
        """Begins a container, and waits for its startup probe as a kubelet does."""
        self._podman.docker("start", self.container(name))
        probe = self._containers[name].get("startupProbe")
        if probe is None:
            return
        for _ in range(probe["failureThreshold"]):
            time.sleep(probe["periodSeconds"])
            if self._is_answered(name, probe["httpGet"]):
                return
        raise TimeoutError(f"no answer to the startup probe: {self._podman.logs(self.container(name))}")

    def _is_answered(self, name: str, probe: Mapping[str, Any]) -> bool:
        ports = {port["name"]: port["containerPort"] for port in self._containers[name]["ports"]}
        answer = self.ask(f"{ports[probe['port']]}{probe['path']}", "--output", "/dev/null", "--write-out", "%{http_code}")
        # As a kubelet counts success.
        return answer[:1] in ("2", "3")

    def ask(self, place: str, *options: str) -> str:
        """Asks a port of the Pod from outside: `PORT/PATH`."""
        command = self._podman.namespace.command("curl", "-sS", "-m", "2", *options, f"http://{self.address}:{place}")
        return subprocess.run(command, capture_output=True, text=True).stdout


@contextlib.contextmanager
def pod(
    podman: Podman, directory: Path, objects: list[dict[str, Any]], workload: Mapping[str, Any], policy: object
) -> Iterator[Pod]:
    """A Pod of a manifest's objects: only the members of its workload that `workload` has, and the policy, are others."""
    objects = json.loads(json.dumps(objects))
    for found in objects:
        if found["kind"] == "ConfigMap":
            found["data"]["policy"] = json.dumps(policy)
        if found["kind"] == "Pod":
            spec = found["spec"]
            spec["containers"][0] |= workload
            for sidecar in spec.pop("initContainers"):
                assert sidecar.pop("restartPolicy") == "Always"
                spec["containers"].insert(0, sidecar)
    secrets = [found for found in objects if found["kind"] == "Secret"]
    played = [found for found in objects if found["kind"] in ("ConfigMap", "Pod")]
    file = directory / "played.yaml"
    # Each is YAML too.
    file.write_text("\n---\n".join(json.dumps(found) for found in played))
    for secret in secrets:
        # Podman 4.3 keeps objects of this kind in a form that it does not find a key in.
        values = {name: base64.b64encode(value.encode()).decode() for name, value in secret["stringData"].items()}
        kept = directory / "secret.json"
        kept.write_text(json.dumps(values))
        podman.docker("secret", "create", secret["metadata"]["name"], str(kept))
    try:
        podman.docker("kube", "play", "--start=false", str(file))
        yield Pod(podman, played)
    finally:
        podman.docker("pod", "rm", "--all", "--force", "--time", "0")
        podman.docker("volume", "rm", "--all", "--force")
        for secret in secrets:
            podman.docker("secret", "rm", secret["metadata"]["name"])
