"""What the README shows is run, word for word."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import textwrap
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from prefect import Task

from prefect_mlops import tasks
from prefect_mlops.blocks import Environment
from prefect_mlops.blocks.errors import DataRefused
from prefect_mlops.blocks.model_tests import default_tests
from prefect_mlops.deployments.demo._batches import questions
from prefect_mlops.deployments.demo._clients import asking
from prefect_mlops.deployments.local.place import Place
from prefect_mlops.flows.creditco import census, misspelt
from tests.places import a_place, run

README = Path(__file__).parents[2] / "README.md"


def blocks(language: str) -> list[str]:
    """The README's code blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture
def team(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a team: its package, its suite as the README shows it, its data."""
    package = tmp_path / "my_team"
    package.mkdir()
    (package / "__init__.py").touch()
    source = """
        from sklearn.compose import make_column_selector, make_column_transformer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import OneHotEncoder, StandardScaler

        def train(frame, params):
            columns = make_column_transformer(
                (StandardScaler(), make_column_selector(dtype_include="number")),
                (OneHotEncoder(handle_unknown="ignore"), ["occupation"]),
            )
            model = make_pipeline(columns, LogisticRegression(C=params["C"], max_iter=500))
            return model.fit(frame.drop(columns=["income"]), frame["income"])
    """
    (package / "credit.py").write_text(textwrap.dedent(source))
    (suite,) = blocks("json")
    (package / "credit.suite.json").write_text(suite)
    census(3_000, seed=11).to_csv(tmp_path / "applications.csv", index=False)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_its_own_model_goes_live_and_a_task_works_alone(tmp_path_factory: pytest.TempPathFactory, team: Path) -> None:
    recipe, release, nightly = blocks("python")
    with a_place(tmp_path_factory.mktemp("readme") / "home") as place:
        names: dict[str, Any] = {}
        place.up(worker=False)
        with place.settings():
            exec(recipe, names)
            exec(release, names)
            frame = pd.concat([census(3_000, seed=11), census(3_000, seed=12)])
            frame.to_csv(team / "applications.csv", index=False)
            service = Environment.find("local").target.address("credit").url
            with asking(service, questions(frame), tmp_path_factory.mktemp("clients")):
                exec(release, names)  # now there is something to be the shadow of
            exec(nightly, names)
            assert names["nightly"]("applications.csv").startswith("sha256:")
            misspelt(frame, seed=1).to_csv(team / "vendor.csv", index=False)
            with pytest.raises(DataRefused, match=r"income: .* rows not in"):
                names["nightly"]("vendor.csv")
        _commands_work(place, _calls_work(place))


def _calls_work(place: Place) -> str:
    """Make each call that is shown, and return the id of the request that it asks."""
    told = run(place.home, "status", "--json").document
    (calls,) = (block for block in blocks("console") if "$GATEWAY" in block)
    answers: list[Any] = []
    for call in calls.split("$ ")[1:]:
        gateway = {"GATEWAY": told["gateway"]}
        done = subprocess.run(["sh", "-c", call], env=os.environ | gateway, capture_output=True, text=True, check=True)
        answers.append(json.loads(done.stdout))
    described, model, answered = answers
    assert "/v2/models/credit/infer" in described["paths"]
    assert (model["name"], len(model["inputs"])) == ("credit", 14)
    assert answered["meta"]["tags"]["release"]
    return answered["meta"]["puid"]


def _commands_work(place: Place, request: str) -> None:
    """Give each command that is shown, in their order."""
    (shown,) = (block for block in blocks("console") if "prefect-mlops status" in block)
    commands = [shlex.split(line.partition("$ prefect-mlops ")[2], comments=True) for line in shown.splitlines()]
    said = {
        words[0]: run(place.home, *(request if word == "REQUEST_ID" else word for word in words)) for words in commands
    }
    assert {name: one.code for name, one in said.items()} == dict.fromkeys(said, 0), said
    assert "credit-v2" in said["status"].out
    assert "applications.csv" in said["trace"].out
    assert "6,000 rows" in said["trace"].out


def test_what_works_alone_is_what_there_is() -> None:
    text = " ".join(README.read_text().split())
    told = re.findall(r"`([\w, ]+)` work alone", text)[0].split(", ")
    verbs = {name for name in tasks.__all__ if isinstance(getattr(tasks, name), Task)}
    assert set(told) == verbs


def test_it_says_what_a_recipe_without_tests_gets() -> None:
    assert len(default_tests()) == 8
    assert len(default_tests(["sex", "race"])) == 10


def test_it_names_only_commands_and_targets_that_exist() -> None:
    text = README.read_text()
    makefile = (README.parent / "Makefile").read_text()
    for target in set(re.findall(r"(?:`|\$ )make ([a-z-]+)", text)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    commands = set(re.findall(r"prefect-mlops ([a-z]+)", text))
    from prefect_mlops.deployments.cli._main import app

    known = {command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands}
    assert commands <= known
    for path in re.findall(r"\]\(([\w./-]+)\)", text) + re.findall(
        r"`((?:tests|docs|blocks|tasks|flows)/[\w./]*)`", text
    ):
        assert (README.parent / path).exists(), path
