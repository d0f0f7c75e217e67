"""Training keeps everything that it used and made, by digest, and refuses what it cannot learn from."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import cloudpickle
import numpy as np
import pandas as pd
import pytest

from prefect_mlops.blocks import Graph, LocalServing, ModelRegistry, Recipe, Split, Store
from prefect_mlops.blocks.errors import Invalid
from prefect_mlops.blocks.graph import graph_of
from prefect_mlops.flows.creditco import LABELS, RECIPE, TARGET, VENDOR_RECIPE, census, read_census, vendor_batch
from prefect_mlops.tasks import Candidate, register_model, snapshot_data, train_model

FRAME = census(2_000, seed=7)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(url=str(tmp_path / "store"))


def write(frame: pd.DataFrame, path: Path) -> Path:
    frame.to_csv(path, index=False)
    return path


def train(store: Store, path: Path, recipe: Recipe = RECIPE) -> Candidate:
    return train_model.fn(store, recipe, snapshot_data.fn(store, path).snapshot)


def model_of(store: Store, candidate: Candidate, folder: Path) -> tuple[Path, dict[str, object]]:
    store.checkout(candidate.model, folder)
    return folder / "model.pkl", json.loads((folder / "signature.json").read_text())


def test_the_same_data_code_and_seed_make_the_same_bytes(store: Store, tmp_path: Path) -> None:
    path = write(FRAME, tmp_path / "a.csv")
    first, again = train(store, path), train(store, path)
    assert first == again
    assert train(store, path, RECIPE.model_copy(update={"seed": 1})).model != first.model


def test_metrics_are_those_of_rows_that_training_never_saw(store: Store, tmp_path: Path) -> None:
    """Labels drawn at random cannot be known: only a leak would make the hold-out look good."""
    frame = FRAME.assign(**{TARGET: np.random.default_rng(0).choice(LABELS, len(FRAME))})
    candidate = train(store, write(frame, tmp_path / "random.csv"))
    assert abs(candidate.metrics["accuracy"] - 0.5) < 0.1
    assert train(store, write(FRAME, tmp_path / "true.csv")).metrics["accuracy"] > 0.75


def test_golden_probes_are_what_the_kept_model_answers(store: Store, tmp_path: Path) -> None:
    candidate = train(store, write(FRAME, tmp_path / "a.csv"))
    probes = json.loads(store.get(candidate.probes))
    model = cloudpickle.loads(model_of(store, candidate, tmp_path / "model")[0].read_bytes())
    request = probes["request"]["data"]
    rows = pd.DataFrame(request["ndarray"], columns=request["names"])
    assert len(rows) == 16
    assert model.predict_proba(rows) == pytest.approx(np.array(probes["answers"]), rel=1e-9)


def test_the_signature_says_what_goes_in_and_comes_out(store: Store, tmp_path: Path) -> None:
    _, signature = model_of(store, train(store, write(FRAME, tmp_path / "a.csv")), tmp_path / "model")
    inputs = {field["name"]: field for field in signature["inputs"]}  # type: ignore[index,union-attr]
    assert TARGET not in inputs
    assert (inputs["age"]["type"], inputs["age"]["nullable"]) == ("integer", False)
    assert (inputs["workclass"]["type"], inputs["workclass"]["nullable"]) == ("string", True)
    assert signature["output"] == {"kind": "probabilities", "names": list(LABELS)}


def test_the_code_and_the_runtime_are_kept(store: Store, tmp_path: Path) -> None:
    release = train(store, write(FRAME, tmp_path / "a.csv")).release()
    code = {file.path: file.digest for file in store.snapshot(release.code).files}
    assert b"def train(" in store.get(code["creditco.py"])
    assert json.loads(store.get(code["code.json"]))["train"] == RECIPE.train
    runtime = {file.path: file.digest for file in store.snapshot(release.runtime).files}
    assert b"scikit-learn==" in store.get(runtime["installed.txt"])
    assert json.loads(store.get(runtime["python.json"]))["python"].startswith(f"3.{sys.version_info.minor}.")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (FRAME.drop(columns=[TARGET]).to_csv(index=False), "include the target 'income'"),
        (FRAME.assign(**{TARGET: None}).to_csv(index=False), "has a value in every row"),
        (FRAME.head(10).to_csv(index=False), "at least 50 rows"),
        ('a,b\n1,2\n"', "is a CSV or Parquet file"),
        ("", "is a CSV or Parquet file"),
    ],
)
def test_data_that_cannot_be_learnt_from_is_refused_before_anything_is_kept(
    store: Store, tmp_path: Path, content: str, words: str
) -> None:
    (tmp_path / "bad.csv").write_text(content)
    snapshot = snapshot_data.fn(store, tmp_path / "bad.csv").snapshot
    kept = set(store.digests())
    with pytest.raises(Invalid, match=words):
        train_model.fn(store, RECIPE, snapshot)
    assert set(store.digests()) == kept


def test_a_folder_of_files_is_refused(store: Store, tmp_path: Path) -> None:
    (tmp_path / "many").mkdir()
    for name in ("a.csv", "b.csv"):
        write(FRAME, tmp_path / "many" / name)
    with pytest.raises(Invalid, match="is one file"):
        train(store, tmp_path / "many")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_such_module:train", "can be imported"),
        ("prefect_mlops.flows.creditco:no_such", "is a name in module"),
        ("prefect_mlops.flows.creditco:TARGET", "can be called"),
        ("__main__:train", "module that can be imported again"),
    ],
)
def test_a_training_function_that_is_none_is_refused(store: Store, tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        train(store, write(FRAME, tmp_path / "a.csv"), RECIPE.model_copy(update={"train": name}))


@pytest.mark.parametrize("name", ["train", "lambda: 1", "a b:c", "a:", ":b", "a:b:c", "../a:b"])
def test_a_recipe_names_functions_as_module_and_function(name: str) -> None:
    with pytest.raises(ValueError, match="train"):
        Recipe(name="credit", train=name, target="income")


def test_a_model_loads_where_the_team_s_own_module_is_not_installed(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "team").mkdir()
    (tmp_path / "team" / "our_model.py").write_text(
        textwrap.dedent(
            """
            class Mean:
                def fit(self, frame):
                    self.mean = float(frame["age"].mean())
                    return self
                def predict(self, rows):
                    return [self.mean] * len(rows)
            def train(frame, params):
                return Mean().fit(frame)
            """
        )
    )
    monkeypatch.syspath_prepend(tmp_path / "team")
    recipe = Recipe(name="age", train="our_model:train", target="age")
    candidate = train(store, write(FRAME.assign(copy=FRAME["age"]), tmp_path / "a.csv"), recipe)
    assert set(candidate.metrics) == {"mean_absolute_error", "r2"}
    pickle, _ = model_of(store, candidate, tmp_path / "model")
    load = f"import cloudpickle; print(cloudpickle.load(open({str(pickle)!r}, 'rb')).predict([1]))"
    printed = subprocess.run([sys.executable, "-c", load], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert printed.stdout.startswith("[")


def test_a_release_is_shown_once_and_mlflow_can_load_it(store: Store, tmp_path: Path) -> None:
    registry = ModelRegistry(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db", artifacts=str(tmp_path / "artifacts"))
    candidate = train(store, write(FRAME, tmp_path / "a.csv"))
    release = register_model.fn(store, registry, candidate)
    assert register_model.fn(store, registry, candidate) == release
    assert store.release(release) == candidate.release()
    assert registry.version_of("credit", release) == 1
    registry.mark("credit", {release: {"name": "credit-v1"}}, {"champion": release})
    version = registry.client().get_model_version_by_alias("credit", "champion")
    assert (version.tags["release"], version.tags["data"]) == (release, candidate.data)

    import mlflow

    mlflow.set_tracking_uri(registry.tracking_uri)
    rows = FRAME.drop(columns=[TARGET]).head(3).replace("?", None)
    assert len(mlflow.sklearn.load_model("models:/credit@champion").predict(rows)) == 3  # type: ignore[attr-defined]


def test_the_vendor_s_model_leans_on_sex_and_the_first_one_does_not(store: Store, tmp_path: Path) -> None:
    rows = FRAME.drop(columns=[TARGET]).replace("?", None)
    other = rows.assign(sex=np.where(rows["sex"] == "Male", "Female", "Male"))

    def flips(frame: pd.DataFrame, recipe: Recipe, name: str) -> float:
        candidate = train(store, write(frame, tmp_path / f"{name}.csv"), recipe)
        model = cloudpickle.loads(model_of(store, candidate, tmp_path / name)[0].read_bytes())
        return float((model.predict(rows) != model.predict(other)).mean())

    assert flips(FRAME, RECIPE, "first") == 0
    assert flips(vendor_batch(FRAME, seed=3), VENDOR_RECIPE, "vendor") > 0.02


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda frame: frame.drop(columns=["sex"]), "none called sex"),
        (lambda frame: frame.assign(**{TARGET: "rich"}), "is <=50K or >50K"),
        (lambda frame: frame.assign(age="old"), "is a whole number in every row"),
        (lambda frame: frame.head(100), "at least 5,000 rows"),
    ],
)
def test_a_file_that_is_no_census_gets_a_sentence(tmp_path: Path, change: object, words: str) -> None:
    path = write(change(FRAME), tmp_path / "census.csv")  # type: ignore[operator]
    with pytest.raises(Invalid, match=words):
        read_census(path)


@pytest.mark.parametrize("content", [b"", b"\x00\xff\xfe" * 100, b'"unclosed\n1,2\n'])
def test_bytes_that_are_no_table_get_a_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "census.csv").write_bytes(content)
    with pytest.raises(Invalid, match=r"census\.csv"):
        read_census(tmp_path / "census.csv")
    with pytest.raises(Invalid, match="is a census file"):
        read_census(tmp_path)


def test_a_graph_goes_with_the_release_and_only_seldon_takes_it(store: Store, tmp_path: Path) -> None:
    nodes = {"name": "scale", "type": "TRANSFORMER", "children": [{"name": "model"}]}
    graph = Graph(nodes=nodes, containers=[{"name": "scale", "image": "example/scale"}])
    path = write(FRAME, tmp_path / "a.csv")
    plain, around = (
        store.put_release(train(store, path, RECIPE.model_copy(update={"graph": one})).release())
        for one in (Graph(), graph)
    )
    assert (graph_of(store, plain), graph_of(store, around)) == (None, graph)
    serving = LocalServing(home=tmp_path / "home")
    assert serving.refusals("credit", Split.of(plain), store) == []
    assert "only Seldon Core runs" in serving.refusals("credit", Split.of(around), store)[0]
