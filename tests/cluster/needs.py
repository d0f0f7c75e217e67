"""What a machine must have to run a node, and what to do where it does not."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

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

SEARCHED = f"{os.environ.get('PATH', os.defpath)}:/usr/local/go/bin:/usr/local/sbin:/usr/sbin:/sbin"
"""Also where an ordinary user's PATH does not lead."""


def program(name: str) -> str | None:
    """The path of a program, if it is here."""
    return shutil.which(name, path=SEARCHED)


def missing() -> str:
    """Why no node runs here and what to do, in one sentence; "" where one does."""
    if sys.platform != "linux":
        return f"a Kubernetes node needs Linux and this is {sys.platform}; set KUBECONFIG to use a cluster of yours"
    if os.geteuid() != 0:
        return "a Kubernetes node needs root; run this as root, or set KUBECONFIG to use a cluster of yours"
    if not program("go"):
        return "the node's programs are built with Go, which is not here; install Go 1.26, or set KUBECONFIG"
    packages = [package for name, package in PACKAGES.items() if not program(name)]
    if packages:
        return f"a Kubernetes node needs Debian packages; `apt install {' '.join(packages)}`, or set KUBECONFIG"
    return ""
