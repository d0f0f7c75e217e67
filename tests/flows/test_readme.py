"""What the README shows is run, word for word."""

from __future__ import annotations

import json
import os
import re
import subprocess
import textwrap
from pathlib import Path
from typing import Any

import pytest

from prefect_mlops.deployments.local.place import Place
from prefect_mlops.flows.creditco import census
from tests.places import a_place, run

README = Path(__file__).parents[2] / "README.md"


def blocks(language: str) -> list[str]:
    """The README's code blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_its_own_model_goes_live_and_a_task_works_alone(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    team = tmp_path / "my_team"
    team.mkdir()
    (team / "__init__.py").touch()
    source = """
        from sklearn.compose import make_column_selector, make_column_transformer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        def train(frame, params):
            numbers = make_column_transformer((StandardScaler(), make_column_selector(dtype_include="number")))
            model = make_pipeline(numbers, LogisticRegression(C=params["C"]))
            return model.fit(frame.drop(columns=["income"]), frame["income"])
    """
    (team / "credit.py").write_text(textwrap.dedent(source))
    census(800, seed=11).to_csv(tmp_path / "applications.csv", index=False)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    recipe, release, nightly = blocks("python")
    with a_place(tmp_path_factory.mktemp("readme") / "home") as place:
        names: dict[str, Any] = {}
        place.up(worker=False)
        with place.settings():
            exec(recipe, names)
            exec(release, names)
            exec(nightly, names)
            assert names["nightly"]("applications.csv").startswith("sha256:")
        _commands_work(place)


def _commands_work(place: Place) -> None:
    told = run(place.home, "status", "--json")
    assert told.code == 0, told.err
    assert told.document["services"]["credit"]["agrees"] is True
    (calls,) = (block for block in blocks("console") if "$GATEWAY" in block)
    for call in calls.split("$ ")[1:]:
        gateway = {"GATEWAY": told.document["gateway"]}
        done = subprocess.run(["sh", "-c", call], env=os.environ | gateway, capture_output=True, text=True, check=True)
        assert {"openapi", "data"} & set(json.loads(done.stdout)), done.stdout


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
