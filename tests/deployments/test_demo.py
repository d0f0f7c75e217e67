"""The story of `make demo`: told from nothing, on a file of one's own, and not at all on a wrong one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from prefect_mlops.blocks.entry import Released, Waiver
from prefect_mlops.blocks.errors import Invalid
from prefect_mlops.deployments.demo._batches import Batches, all_applications, questions
from prefect_mlops.deployments.demo._clients import Clients
from prefect_mlops.deployments.local.place import Place
from prefect_mlops.deployments.traffic import Answer
from prefect_mlops.flows.creditco import LABELS, LEAST_ROWS, TARGET, census, read_census
from tests.places import a_place, run, say

FRAME = census(LEAST_ROWS, seed=5)


def like_the_real_one(frame: pd.DataFrame, path: Path) -> Path:
    """A census file as it is published: a comma and a space between fields, and some hours that nobody works."""
    frame = frame.assign(**{"hours-per-week": frame["hours-per-week"].mask(frame.index % 500 == 7, 0)})
    path.write_text(frame.to_csv(index=False).replace(",", ", "))
    return path


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("own", [False, True])
def test_every_stage_is_seen(tmp_path_factory: pytest.TempPathFactory, own: bool) -> None:
    folder = tmp_path_factory.mktemp("demo")
    words = ("--data", str(like_the_real_one(FRAME, folder / "census.csv"))) if own else ()
    with a_place(folder / "home") as place:
        said = run(place.home, "demo", "--json", *words)
        assert said.code == 0, said.out + said.err
        told = said.document
        assert [stage["ok"] for stage in told["stages"]] == [True] * 6
        assert told["requests"]["failed"] == 0
        assert told["requests"]["total"] >= 5_000
        assert set(told["requests"]["by_release"]) == {"credit-v1", "credit-v2", "credit-v3"}
        assert own or _readme_shows(told["stages"])
        _log_tells_it_too(place, told["stages"])
        trace = run(place.home, "trace", told["stages"][5]["facts"]["request_id"]).out
        assert "credit-v3" in trace
        assert "applications-to-date.csv" in trace
        assert ("5,000 rows that came in" in trace) == own, "the rows that nobody believes were set aside"


def _readme_shows(stages: list[dict[str, Any]]) -> bool:
    """Whether the README's table has these stages, and expects of them what is expected."""
    shown = (Path(__file__).parents[2] / "README.md").read_text().splitlines()
    begins = len("why did applicant ")  # what follows differs from time to time
    return all(
        any(line.startswith(f" {number} {stage['name'][:begins]}") and stage["expected"] in line for line in shown)
        for number, stage in enumerate(stages, 1)
    )


def _log_tells_it_too(place: Place, stages: list[dict[str, Any]]) -> None:
    environment = place.environment()
    entries = list(environment.log().entries())
    [(waiver, body)] = [(entry, entry.body) for entry in entries if isinstance(entry.body, Waiver)]
    assert waiver.actor.name == "Ana Lima"
    assert waiver.reason
    assert body.shown == stages[2]["facts"]["evidence"]
    shown = json.loads(environment.store_block.get(body.shown))
    assert [one["test"] for one in shown["verdicts"] if one["outcome"] != "passed"] == ["flip(sex)"]
    assert [entry.body.number for entry in entries if isinstance(entry.body, Released)] == [1, 2, 3]
    known = environment.log().state().service("credit")
    assert [known.named(arm.release) for arm in known.split.live] == ["credit-v3"]


def test_batches_are_what_the_story_says_of_them(tmp_path: Path) -> None:
    batches = Batches.write(FRAME, tmp_path / "demo")
    first, odd, vendor, to_date = map(
        pd.read_csv, (batches.applications, batches.misspelt, batches.vendor, batches.to_date)
    )
    assert len(first) == len(odd) == len(vendor) == 0.6 * len(to_date)
    assert set(odd[TARGET]) == {*LABELS, ">50K.", " <=50k"}
    assert set(vendor[TARGET]) == set(LABELS)
    assert (vendor[TARGET] != first[TARGET]).any()
    features = [name for name in first.columns if name != TARGET]
    pd.testing.assert_frame_equal(vendor[features], first[features])


def test_clients_ask_for_what_is_missing_as_missing() -> None:
    asked = questions(FRAME)
    assert TARGET not in asked.columns
    assert asked["workclass"].isna().sum() == (FRAME["workclass"] == "?").sum() > 0


def test_answers_are_read_as_they_come(tmp_path: Path) -> None:
    clients = Clients("http://127.0.0.1:1/nowhere", questions(FRAME).head(2), tmp_path)
    try:
        found = clients.await_answers(3, since_ns=0)
    finally:
        clients.stop()
    assert {one.status for one in found} == {0}
    before = len(clients.answers())
    late = Answer(1, 2, 200, "sha256:a", "late")
    with clients.out.open("a") as file:
        file.write(late.line() + late.line()[:5])
    assert len(clients.answers()) == before + 1
    with clients.out.open("a") as file:
        file.write(late.line()[5:])
    assert clients.answers()[:2] == [late, late]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda frame: frame.drop(columns=["sex"]), "none called sex"),
        (lambda frame: frame.assign(age=frame["age"].mask(frame.index == 6, 999)), "age: 1 of 5,000 rows not between"),
        (lambda frame: frame.assign(income=frame["income"].replace(">50K", ">50K.")), "first in row"),
        (lambda frame: frame.assign(income=LABELS[0]), "each value in"),
        (lambda frame: frame.assign(education="unheard of"), "education: 5,000 of 5,000 rows not in"),
        (lambda frame: frame.assign(age="old"), "age in census.csv is a whole number"),
        (lambda frame: frame.head(100), "at least 5,000 rows"),
    ],
)
def test_a_wrong_file_gets_a_sentence(
    tmp_path: Path, change: Callable[[pd.DataFrame], pd.DataFrame], words: str
) -> None:
    path = tmp_path / "census.csv"
    change(FRAME).to_csv(path, index=False)
    with pytest.raises(Invalid, match=words) as refused:
        all_applications(path)
    assert "\n" not in str(refused.value)


def test_a_wrong_file_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "census.csv").write_text("a,b\n1,2\n")
    said = say(tmp_path / "home", "demo", "--data", str(tmp_path / "census.csv"))
    assert said.code == 2
    assert said.err.startswith("prefect-mlops: the columns of census.csv include all of a census file's")
    assert len(said.err.splitlines()) == 1
    assert not (tmp_path / "home").exists()


def test_a_published_file_is_read(tmp_path: Path) -> None:
    frame = read_census(like_the_real_one(FRAME, tmp_path / "census.csv"))
    assert list(frame.columns) == list(FRAME.columns)
    assert len(frame) == len(FRAME)
