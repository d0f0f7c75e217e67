"""The way between two splits: whatever is there, and whatever is up, nobody waits for an answer."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from prefect_mlops.blocks._seldon_path import Stage, Standing, path

NAMES = ["ra", "rb", "rc"]
SHADOWS = ["sa", "sb", "sc"]


@st.composite
def shares(draw: st.DrawFn, names: list[str]) -> dict[str, int]:
    """Whole percents of some names that are 100 together; some of them may get nothing."""
    if not names:
        return {}
    cuts = sorted(draw(st.lists(st.integers(0, 100), min_size=len(names) - 1, max_size=len(names) - 1)))
    return dict(zip(names, (b - a for a, b in zip([0, *cuts], [*cuts, 100], strict=True)), strict=True))


@st.composite
def stages(draw: st.DrawFn) -> Stage:
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
    percents = dict(sorted(draw(shares(names)).items(), key=lambda one: one[1] == 0))
    shadow = draw(st.sampled_from([None, *SHADOWS]))
    if shadow is None:
        return Stage(percents)
    return Stage(percents | {shadow: draw(st.integers(1, 100))}, frozenset({shadow}))


@st.composite
def places(draw: st.DrawFn) -> list[Standing]:
    """What may be there: whatever was asked for last, in whatever state its pods are."""
    if draw(st.booleans()):
        return []
    stage = draw(stages())
    found: list[Standing] = []
    for name, percent in stage.percents.items():
        answers = draw(st.booleans())
        up = answers and draw(st.booleans())
        shadow = name in stage.shadows
        found.append(Standing(name, 0 if shadow else percent, answers=answers, is_up=up, is_shadow=shadow))
    return found


@given(places(), stages())
def test_it_ends_where_it_shall_in_few_steps(there: list[Standing], wanted: Stage) -> None:
    way = path(there, wanted)
    assert way[-1] == wanted
    assert 1 <= len(way) <= 3


@given(places(), stages())
def test_each_list_is_one_that_seldon_takes(there: list[Standing], wanted: Stage) -> None:
    for stage in path(there, wanted):
        assert sum(stage.weights.values()) == 100
        assert len(stage.shadows & set(stage.percents)) <= 1
        first = next(iter(stage.percents))
        assert stage.percents[first] > 0
        assert first not in stage.shadows


@given(places(), stages())
def test_what_is_started_answers_nobody_before_it_is_up(there: list[Standing], wanted: Stage) -> None:
    up = {one.name for one in there if one.is_up}
    if not any(one.answers and one.percent and not one.is_shadow for one in there):
        return  # nobody answers anyway, so there is nothing to wait for
    assert set(path(there, wanted)[0].weights) - up <= {one.name for one in there if one.answers}


@given(places(), stages())
def test_nothing_that_is_asked_is_taken_away_in_the_step_that_moves_its_requests(
    there: list[Standing], wanted: Stage
) -> None:
    whole = {one.name for one in there if one.is_up}  # what is not would hold up the weights, so it may go with them
    routed = {one.name for one in there if one.percent and not one.is_shadow}
    for stage in path(there, wanted):
        assert routed & whole <= set(stage.percents)
        routed = set(stage.weights)


@given(places(), stages())
def test_what_does_not_answer_and_is_not_wanted_goes_first(there: list[Standing], wanted: Stage) -> None:
    useless = {one.name for one in there if not one.answers} - set(wanted.percents)
    assert not useless & set(path(there, wanted)[0].percents)


@given(places(), stages())
def test_the_way_from_the_end_is_no_way(there: list[Standing], wanted: Stage) -> None:
    del there
    arrived = [
        Standing(
            name, 0 if name in wanted.shadows else percent, answers=True, is_up=True, is_shadow=name in wanted.shadows
        )
        for name, percent in wanted.percents.items()
    ]
    assert path(arrived, wanted) == [wanted]
    without = [replace(one, answers=False, is_up=False) for one in arrived]
    assert path(without, wanted) == [wanted]
