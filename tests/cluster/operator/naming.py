"""What the operator calls what it makes, and where it reads its options."""

from __future__ import annotations

import hashlib
from typing import Any

Json = dict[str, Any]

LONGEST = 63
NO_ENGINE = "seldon.io/no-engine"
SERVICE_NAME = "seldon.io/svc-name"
MANAGED_BY = {"app.kubernetes.io/managed-by": "seldon-core"}


def fitting(name: str) -> str:
    """`name`, or a hash of it where Kubernetes would refuse it as a label's value."""
    return name if len(name) <= LONGEST else "seldon-" + hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()


def deployment_id(sdep: Json) -> str:
    """The SeldonDeployment's name as a label, and the name of its VirtualService."""
    return fitting(sdep["metadata"]["name"])


def predictor_service(sdep: Json, predictor: Json) -> str:
    """The Service that traffic to a predictor goes through."""
    chosen = (predictor.get("annotations") or {}).get(SERVICE_NAME)
    return fitting(f"{sdep['metadata']['name']}-{predictor['name']}") if chosen is None else chosen


def container_service(sdep_name: str, predictor: Json, container: Json) -> str:
    """The Service of one container of a predictor."""
    return fitting(f"{sdep_name}-{predictor['name']}-{container['name']}")


def deployment(sdep: Json, predictor: Json, component: Json, index: int) -> str:
    """The Deployment of a predictor's component number `index`."""
    named = (component.get("metadata") or {}).get("name")
    last = named or "-".join(one["name"] for one in containers(component))
    return fitting(f"{sdep['metadata']['name']}-{predictor['name']}-{index}-{last}")


def containers(component: Json) -> list[Json]:
    """The containers of a component."""
    return (component.get("spec") or {}).get("containers") or []


def option(sdep: Json, annotation: str, default: str) -> str:
    """An annotation of the spec, or else of the SeldonDeployment itself, or else `default`."""
    for holder in (sdep["spec"], sdep["metadata"]):
        found = (holder.get("annotations") or {}).get(annotation)
        if found is not None:
            return found
    return default


def host(service: str, namespace: str) -> str:
    """A Service's name in DNS."""
    return f"{service}.{namespace}.svc.cluster.local"


def without_engine(predictor: Json) -> bool:
    """Whether a predictor asks to run without the executor side-car."""
    return (predictor.get("annotations") or {}).get(NO_ENGINE, "").lower() == "true"
