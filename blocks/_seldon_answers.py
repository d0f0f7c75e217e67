"""What pods and gateway answer: who serves what, and how often it did.

Where their networks are not reached, as from a person's own machine, the API server passes requests on to them.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from urllib.parse import urlsplit

import httpx

from prefect_mlops.blocks import _seldon_manifest as seldon
from prefect_mlops.blocks._kubernetes import Cluster
from prefect_mlops.blocks._seldon_look import Look
from prefect_mlops.blocks._seldon_manifest import Json
from prefect_mlops.blocks.split import Arm, Counters, Split

ANSWER_SECONDS = 2.0
_SERVICE = re.compile(r"([a-z0-9-]+)\.([a-z0-9-]+)(\.svc(\.[a-z0-9.-]+)?)?")
"""The name by which a Service is reached inside a cluster."""


async def answering(cluster: Cluster, look: Look, routes: Split) -> dict[str, int]:
    """How many pods of each release answer right now, with that release."""
    counts = await asyncio.gather(*(ready(cluster, look, arm) for arm in routes.arms))
    return dict(zip(routes.releases, counts, strict=True))


async def ready(cluster: Cluster, look: Look, arm: Arm) -> int:
    """How many pods of an arm answer right now, with its release."""
    pages = await _pages(cluster, look, [seldon.name_of(arm)], "/ready")
    return sum(page.get("release") == arm.release for page in pages)


async def release_at(cluster: Cluster, gateway: str, path: str) -> str | None:
    """The release that answers a client of the service below `path` of the gateway; None where none does."""
    page = await _page(f"{gateway}{path}/ready")
    if page is None and (service := _SERVICE.fullmatch(urlsplit(gateway).hostname or "")):
        parts = urlsplit(gateway)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        page = await cluster.passed_on("services", f"{parts.scheme}:{service[1]}:{port}", f"{path}/ready", service[2])
    return (page or {}).get("release")


async def counted(cluster: Cluster, look: Look) -> Counters | None:
    """What the pods of a service counted; None where none answers."""
    pages = await _pages(cluster, look, look.predictors, "/counters")
    if not pages:
        return None
    requests, errors = ({page["release"]: 0 for page in pages} for _ in range(2))
    for page in pages:
        requests[page["release"]] += page["requests"]
        errors[page["release"]] += page["errors"]
    return Counters(start=" ".join(sorted(str(page["start"]) for page in pages)), requests=requests, errors=errors)


async def _pages(cluster: Cluster, look: Look, names: Iterable[str], path: str) -> list[Json]:
    pods = [pod for name in names for pod in look.pods_of(name) if _ip(pod)]
    pages = await asyncio.gather(*(_pod_page(cluster, pod, path) for pod in pods))
    return [page for page in pages if page]


async def _pod_page(cluster: Cluster, pod: Json, path: str) -> Json:
    page = await _page(_pod_url(pod, path))
    if page is None:
        page = await cluster.passed_on("pods", f"{pod['metadata']['name']}:{seldon.HTTP_PORT}", path)
    return page


def _ip(pod: Json) -> str:
    return str((pod.get("status") or {}).get("podIP") or "")


def _pod_url(pod: Json, path: str) -> str:
    ip = _ip(pod)
    return f"http://{f'[{ip}]' if ':' in ip else ip}:{seldon.HTTP_PORT}{path}"


async def _page(url: str) -> Json | None:
    """A page of a model server as JSON; empty where it does not answer with one, None where there is no way to it."""
    try:
        async with httpx.AsyncClient(timeout=ANSWER_SECONDS, trust_env=False) as client:
            answer = await client.get(url)
        found = answer.json() if answer.status_code == 200 else {}
    except (httpx.ConnectError, httpx.ConnectTimeout):
        return None
    except (httpx.HTTPError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
