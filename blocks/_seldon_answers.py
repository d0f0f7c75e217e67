"""What pods and gateway answer: who serves what, and how often it did."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import httpx

from prefect_mlops.blocks import _seldon_manifest as seldon
from prefect_mlops.blocks._seldon_look import Look
from prefect_mlops.blocks._seldon_manifest import Json
from prefect_mlops.blocks.split import Arm, Counters, Split

ANSWER_SECONDS = 2.0


async def answering(look: Look, routes: Split) -> dict[str, int]:
    """How many pods of each release answer right now, with that release."""
    counts = await asyncio.gather(*(ready(look, arm) for arm in routes.arms))
    return dict(zip(routes.releases, counts, strict=True))


async def ready(look: Look, arm: Arm) -> int:
    """How many pods of an arm answer right now, with its release."""
    pages = await _pages(look, [seldon.name_of(arm)], "/ready")
    return sum(page.get("release") == arm.release for page in pages)


async def release_at(url: str) -> str | None:
    """The release that answers a client of the service at `url`; None where none does."""
    return (await _page(f"{url}/ready")).get("release")


async def counted(look: Look) -> Counters | None:
    """What the pods of a service counted; None where none answers."""
    pages = await _pages(look, look.predictors, "/counters")
    if not pages:
        return None
    requests, errors = ({page["release"]: 0 for page in pages} for _ in range(2))
    for page in pages:
        requests[page["release"]] += page["requests"]
        errors[page["release"]] += page["errors"]
    return Counters(start=" ".join(sorted(str(page["start"]) for page in pages)), requests=requests, errors=errors)


async def _pages(look: Look, names: Iterable[str], path: str) -> list[Json]:
    urls = [_pod_url(pod, path) for name in names for pod in look.pods_of(name) if _ip(pod)]
    return [page for page in await asyncio.gather(*map(_page, urls)) if page]


def _ip(pod: Json) -> str:
    return str((pod.get("status") or {}).get("podIP") or "")


def _pod_url(pod: Json, path: str) -> str:
    ip = _ip(pod)
    return f"http://{f'[{ip}]' if ':' in ip else ip}:{seldon.HTTP_PORT}{path}"


async def _page(url: str) -> Json:
    """A page of a model server as JSON; empty where it does not answer with one."""
    try:
        async with httpx.AsyncClient(timeout=ANSWER_SECONDS, trust_env=False) as client:
            answer = await client.get(url)
        found = answer.json() if answer.status_code == 200 else {}
    except (httpx.HTTPError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
