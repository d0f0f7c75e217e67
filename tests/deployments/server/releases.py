"""Releases of small models in real stores, and configurations of servers that take them from there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prefect_mlops.blocks.release import Release
from prefect_mlops.blocks.store import Store
from prefect_mlops.deployments.server._segments import seal
from tests.deployments.server.models import write_model


def put_release(store: Store, scratch: Path, fitted: Any, signature: dict[str, Any], service: str = "credit") -> str:
    """Keep a model, and a release of it of which nothing else is true; returns its digest."""
    write_model(scratch / "model", fitted, signature)
    other = store.put(b"of no matter here")
    names = dict.fromkeys(("data", "code", "runtime", "tests", "probes"), other)
    return store.put_release(Release(service=service, model=store.add(scratch / "model").id, **names))


def put_segment(store: Store, namespace: str, service: str, spool: Path, instance: str = "pod-1") -> str:
    """Seal a spool file, and take the segment to the store as a server does; returns its key."""
    segment = seal(spool)
    assert segment is not None
    key = f"records/{namespace}/{service}/{instance}/{segment.name}"
    store._guarded.put_new(key, segment.read_bytes())
    segment.unlink()
    return key


def write_store_config(home: Path, store: Store, release: str, /, **more: Any) -> Path:
    """Write the configuration of a server of `release`; it listens on a port of the system's."""
    document = {
        "service": "credit",
        "namespace": "mlops",
        "release": release,
        "store": store.url,
        "endpoint": store.endpoint,
        "region": None,
        "port": 0,
        "spool": str(home / "spool"),
        "role": None,
        **more,
    }
    home.mkdir(parents=True, exist_ok=True)
    path = home / "server.json"
    path.write_text(json.dumps(document))
    return path
