"""An environment is rebuilt from its log as it was, whatever its parts are set to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from prefect_mlops.blocks import Environment, LocalServing, ModelRegistry, SeldonServing, Store
from prefect_mlops.blocks.environment import ServingTarget

POD = {
    "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
    "nodeSelector": {"disk": "fast", "zone": "ä"},
    "volumes": [{"name": "files", "emptyDir": {"sizeLimit": "1.5Gi"}}],
    "securityContext": {"runAsUser": 8888, "fsGroup": None, "runAsNonRoot": True},
}
CONTAINER = {"env": [{"name": "LEVEL", "value": '{"a": [1, 2.5]}'}], "volumeMounts": [{"name": "files"}]}
SET: dict[type, dict[str, Any]] = {
    SeldonServing: {
        "namespace": "team-a",
        "gateway": "https://gateway.example:8443",
        "image": "example/serving@sha256:" + "0" * 64,
        "credentials": "kubernetes-credentials/production",
        "secret": "keys",
        "replicas": 3,
        "cpu": "500m",
        "memory": "2Gi",
        "gpus": 1,
        "pull_policy": "Always",
        "pod": POD,
        "container": CONTAINER,
        "start_seconds": 61,
        "drain_seconds": 11,
        "move_seconds": 21,
        "manifests": Path("/repo/serving"),
        "sync_seconds": 301,
        "max_body_bytes": 1024,
    },
    LocalServing: {
        "home": Path("/home/team"),
        "port": 8080,
        "namespace": "team-a",
        "replicas": 3,
        "start_seconds": 61,
        "drain_seconds": 11,
        "max_body_bytes": 1024,
    },
}


def remembered(folder: Path, target: ServingTarget, **settings: Any) -> tuple[Environment, Environment]:
    """An environment, and what another process makes of its log."""
    store = Store(url=str(folder))
    environment = Environment(name="production", **settings)
    environment.use(store, target, ModelRegistry(tracking_uri="http://mlflow:5000", experiment="e", artifacts="s3://a"))
    environment.log()
    return environment, Environment.remembered(Store(url=str(folder)), "production")


@pytest.mark.parametrize("kind", SET, ids=lambda kind: kind.__name__)
def test_every_setting_of_a_target_comes_back(tmp_path: Path, kind: type[SeldonServing | LocalServing]) -> None:
    defaults = {name: field.default for name, field in kind.model_fields.items()}
    left_out = [name for name, default in defaults.items() if SET[kind].get(name, default) == default]
    assert left_out == [], "a setting that is as by default proves nothing"
    environment, again = remembered(tmp_path, kind(**SET[kind]))
    assert isinstance(again.target, kind)
    assert again.target.model_dump() == kind(**SET[kind]).model_dump()
    assert again.configuration() == environment.configuration()


def test_settings_that_were_left_alone_come_back(tmp_path: Path) -> None:
    serving = SeldonServing(gateway="http://gateway", image="serving:1")
    _, again = remembered(tmp_path, serving)
    assert again.target.model_dump() == serving.model_dump()  # pyright: ignore[reportAttributeAccessIssue]


def test_rules_and_registry_come_back(tmp_path: Path) -> None:
    rules = {name: 7 for name in Environment(name="x").policy.model_dump() if name != "approval"}
    environment, again = remembered(tmp_path, SeldonServing(gateway="http://g", image="i"), approval=True, **rules)
    assert again.policy == environment.policy
    assert again.registry_block.model_dump() == environment.registry_block.model_dump()


def test_flows_find_the_environment_that_is_at_hand_and_no_other(tmp_path: Path) -> None:
    environment, _ = remembered(tmp_path, SeldonServing(gateway="http://g", image="i"))
    with environment.at_hand():
        assert Environment.find("production") is environment
    assert Environment._at_hand.get() is None
