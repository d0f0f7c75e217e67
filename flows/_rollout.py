"""One release on its way to traffic, step by step; what a strategy is told with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from pydantic import Field

from prefect_mlops.blocks import Actor, Entry, Environment, ReleaseLog, Split
from prefect_mlops.blocks._canonical import canonical
from prefect_mlops.blocks.entry import Approval, Asked, Judged, Move, Released, Waiver
from prefect_mlops.blocks.errors import GateNotPassed
from prefect_mlops.blocks.log import Draft
from prefect_mlops.blocks.state import Service, State
from prefect_mlops.flows._pages import command, comparison_page, in_words, lineage_page, release_page, served
from prefect_mlops.flows._reporting import publish, say, showing
from prefect_mlops.tasks import compare_predictions, probe_release, shift_traffic, watch_release
from prefect_mlops.tasks._moving import take_over
from prefect_mlops.tasks._showing import show_standing
from prefect_mlops.tasks.probing import PROBED, WATCHED
from prefect_mlops.tasks.runs import has_ended

APPROVAL_SECONDS = 24 * 3600


class Waive(RunInput):
    """What a person answers when model tests did not pass."""

    decision: Literal["waive", "decline"] = Field(
        title="Decision", description="Whether it may be released although these tests did not pass."
    )
    name: str = Field(min_length=1, max_length=200, title="Your name", description="Recorded as who waived them.")
    reason: str = Field(min_length=1, max_length=2000, title="Reason", description="Recorded beside the waiver.")


class Decision(RunInput):
    """What a person answers when a release waits for approval."""

    decision: Literal["approve", "decline"] = Field(title="Decision", description="Whether it may go live.")
    name: str = Field(min_length=1, max_length=200, title="Your name", description="Recorded as the approver.")
    reason: str = Field(default="", max_length=2000, title="Reason", description="Recorded beside the decision.")


@dataclass
class Rollout:
    """A release that shall go live, and what was done about it so far.

    Attributes:
        environment: Where it goes.
        log: Where all of it is written.
        service: What it is a release of.
        release: Its digest.
        reason: Why, in a person's words.
        actor: Who wants it; the operating system's user if empty.
        commit: Id of the commit of its training data, where that is known.
        number: Number of the log entry that the rollout began with, once it began.
    """

    environment: Environment
    log: ReleaseLog
    service: str
    release: str
    reason: str = ""
    actor: str = ""
    commit: str | None = None
    number: int | None = None

    @property
    def known(self) -> Service:
        """What the log says of the service now."""
        return self.log.state().service(self.service)

    @property
    def name(self) -> str:
        """The release as people call it."""
        return self.known.named(self.release)

    def begin(self) -> None:
        """Finish what a dead run left open, and give the release its number, where it has none.

        Raises:
            ServiceBusy: If a run that may be alive is moving the service. Nothing was changed.
        """
        taken = take_over(self.environment, self.log, self.service, reason="its run is dead", ended=has_ended)
        if taken is not None:
            say(f"finished what entry {taken.closes} had asked for: its run is dead")

        def draft(state: State) -> Draft | None:
            known = state.service(self.service)
            if self.release in known.numbers:
                return None
            body = Released(release=self.release, number=len(known.numbers) + 1, commit=self.commit)
            return Draft(body, (self.service,), begins=True, reason=self.reason)

        if (entry := self.log.append(draft)) is not None:
            self.number = entry.seq

    def stage(self, warm_seconds: int | None = None) -> None:
        """Start it beside what answers now, and send it its golden probes.

        A target that cannot keep a release up without requests starts it with all of them.

        Args:
            warm_seconds: How long it may stay there without being switched to; the policy's time if None.

        Raises:
            GateNotPassed: If it does not answer as it did in training. It was removed again.
        """
        before = self.known.split
        arms = [arm for arm in before.arms if arm.release != self.release]
        staged = Split.model_validate({"arms": [*arms, {"release": self.release, "role": "warm", "percent": 0}]})
        environment = self.environment
        if not before.live and environment.target.refusals(self.service, staged, environment.store_block):
            staged = Split.of(self.release)
        say(f"starting {self.name}; meanwhile {self.service} serves {in_words(self.known, before)}")
        self.shift(staged, before=before, warm_seconds=warm_seconds)
        say(f"{served(self.known)}; sending {self.name} its golden probes")
        self.judge(probe_release(self.environment, self.service, self.release))

    def shadow(self) -> None:
        """Have it answer a copy of every request, for nobody, and compare its answers with those that are given.

        Raises:
            GateNotPassed: If they do not agree as the policy wants. It was removed again.
        """
        before = self.known.split
        arms = [arm for arm in before.arms if arm.release != self.release and arm.role != "shadow"]
        shadow = {"release": self.release, "role": "shadow", "percent": 100}
        entry = self.shift(Split.model_validate({"arms": [*arms, shadow]}), before=before)
        [champion] = before.live
        wanted = f"{self.environment.shadow_requests:,} requests, for at most {self.environment.shadow_seconds} s"
        say(f"{served(self.known)}; waiting for {wanted}")
        judged = compare_predictions(self.environment, self.service, champion.release, self.release, entry.time)
        with showing("how the shadow compares"):
            page = comparison_page(self.environment.store_block, self.known, judged)
            publish(
                f"shadow-{self.service}", page, f"{self.name} in the shadow of {self.known.named(champion.release)}"
            )
        self.judge(judged)

    def switch(self) -> None:
        """Give it all requests, keep what answered before warm, and watch what it answers.

        Raises:
            GateNotPassed: If it does not answer as it should. What answered before does so again.
        """
        before = self.known.split
        after = Split.of(self.release, warm=[arm.release for arm in before.live if arm.release != self.release])
        say(f"giving {self.name} all requests")
        self.shift(after, before=before)
        say(served(self.known))
        self.watch()

    def resume(self) -> None:
        """Where it answers all requests, watch what it answers if the run that gave it those died before it had.

        Raises:
            GateNotPassed: If it does not answer as it should. What answered before does so again.
        """
        change = self.known.changes[-1]
        asked, self.number = change.asked.body, change.closed.rollout
        if isinstance(asked, Asked) and asked.move == "advance" and not self._was_watched(change.closed.seq):
            say(f"the run that gave {self.name} all requests did not watch its answers to the end")
            self.watch()

    def _was_watched(self, since: int) -> bool:
        """Whether the last gate of a release that is live let it through."""
        watched = (WATCHED, {"passed", "could not be measured"})
        gate, enough = watched if self.environment.watch_seconds else (PROBED, {"passed"})
        bodies = (entry.body for entry in self.log.entries() if entry.seq > since)
        verdicts = [one for one in bodies if isinstance(one, Judged) and one.release == self.release]
        return any(one.gate == gate and one.outcome in enough for one in verdicts)

    def watch(self) -> None:
        """Send it its golden probes as clients do, and watch its answers for as long as the policy wants.

        Raises:
            GateNotPassed: If it does not answer as it should. What answered before does so again.
        """
        self.judge(probe_release(self.environment, self.service, self.release, pinned=False))
        if not self.environment.watch_seconds:
            return
        say(f"watching the answers of {self.name} for {self.environment.watch_seconds} s")
        watched = watch_release(self.environment, self.service, self.release)
        if watched.outcome == "could not be measured":
            self.write(watched)
            say(f"{self.name}: live answers could not be measured ({watched.detail}); the front door's probes passed")
        else:
            self.judge(watched)

    def shift(
        self,
        split: Split,
        *,
        move: Move = "advance",
        reason: str = "",
        before: Split | None = None,
        warm_seconds: int | None = None,
    ) -> Entry:
        """Serve `split` as a part of this rollout."""
        entry = shift_traffic(
            self.environment,
            self.service,
            split,
            move_kind=move,
            reason=reason or self.reason,
            actor=self.actor,
            rollout=self.number,
            before=before,
            warm_seconds=warm_seconds,
        )
        self.number = entry.rollout
        return entry

    def judge(self, judged: Judged) -> None:
        """Write a verdict down; only `passed` lets the rollout go on.

        Raises:
            GateNotPassed: If it is anything else. What answered before the rollout does so again.
        """
        self.write(judged)
        say(f"{self.name}, {judged.gate}: {judged.outcome} ({judged.detail})")
        if judged.outcome != "passed":
            self.stop(judged.gate, judged.outcome, judged.detail)

    def write(self, body: Judged | Approval | Waiver, reason: str = "", actor: Actor | None = None) -> None:
        """Write a sentence of this rollout, on behalf of `actor` where somebody else says it."""
        log = self.log if actor is None else self.environment.log(run=self.log.run, actor=actor)
        log.append(lambda _: Draft(body, (self.service,), rollout=self.number, reason=reason))

    def stop(self, gate: str, outcome: str, detail: str) -> None:
        """Serve what answered before the rollout, without the release.

        Raises:
            GateNotPassed: Always.
        """
        before = self.known.before(self.number if self.number is not None else -1)
        back = Split(arms=tuple(arm for arm in before.arms if arm.release != self.release))
        self.shift(back, move="rollback", reason=f"{gate}: {outcome}")
        self.show_standing()
        with showing("what is served now"):
            say(f"{self.name} was stopped by {gate}: {served(self.known)}")
            title = f"{self.name} was stopped in {self.environment.name}"
            publish(f"release-{self.service}", self.page(title), f"{title}; {gate}: {outcome}")
        raise GateNotPassed(self.name, gate, outcome, detail)

    def await_approval(self) -> None:
        """Ask a person, showing what there is to see; nothing is open in the log meanwhile.

        Raises:
            GateNotPassed: If the answer is no. The release was removed again.
        """
        page = self.page(f"May {self.name} go live in {self.environment.name}?", brief=True)
        shown = self.environment.store_block.put(canonical({"format": 1, "page": page}))
        say(f"waiting for a person to approve or decline {self.name}: open this run and press Resume")
        answer = pause_flow_run(
            wait_for_input=Decision.with_initial_data(description=page), timeout=APPROVAL_SECONDS, poll_interval=2
        )
        approved = answer.decision == "approve"
        body = Approval(release=self.release, decision="approved" if approved else "declined", shown=shown)
        self.write(body, answer.reason, Actor(name=answer.name, assurance="claimed"))
        say(f"{self.name} was {body.decision} by {answer.name}: {answer.reason or 'no reason given'}")
        if not approved:
            self.stop("approval", "failed", f"declined by {answer.name}: {answer.reason or 'no reason given'}")

    def waive(self, tests: Iterable[str], evidence: str, answer: Waive) -> None:
        """Write down that a person let it pass although these tests did not, having seen the evidence."""
        for test in tests:
            waiver = Waiver(release=self.release, gate=test, shown=evidence)
            self.write(waiver, answer.reason, Actor(name=answer.name, assurance="claimed"))
            say(f"{self.name}: {test} was waived by {answer.name}: {answer.reason}")

    def page(self, title: str = "", *, brief: bool = False) -> str:
        """What there is to see of it, as a page."""
        entries = [entry for entry in self.log.entries() if entry.rollout == self.number]
        return release_page(self.environment, self.log.state(), self.service, self.release, entries, title, brief=brief)

    def show_standing(self) -> None:
        """Show in the registry what is live, as the log has it."""
        with showing("in the registry, what is live"):
            show_standing(self.environment.registry_block, self.log, self.service)

    def show(self) -> None:
        """Show people that it is live; the log has it already, so a failure here changes nothing."""
        self.show_standing()
        with showing("what is live"):
            description = f"{self.name} is live in {self.environment.name}"
            publish(f"release-{self.service}", self.page(), description)
            say(f"{description}; to undo it: {command(self.environment, f'rollback {self.service}')}")
        show_lineage(self.environment, self.service, self.release)


def show_lineage(environment: Environment, service: str, release: str) -> None:
    """Leave the page of all that led to a release."""
    with showing("the lineage"):
        page = lineage_page(environment, service, release)
        publish(f"lineage-{service}", page, page.partition("\n")[0].removeprefix("# "))
