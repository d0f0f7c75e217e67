"""Training on what arrived: the head of a branch becomes a candidate, once, whoever dies in between."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from prefect import flow
from pydantic import Field

from prefect_mlops.blocks import Entry, Environment, Recipe, ReleaseLog, Run
from prefect_mlops.blocks.branch import Branch
from prefect_mlops.blocks.entry import Judged, Outcome, Released, Settled, Taken
from prefect_mlops.blocks.errors import DataRefused, Invalid, MlopsError, StepFailed, TestsNotPassed
from prefect_mlops.blocks.log import Draft
from prefect_mlops.blocks.state import Claim
from prefect_mlops.flows._candidate import Made, made_of
from prefect_mlops.flows._pages import release_page
from prefect_mlops.flows._reporting import publish, run_name, say, showing, shown_as, tag_run, tags
from prefect_mlops.flows._rollout import show_lineage
from prefect_mlops.tasks import Candidate, register_model
from prefect_mlops.tasks import _taking as taking
from prefect_mlops.tasks._showing import show_standing
from prefect_mlops.tasks.announcing import announce
from prefect_mlops.tasks.runs import state_of
from prefect_mlops.tasks.traffic import open_log


@flow(name="train-candidate", flow_run_name=run_name("train", "recipe"), persist_result=False)
def train_candidate(
    recipe: Annotated[Recipe, shown_as("Model recipe", "What to train.")],
    environment: Annotated[
        str, shown_as("Environment", "Name of the Environment block whose candidate it is.")
    ] = "local",
    branch: Annotated[str, shown_as("Branch", "Branch whose head is trained on, if no run has taken it.")] = "main",
    hours: Annotated[
        int,
        Field(ge=1),
        shown_as("Hours", "After how many hours a silent run on another machine may be taken over."),
    ] = 24,
    reason: Annotated[str, shown_as("Reason", "Why, in your words; kept in the log.")] = "",
    actor: Annotated[str, shown_as("Your name", "Who wants this; the operating system's user if empty.")] = "",
) -> str | None:
    """Train on the head of a branch, test the model, and register it as a candidate; no traffic moves.

    Each head is trained on once. Safe to start at any time, twice at once, and for nothing: a run that finds the
    head taken ends at once. What was taken by a run that died is taken again, unless a person cancelled it. Bad
    data and a model that its tests stop are final: the log says so, and only another move of the branch starts
    another training.

    Args:
        recipe: What to train.
        environment: Name of the Environment block whose candidate it is.
        branch: Branch whose head is trained on.
        hours: After how long a silent run on another machine may be taken over.
        reason: Why, kept in the log.
        actor: Who wants this.

    Returns:
        The digest of the candidate's release document; None where there was nothing to do.

    Raises:
        Invalid: If data or recipe are not what they must be.
        DataRefused: If the data does not meet the recipe's expectations. Nothing was trained.
        TestsNotPassed: If the model was stopped by its tests. Nothing was registered.
        TakenOver: If this run was silent for so long that another one has the head now.
    """
    place = Environment.find(environment)
    tag_run(tags(environment, recipe.name, "train"))
    source, log = Branch(place.store_block, branch), open_log(place, actor)
    taken = taking.take(log, recipe.name, source, lease=timedelta(hours=hours), fate=fate, reason=reason)
    if taken is None:
        known = log.state().service(recipe.name)
        say(f"nothing to do: {taking.standing(known, source)}")
        show_what_a_dead_run_made(place, log, known.claims.get(branch))
        return None
    try:
        return train_taken(place, recipe, log, taken)
    finally:
        announce_newer(source, taken)


def train_taken(environment: Environment, recipe: Recipe, log: ReleaseLog, taken: Entry) -> str:
    """Make a candidate of a head that was taken, and say in the log what came of it; part of a flow.

    Where the store does not answer, nothing is said, so that the head is taken again.

    Raises:
        Invalid, DataRefused, TestsNotPassed, TakenOver: As for `train_candidate`.
    """
    assert isinstance(taken.body, Taken)
    say(f"log entry {taken.seq}: move {taken.body.move} of {taken.body.branch}, commit {taken.body.commit}, is taken")
    try:
        made = made_of(environment, recipe, taken.body.commit)
        candidate = made.tested.need_passed() if made.tested else None
    except Exception as error:
        if not isinstance(error, MlopsError) or not error.transient:
            outcome, evidence = outcome_of(error)
            taking.settle(log, taken, outcome, str(error) or type(error).__name__, evidence)
        raise
    if candidate is None:
        assert made.champion is not None
        taking.release(log, taken, made.champion, made.commit)
        return made.champion
    return registered(environment, recipe, candidate, log, taken, made)


def outcome_of(error: Exception) -> tuple[Outcome, str | None]:
    """What an error says of the data or the model, and the digest of the evidence."""
    match error:
        case DataRefused():
            return "failed", error.evidence
        case TestsNotPassed():
            outcomes = {outcome for _, outcome, _ in error.verdicts}
            stopped: tuple[Outcome, ...] = ("failed", "could not be measured", "inconclusive")
            return next(outcome for outcome in stopped if outcome in outcomes), error.evidence
        case Invalid() | StepFailed(ended="Invalid"):
            return "failed", None
        case _:
            return "could not be measured", None


def registered(
    environment: Environment, recipe: Recipe, candidate: Candidate, log: ReleaseLog, taken: Entry, made: Made
) -> str:
    """Give a candidate its number, and show it to people as what challenges the champion.

    Raises:
        TakenOver: If another run has the head now.
    """
    store, registry = environment.store_block, environment.registry_block
    release = store.put_release(candidate.release())
    with showing("in the registry, the candidate"):  # before the log has it, so that a run that dies here does it again
        register_model(store, registry, candidate)
    entry = taking.release(log, taken, release, made.commit)
    if (data := made.judged(release)) is not None:
        log.append(lambda _: Draft(data, taken.services, reason=taken.reason))
    show_candidate(environment, log, entry)
    return release


def show_candidate(environment: Environment, log: ReleaseLog, made: Entry) -> None:
    """Show people the candidate that an entry made; the log has it already, so a failure here changes nothing."""
    assert isinstance(made.body, Released | Settled)
    service, release, state = made.service, made.body.release, log.state()
    assert release is not None
    name = state.service(service).named(release)
    say(f"this is {name}, release {release}; to put it live, run promote-candidate")
    tag_run(tags(environment.name, service, "train", [name]))
    with showing("in the registry, what challenges"):
        show_standing(environment.registry_block, log, service)
    with showing("the candidate"):
        title = f"{name} is a candidate in {environment.name}"
        entries = [entry for entry in log.entries() if entry.seq in {made.closes, made.seq} or _is_of(entry, release)]
        page = release_page(environment, state, service, release, entries, title)
        publish(f"candidate-{service}", page, title)
    show_lineage(environment, service, release)


def _is_of(entry: Entry, release: str) -> bool:
    """Whether an entry judges a release in no rollout: what its data was found to be."""
    return isinstance(entry.body, Judged) and entry.body.release == release and entry.rollout is None


def show_what_a_dead_run_made(environment: Environment, log: ReleaseLog, claim: Claim | None) -> None:
    """Show the candidate of a head whose run died between the log's word for it and its end."""
    made = claim.closed if claim else None
    if made is not None and isinstance(made.body, Released) and made.run is not None:
        state = state_of(made.run)
        if state is not None and not state.is_completed():
            show_candidate(environment, log, made)


def announce_newer(branch: Branch, taken: Entry) -> None:
    """Tell of a head that came meanwhile: whoever it was told to then found this run at work, and went."""
    with showing("what came meanwhile"):
        tip = branch.tip()
        if tip is not None and isinstance(taken.body, Taken) and tip.seq > taken.body.move:
            say(f"branch {branch.name} was moved meanwhile, to commit {tip.commit}")
            announce(tip)


def fate(run: Run) -> taking.Fate:
    """What Prefect says of a run; where it does not know or answer, that proves nothing."""
    state = state_of(run)
    if state is not None and (state.is_cancelling() or state.is_cancelled()):
        return "cancelled"
    return "ended" if state is not None and state.is_final() else "unknown"
