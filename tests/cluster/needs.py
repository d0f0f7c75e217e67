"""What a machine must have to run a node, and what to do where it does not."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.cluster.commands import APART, Failed, found, run
from tests.cluster.homes import hierarchies

PLUGINS = Path("/usr/lib/cni")
PACKAGES = {
    "runc": "runc",
    str(PLUGINS / "ptp"): "containernetworking-plugins",
    "nft": "nftables",
    "ip": "iproute2",
    "buildah": "buildah",
    "mmdebstrap": "mmdebstrap",
    "unshare": "util-linux",
}
"""The Debian package of each program that the node starts."""


def missing() -> str:
    """Why no node runs here and what to do, in one sentence; "" where one does."""
    if sys.platform != "linux":
        return f"a Kubernetes node needs Linux and this is {sys.platform}; set KUBECONFIG to use a cluster of yours"
    if os.geteuid() != 0:
        return "a Kubernetes node needs root; run this as root, or set KUBECONFIG to use a cluster of yours"
    if not found("go"):
        return "the node's programs are built with Go, which is not here; install Go 1.26, or set KUBECONFIG"
    packages = [package for name, package in PACKAGES.items() if not found(name)]
    if packages:
        return f"a Kubernetes node needs Debian packages; `apt install {' '.join(packages)}`, or set KUBECONFIG"
    if not _may_isolate():
        return "a Kubernetes node needs namespaces and cgroups, denied here; run this privileged, or set KUBECONFIG"
    return ""


def _may_isolate() -> bool:
    """Whether root is allowed here what it is on a machine; in most containers it is not."""
    try:
        run(*APART, "--net", "true")
    except Failed:
        return False
    return all(os.access(hierarchy, os.W_OK) for hierarchy in hierarchies())
