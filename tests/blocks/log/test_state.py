"""What may come next, what the log then says, and what it says of a moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefect_mlops.blocks.entry import Approval, Entry, Genesis, Judged, Released, Seen, Takeover
from prefect_mlops.blocks.errors import Invalid, NothingBefore
from prefect_mlops.blocks.log import Draft
from prefect_mlops.blocks.split import Split
from prefect_mlops.blocks.state import IllegalEntry, Moving, State, at, fold
from prefect_mlops.blocks.writer import moment
from prefect_mlops.tasks._undoing import destination
from tests.blocks.log.stories import DEADLINE, POLICY, Teller, digest, memory_log
from tests.blocks.store.doubles import Shelf

V1, V2, V3 = digest(1), digest(2), digest(3)
NOBODY = digest(99)
NOTHING = Split()


@pytest.fixture
def teller() -> Teller:
    """Three releases, of which the first answers."""
    teller = Teller(memory_log())
    for release in (V1, V2, V3):
        teller.released(release)
    teller.moved(Split.of(V1))
    return teller


def ask(before: Split, after: Split, move: str = "advance") -> dict[str, Any]:
    return {"kind": "asked", "before": before, "after": after, "move": move, "policy": POLICY, "deadline": DEADLINE}


def then(state: State, **fields: Any) -> State:
    """The state after an entry that is right except for `fields`."""
    assert state.head is not None
    old = state.head.model_dump()
    right = {"seq": state.next, "prev": state.head.hash, "rollout": None, "closes": None}
    return state.then(Entry.model_validate({**old, **right, **fields}))


CHAIN = [
    ({"seq": 11}, "the next number is 6"),
    ({"prev": digest(0)}, "it does not name the hash of the entry before it"),
    ({"prev": None}, "it does not name the hash"),
    ({"body": Genesis(configuration={}), "services": ()}, "genesis is the first entry and no other"),
    ({"store": "other"}, "the log belongs to store"),
    ({"environment": "other"}, "the log is that of local"),
    ({"time": "2025-12-31T23:59:59.999999Z"}, "is before 2026"),
    ({"raw_time": "2025-12-31T00:00:00.000000Z"}, "differ just where it was clamped"),
    ({"clamped": True}, "differ just where it was clamped"),
    ({"raw_time": "2027-01-01T00:00:00.000000Z", "clamped": True}, "a clamped time is not before the raw one"),
    ({"rollout": 99}, "a rollout starts at an entry before its end"),
    ({"services": ("credit", "fraud")}, "it is about one service, not 2"),
    ({"services": ()}, "it is about one service, not 0"),
]
BODIES = [
    (Released(release=V1, number=4), {}, "has a number already"),
    (Released(release=digest(4), number=5), {}, "the next number of credit is 4, not 5"),
    (ask(NOTHING, Split.of(V2)), {"rollout": 6}, "credit serves live .* not nothing"),
    (ask(Split.of(V1), Split.of(NOBODY)), {"rollout": 6}, "were never released"),
    (ask(Split.of(V1), Split.of(V2)), {"rollout": None}, "rollout 4 came after it"),
    (ask(Split.of(V1), Split.of(V2)), {"rollout": 2}, "rollout 4 came after it"),
    (ask(Split.of(V1), Split.of(V2), "reassert"), {"rollout": 6}, "to reassert changes nothing"),
    (Takeover(of=4, deadline=DEADLINE), {"rollout": 4}, "entry 4 is not open for credit"),
    (Seen(split=Split.of(V1), ready={}, fence=4, verdict="applied"), {"closes": 4}, "nothing is open"),
    (Judged(release=NOBODY, gate="probes", outcome="passed"), {}, "was never released"),
    (Approval(release=NOBODY, decision="approved", shown=POLICY), {}, "was never released"),
    (
        Judged(release=V1, gate="probes", outcome="passed"),
        {"closes": 4},
        "only what was observed, released or settled closes",
    ),
]


@pytest.mark.parametrize(("wrong", "rule"), CHAIN)
def test_a_broken_chain_is_named(teller: Teller, wrong: dict[str, Any], rule: str) -> None:
    right = {"body": Judged(release=V1, gate="probes", outcome="passed")}
    then(teller.state, **right)
    with pytest.raises(IllegalEntry, match=rule):
        then(teller.state, **{**right, **wrong})


@pytest.mark.parametrize(("body", "fields", "rule"), BODIES)
def test_an_illegal_entry_is_named_and_cannot_be_written(
    teller: Teller, body: Any, fields: dict[str, Any], rule: str
) -> None:
    with pytest.raises(IllegalEntry, match=rule):
        then(teller.state, body=body, **fields)
    before = teller.state
    with pytest.raises(IllegalEntry, match=rule):
        teller.write(body, **fields)
    assert teller.state is before


@pytest.mark.parametrize(
    ("body", "fields", "rule"),
    [
        (ask(Split.of(V1), Split.of(V3)), {"rollout": 7}, "entry 6 is still open for credit"),
        (Takeover(of=4, deadline=DEADLINE), {"rollout": 6}, "entry 4 is not open"),
        (Takeover(of=6, deadline=DEADLINE), {"rollout": 7}, "entry 6 belongs to rollout 6"),
        (Seen(split=Split.of(V2), ready={}, fence=5, verdict="applied"), {"closes": 6}, "entry 6 drives credit, not 5"),
        (Seen(split=Split.of(V2), ready={}, fence=6, verdict="applied"), {"closes": 4}, "it closes 4, but 6 is open"),
        (Seen(split=Split.of(V2), ready={}, fence=6, verdict="applied"), {}, "it closes None, but 6 is open"),
        (Seen(split=Split.of(V1), ready={}, fence=6, verdict="applied"), {"closes": 6}, "applied means that"),
        (Seen(split=Split.of(V2), ready={}, fence=6, verdict="undone"), {"closes": 6}, "undone means that"),
        (Seen(split=None, ready={}, fence=6, verdict="refused"), {"closes": 6}, "refused means that"),
        (Seen(split=None, ready={}, fence=6, verdict="unknown"), {"closes": 6}, "what is unknown closes nothing"),
        (Seen(split=Split.of(V2), ready={}, fence=6, verdict="applied"), {"closes": 6, "rollout": 4}, "rollout 6"),
    ],
)
def test_what_an_open_ask_forbids_is_named(teller: Teller, body: Any, fields: dict[str, Any], rule: str) -> None:
    assert teller.asked(Split.of(V2)).seq == 6
    with pytest.raises(IllegalEntry, match=rule):
        then(teller.state, body=body, **{"rollout": 6, **fields})


def test_genesis_comes_first_and_once() -> None:
    log = memory_log()
    first = log.begin({})
    assert log.begin({"other": {}}) == first
    with pytest.raises(IllegalEntry, match="genesis is the first entry"):
        State().then(first.model_copy(update={"body": Released(release=V1, number=1), "services": ("credit",)}))


def test_a_takeover_moves_the_fence_and_the_old_driver_may_record_nothing(teller: Teller) -> None:
    asked = teller.asked(Split.of(V2))
    taken = teller.write(Takeover(of=asked.seq, deadline=DEADLINE), rollout=asked.rollout)
    assert teller.known.fence == taken.seq
    with pytest.raises(IllegalEntry, match=f"entry {taken.seq} drives credit, not {asked.seq}"):
        teller.write(
            Seen(split=Split.of(V2), ready={}, fence=asked.seq, verdict="applied"), rollout=6, closes=asked.seq
        )


def test_unknown_leaves_it_open(teller: Teller) -> None:
    asked = teller.asked(Split.of(V2))
    teller.seen(None, "unknown")
    assert teller.known.asked == asked
    teller.seen(Split.of(V1), "undone")
    assert teller.known.asked is None
    assert teller.known.split == Split.of(V1)


def test_a_warm_arm_may_be_missing_after_what_was_undone_and_nothing_else(teller: Teller) -> None:
    teller.moved(Split.of(V1, warm=[V2]))
    teller.asked(Split.of(V3, warm=[V1, V2]))
    for split in (Split.of(V2), Split.of(V1, shadow=V2), Split.of(V1, warm=[V3]), NOTHING):
        with pytest.raises(IllegalEntry, match="undone means that"):
            teller.seen(split, "undone")
    with pytest.raises(IllegalEntry, match="applied means that"):
        teller.seen(Split.of(V3, warm=[V1]))
    teller.seen(Split.of(V1), "undone")
    assert teller.known.split == Split.of(V1)


# --- the pile that a rollback takes from


def live(teller: Teller) -> list[str]:
    return [split.live[0].release for _, split in teller.known.past]


def test_back_and_back_again_raises(teller: Teller) -> None:
    teller.moved(Split.of(V2, warm=[V1]))
    back = destination(teller.known, "previous")
    assert back == Split.of(V1)
    teller.moved(Split.of(V1, warm=[V2]), move="rollback")
    assert live(teller) == [V1]
    with pytest.raises(NothingBefore):
        destination(teller.known, "previous")


def test_canary_steps_are_one_step_back(teller: Teller) -> None:
    canary = teller.moved(share(V1, V2, 10))
    for percent in (25, 50):
        teller.moved(share(V1, V2, percent), rollout=canary.rollout)
    teller.moved(Split.of(V2, warm=[V1]), rollout=canary.rollout)
    assert live(teller) == [V1, V2]
    assert teller.known.previous == Split.of(V1)
    assert teller.known.before(canary.seq) == Split.of(V1)


def test_a_rollback_goes_to_the_nearest_place_of_its_release(teller: Teller) -> None:
    for release in (V2, V1, V3):
        teller.moved(Split.of(release))
    teller.moved(Split.of(V1), move="rollback")
    assert live(teller) == [V1, V2, V1]
    assert teller.known.previous == Split.of(V2)


def test_a_rollback_to_what_is_not_on_the_pile_goes_on_top(teller: Teller) -> None:
    teller.moved(Split.of(V2))
    teller.moved(Split.of(V3), move="rollback")
    assert live(teller) == [V1, V2, V3]


def test_a_first_release_that_was_stopped_is_nothing_to_go_back_to() -> None:
    teller = Teller(memory_log())
    for release in (V1, V2):
        teller.released(release)
    first = teller.moved(Split.of(V1))
    teller.moved(NOTHING, move="rollback", rollout=first.rollout)
    assert teller.known.previous is None
    teller.moved(Split.of(V2))
    assert teller.known.previous is None


def test_a_rollback_that_was_undone_takes_nothing_off(teller: Teller) -> None:
    teller.moved(Split.of(V2))
    teller.asked(Split.of(V1), move="rollback")
    teller.seen(Split.of(V2), "undone")
    assert live(teller) == [V1, V2]


def test_before_a_service_that_was_shut_down_is_what_it_served(teller: Teller) -> None:
    teller.moved(Split.of(V2))
    teller.moved(NOTHING)
    assert teller.known.previous == Split.of(V2)


def test_warm_arms_and_a_reassertion_are_no_step(teller: Teller) -> None:
    teller.moved(Split.of(V1, warm=[V2]))
    teller.moved(Split.of(V1, warm=[V2]), move="reassert", rollout=teller.known.rollout)
    assert teller.known.past == ((4, Split.of(V1, warm=[V2])),)


def share(old: str, new: str, percent: int) -> Split:
    arms = [{"release": old, "role": "live", "percent": 100 - percent}]
    return Split.model_validate({"arms": [*arms, {"release": new, "role": "live", "percent": percent}]})


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.booleans(), st.booleans()), max_size=9))
def test_whatever_moved_the_pile_ends_with_what_answers(moves: list[tuple[int, bool, bool]]) -> None:
    teller = Teller(memory_log())
    for number in range(1, 5):
        teller.released(digest(number))
    for number, back, same in moves:
        rollout = teller.known.rollout if same and teller.known.rollout >= 0 else None
        teller.moved(Split.of(digest(number)), move="rollback" if back else "advance", rollout=rollout)
        past = teller.known.past
        assert past[-1][1] == teller.known.split
        assert all(one.live != two.live for (_, one), (_, two) in pairwise(past))
    assert fold(teller.log.entries()) == teller.state


# --- clocks and moments

START = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_clock_that_jumps_back_a_year_reorders_nothing() -> None:
    log = memory_log(Shelf())
    now = START
    log.clock = lambda: now
    teller = Teller(log)
    first = teller.released(V1)
    now -= timedelta(days=365)
    second = teller.asked(Split.of(V1))
    assert (second.clamped, second.time, second.raw_time) == (True, first.time, moment(now))
    now += timedelta(days=366)
    third = teller.seen(Split.of(V1))
    assert (third.clamped, third.time) == (False, moment(now))
    times = [entry.time for entry in log.entries()]
    assert times == sorted(times)
    assert [entry.seq for entry in log.entries()] == [0, 1, 2, 3]
    assert log.at("credit", START) == Moving(NOTHING, Split.of(V1), second.seq)
    assert log.at("credit", now) == Split.of(V1)


def test_at_a_moment_there_is_a_split_or_a_transition() -> None:
    log = memory_log()
    seconds = iter(range(100))
    log.clock = lambda: START + timedelta(seconds=next(seconds))
    teller = Teller(log)  # 0: genesis
    teller.released(V1)  # 1
    teller.asked(Split.of(V1))  # 2
    teller.seen(None, "unknown")  # 3
    teller.seen(Split.of(V1))  # 4
    entries = list(log.entries())

    def seen_at(second: float) -> Split | Moving:
        return at(entries, "credit", moment(START + timedelta(seconds=second)))

    assert [seen_at(second) for second in (0, 1, 1.999)] == [NOTHING] * 3
    assert [seen_at(second) for second in (2, 3, 3.999)] == [Moving(NOTHING, Split.of(V1), 2)] * 3
    assert [seen_at(second) for second in (4, 50)] == [Split.of(V1)] * 2
    assert str(seen_at(2)).startswith("in transition from nothing to live")
    assert at(entries, "fraud", moment(START)) == NOTHING
    with pytest.raises(Invalid, match="not before the log's first entry"):
        seen_at(-0.001)


# --- what cannot be written


@pytest.mark.parametrize(("reason", "why"), [("x" * 2001, "2000"), ("\ud800", "reason")])
def test_what_an_entry_cannot_hold_is_said_in_a_sentence(reason: str, why: str) -> None:
    log = memory_log()
    log.begin({})
    with pytest.raises(Invalid, match=why):
        log.append(lambda _: Draft(Released(release=V1, number=1), ("credit",), begins=True, reason=reason))
    assert log.state().next == 1


def test_the_log_of_another_environment_is_not_read_as_this_one() -> None:
    shelf = Shelf()
    memory_log(shelf).begin({})
    shelf.put_new("log/production/000000000000", shelf.held["log/local/000000000000"])
    log = memory_log(shelf)
    log.environment = "production"
    with pytest.raises(IllegalEntry, match="it is of the log of local"):
        log.state()
