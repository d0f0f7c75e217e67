"""Suites, written briefly."""

from __future__ import annotations

from typing import Any


def expect(kind: str, severity: str = "critical", **kwargs: Any) -> dict[str, Any]:
    return {"type": f"expect_{kind}", "kwargs": kwargs, "severity": severity}


def suite(*expectations: dict[str, Any]) -> dict[str, Any]:
    return {"name": "test", "expectations": list(expectations)}
