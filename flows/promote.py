"""Putting a candidate live that an earlier run trained, tested and registered."""

from __future__ import annotations

import json
from typing import Annotated

from prefect import flow

from prefect_mlops.blocks import Environment, Split
from prefect_mlops.blocks.entry import Waiver
from prefect_mlops.blocks.errors import Invalid, TestsNotPassed
from prefect_mlops.flows._candidate import champion_of
from prefect_mlops.flows._reporting import run_name, shown_as, tag_run, tags
from prefect_mlops.flows._rollout import Rollout
from prefect_mlops.flows.release import STRATEGIES, Strategy, roll_out
from prefect_mlops.tasks._undoing import check_bytes
from prefect_mlops.tasks.traffic import open_log


@flow(name="promote-candidate", flow_run_name=run_name("promote", "service"), persist_result=False)
def promote_candidate(
    service: Annotated[str, shown_as("Service", "Name of the service, such as credit.")],
    candidate: Annotated[str, shown_as("Candidate", "newest, or a release such as credit-v3.")] = "newest",
    environment: Annotated[str, shown_as("Environment", "Name of the Environment block to release to.")] = "local",
    strategy: Annotated[Strategy, STRATEGIES] = "blue-green",
    approval: Annotated[
        bool, shown_as("Ask for approval", "Wait for a person before traffic moves; a policy may insist.")
    ] = False,
    reason: Annotated[str, shown_as("Reason", "Why, in your words; kept in the log.")] = "",
    actor: Annotated[str, shown_as("Your name", "Who wants this; the operating system's user if empty.")] = "",
) -> str:
    """Put a candidate live that `train_candidate` registered, just as it is: nothing is trained again.

    Every byte of it is checked first. Its tests must have compared it with what is live now, and each have passed
    or been waived; then it goes the way of every release, gate by gate.

    Args:
        service: Name of the service.
        candidate: `newest`, or a release by name or digest.
        environment: Name of the Environment block to release to.
        strategy: How traffic moves.
        approval: Whether to wait for a person before traffic moves.
        reason: Why, kept in the log.
        actor: Who wants this.

    Returns:
        The digest of the release document.

    Raises:
        Invalid: If there is no such candidate, or it was tested beside another release than the one that is live.
        TestsNotPassed: If a test of it did not pass, and nobody waived it.
        ObjectMissing, ObjectDamaged: If not every byte of it is as it was recorded. Nothing was changed.
        GateNotPassed: If a gate stopped it; what was served before is served again.
        ServiceBusy, Superseded, SplitNotApplied: As for `release_model`.
    """
    place = Environment.find(environment)
    tag_run(tags(environment, service, "promote"))
    log = open_log(place, actor)
    known = log.state().service(service)
    if not known.numbers:
        raise Invalid("the service", "has a candidate", service, "train one with train-candidate, or see `releases`")
    release = list(known.numbers)[-1] if candidate == "newest" else known.digest_of(candidate)
    rollout = Rollout(place, log, service, release, reason, actor)
    rollout.begin()
    if [arm.release for arm in rollout.known.split.live] != [release]:
        check_bytes(place, Split.of(release))
        need_tested(rollout)
    roll_out(rollout, strategy, approval=approval)
    return release


def need_tested(rollout: Rollout) -> None:
    """See that a release's evidence lets it through beside what is live now.

    Raises:
        Invalid: If it was tested beside something else, or not at all.
        TestsNotPassed: If a test did not pass, and nobody waived it.
    """
    store = rollout.environment.store_block
    document = store.release(rollout.release)
    evidence = json.loads(store.get(document.tests))
    verdicts, beside = evidence.get("verdicts"), evidence.get("champion")
    live = champion_of(rollout.environment, rollout.service)
    if not verdicts or beside != live:
        named = rollout.known.named
        rule = f"was tested beside what is live ({named(live) if live else 'nothing'})"
        told = f"tests beside {named(beside) if beside else 'nothing'}" if verdicts else "no tests"
        raise Invalid(rollout.name, rule, told, "run release-model with its recipe and data")
    bodies = (entry.body for entry in rollout.log.entries())
    waived = {body.gate for body in bodies if isinstance(body, Waiver) and body.release == rollout.release}
    open_ = [one for one in verdicts if one["outcome"] != "passed" and one["test"] not in waived]
    if open_:
        facts = tuple((one["test"], one["outcome"], one.get("detail", "")) for one in open_)
        raise TestsNotPassed(rollout.service, facts, document.tests)
