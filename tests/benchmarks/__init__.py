"""What a benchmark hands over.

A benchmark is a module `tests/benchmarks/bench_<thing>.py` with one function::

    def run() -> Iterator[Benchmark]:
        yield Benchmark("one row", ours=310.0, peer=95.0, peer_name="mlserver 1.7.1", unit="requests/cpu s", goal=3)

Both sides are measured within that one call, on the same input. Whatever `run` or its child
processes print goes to standard error, so they may print freely. A peer that cannot be had
(not installed, wrong Python) is a `raise Unmeasured("one sentence why")`, never a made-up figure.
"""

from __future__ import annotations

from dataclasses import dataclass


class Unmeasured(Exception):
    """A benchmark that could not be taken here; the message is one sentence that says why."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One figure of ours beside one of a peer, taken in the same run.

    Attributes:
        name: What was measured, unique among all benchmarks.
        ours: Our figure, in `unit`.
        peer: The peer's figure, in `unit`.
        peer_name: What it is compared with, with its version.
        unit: The unit of both, such as `requests/cpu s` or `s`.
        goal: The bound on `ratio`.
        at_most: Whether `goal` is a ceiling (durations) rather than a floor (throughput).
    """

    name: str
    ours: float
    peer: float
    peer_name: str
    unit: str
    goal: float
    at_most: bool = False

    @property
    def ratio(self) -> float:
        """Ours divided by the peer's, whichever way is better."""
        return self.ours / self.peer

    @property
    def met(self) -> bool:
        """Whether `ratio` is on the right side of `goal`."""
        return self.ratio <= self.goal if self.at_most else self.ratio >= self.goal

    def document(self) -> dict[str, str | float | bool]:
        """The eight keys that `make bench` prints, figures to four significant digits."""
        return {
            "name": self.name,
            "ours": float(f"{self.ours:.4g}"),
            "peer": float(f"{self.peer:.4g}"),
            "peer_name": self.peer_name,
            "unit": self.unit,
            "ratio": float(f"{self.ratio:.4g}"),
            "goal": self.goal,
            "met": self.met,
        }
