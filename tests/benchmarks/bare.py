"""The work of a release in plain Prefect tasks, with the same libraries, files and model server, and no promises.

No store, no digests, no log, no gateway, no fence, no evidence: what a careful team would write in an afternoon.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import pandas as pd
from prefect import task

from prefect_mlops.blocks._canonical import digest
from prefect_mlops.blocks.release import File, Snapshot
from prefect_mlops.flows import creditco
from prefect_mlops.flows.creditco import RECIPE, TARGET, train
from prefect_mlops.tasks import _learning
from prefect_mlops.tasks._runtime import requirements
from prefect_mlops.tasks._suites import read_suite

SUITE: dict[str, Any] = json.loads(read_suite(RECIPE.expectations).document)


class Trained(NamedTuple):
    """A model, the folder of its files, and the rows that it was trained and not trained on."""

    learned: _learning.Learned
    folder: Path
    training: pd.DataFrame
    held: pd.DataFrame


@task(persist_result=False)
def snapshot(path: Path, folder: Path) -> int:
    """Keep a copy of a file; says how many rows it has."""
    rows = len(pd.read_csv(path))
    copy = folder / path.name
    shutil.copy(path, copy)
    _sync(copy, folder)
    return rows


@task(persist_result=False)
def move(folder: Path, commit: str) -> None:
    """Write down where a branch is."""
    draft = folder / "branch.new"
    draft.write_text(json.dumps({"branch": "main", "commit": commit}))
    _sync(draft)
    draft.replace(folder / "branch")
    _sync(folder)


def _sync(*paths: Path) -> None:
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


@task(persist_result=False)
def validation(path: Path) -> None:
    """Have Great Expectations look at a file."""
    import great_expectations as gx

    frame = pd.read_csv(path, na_values=RECIPE.missing, keep_default_na=False)
    asset = gx.get_context(mode="ephemeral").data_sources.add_pandas("pandas").add_dataframe_asset("census")
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})
    found = batch.validate(gx.ExpectationSuite(**SUITE))
    assert found.success, found


@task(persist_result=False)
def training(path: Path, folder: Path) -> Trained:
    """Train on a part of a file, measure on the rest, write the model's files."""
    frame = _learning.parsed(path, RECIPE)
    learned = _learning.learn(train, RECIPE, frame)
    _learning.write_model(learned, RECIPE, folder / "model")
    held = frame.sample(frac=0.2, random_state=0)
    return Trained(learned, folder / "model", frame.drop(held.index), held)


@task(persist_result=False)
def testing(trained: Trained, champion: Any) -> None:
    """The default tests of a model, each in a few lines; they fail where it is no good."""
    model, held, truth = trained.learned.model, trained.held.drop(columns=[TARGET]), trained.held[TARGET]
    answered, area = model.predict(held), _area(model, trained.held)
    for column in RECIPE.contested:
        for value in held[column].dropna().unique():
            assert (model.predict(held.assign(**{column: value})) != answered).mean() <= 0.01
    assert champion is None or _area(champion, trained.held) - area <= 0.02
    assert _area(_linear(trained.training), trained.held) - area <= 0.1
    assert _area(model, trained.training) - area <= 0.2
    assert area < 0.995
    assert _signal(trained.training) >= 0.8
    assert sum(file.stat().st_size for file in trained.folder.iterdir()) <= 200e6
    assert len(truth) == len(answered)
    with serving(trained.folder, 1) as [client]:
        rows = _learning.rows_of(held.head(100))
        names = list(held.columns)
        _ask(client, names, rows[:50])
        seconds: list[float] = []
        for row in rows * 3:
            began = time.perf_counter()
            _ask(client, names, [row])
            seconds.append(time.perf_counter() - began)
        assert np.quantile(seconds, 0.95) <= 0.1


def _area(model: Any, rows: pd.DataFrame) -> float:
    from sklearn.metrics import roc_auc_score

    scores = model.predict_proba(rows.drop(columns=[TARGET]))[:, 1]
    return float(roc_auc_score(rows[TARGET] == model.classes_[1], scores))


