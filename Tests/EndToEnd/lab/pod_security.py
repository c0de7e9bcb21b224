"""The rules of the Pod Security Standards, profile "restricted", which the cluster's admission holds Pods to
(https://kubernetes.io/docs/concepts/security/pod-security-standards). "baseline" is a part of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
SYSCTLS = {
    *("kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start"),
    *("net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports"),
    *("net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl"),
    "net.ipv4.tcp_keepalive_probes",
}


def violations(spec: Mapping[str, Any]) -> Iterator[str]:
    """Everything in which a Pod is not "restricted"."""
    shared = spec.get("securityContext", {})
    for member, what in (("hostNetwork", "network"), ("hostPID", "processes"), ("hostIPC", "shared memory")):
        if spec.get(member):
            yield f"has the node's {what}"
    for volume in spec.get("volumes", []):
        yield from (f"volume {volume['name']} is a {kind}" for kind in set(volume) - {"name"} - VOLUMES)
    yield from (f"sysctl {found['name']}" for found in shared.get("sysctls", []) if found["name"] not in SYSCTLS)
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(kind, []):
            # What a container does not say, its Pod says.
            yield from (f"{container['name']}: {found}" for found in _of_container(container, shared))


def _of_container(container: Mapping[str, Any], shared: Mapping[str, Any]) -> Iterator[str]:
    own = container.get("securityContext", {})
    context = {**shared, **own}
    capabilities = own.get("capabilities", {})
    if any(port.get("hostPort") for port in container.get("ports", [])):
        yield "a port of the node"
    if own.get("privileged"):
        yield "is privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "may gain privileges"
    if "ALL" not in capabilities.get("drop", []):
        yield "keeps capabilities"
    if added := sorted(set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}):
        yield f"capabilities are added: {', '.join(added)}"
    if context.get("runAsUser") == 0:
        yield "runs as root"
    if context.get("runAsNonRoot") is not True:
        yield "may run as root"
    if context.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield "no system call filter"
    if own.get("procMount", "Default") != "Default":
        yield "all of /proc"
    if context.get("appArmorProfile", {}).get("type", "RuntimeDefault") == "Unconfined":
        yield "no AppArmor profile"
    if set(context.get("seLinuxOptions", {})) & {"user", "role"}:
        yield "a SELinux user or role"
