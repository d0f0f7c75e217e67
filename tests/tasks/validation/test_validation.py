"""Data that does not meet what is expected is refused, or loses its bad rows, which are kept, counted and addressed."""

from __future__ import annotations

import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from prefect_mlops.blocks import Store
from prefect_mlops.blocks.branch import Branch
from prefect_mlops.blocks.errors import DataRefused, Invalid
from prefect_mlops.flows import creditco
from prefect_mlops.flows.creditco import census
from prefect_mlops.tasks import Validated, validate_data
from prefect_mlops.tasks.validation import Evidence
from tests.tasks.validation.conftest import Keep
from tests.tasks.validation.suites import expect, suite

CREDITCO = Path(creditco.__file__).with_name("creditco.suite.json")
FRAME = census(1_000, seed=7)
AGE = expect("column_values_to_be_between", "warning", column="age", min_value=16, max_value=120)
LABELS = expect("column_values_to_be_in_set", column="income", value_set=["<=50K", ">50K"])


def frame_of(store: Store, snapshot: str | None, folder: Path) -> pd.DataFrame:
    assert snapshot is not None
    store.checkout(snapshot, folder)
    return pd.read_parquet(next(folder.iterdir()))


def refusal(store: Store, commit: str, expectations: Any) -> DataRefused:
    with pytest.raises(DataRefused) as caught:
        validate_data.fn(store, commit, expectations)
    return caught.value


def test_data_as_expected_goes_on_as_it_is(store: Store, keep: Keep) -> None:
    commit = keep(FRAME)
    validated = validate_data.fn(store, commit, CREDITCO)
    assert (validated.commit, validated.rows, validated.bad_rows, validated.quarantine) == (commit, 1_000, 0, None)
    assert {check.outcome for check in validated.results} == {"passed"}
    assert Validated.model_validate_json(validated.model_dump_json()) == validated


@pytest.mark.parametrize("name", ["vendor.csv", "vendor.parquet"])
def test_bad_rows_are_set_aside_with_their_address(name: str, store: Store, keep: Keep, tmp_path: Path) -> None:
    frame = FRAME.copy()
    frame.loc[[43, 99], "age"] = 200
    frame.loc[[99, 500], "hours-per-week"] = 0
    hours = expect("column_values_to_be_between", "warning", column="hours-per-week", min_value=1)
    commit = keep(frame, name)
    validated = validate_data.fn(store, commit, suite(AGE, hours, LABELS))

    aside = frame_of(store, validated.quarantine, tmp_path / "aside")
    assert aside["_row"].tolist() == [44, 100, 501]
    assert [list(why) for why in aside["_failed"]] == [
        ["age: between 16 and 120"],
        ["age: between 16 and 120", "hours-per-week: at least 1"],
        ["hours-per-week: at least 1"],
    ]
    assert set(aside["_commit"]) == {commit}
    assert set(aside["_path"]) == {name}
    read = frame.assign(workclass=frame["workclass"].replace("?", float("nan"))) if name == "vendor.csv" else frame
    pd.testing.assert_frame_equal(aside[frame.columns], read.iloc[[43, 99, 500]].reset_index(drop=True))

    kept = store.commit_at(validated.commit)
    rest = frame_of(store, kept.snapshot, tmp_path / "kept")
    pd.testing.assert_frame_equal(rest, read.drop([43, 99, 500]).reset_index(drop=True))
    assert (kept.parents, kept.rows, kept.source) == ((commit,), 997, f"vendor:{name}")
    assert kept.extractor is not None
    assert kept.extractor.arguments == {"evidence": validated.evidence}
    assert [column.name for column in kept.columns] == list(frame.columns)
    assert (validated.rows, validated.bad_rows) == (997, 3)
    assert Branch(store, "staging").head == commit, "no branch was moved"
    assert validated.results[0].sentence == "age: 2 of 1,000 rows not between 16 and 120; first at row 44 (200)"
    assert sum(validated.results[0].spread) == 2


def test_what_was_kept_is_as_expected(store: Store, keep: Keep) -> None:
    frame = FRAME.copy()
    frame.loc[5, "age"] = 200
    once = validate_data.fn(store, keep(frame), suite(AGE, LABELS))
    assert validate_data.fn(store, once.commit, suite(AGE, LABELS)).commit == once.commit


