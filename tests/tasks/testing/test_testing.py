"""The task: evidence, what is live, the model in its server, and what happens to who does not pass."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from prefect_mlops.blocks import (
    Answers,
    BeatsChampion,
    Custom,
    Floor,
    Invariant,
    NoLargerThan,
    NoSlowerThan,
    Recipe,
)
from prefect_mlops.blocks.errors import Invalid, TestsNotPassed
from prefect_mlops.flows.creditco import CONTESTED, census, vendor_batch
from prefect_mlops.tasks import test_model
from tests.tasks.testing import seeded
from tests.tasks.testing.conftest import ROWS, Bench, outcomes, servers, with_tests

FRAME = census(ROWS, seed=1)
PLAIN = seeded.recipe("plain")


def explode(model: Any, holdout: pd.DataFrame, params: dict[str, Any]) -> bool:
    raise RuntimeError("not today")


def test_the_evidence_says_what_was_asked_and_found_and_a_release_names_it(bench: Bench) -> None:
    recipe = with_tests(PLAIN, Floor("accuracy", 0.7), Invariant("sex"))
    tested = bench.test(FRAME, recipe)
    assert tested.need_passed() == tested.candidate
    evidence = json.loads(bench.store.get(tested.candidate.release().tests))
    first = evidence["verdicts"][0]
    assert (first["test"], first["outcome"]) == ("accuracy floor", "passed")
    assert first["threshold"] == {"metric": "accuracy", "at_least": 0.7}
    assert first["detail"] == tested.verdicts[0].detail
    assert evidence["metrics"] == tested.candidate.metrics
    assert evidence["holdout"] | {"rows": 0} == {"by": "content", "seed": 0, "percent": 20, "rows": 0}
    assert evidence["curves"]["roc"][0] == [0, 0]


def test_the_same_model_and_data_leave_the_same_evidence_whatever_took_how_long(bench: Bench, champion: str) -> None:
    recipe = with_tests(PLAIN, NoSlowerThan(p95_ms=5_000), BeatsChampion())
    first, again = (bench.test(FRAME, recipe, champion) for _ in range(2))
    assert first.candidate == again.candidate
    assert " ms, 5000 ms allowed" in first.verdicts[-1].detail
    assert " ms" not in bench.store.get(first.candidate.tests).decode()
    assert servers() == []


def test_one_that_raises_could_not_be_measured_and_the_others_still_run(bench: Bench) -> None:
    tests = (Floor("accuracy", 0.99), NoLargerThan(1), Custom(f"{__name__}:explode"))
    tested = bench.test(FRAME, with_tests(PLAIN, *tests))
    assert outcomes(tested) == {"accuracy floor": "failed", "size": "passed", "explode": "could not be measured"}
    with pytest.raises(TestsNotPassed, match="explode could not be measured: RuntimeError: not today") as stopped:
        tested.need_passed()
    assert [test for test, _, _ in stopped.value.verdicts] == ["accuracy floor", "explode"]
    assert stopped.value.evidence == tested.candidate.tests
    assert str(pickle.loads(pickle.dumps(stopped.value))) == str(stopped.value)


@pytest.mark.parametrize("other", [{"seed": 1}, {"holdout_percent": 30}])
def test_a_candidate_is_tested_by_the_recipe_that_it_was_trained_by(bench: Bench, other: dict[str, Any]) -> None:
    """By another one, rows would count as held out that it was trained on."""
    candidate = bench.train(FRAME, PLAIN)
    with pytest.raises(Invalid, match="the hold-out of credit is that of its recipe"):
        test_model.fn(bench.store, PLAIN.model_copy(update=other), candidate)


def test_the_first_model_has_nothing_to_beat(bench: Bench) -> None:
    verdict = bench.test(FRAME, with_tests(PLAIN, BeatsChampion())).verdicts[0]
    assert (verdict.outcome, verdict.detail) == ("passed", "nothing is live yet to compare with")


def compared_rows(bench: Bench, recipe: Recipe, champion: str) -> tuple[str, str]:
    verdict = bench.test(FRAME, with_tests(recipe, BeatsChampion()), champion).verdicts[0]
    return verdict.outcome, verdict.detail


@pytest.fixture(scope="module")
def held(bench: Bench) -> int:
    """How many rows are held out of `FRAME`."""
    tested = bench.test(FRAME, with_tests(PLAIN, Floor("accuracy", 0)))
    return json.loads(bench.store.get(tested.candidate.tests))["holdout"]["rows"]


def test_all_held_out_rows_are_new_to_a_champion_of_an_earlier_version_of_the_data(bench: Bench, held: int) -> None:
    before = bench.release(FRAME.sample(frac=0.8, random_state=0), PLAIN)
    outcome, detail = compared_rows(bench, PLAIN, before)
    assert outcome == "passed"
    assert f"on {held} rows that neither has seen" in detail


def test_rows_that_the_champion_was_trained_on_are_left_out(bench: Bench, held: int) -> None:
    before = bench.release(FRAME, seeded.recipe("plain", 7).model_copy(update={"holdout_percent": 40}))
    _, detail = compared_rows(bench, PLAIN, before)
    rows = int(detail.partition(" rows that neither")[0].rpartition(" ")[2])
    assert 0.3 * held < rows < 0.5 * held


def test_a_champion_that_has_seen_nearly_all_rows_cannot_be_compared(bench: Bench) -> None:
    before = bench.release(FRAME, seeded.recipe("plain", 7).model_copy(update={"holdout_percent": 1}))
    outcome, detail = compared_rows(bench, PLAIN, before)
    assert outcome == "could not be measured"
    assert "held out rows are new to the champion, 30 are needed" in detail


def test_a_champion_that_does_not_say_what_it_has_seen_has_seen_all_of_its_data(bench: Bench) -> None:
    document = bench.train(FRAME, PLAIN).release()
    old = bench.store.put(b'{"format": 1, "holdout_rows": 300, "metrics": {}, "verdicts": []}')
    before = bench.store.put_release(document.model_copy(update={"tests": old}))
    outcome, detail = compared_rows(bench, PLAIN, before)
    assert (outcome, detail.partition(" of ")[0]) == ("could not be measured", "0")


def test_a_champion_without_a_column_of_the_new_data_is_compared(bench: Bench, held: int) -> None:
    before = bench.release(FRAME.drop(columns=["capital-loss"]), PLAIN)
    outcome, detail = compared_rows(bench, PLAIN, before)
    assert outcome != "could not be measured"
    assert "that neither has seen" in detail


@pytest.mark.parametrize(
    ("train", "words"),
    [
        pytest.param("moody", "answers differ from those in training", marks=pytest.mark.slow),
        ("neighbourly", "row 0 alone: 1 answers differ"),
        ("homesick", "where am I?"),
    ],
)
def test_a_model_that_answers_otherwise_in_its_server_is_stopped(bench: Bench, train: str, words: str) -> None:
    recipe = with_tests(PLAIN, Answers(), NoSlowerThan(), train=f"{seeded.__name__}:{train}")
    verdict = bench.test(FRAME, recipe).verdicts[0]
    assert verdict.test == "answers in the server"
    assert (verdict.outcome, words in verdict.detail) == ("failed", True), verdict.detail
    assert servers() == []


def test_the_server_does_not_outlive_tests_that_are_killed(bench: Bench, tmp_path: Path) -> None:
    files = bench.store.checkout(bench.train(FRAME, PLAIN).model, tmp_path / "model")
    (tmp_path / "files.json").write_bytes(files.canonical())
    program = f"""
