"""The files that a node's programs are told by, all in its home folder."""

from __future__ import annotations

import base64
import json
import secrets
from pathlib import Path
from typing import Any

from tests.cluster.images import PAUSE
from tests.cluster.keys import Authority, new_key, private, public
from tests.cluster.needs import PLUGINS

NODE = "node-1"
NODE_IP = "10.99.0.1"
API = f"https://{NODE_IP}:6443"
SERVICES, API_IP = "10.0.0.0/24", "10.0.0.1"
PODS = "10.244.0.0/24"


def write(home: Path) -> None:
    """Fill a home folder with keys, certificates and configuration."""
    authority = Authority()
    (home / "ca.crt").write_bytes(authority.certificate())
    _keys(home, authority)
    token = secrets.token_hex(16)
    (home / "tokens.csv").write_text(f'{token},admin,1,"system:masters"\n')
    _document(home / "kubeconfig", kubeconfig(authority.certificate(), token))
    _document(home / "cni" / "10-pods.conflist", _pod_network(home))
    (home / "containerd.toml").write_text(_containerd(home))
    (home / "Corefile").write_text(_names(home))
    (home / "resolv.conf").write_text(_asked_like_a_pod())
    _document(home / "kubelet.yaml", _kubelet(home))
    _document(home / "proxy.yaml", _proxy(home))


def kubeconfig(authority: bytes, token: str) -> dict[str, Any]:
    """What a client needs to act as whoever holds a token."""
    cluster = {"server": API, "certificate-authority-data": base64.b64encode(authority).decode()}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": NODE,
        "clusters": [{"name": NODE, "cluster": cluster}],
        "users": [{"name": "user", "user": {"token": token}}],
        "contexts": [{"name": NODE, "context": {"cluster": NODE, "user": "user"}}],
    }


def _keys(home: Path, authority: Authority) -> None:
    hosts = ("127.0.0.1", NODE_IP, API_IP)
    authority.issue(home, "server", "server", hosts=hosts)
    authority.issue(home, "kubelet-client", "apiserver-kubelet-client", group="system:masters")
    authority.issue(home / "tmp" / "k8s-webhook-server" / "serving-certs", "tls", "webhook", hosts=hosts)
    accounts = new_key()
    (home / "accounts.key").write_bytes(private(accounts))
    (home / "accounts.pub").write_bytes(public(accounts))


def _document(path: Path, document: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document, indent=1))


def _pod_network(home: Path) -> dict[str, Any]:
    """A link of its own for each pod, so that all its traffic is routed: a bridge would go past the Services' rules."""
    addresses = {"type": "host-local", "dataDir": str(home / "addresses"), "ranges": [[{"subnet": PODS}]]}
    link = {"type": "ptp", "ipam": {**addresses, "routes": [{"dst": "0.0.0.0/0"}]}}
    return {"cniVersion": "1.0.0", "name": "pods", "plugins": [link]}


def _containerd(home: Path) -> str:
    # Without CAP_SYS_RESOURCE runc may not lower its oom score, and every sandbox would die of the attempt.
    return f"""version = 3
root = '{home}/containerd'
state = '{home}/containerd-state'
[grpc]
  address = '{home}/containerd.sock'
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = '{PAUSE}'
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ['{PLUGINS}']
  conf_dir = '{home}/cni'
"""


def _names(home: Path) -> str:
    """The cluster's own names; there is nobody to ask for any other."""
    return f".:53 {{\n bind {NODE_IP}\n errors\n kubernetes cluster.local {{\n  kubeconfig {home}/kubeconfig\n }}\n}}\n"


def _asked_like_a_pod() -> str:
    """Beside the node a Service has the name that it has in other namespaces' pods."""
    return f"nameserver {NODE_IP}\nsearch svc.cluster.local cluster.local\noptions ndots:5\n"


def _kubelet(home: Path) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_IP,
        "readOnlyPort": 0,
        "authentication": {"x509": {"clientCAFile": f"{home}/ca.crt"}, "anonymous": {"enabled": False}},
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": f"unix://{home}/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{home.name}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "clusterDNS": [NODE_IP],
        "clusterDomain": "cluster.local",
        "resolvConf": "",
        "evictionHard": {"nodefs.available": "1%", "imagefs.available": "1%", "memory.available": "50Mi"},
        "imageGCHighThresholdPercent": 100,
        "podLogsDir": f"{home}/pod-logs",
        "volumePluginDir": f"{home}/volume-plugins",
    }


def _proxy(home: Path) -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "nftables": {"minSyncPeriod": "100ms"},
        "clientConnection": {"kubeconfig": f"{home}/kubeconfig"},
        "clusterCIDR": PODS,
        "hostnameOverride": NODE,
        "conntrack": {"maxPerCore": 0, "min": 0},
    }
