"""Model tests as a team writes them, and as a run's parameters and the forms have them."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from prefect_mlops.blocks import (
    Answers,
    BeatsBaseline,
    BeatsChampion,
    Custom,
    Direction,
    Floor,
    Generalises,
    Invariant,
    KnownSignal,
    ModelTest,
    NoLargerThan,
    NoSlowerThan,
    NotTooGood,
    PerSlice,
    Recipe,
)

EVERY_KIND: list[ModelTest] = [
    Floor("accuracy", 0.82),
    PerSlice("sex", "roc_auc", 0.7, 50),
    Invariant("sex", at_most=0.01),
    Direction("education-num", "up", by=2, at_most=0.1),
    BeatsChampion("roc_auc"),
    BeatsBaseline(margin=0.1),
    Generalises("accuracy", 0.1),
    NotTooGood("roc_auc", 0.99),
    KnownSignal(0.9, 500),
    Answers(20),
    NoSlowerThan(p95_ms=20),
    NoLargerThan(50),
    Custom("team.checks:holds", {"share": 0.5, "strict": True, "only": "sex"}),
]


def recipe(**more: Any) -> Recipe:
    return Recipe(name="credit", train="team.credit:train", target="income", **more)


def test_a_list_in_any_order_goes_through_json_and_comes_back_equal() -> None:
    written = recipe(tests=EVERY_KIND[::-1])
    assert list(written.tests) == EVERY_KIND
    assert Recipe.model_validate_json(written.model_dump_json()) == written
    assert Recipe.model_validate(written.model_dump()) == written
    assert Recipe.model_validate(written) == written


def test_a_run_s_parameters_have_every_threshold_by_kind() -> None:
    told = recipe(tests=[Invariant("sex"), Floor("accuracy", 0.8), Invariant("race", 0.05)]).model_dump(mode="json")
    assert told["tests"] == {
        "floors": [{"metric": "accuracy", "at_least": 0.8}],
        "invariants": [{"column": "sex", "at_most": 0.01}, {"column": "race", "at_most": 0.05}],
    }


def test_values_may_be_given_in_order_or_by_name() -> None:
    assert Floor("accuracy", 0.8) == Floor(metric="accuracy", at_least=0.8)
    assert PerSlice("sex", "accuracy", 0.8, 40) == PerSlice(column="sex", metric="accuracy", at_least=0.8, min_rows=40)


def test_more_values_than_it_has_are_refused() -> None:
    with pytest.raises(TypeError, match="Floor takes metric, at_least, got 3 values"):
        Floor(*("accuracy", 0.8, 0.9))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tests", "where"),
    [
        ([Invariant("sex"), Invariant("sex", at_most=0.5)], r"named once, got flip\(sex\)"),
        (["accuracy > 0.8"], "got 'accuracy > 0.8'"),
        ([ModelTest()], r"such as Floor\('accuracy', 0.8\)"),
        ({"floors": [{"metric": "accuracy", "at_least": 7}]}, r"tests.floors.0.at_least"),
        ({"floors": [{"metric": "accuracy", "at_least": 0.7, "atleast": 0.8}]}, r"tests.floors.0.atleast"),
        ({"flors": []}, r"tests.flors"),
    ],
)
def test_what_is_no_model_test_is_refused_where_it_stands(tests: Any, where: str) -> None:
    with pytest.raises(ValidationError, match=where):
        recipe(tests=tests)


@pytest.mark.parametrize("name", ["lambda: 1", "holds", "a:b:c", ":holds"])
def test_a_custom_test_is_named_as_module_and_function(name: str) -> None:
    with pytest.raises(ValidationError, match="function"):
        Custom(name)


def test_who_names_no_test_gets_the_default_ones_and_an_invariant_for_each_contested_column() -> None:
    names = [test.name for test in recipe(contested=["sex", "race"]).model_tests()]
    assert names[:2] == ["flip(sex)", "flip(race)"]
    assert len(names) == len(set(names)) == 10
    assert recipe(tests=[Floor("r2", 0.5)], contested=["sex"]).model_tests() == (Floor("r2", 0.5),)


def test_a_form_has_one_list_for_each_kind_and_no_choice_of_kinds() -> None:
    schema = recipe().model_json_schema()
    group = schema["$defs"][schema["properties"]["tests"]["$ref"].rpartition("/")[2]]["properties"]
    assert len(group) == len(EVERY_KIND)
    assert all(one["type"] == "array" and "$ref" in one["items"] for one in group.values())
    kinds = [schema["$defs"][one["items"]["$ref"].rpartition("/")[2]]["properties"] for one in group.values()]
    for inputs in (group, *kinds):
        for name, one in inputs.items():
            assert one["title"], name
            assert one["description"].endswith("."), name
            assert "anyOf" not in one, name
