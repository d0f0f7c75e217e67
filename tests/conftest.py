"""What holds for every test: slow ones, and those on a cluster, only on request; a header says what is left out."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import pytest

pytest_plugins = ["tests.places"]


CLUSTER = Path(__file__).parent / "cluster"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests marked slow as well, as CI does")
    parser.addoption("--cluster", action="store_true", help="run tests/cluster as well, as `make test-cluster` does")


def pytest_report_header(config: pytest.Config) -> list[str]:
    said: list[str] = []
    if sys.version_info[:2] != (3, 12):
        said.append(f"Python {platform.python_version()}: the seldon extra is not tested, it needs Python 3.12")
    if not config.getoption("--cluster"):
        said.append("tests/cluster is left out, it needs a Kubernetes cluster: run `make test-cluster`")
    return said


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [item for item in items if _is_left_out(config, item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def _is_left_out(config: pytest.Config, item: pytest.Item) -> bool:
    is_slow, is_cluster = item.get_closest_marker("slow") is not None, item.path.is_relative_to(CLUSTER)
    return (is_slow and not config.getoption("--slow")) or (is_cluster and not config.getoption("--cluster"))
