"""From data to a tested candidate: the steps that flows share, and what they show of each."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from prefect.flow_runs import pause_flow_run

from prefect_mlops.blocks import Environment, Recipe
from prefect_mlops.blocks.entry import Judged
from prefect_mlops.blocks.errors import DataRefused
from prefect_mlops.flows._apart import trained_apart
from prefect_mlops.flows._pages import data_page, verdicts_page
from prefect_mlops.flows._reporting import publish, say, showing
from prefect_mlops.flows._rollout import APPROVAL_SECONDS, Waive
from prefect_mlops.tasks import Candidate, Tested, Validated, test_model, train_model, validate_data
from prefect_mlops.tasks._limits import may_ask_for_more, shortages
from prefect_mlops.tasks._runtime import is_same_code
from prefect_mlops.tasks._tables import MISSING


@dataclass(frozen=True)
class Made:
    """What came of data: a tested candidate, or that what is live was made of the very same.

    Attributes:
        commit: Id of the commit of the rows that it was trained on.
        data: What their validation found; None where the recipe expects nothing of them.
        tested: The candidate and its verdicts; None where the champion is made of the very same.
        champion: Digest of the release that answers all requests; None where there is none, or several.
    """

    commit: str
    data: Validated | None
    tested: Tested | None
    champion: str | None

    def judged(self, release: str) -> Judged | None:
        """The verdict on the data that a release was made of, for the log; None where nothing was expected."""
        if self.data is None:
            return None
        met = sum(check.outcome == "passed" for check in self.data.results)
        detail = f"{met} of {len(self.data.results)} expectations met, {self.data.bad_rows:,} rows set aside"
        return Judged(
            release=release, gate="expectations", outcome="passed", detail=detail, evidence=self.data.evidence
        )


def made_of(environment: Environment, recipe: Recipe, commit: str) -> Made:
    """Validate the data of a commit, train on the rows that are let through, and test what came of it.

    Raises:
        DataRefused: If the data is not what it must be. What is wrong with it is shown.
        Invalid: If data or training function are not what the recipe says.
    """
    data = validated(environment, commit, recipe.expectations, recipe.name, missing=recipe.missing)
    kept = data.commit if data else commit
    candidate = trained(environment, recipe, environment.store_block.commit_at(kept).snapshot)
    champion = champion_of(environment, recipe.name)
    if champion is not None and is_made_of_the_same(environment, candidate, champion):
        say(f"{champion} is live and was made of the very same; nothing to do")
        return Made(kept, data, None, champion)
    return Made(kept, data, tested(environment, recipe, candidate, champion), champion)


def validated(
    environment: Environment, commit: str, expectations: str, subject: str, *, missing: Iterable[str] = MISSING
) -> Validated | None:
    """The rows that a suite lets through; None where there is no suite.

    Args:
        environment: Whose store holds the commit.
        commit: Its id.
        expectations: The suite; none if empty.
        subject: What the data is for, in the title and the key of the page: a service or a branch.
        missing: Texts in a CSV that stand for a missing value.

    Raises:
        DataRefused: If the data is not what it must be. What is wrong with it is shown.
    """
    if not expectations:
        return None
    store = environment.store_block
    try:
        found = validate_data(store, commit, expectations, missing=missing)
    except DataRefused as refused:
        show_data(environment, subject, refused.evidence, "was refused")
        raise
    aside = f", {found.bad_rows:,} set aside as {found.quarantine}" if found.bad_rows else ""
    say(f"the data meets {expectations}: {found.rows:,} rows go on{aside}")
    show_data(environment, subject, found.evidence, "is as expected")
    return found


def show_data(environment: Environment, subject: str, evidence: str, verdict: str) -> None:
    """Leave the page of a validation."""
    key = re.sub("[^a-z0-9-]", "-", f"data-{subject}")
    with showing("what was found in the data"):
        publish(key, data_page(environment.store_block, evidence), f"the data for {subject} {verdict}")


def trained(environment: Environment, recipe: Recipe, snapshot: str) -> Candidate:
    """A candidate trained on a snapshot: in this run, or where it needs more than this run has, in one of its own.

    Raises:
        Invalid: If data or training function are not what the recipe says.
        StepFailed: If the run of its own did not end well.
    """
    apart = may_ask_for_more() and any(shortages(recipe.resources))
    candidate = (trained_apart if apart else _trained_here)(environment, recipe, snapshot)
    figures = ", ".join(f"{name} {value:.4f}" for name, value in candidate.metrics.items())
    say(f"trained on {candidate.rows:,} rows, {recipe.holdout_percent} % of them held out: {figures}")
    return candidate


def _trained_here(environment: Environment, recipe: Recipe, snapshot: str) -> Candidate:
    return train_model(environment.store_block, recipe, snapshot)


def champion_of(environment: Environment, service: str) -> str | None:
    """The one release that answers all requests of a service; None where there is none, or several."""
    live = environment.log().state().service(service).split.live
    return live[0].release if len(live) == 1 else None


def is_made_of_the_same(environment: Environment, candidate: Candidate, champion: str) -> bool:
    """Whether a release was made of the very data, code and software, and is the very model.

    Code is the same whatever commit it is of: one that touches nothing of it changes nothing.
    """
    store = environment.store_block
    release = store.release(champion)
    parts = ("data", "runtime", "model", "components")
    same = all(getattr(release, part) == getattr(candidate, part) for part in parts)
    return same and is_same_code(store, release.code, candidate.code)


def tested(environment: Environment, recipe: Recipe, candidate: Candidate, champion: str | None) -> Tested:
    """The verdicts of a candidate's tests, which are shown."""
    store = environment.store_block
    say(f"testing it{' beside what is live' if champion else ''}")
    found = test_model(store, recipe, candidate, champion)
    for verdict in found.verdicts:
        say(f"{verdict.test}: {verdict.outcome} ({verdict.detail})")
    with showing("what the tests found"):
        stopped = ", ".join(verdict.test for verdict in found.not_passed)
        outcome = f"is stopped by {stopped}" if stopped else "passed its tests"
        publish(f"tests-{recipe.name}", verdicts_page(store, found), f"a model for {recipe.name} {outcome}")
    return found


def waived(environment: Environment, found: Tested) -> Waive:
    """Ask a person whether a candidate may be released although tests did not pass.

    Raises:
        TestsNotPassed: If the answer is no.
    """
    page = verdicts_page(environment.store_block, found, brief=True)
    say("waiting for a person to waive these tests or to decline: open this run and press Resume")
    answer = pause_flow_run(
        wait_for_input=Waive.with_initial_data(description=page), timeout=APPROVAL_SECONDS, poll_interval=2
    )
    if answer.decision != "waive":
        say(f"declined by {answer.name}: {answer.reason}")
        found.need_passed()
    return answer
