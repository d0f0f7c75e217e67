"""Builds the programs of a Kubernetes node from Go modules, all pinned by their `go.sum`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.cache import TOOLS, digest, kept
from tests.cluster.commands import Failed, run

SOURCES = Path(__file__).parent / "go"
KUBERNETES = "v1.36.3"
ISTIO = "istio.io/api@v1.31.1"
ISTIO_SUM = "h1:5Yb5ihcz4YQsCkciusK7DnFpBMwRB6EFWeUKH1Atuyk="
ISTIO_KINDS = ("DestinationRule", "Gateway", "VirtualService")


def programs() -> Path:
    """A folder with the node's programs, and in `istio.json` the CustomResourceDefinitions that Seldon writes to.

    Raises:
        Failed: If a module cannot be had or a program cannot be built.
    """
    inputs = sorted(path for path in SOURCES.rglob("*") if path.is_file())
    return kept("programs", digest(*inputs, Path(__file__), run("go", "version", env=_go())), _make)


def _make(folder: Path) -> None:
    flags = ("-trimpath", "-tags", "no_btrfs no_devmapper no_zfs", "-ldflags", f"-s -w {' '.join(_stamps())}")
    for module, package in (("kubernetes", "tool"), ("containerd", "tool"), ("coredns", "."), ("pause", ".")):
        run("go", "build", *flags, "-o", f"{folder}/", package, cwd=SOURCES / module, env=_go())
    (folder / "server").rename(folder / "etcd")
    (folder / "istio.json").write_text(json.dumps(_istio()))


def _go() -> dict[str, str]:
    """Static programs, and folders of our own where HOME cannot keep any."""
    if os.access(os.environ.get("HOME", "/nowhere"), os.W_OK):
        return {"CGO_ENABLED": "0"}
    go = TOOLS.parent / "go"
    return {"CGO_ENABLED": "0", "GOPATH": str(go), "GOCACHE": str(go / "cache"), "GOFLAGS": "-modcacherw"}


def _stamps() -> list[str]:
    """Linker options for the version that `/version` answers; Kubernetes takes it from its own build scripts."""
    major, minor, _ = KUBERNETES.removeprefix("v").split(".")
    told = {"gitVersion": KUBERNETES, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return [f"-X {package}.{name}={value}" for package in packages for name, value in told.items()]


def _istio() -> list[Any]:
    module = json.loads(run("go", "mod", "download", "-json", ISTIO, env=_go()))
    if module["Sum"] != ISTIO_SUM:
        raise Failed(f"module {ISTIO} must have the sum {ISTIO_SUM}, got {module['Sum']}")
    text = (Path(module["Dir"]) / "kubernetes" / "customresourcedefinitions.gen.yaml").read_text()
    return [found for found in yaml.safe_load_all(text) if found["spec"]["names"]["kind"] in ISTIO_KINDS]
