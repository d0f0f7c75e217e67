"""The node is a real one: it runs pods and Jobs, routes to Services, and refuses what a cluster refuses."""

from __future__ import annotations

import httpx
import pytest

from tests.cluster.api import Cluster, Manifest, Refused, wait_for
from tests.cluster.node import Node
from tests.cluster.pods import events, named, runs

ANSWER = "import http.server; http.server.test(http.server.SimpleHTTPRequestHandler, port=8000)"
ASK = """
import contextlib, urllib.request
answer = None
while not answer:
    with contextlib.suppress(OSError):  # the way to a Service that just became ready is not there at once
        answer = urllib.request.urlopen("http://web:8000/etc/hostname", timeout=5)
print(answer.status)
"""


def served(cluster: Cluster, namespace: str) -> str:
    """Start a web server behind a Service, and give its address once it is ready."""
    probe = {"httpGet": {"path": "/", "port": 8000}, "periodSeconds": 1}
    cluster.create(named("Pod", "web", namespace, spec=runs("-c", ANSWER, readinessProbe=probe, workingDir="/")))
    cluster.create(named("Service", "web", namespace, spec={"selector": {"app": "web"}, "ports": [{"port": 8000}]}))
    slices = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"

    def is_ready() -> bool:
        endpoints = [one for found in cluster.get(slices)["items"] for one in found["endpoints"] or []]
        return any(one["conditions"]["ready"] for one in endpoints)

    wait_for(is_ready, "a ready endpoint")
    return cluster.read(named("Service", "web", namespace))["spec"]["clusterIP"]


def is_over(job: Manifest) -> bool:
    """Whether a Job says that no more will come of it."""
    return any(one["type"] in {"Complete", "Failed"} for one in job["status"].get("conditions", []))


def finished(cluster: Cluster, namespace: str, name: str) -> str:
    """Wait for a Job's pod to end well, and give what it printed."""
    job = named("Job", name, namespace, "batch/v1")
    wait_for(lambda: is_over(cluster.read(job)), f"the end of Job {name}")
    pods = cluster.get(f"/api/v1/namespaces/{namespace}/pods", labelSelector=f"job-name={name}")["items"]
    said = cluster.get(f"/api/v1/namespaces/{namespace}/pods/{pods[0]['metadata']['name']}/log")
    assert cluster.read(job)["status"].get("succeeded") == 1, said + events(cluster, namespace)
    return said


def started(cluster: Cluster, namespace: str, name: str, program: str) -> None:
    """Start a Job that runs a Python program once."""
    template = {"spec": {**runs("-c", program), "restartPolicy": "Never"}}
    cluster.create(named("Job", name, namespace, "batch/v1", spec={"backoffLimit": 0, "template": template}))


def test_a_pod_answers_through_its_service(node: Node, cluster: Cluster, namespace: str) -> None:
    address = served(cluster, namespace)
    answer = wait_for(lambda: httpx.get(f"http://{address}:8000/etc/hostname", trust_env=False), "an answer")
    assert answer.text.strip() == "web"


def test_a_job_reaches_another_pod_through_its_services_name(cluster: Cluster, namespace: str) -> None:
    served(cluster, namespace)
    started(cluster, namespace, "ask", ASK)
    assert finished(cluster, namespace, "ask") == "200\n"


def test_an_unknown_field_is_refused(cluster: Cluster, namespace: str) -> None:
    predictor = {"name": "one", "graph": {"name": "model"}, "wieght": 100}
    version = "machinelearning.seldon.io/v1"
    with pytest.raises(Refused, match=r"wieght: field not declared in schema"):
        cluster.apply(named("SeldonDeployment", "credit", namespace, version, spec={"predictors": [predictor]}))


def test_more_than_the_quota_is_refused(cluster: Cluster, namespace: str) -> None:
    quota = named("ResourceQuota", "little", namespace, spec={"hard": {"limits.memory": "64Mi"}})
    cluster.create(quota)
    wait_for(lambda: cluster.read(quota).get("status", {}).get("hard"), "the quota to hold")
    with pytest.raises(Refused, match=r"exceeded quota: little, requested: limits.memory=1Gi"):
        cluster.create(named("Pod", "large", namespace, spec=runs(resources={"limits": {"memory": "1Gi"}})))


def test_a_container_that_takes_more_memory_than_its_limit_is_killed(cluster: Cluster, namespace: str) -> None:
    pod = named("Pod", "greedy", namespace, spec=runs("-c", "'a' * 10**9", resources={"limits": {"memory": "64Mi"}}))
    cluster.create({**pod, "spec": {**pod["spec"], "restartPolicy": "Never"}})
    wait_for(lambda: cluster.read(pod)["status"]["phase"] == "Failed", "the end of the pod")
    state = cluster.read(pod)["status"]["containerStatuses"][0]["state"]["terminated"]
    assert state["reason"] == "OOMKilled"


def test_the_api_server_comes_back_where_it_was(node: Node, cluster: Cluster, namespace: str) -> None:
    before = node.pid("apiserver")
    node.restart("apiserver")
    assert node.pid("apiserver") != before
    started(cluster, namespace, "after", "print('well')")
    assert finished(cluster, namespace, "after") == "well\n"
