"""The status of a SeldonDeployment: its conditions follow Knative's rules, Ready follows the others."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from datetime import UTC, datetime

from tests.cluster.operator.naming import Json

READY = "Ready"
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Condition:
    """One condition; `at` is when it last changed, or was last set to another reason."""

    type: str
    status: str
    reason: str
    message: str
    at: datetime

    @classmethod
    def read(cls, document: Json) -> Condition:
        """The condition that the API server keeps."""
        at = document.get("lastTransitionTime")
        when = datetime.fromisoformat(at) if at else _LONG_AGO
        return cls(document["type"], document["status"], document.get("reason", ""), document.get("message", ""), when)

    def write(self) -> Json:
        """As the API server keeps it, where what is empty is left out."""
        said = {"type": self.type, "status": self.status, "reason": self.reason, "message": self.message}
        return {key: value for key, value in said.items() if value} | {
            "lastTransitionTime": self.at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        }


class Status:
    """A status that is read, changed, and written back if that made a difference."""

    DEPENDENTS = (
        "DeploymentsReady",
        "ServicesReady",
        "KedaReady",
        "istioVirtualServicesReady",
        "HpasReady",
        "PdbsReady",
        "AmbassadorMappingsReady",
    )

    def __init__(self, document: Json | None) -> None:
        kept = copy.deepcopy(document or {})
        self._conditions = {one["type"]: Condition.read(one) for one in kept.pop("conditions", [])}
        self.state: str = kept.pop("state", "")
        self.description: str = kept.pop("description", "")
        self.deployments: dict[str, Json] = kept.pop("deploymentStatus", {})
        self.services: dict[str, Json] = kept.pop("serviceStatus", {})
        self.replicas: int = kept.pop("replicas", 0)
        self.address: str = (kept.pop("address", None) or {}).get("url", "")
        self._rest = kept

    def document(self) -> Json:
        """As the API server keeps it."""
        said = {
            "state": self.state,
            "description": self.description,
            "deploymentStatus": self.deployments,
            "serviceStatus": self.services,
            "replicas": self.replicas,
            "address": {"url": self.address} if self.address else None,
            "conditions": [self._conditions[name].write() for name in sorted(self._conditions)],
        }
        return {**self._rest, **{key: value for key, value in said.items() if value}}

    def meaning(self) -> Json:
        """The document without its times, by which two statuses are compared."""
        document = self.document()
        for one in document.get("conditions", []):
            del one["lastTransitionTime"]
        return document

    def mark(self, name: str, status: bool | str | None, reason: str = "", message: str = "") -> None:
        """Set a condition to True or False, or to unknown with None, and Ready with it.

        A text is a condition's status as the API server writes it; an empty one changes nothing.
        """
        if isinstance(status, str):
            status = {"True": True, "False": False, "Unknown": None}.get(status, "")
        if status == "":
            return
        self._set(name, {True: "True", False: "False"}.get(status, "Unknown"), reason, message)  # type: ignore[arg-type]
        if status is True:
            self._recompute()
        elif status is False:
            self._set(READY, "False", reason, message)
        else:
            self._ready_is_unknown(reason, message)

    def _set(self, name: str, status: str, reason: str, message: str) -> None:
        old = self._conditions.get(name)
        if old is None or (old.status, old.reason, old.message) != (status, reason, message):
            self._conditions[name] = Condition(name, status, reason, message, datetime.now(UTC))

    def _recompute(self) -> None:
        unhappy = self._unhappy()
        if unhappy is None:
            self._set(READY, "True", "", "")
        else:
            self._set(READY, unhappy.status, unhappy.reason, unhappy.message)

    def _unhappy(self) -> Condition | None:
        """The condition that explains why Ready is not True: the newest that is False, else that is unknown."""
        others = [one for name, one in sorted(self._conditions.items()) if name != READY]
        newest = sorted(others, key=lambda one: one.at, reverse=True)
        for status in ("False", "Unknown"):
            for one in newest:
                if one.status == status:
                    return one
        missing = len(self.DEPENDENTS) > len(others)
        return Condition(READY, "Unknown", "", "", _LONG_AGO) if missing else None

    def _ready_is_unknown(self, reason: str, message: str) -> None:
        set_ = (self._conditions.get(name) for name in self.DEPENDENTS)
        if not any(one is not None and one.status == "False" for one in set_):
            self._set(READY, "Unknown", reason, message)
        elif READY not in self._conditions or self._conditions[READY].status != "False":
            self._set(READY, "False", reason, message)