def _linear(rows: pd.DataFrame) -> Any:
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    features = rows.drop(columns=[TARGET])
    used = features.drop(columns=RECIPE.contested)
    numbers = list(used.select_dtypes("number").columns)
    columns = make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), numbers),
        (OneHotEncoder(handle_unknown="ignore"), [name for name in used.columns if name not in numbers]),
    )
    return make_pipeline(columns, LogisticRegression(max_iter=2_000)).fit(features, rows[TARGET])


def _signal(rows: pd.DataFrame) -> float:
    """How well a model learns that the target follows the hours worked, on 1,000 rows."""
    made = rows.sample(2_000, random_state=1).reset_index(drop=True)
    rank = made.select_dtypes("number").rank(pct=True).mean(axis=1)
    made[TARGET] = np.where(rank > rank.median(), ">50K", "<=50K")
    return _area(train(made.head(1_000), {**RECIPE.params, "seed": 0}), made.tail(1_000))


@task(persist_result=False)
def registration(tracking_uri: str, artifacts: str, trained: Trained) -> None:
    """Show a model in MLflow, with its curves."""
    import mlflow
    import mlflow.sklearn as flavor
    from matplotlib import pyplot as plt
    from sklearn.calibration import CalibrationDisplay
    from sklearn.metrics import RocCurveDisplay

    plt.switch_backend("agg")
    mlflow.set_tracking_uri(tracking_uri)
    if mlflow.get_experiment_by_name("bare") is None:
        mlflow.create_experiment("bare", artifacts)
    mlflow.set_experiment("bare")
    with mlflow.start_run():
        mlflow.log_params({name: str(value) for name, value in RECIPE.params.items()})
        mlflow.log_metrics(trained.learned.metrics)
        mlflow.log_artifact(str(trained.folder / "signature.json"))
        mlflow.log_artifact(creditco.__file__)
        mlflow.log_text("\n".join(requirements(RECIPE)), "requirements.txt")
        truth, scores = trained.held[TARGET] == ">50K", trained.learned.model.predict_proba(trained.held)[:, 1]
        for name, display in (("roc", RocCurveDisplay), ("calibration", CalibrationDisplay)):
            mlflow.log_figure(display.from_predictions(truth, scores).figure_, f"{name}.png")
        flavor.log_model(
            trained.learned.model,
            name="model",
            serialization_format="cloudpickle",
            pip_requirements=requirements(RECIPE),
            registered_model_name="bare",
        )
    plt.close("all")


@contextmanager
def serving(folder: Path, count: int) -> Generator[list[httpx.Client]]:
    """Model servers that answer; a client of each."""
    with ExitStack() as stack:
        started = [_started(folder, folder.parent / f"server-{time.monotonic_ns()}", stack) for _ in range(count)]
        for client in started:
            _await(client)
        yield started


def _started(folder: Path, home: Path, stack: ExitStack) -> httpx.Client:
    home.mkdir()
    snapshot = Snapshot(files=tuple(_files(folder)))
    config: dict[str, Any] = {
        "service": "bare",
        "release": snapshot.id,
        "model": snapshot.id,
        "folder": str(folder),
        "files": [file.model_dump() for file in snapshot.files],
        "socket": str(home / "s"),
        "spool": str(home),
    }
    (home / "config.json").write_text(json.dumps(config))
    command = [sys.executable, "-m", "prefect_mlops.deployments.server", str(home / "config.json")]
    process = stack.enter_context(subprocess.Popen(command, stderr=subprocess.DEVNULL))
    stack.callback(process.terminate)
    transport = httpx.HTTPTransport(uds=str(home / "s"))
    return stack.enter_context(httpx.Client(transport=transport, base_url="http://bare", timeout=30))


def _files(folder: Path) -> Iterator[File]:
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        yield File(path=path.name, size=len(data), digest=digest(data))


def _await(client: httpx.Client) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            client.get("/health/status").raise_for_status()
            return
        except (httpx.TransportError, httpx.HTTPStatusError):
            if time.monotonic() > end:
                raise
            time.sleep(0.01)


def _ask(client: httpx.Client, names: list[str], rows: list[list[Any]]) -> None:
    request = {"data": {"names": names, "ndarray": rows}}
    client.post("/api/v1.0/predictions", json=request).raise_for_status()
