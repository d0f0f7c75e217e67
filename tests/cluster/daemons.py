"""The programs that make up a node, and how each is started."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.settings import NODE, NODE_IP, SERVICES

_ETCD = "http://127.0.0.1:2379"


@dataclass(frozen=True)
class Daemon:
    """A program that runs as long as its node."""

    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)


def daemons(home: Path) -> dict[str, Daemon]:
    """All of them by name, in the order in which they may be started."""
    kubeconfig = f"--kubeconfig={home}/kubeconfig"
    local = (kubeconfig, "--leader-elect=false", "--bind-address=127.0.0.1")
    kubelet = (f"--config={home}/kubelet.yaml", f"--root-dir={home}/kubelet", f"--cert-dir={home}/kubelet-keys")
    keys = (f"--service-account-private-key-file={home}/accounts.key", f"--root-ca-file={home}/ca.crt")
    commands = {
        "etcd": ("etcd", f"--data-dir={home}/etcd", "--unsafe-no-fsync"),
        "apiserver": ("kube-apiserver", *_api_server(home)),
        "containerd": ("containerd", f"--config={home}/containerd.toml"),
        "controllers": ("kube-controller-manager", *local, *keys, "--kube-api-qps=200", "--kube-api-burst=400"),
        "scheduler": ("kube-scheduler", *local),
        "kubelet": ("kubelet", kubeconfig, *kubelet, f"--hostname-override={NODE}", f"--node-ip={NODE_IP}"),
        "names": ("coredns", f"-conf={home}/Corefile"),
        "proxy": ("kube-proxy", f"--config={home}/proxy.yaml"),
    }
    ours = {name: Daemon((f"{home}/programs/{program}", *words)) for name, (program, *words) in commands.items()}
    return ours | _operator(home)


def _api_server(home: Path) -> tuple[str, ...]:
    return (
        f"--etcd-servers={_ETCD}",
        f"--advertise-address={NODE_IP}",
        f"--tls-cert-file={home}/server.crt",
        f"--tls-private-key-file={home}/server.key",
        f"--token-auth-file={home}/tokens.csv",
        f"--client-ca-file={home}/ca.crt",
        f"--kubelet-client-certificate={home}/kubelet-client.crt",
        f"--kubelet-client-key={home}/kubelet-client.key",
        "--kubelet-preferred-address-types=InternalIP",
        "--authorization-mode=RBAC",
        "--allow-privileged=true",
        f"--service-cluster-ip-range={SERVICES}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={home}/accounts.pub",
        f"--service-account-signing-key-file={home}/accounts.key",
    )


def _operator(home: Path) -> dict[str, Daemon]:
    """Seldon's operator where `SELDON_OPERATOR` names its program, else the one that stands in for it."""
    real = os.environ.get("SELDON_OPERATOR")
    if real:
        return {"operator": Daemon((real, *_OPERATOR_OPTIONS), {**_OPERATOR, "KUBECONFIG": f"{home}/kubeconfig"})}
    return {"operator": Daemon((sys.executable, "-m", "tests.cluster.operator", f"--kubeconfig={home}/kubeconfig"))}


WEBHOOK_PORT = 9443
_OPERATOR_OPTIONS = (
    f"--webhook-port={WEBHOOK_PORT}",
    "--metrics-addr=127.0.0.1:9444",
    "--operator-namespace=seldon-system",
)
_OPERATOR = {
    "POD_NAMESPACE": "seldon-system",
    "ISTIO_ENABLED": "true",
    "ISTIO_GATEWAY": "istio-system/seldon-gateway",
    "AMBASSADOR_ENABLED": "false",
    "KEDA_ENABLED": "false",
    "DEFAULT_USER_ID": "8888",
    "EXECUTOR_CONTAINER_IMAGE_AND_VERSION": "seldonio/seldon-core-executor:1.17.1",
    "EXECUTOR_SERVER_PORT": "8000",
    "EXECUTOR_PROMETHEUS_PATH": "/prometheus",
    "PREDICTIVE_UNIT_HTTP_SERVICE_PORT": "9000",
    "PREDICTIVE_UNIT_GRPC_SERVICE_PORT": "9500",
}
"""What Seldon's Helm chart tells its operator where Istio is on."""