def test_the_same_data_and_suite_leave_the_same_evidence(store: Store, keep: Keep) -> None:
    frame = FRAME.copy()
    frame.loc[5, "age"] = 200
    commit = keep(frame)
    first, again = (validate_data.fn(store, commit, suite(AGE)) for _ in range(2))
    assert (first.evidence, first.quarantine) == (again.evidence, again.quarantine)
    evidence = Evidence.model_validate_json(store.get(first.evidence))
    assert (evidence.rows, evidence.bad_rows, evidence.verdict, evidence.checks) == (1000, 1, "accepted", first.results)
    assert store.has(evidence.suite)


def spoilt(**columns: Any) -> pd.DataFrame:
    """The census with other values in some rows of some columns."""
    frame = FRAME.copy()
    for name, (rows, value) in columns.items():
        frame.loc[rows, name] = value
    return frame


STOPPED = {
    "the label spelled another way": (
        spoilt(income=(FRAME["income"] == ">50K", ">50K.")),
        [r"income: \d+ of 1,000 rows not in {<=50K, >50K}; first at row \d+ \('>50K.'\)", "income: .* missing {>50K}"],
    ),
    "a missing column": (
        FRAME.drop(columns="education"),
        ["the table: columns missing {education}", "education: there is no such column"],
    ),
    "a share of an unseen category": (
        spoilt(education=(range(100, 250), "Kindergarten")),
        [r"education: 150 of 1,000 rows not in {10th, .*} \(15 %, at most 5 % allowed\); first at row 101 \('Kinder"],
    ),
    "an impossible age": (
        spoilt(age=([16], 1911)),
        [r"age: 1 of 1,000 rows not between 16 and 120; first at row 17 \(1911\)"],
    ),
    "an age that is no number": (
        FRAME.astype({"age": str}).replace({"age": {"40": "forty"}}),
        [
            r"age: .* could not be measured: \d+ of 1,000 rows hold no number, first at row \d+ \('forty'\)",
        ],
    ),
    "half of it": (FRAME.head(400), ["the table: number of rows at least 500; found 400"]),
    "several at once": (
        spoilt(income=([3], "rich"), age=([4], -1)).drop(columns="sex"),
        [
            "columns missing {sex}",
            r"income: 1 of .* row 4 \('rich'\)",
            r"age: 1 of .* row 5 \(-1\)",
            "sex: there is no",
        ],
    ),
}


@pytest.mark.parametrize(("frame", "said"), STOPPED.values(), ids=STOPPED.keys())
def test_what_must_stop_stops_and_says_what_where_how_many(
    frame: pd.DataFrame, said: list[str], store: Store, keep: Keep
) -> None:
    commit = keep(frame)
    refused = refusal(store, commit, CREDITCO)
    assert len(refused.reasons) == len(said), refused
    for sentence in said:
        assert any(pd.Series([reason]).str.contains(sentence, regex=True)[0] for reason in refused.reasons), refused
    assert str(refused).startswith("vendor.csv is refused: ")
    assert commit in str(refused)
    assert str(pickle.loads(pickle.dumps(refused))) == str(refused)
    evidence = Evidence.model_validate_json(store.get(refused.evidence))
    assert (evidence.verdict, evidence.kept) == ("refused", None)


def test_the_rows_that_stopped_it_are_evidence(store: Store, keep: Keep, tmp_path: Path) -> None:
    refused = refusal(store, keep(spoilt(income=([16, 30], ">50K."))), CREDITCO)
    aside = frame_of(store, refused.quarantine, tmp_path / "aside")
    assert aside["_row"].tolist() == [17, 31]
    assert aside["income"].tolist() == [">50K.", ">50K."]
    assert "2 rows quarantined as " + str(refused.quarantine) in str(refused)


def test_a_few_of_an_unseen_category_are_set_aside(store: Store, keep: Keep) -> None:
    validated = validate_data.fn(store, keep(spoilt(education=(range(10), "Kindergarten"))), CREDITCO)
    assert (validated.rows, validated.bad_rows) == (990, 10)


def test_what_is_only_said_changes_nothing(store: Store, keep: Keep) -> None:
    commit = keep(spoilt(age=([1], 200)))
    mean = expect("column_mean_to_be_between", "warning", column="age", max_value=1)
    validated = validate_data.fn(store, commit, suite({**AGE, "severity": "info"}, mean))
    assert (validated.commit, validated.quarantine) == (commit, None)
    assert [check.outcome for check in validated.results] == ["failed", "failed"]


