"""Changes of traffic on a cluster, for processes that are killed in the middle of them."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from prefect_mlops.blocks import Environment, ModelRegistry, Split
from prefect_mlops.blocks.entry import Released
from prefect_mlops.blocks.log import Draft
from prefect_mlops.flows.rollback import roll_back
from prefect_mlops.tasks import shift_traffic
from prefect_mlops.tasks._moving import take_over
from tests.cluster.serving import Place

SERVICE = "credit"


def environment(place: Place) -> Environment:
    """An environment of the place, whose log is begun."""
    made = Environment(name="production", settle_seconds=10)
    made.use(place.store, place.serving(), ModelRegistry(tracking_uri="sqlite://", artifacts=""))
    made.log()
    return made


def known(place: Place, release: str) -> None:
    """Give a release its number."""
    log = environment(place).log()
    body = Released(release=release, number=len(log.state().service(SERVICE).numbers) + 1)
    log.append(lambda _: Draft(body, (SERVICE,), begins=True))


def release(to: str, **where: str) -> None:
    """Start a release beside what answers, then give it all requests."""
    there = environment(Place.at(**where))
    log = there.log()
    take_over(there, log, SERVICE, at_once=True, reason="the run before was killed")
    split = log.state().service(SERVICE).split
    live = [arm.release for arm in split.live]
    if live and split.arm(to) is None:
        shift_traffic.fn(there, SERVICE, Split.of(live[0], warm=[to]))
    if live != [to]:
        shift_traffic.fn(there, SERVICE, Split.of(to, warm=live[:1]))


def rollback(to: str, **where: str) -> None:
    """Serve an earlier release again."""
    roll_back(environment(Place.at(**where)), SERVICE, to, shift=shift_traffic.fn)


def warm(_: Path) -> None:
    """Import what the first call would."""
    import_module("kubernetes_asyncio.client")
