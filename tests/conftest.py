"""What holds for every test: slow ones only on request, and a header that says what is not tested here."""

from __future__ import annotations

import platform
import sys

import pytest

pytest_plugins = ["tests.places"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests marked slow as well, as CI does")


def pytest_report_header() -> list[str]:
    if sys.version_info[:2] == (3, 12):
        return []
    return [f"Python {platform.python_version()}: the seldon extra is not tested, it needs Python 3.12"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow"):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if not item.get_closest_marker("slow")]
