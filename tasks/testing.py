"""Testing a model before it may be released."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from prefect import task
from prefect.cache_policies import NO_CACHE
from pydantic import Field

from prefect_mlops.blocks import Recipe, Store
from prefect_mlops.blocks._canonical import Value
from prefect_mlops.blocks.entry import Outcome
from prefect_mlops.blocks.errors import Invalid, TestsNotPassed
from prefect_mlops.blocks.model_tests import ModelTest
from prefect_mlops.tasks import _learning
from prefect_mlops.tasks._holdout import parted
from prefect_mlops.tasks._judges import Case, Finding, judged
from prefect_mlops.tasks._scratch import scratch_folder
from prefect_mlops.tasks.training import Candidate


class Difference(Value):
    """How much better than another model, with a confidence interval."""

    estimate: float = Field(description="The difference of the figures.")
    low: float = Field(description="Where the interval begins.")
    high: float = Field(description="Where the interval ends.")


class Verdict(Value):
    """What one model test found."""

    test: str = Field(description="Name of the test.")
    outcome: Outcome = Field(description="Only passed lets a model through.")
    detail: str = Field(description="A sentence with figures.")
    difference: Difference | None = Field(default=None, description="What it rests on, if it compared two models.")


class Tested(Value):
    """A candidate with the verdicts of its tests."""

    __test__: ClassVar[bool] = False  # pytest shall not take it for a test

    candidate: Candidate = Field(description="The candidate; its `tests` name the evidence.")
    verdicts: tuple[Verdict, ...] = Field(description="What each test found.")

    @property
    def not_passed(self) -> tuple[Verdict, ...]:
        """The verdicts that keep the candidate from being released."""
        return tuple(verdict for verdict in self.verdicts if verdict.outcome != "passed")

    def need_passed(self) -> Candidate:
        """The candidate, if every test passed.

        Raises:
            TestsNotPassed: If one did not; it names each of them and the evidence, which a person can waive.
        """
        if self.not_passed:
            facts = tuple((verdict.test, verdict.outcome, verdict.detail) for verdict in self.not_passed)
            raise TestsNotPassed(self.candidate.service, facts, self.candidate.tests)
        return self.candidate


@task(name="test-model", task_run_name="test {recipe.name}", persist_result=False, cache_policy=NO_CACHE)
def test_model(store: Store, recipe: Recipe, candidate: Candidate, champion: str | None = None) -> Tested:  # noqa: PT028
    """Put a candidate through the recipe's model tests, or the default ones, on rows that it never saw.

    Every test is run, whatever the others find; one that raises could not be measured. The evidence is kept in
    the store and is the same for the same model, data and champion: what takes how long is left out of it.

    Args:
        store: Holds the candidate and the champion, and gets the evidence.
        recipe: What the candidate was trained by.
        candidate: What came of it.
        champion: Digest of the release that is live, to compare with; None if none is.

    Returns:
        The candidate, now naming the evidence, and the verdicts. `need_passed()` raises if one did not pass.

    Raises:
        Invalid: If data or training function are not what the recipe says, or the candidate was trained by
            another recipe, so that it may have seen the rows.
        ObjectMissing, ObjectDamaged: If something that was recorded is not whole.
    """
    tests = recipe.model_tests()
    measured = _measured(store, recipe, candidate)
    with scratch_folder() as scratch:
        frame = _learning.read(store, recipe, candidate.data, scratch / "data")
        folder = scratch / "model"
        files = store.checkout(candidate.model, folder)
        train, model = recipe.training_function(), _learning.load_model(folder)
        case = Case(store, recipe, train, *parted(frame, recipe), model, folder, files, champion)
        with case.opened():
            found = [(test, judged(test, case)) for test in tests]
            evidence = store.put(_evidence(measured, case, found))
    verdicts = tuple(_verdict(test, finding) for test, finding in found)
    return Tested(candidate=candidate.model_copy(update={"tests": evidence}), verdicts=verdicts)


test_model.__test__ = False  # pyright: ignore[reportAttributeAccessIssue]  # pytest shall not take it for a test


def _verdict(test: ModelTest, finding: Finding) -> Verdict:
    between = finding.difference
    difference = None if between is None else Difference.model_validate(between._asdict())
    return Verdict(test=test.name, outcome=finding.outcome, detail=finding.detail, difference=difference)


def _measured(store: Store, recipe: Recipe, candidate: Candidate) -> dict[str, Any]:
    """What training wrote down of the hold-out, which must be the one that the recipe draws."""
    document = json.loads(store.get(candidate.tests))
    held = document.get("holdout", {})
    drawn = {"by": _learning.HELD_BY, "seed": recipe.seed, "percent": recipe.holdout_percent}
    if held | drawn != held:
        told = {name: held.get(name) for name in drawn}
        raise Invalid(f"the hold-out of {candidate.service}", f"is that of its recipe, {drawn}", told, _TRAIN_AGAIN)
    return document


_TRAIN_AGAIN = "test it with the recipe that it was trained by, or train it again"


def _evidence(measured: dict[str, Any], case: Case, found: list[tuple[ModelTest, Finding]]) -> bytes:
    document = measured | {
        "champion": case.champion,
        "verdicts": [
            {
                "threshold": test.model_dump(mode="json"),
                **_verdict(test, finding).model_dump(mode="json", exclude={"detail"} if test.timed else None),
            }
            for test, finding in found
        ],
    }
    return json.dumps(document, sort_keys=True).encode()
