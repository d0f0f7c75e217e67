"""The page of a model's tests says first what is wrong, and shows it."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from prefect_mlops.blocks import BeatsBaseline, Custom, Floor, Store
from prefect_mlops.flows._pages import verdicts_page as page_of
from prefect_mlops.flows.creditco import RECIPE, census
from prefect_mlops.tasks import Tested, snapshot_data, test_model, train_model


def says_too_much(model: Any, holdout: pd.DataFrame, params: dict[str, Any]) -> tuple[bool, str]:
    return False, "| <img src=x onerror=alert(1)> | **bold**\n\n# headline"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(url=str(tmp_path_factory.mktemp("page") / "store"))


def found_by(store: Store, folder: Path, *tests: Any) -> Tested:
    census(600, seed=1).to_csv(folder / "census.csv", index=False)
    recipe = RECIPE.model_copy(update={"tests": tests})
    candidate = train_model.fn(store, recipe, snapshot_data.fn(store, folder / "census.csv").snapshot)
    return test_model.fn(store, recipe, candidate)


def test_what_stops_it_stands_first_with_its_figures_and_a_picture(store: Store, tmp_path: Path) -> None:
    found = found_by(store, tmp_path, Floor("accuracy", 0.5), BeatsBaseline(), Floor("roc_auc", 0.99))
    page = page_of(store, found)
    assert page.startswith("# credit is stopped by 1 of its 3 model tests\n")
    [stops] = [line for line in page.splitlines() if line.startswith("- ")]
    assert stops.startswith("- roc\\_auc floor **failed**: roc\\_auc 0.")
    rows = [line for line in page.splitlines() if line.startswith("| ") and "wanted" in line]
    assert rows[0].startswith("| roc\\_auc floor | **failed** | roc\\_auc 0.")
    assert " | passed | " in rows[1]
    assert all(len(line) < 140 for line in page.splitlines() if line.startswith("| "))
    picture = re.search(r"\(data:image/png;base64,([^)]+)\)", page)
    assert picture
    assert base64.b64decode(picture[1]).startswith(b"\x89PNG")
    assert len(page) < 150_000
    assert found.candidate.tests in page


def test_one_that_passed_says_so(store: Store, tmp_path: Path) -> None:
    page = page_of(store, found_by(store, tmp_path, Floor("accuracy", 0.5), BeatsBaseline()))
    assert page.startswith("# credit passed all of its 2 model tests\n")


def test_what_a_team_s_function_says_cannot_break_the_page(store: Store, tmp_path: Path) -> None:
    page = page_of(store, found_by(store, tmp_path, Custom(f"{__name__}:says_too_much")))
    assert "<img" not in page.replace("\\<img", "")
    assert "\n# headline" not in page
    assert r"\*\*bold\*\*" in page
