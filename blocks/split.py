"""Which release answers how much: the one value that every rollout is made of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import Field, model_validator

from prefect_mlops.blocks._canonical import Digest, Value, short

Role = Literal["live", "warm", "shadow"]
_ORDER: dict[str, int] = {"live": 0, "warm": 1, "shadow": 2}


class Arm(Value):
    """One release in a split.

    A `live` arm answers `percent` of the requests. A `warm` arm is up and answers only
    requests that are pinned to it. A `shadow` arm gets a copy of `percent` of the requests;
    nobody waits for its answers.
    """

    release: Digest = Field(title="Release", description="Digest of the release document.")
    role: Role = Field(title="Role", description="What the arm is there for.")
    percent: int = Field(ge=0, le=100, title="Percent", description="Whole percent of the requests.")

    def __str__(self) -> str:
        return f"{self.role} {short(self.release)} {self.percent} %"


class Split(Value):
    """What a service serves: live arms whose percents sum to 100, warm ones, at most one shadow.

    The arms are kept in one order (live, warm, shadow; then by release), so that two splits
    that mean the same are equal. A split with no arms serves nothing.
    """

    arms: tuple[Arm, ...] = Field(default=(), title="Arms", description="The releases, each with its role.")

    @model_validator(mode="before")
    @classmethod
    def _in_order(cls, data: object) -> object:
        if isinstance(data, dict) and isinstance(data.get("arms"), Iterable):
            arms = [Arm.model_validate(arm) for arm in data["arms"]]
            return {**data, "arms": sorted(arms, key=lambda arm: (_ORDER[arm.role], arm.release))}
        return data

    @model_validator(mode="after")
    def _legal(self) -> Split:
        releases = [arm.release for arm in self.arms]
        if len(set(releases)) < len(releases):
            raise ValueError(f"each release has one arm, got {self}")
        live = [arm.percent for arm in self.arms if arm.role == "live"]
        if live and (sum(live) != 100 or min(live) < 1):
            raise ValueError(f"live arms take 1 to 100 percent each and 100 together, got {live}")
        shadows = [arm.percent for arm in self.arms if arm.role == "shadow"]
        if len(shadows) > 1 or any(percent < 1 for percent in shadows):
            raise ValueError(f"at most one shadow, with 1 to 100 percent, got {shadows}")
        if shadows and not live:
            raise ValueError("a shadow needs a live arm whose requests it copies, got none")
        if any(arm.percent for arm in self.arms if arm.role == "warm"):
            raise ValueError(f"a warm arm answers 0 percent, got {self}")
        return self

    @classmethod
    def of(cls, live: str, *, warm: Iterable[str] = (), shadow: str | None = None, percent: int = 100) -> Split:
        """All requests to the release `live`, with `warm` ones beside it and `percent` copied to `shadow`."""
        arms = [Arm(release=live, role="live", percent=100)]
        arms += [Arm(release=release, role="warm", percent=0) for release in warm]
        if shadow is not None:
            arms.append(Arm(release=shadow, role="shadow", percent=percent))
        return cls(arms=tuple(arms))

    @property
    def releases(self) -> tuple[str, ...]:
        """The digest of every release in it, in the split's order."""
        return tuple(arm.release for arm in self.arms)

    def arm(self, release: str) -> Arm | None:
        """The arm of `release`, or None where it has none."""
        return next((arm for arm in self.arms if arm.release == release), None)

    @property
    def live(self) -> tuple[Arm, ...]:
        """The arms that answer requests."""
        return tuple(arm for arm in self.arms if arm.role == "live")

    def is_left_of(self, before: Split) -> bool:
        """Whether it is `before`, but for warm arms that did not outlive it."""
        gone = set(before.arms) - set(self.arms)
        return set(self.arms) <= set(before.arms) and all(arm.role == "warm" for arm in gone)

    def __str__(self) -> str:
        return ", ".join(map(str, self.arms)) or "nothing"


class Address(Value):
    """Where to send a request, and the headers that pin it to one arm."""

    url: str = Field(description="URL of the service, to which `/api/v1.0/predictions` is added.")
    headers: dict[str, str] = Field(default_factory=dict, description="Headers that reach the wanted arm.")


class Observed(Value):
    """What a target really serves, read back from it.

    `routes` is what its routers do with a request; `ready` is how many servers of each
    release answer, with that release's digest, right now.
    """

    routes: Split = Field(description="The split that the target's routers carry out.")
    ready: dict[str, int] = Field(description="Servers that answer, by release.")
    fence: int | None = Field(description="Number of the log entry that last drove the target; none before the first.")

    def shows(self, split: Split) -> bool:
        """Whether `split` is served: its routes are in place and each of its arms answers."""
        return self.routes == split and all(self.ready.get(release, 0) > 0 for release in split.releases)

    def serves(self, split: Split) -> bool:
        """Whether clients are served as in `split`, though a warm arm of it may be gone, or not answer."""
        needed = (arm.release for arm in split.arms if arm.role != "warm")
        return self.routes.is_left_of(split) and all(self.ready.get(release, 0) > 0 for release in needed)

    def __str__(self) -> str:
        dead = [short(release) for release in self.routes.releases if not self.ready.get(release)]
        return f"{self.routes}" + (f" (no answer from {', '.join(dead)})" if dead else "")


class Counters(Value):
    """Requests since the target's router started; comparable only while `start` is the same."""

    start: str = Field(description="Identifies the router process: another value means that counting began anew.")
    requests: dict[str, int] = Field(description="Answers sent, by release.")
    errors: dict[str, int] = Field(description="Answers of status 500 and above, or none at all, by release.")
