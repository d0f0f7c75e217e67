"""When the operator thinks that an object differs from what it should be; its blind spots are kept."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any, cast

from tests.cluster.operator.naming import Json


def differs(wanted: Any, found: Any, last: Any, *, quantity: bool = False) -> bool:
    """Whether `found` must be changed to be `wanted`, given what was `last` applied.

    What the API server filled in is no difference. What was applied once, and is wanted no more, is one. A quantity
    may be written in several ways.
    """
    if isinstance(wanted, dict) and isinstance(found, dict):
        old: Json = last if isinstance(last, dict) else {}
        if any(key not in wanted and found.get(key) for key in old):
            return True
        return any(
            differs(value, found.get(key), old.get(key), quantity=quantity or key in _QUANTITIES)
            for key, value in cast("Json", wanted).items()
        )
    if isinstance(wanted, list) and isinstance(found, list):
        olds = cast("list[Any]", last) if isinstance(last, list) and len(last) == len(wanted) else [None] * len(wanted)
        return len(wanted) != len(found) or any(map(differs, wanted, found, olds))
    if quantity and wanted and found:
        return _amount(wanted) != _amount(found)
    return wanted != found and bool(wanted or found)


def _amount(written: Any) -> Decimal:
    """A quantity of Kubernetes as a number: 500m is 0.5, 1Ki is 1024."""
    number, unit = cast("re.Match[str]", _QUANTITY.fullmatch(str(written))).groups()
    if len(unit) == 2:
        return Decimal(number) * 1024 ** ("KMGTPE".index(unit[0]) + 1)
    return Decimal(number).scaleb(3 * ("num kMGTPE".index(unit or " ") - 3))


_QUANTITIES = {"requests", "limits", "sizeLimit"}
_QUANTITY = re.compile(r"([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)((?:[KMGTPE]i|[numkMGTPE])?)")


def derives(before: Any, after: Any) -> bool:
    """Whether `after` has everything that `before` had; what was added, in lists only at the end, is overlooked.

    By this the operator decides, after an update of a Deployment, whether its pods will be replaced.
    """
    if before is None or before in ({}, [], ""):
        return True
    if isinstance(before, dict):
        ours = cast("Json", before)
        return isinstance(after, dict) and all(derives(value, after.get(key)) for key, value in ours.items())
    if isinstance(before, list):
        parts = cast("list[Any]", before)
        return isinstance(after, list) and len(parts) <= len(after) and all(map(derives, parts, after))
    return before == after


def same_service(wanted: Json, found: Json) -> bool:
    """Whether a Service is as wanted, in all that the operator looks at."""
    mine, theirs = wanted["spec"], found["spec"]
    if any(mine[key] != theirs.get(key) for key in ("selector", "type", "sessionAffinity")):
        return False
    if any((wanted["metadata"].get(key) or {}) != (found["metadata"].get(key) or {}) for key in _LABELLED):
        return False
    return mine["ports"] == [{key: one.get(key) for key in _PORT} for one in theirs.get("ports", [])]


_LABELLED = ("annotations", "labels")
_PORT = ("name", "protocol", "port", "targetPort")