def test_rows_that_mostly_tolerates_stay(store: Store, keep: Keep) -> None:
    tolerant = expect("column_values_to_be_between", column="age", max_value=120, mostly=0.99)
    commit = keep(spoilt(age=(range(10), 200)))
    validated = validate_data.fn(store, commit, suite(tolerant))
    assert (validated.commit, validated.results[0].outcome, validated.results[0].bad) == (commit, "passed", 10)
    refusal(store, keep(spoilt(age=(range(11), 200))), suite(tolerant))


def test_nothing_to_look_at_is_not_passed(store: Store, keep: Keep) -> None:
    refused = refusal(store, keep(FRAME.assign(age=None)), suite({**AGE, "severity": "critical"}))
    assert refused.reasons == ("age: between 16 and 120; there is nothing to look at",)
    nobody = {"type": "comparison", "column": {"name": "sex"}, "operator": "==", "parameter": "nobody"}
    some = expect("column_values_to_not_be_null", column="workclass", row_condition=nobody)
    assert validate_data.fn(store, keep(FRAME), suite(some)).results[0].outcome == "passed"


def test_an_empty_table_is_not_passed(store: Store, keep: Keep) -> None:
    for name in ("vendor.csv", "vendor.parquet"):
        refused = refusal(store, keep(FRAME.head(0), name), CREDITCO)
        assert "the table: number of rows at least 500; found 0" in refused.reasons


def test_data_without_a_good_row_is_refused(store: Store, keep: Keep) -> None:
    refused = refusal(store, keep(FRAME.assign(age=200)), suite(AGE))
    assert refused.reasons == ("no row is left: something is against each of 1,000",)


def test_what_is_no_table_is_refused(store: Store, tmp_path: Path) -> None:
    (tmp_path / "two").mkdir()
    for name in ("a.csv", "b.csv"):
        (tmp_path / "two" / name).write_text("age\n1\n")
    two, _ = Branch(store, "main").commit(store.pack(tmp_path / "two"), source="two")
    with pytest.raises(Invalid, match=r"a table is one file, got \['a.csv', 'b.csv'\]"):
        validate_data.fn(store, two, suite(AGE))
    (tmp_path / "photo.csv").write_bytes(b"\xff\xd8\xff\xe0")
    photo, _ = Branch(store, "main").commit(store.pack(tmp_path / "photo.csv"), source="photo")
    with pytest.raises(Invalid, match=r"photo\.csv is a CSV or Parquet file"):
        validate_data.fn(store, photo, suite(AGE))
    with pytest.raises(Invalid, match="is a commit in canonical form"):
        validate_data.fn(store, store.put(b"no commit"), suite(AGE))


def test_rows_out_of_a_quarantine_lose_their_address_first(store: Store, keep: Keep, tmp_path: Path) -> None:
    aside = validate_data.fn(store, keep(spoilt(age=([3], 200))), suite(AGE)).quarantine
    again = keep(frame_of(store, aside, tmp_path / "aside"), "again.parquet")
    with pytest.raises(Invalid, match=r"are not called _commit, _path, _row, _failed, .* drop them"):
        validate_data.fn(store, again, suite(AGE))


def test_threads_do_not_mix_up_their_data(store: Store, keep: Keep) -> None:
    commits = [keep(spoilt(age=(range(bad), 200))) for bad in range(8)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda commit: validate_data.fn(store, commit, suite(AGE, LABELS)).bad_rows, commits))
    assert found == list(range(8))


ALONE = """
import sys
called = []
sys.addaudithook(lambda event, _: called.append(event) if event in {"socket.connect", "socket.getaddrinfo"} else None)
from prefect_mlops.blocks import Store
from prefect_mlops.tasks import validate_data
assert "great_expectations" not in sys.modules, "it takes seconds to import"
assert validate_data.fn(Store(url=sys.argv[1]), sys.argv[2], sys.argv[3]).bad_rows == 0
assert "great_expectations" in sys.modules
assert not called, called
"""


def test_nothing_is_printed_and_nobody_is_called(store: Store, keep: Keep) -> None:
    command = [sys.executable, "-c", ALONE, store.url, keep(FRAME), str(CREDITCO)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