from pathlib import Path
from prefect_mlops.blocks import Snapshot
from prefect_mlops.tasks._judges.server import serving
home = Path({str(tmp_path)!r})
with serving("credit", home / "model", Snapshot.model_validate_json((home / "files.json").read_bytes())):
    print("ready", flush=True)
    input()
"""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as tester:
        assert tester.stdout is not None
        assert tester.stdout.readline() == b"ready\n"
        (server,) = psutil.Process(tester.pid).children()
        tester.kill()
    server.wait(20)


def hours(frame: pd.DataFrame, params: dict[str, Any]) -> Any:
    numbers = FunctionTransformer(lambda rows: rows[["age", "education-num"]].assign(rich=rows["income"] == ">50K"))
    return make_pipeline(numbers, LinearRegression()).fit(frame, frame["hours-per-week"])


def test_a_model_of_numbers_goes_through_the_default_tests(bench: Bench) -> None:
    recipe = Recipe(name="hours", train=f"{__name__}:hours", target="hours-per-week", contested=["sex"])
    before = bench.release(census(ROWS, seed=3), recipe)
    found = outcomes(bench.test(FRAME, recipe, before))
    assert set(found.values()) == {"passed"}, found


def test_the_vendor_s_model_is_stopped_and_the_sentence_says_why(bench: Bench, champion: str) -> None:
    recipe = seeded.recipe("plain", ignore=["fnlwgt"])
    tests = [Invariant(column) for column in CONTESTED]
    with pytest.raises(
        TestsNotPassed, match=r"flip\(sex\) failed: changes 1\d\.\d % of answers, at most 1\.0 % allowed"
    ):
        bench.test(vendor_batch(FRAME, seed=2), with_tests(recipe, *tests), champion).need_passed()
