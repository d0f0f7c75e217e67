"""A production environment on the cluster: a team's parts, a bucket, Seldon, and flow runs that are Jobs."""

from __future__ import annotations

import json
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from prefect.blocks.core import Block
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment

from prefect_mlops.blocks import Environment, SeldonServing, Split
from prefect_mlops.blocks.commit import Commit
from prefect_mlops.flows.creditco import RECIPE, TARGET, census
from prefect_mlops.tasks import snapshot_data
from tests.cluster.api import Manifest
from tests.cluster.serving import Clients
from tests.cluster.team import Team
from tests.places import EASY

NAME = "production"
SERVICE = RECIPE.name
SECONDS = float(os.environ.get("RUN_SECONDS", "240"))
SMALL = {"cpu": "50m"}
"""What a Job asks for on a node of two CPUs that has much else to do."""
POLICY: dict[str, Any] = {
    "approval": False,
    "watch_seconds": 1,
    "shadow_requests": 100,
    "shadow_seconds": 120,
    "warm_minutes": 30,
}
"""The same rules as an environment on one machine would have."""


@dataclass
class Production:
    """One environment, as its team sees it."""

    team: Team
    gateway: str
    folder: Path

    @classmethod
    def made(cls, team: Team, gateway: str, folder: Path) -> Production:
        """Give what the page saved the size of a node of two CPUs, and a policy that asks nobody."""
        _change(SeldonServing, replicas=1, cpu="10m", memory="512Mi", drain_seconds=3)
        _change(Environment, **POLICY)
        return cls(team, gateway, folder)

    @property
    def environment(self) -> Environment:
        """The environment, as a process beside the cluster drives it."""
        return Environment.find(NAME)

    def commit(self, seed: int, rows: int = 1200) -> Commit:
        """Data of its own, kept in the bucket."""
        path = self.folder / f"census-{seed}.csv"
        census(rows, seed=seed).to_csv(path, index=False)
        return snapshot_data.fn(self.environment.store_block, path, SERVICE)

    def run(self, flow: str, seconds: float = SECONDS, **parameters: Any) -> FlowRun:
        """A flow run as a Job, to its end, but for so many seconds at most."""
        done = run_deployment(
            f"{flow}/{NAME}", parameters=parameters, job_variables=SMALL, timeout=seconds, poll_interval=0.5
        )
        return cast(FlowRun, done)

    def words(self, run: FlowRun) -> str:
        """What a run logged, for the message of a test that fails."""
        wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id]))
        with get_client(sync_client=True) as client:
            return "\n".join(log.message for log in client.read_logs(wanted, limit=200))

    def release(self, commit: Commit, seconds: float = SECONDS, **parameters: Any) -> FlowRun:
        """Release a model of the data of a commit."""
        recipe = EASY.model_dump(mode="json")
        return self.run("release-model", seconds, recipe=recipe, data=commit.id, environment=NAME, **parameters)

    def routes(self) -> Manifest:
        """The first route of the VirtualService."""
        path = f"/apis/networking.istio.io/v1/namespaces/{self.team.namespace}/virtualservices/{SERVICE}"
        return self.team.cluster.get(path)["spec"]["http"][0]

    def weights(self) -> dict[str, int]:
        """Percent of the requests by predictor, as Istio would carry it out."""
        routes = self.routes()["route"]
        if len(routes) == 1:
            return {routes[0]["destination"]["subset"]: 100}
        return {one["destination"]["subset"]: one["weight"] for one in routes if one.get("weight")}

    def live(self) -> list[str]:
        """What the log says is live, as people call it."""
        known = self.environment.log().state().service(SERVICE)
        return [known.named(arm.release) for arm in known.split.live]

    def shows(self, split: Split) -> bool:
        """Whether just that is served."""
        return self.environment.target.observe(SERVICE).shows(split)

    def clients(self, count: int = 2, pause: float = 0.005) -> AbstractContextManager[Clients]:
        """Clients that ask about one person until the end of the block."""
        return Clients(self.url, pause, question()).asking(count)

    @property
    def url(self) -> str:
        """Where clients ask."""
        return f"{self.gateway}/seldon/{self.team.namespace}/{SERVICE}"


def _change(kind: type[Block], **fields: Any) -> None:
    cast(Block, kind.load(NAME)).model_copy(update=fields).save(NAME, overwrite=True)


def question() -> bytes:
    """A request about one person."""
    rows = census(1, seed=99).drop(columns=[TARGET])
    names, [row] = list(rows.columns), json.loads(rows.to_json(orient="values"))
    return json.dumps({"data": {"names": names, "ndarray": [row]}}).encode()
