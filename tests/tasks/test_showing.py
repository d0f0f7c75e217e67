"""MLflow shows what store and log have, and no more: thrown away and filled again, it shows the same."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from prefect_mlops.blocks import Environment, Floor, ModelRegistry, Recipe, ReleaseLog, Split, Store
from prefect_mlops.blocks.branch import Branch
from prefect_mlops.blocks.entry import Released
from prefect_mlops.blocks.log import Draft
from prefect_mlops.flows.creditco import RECIPE, census
from prefect_mlops.tasks import _taking as taking
from prefect_mlops.tasks import register_model, shift_traffic, snapshot_data, test_model, train_model
from prefect_mlops.tasks._showing import show_all, show_standing
from tests.registries import everything, new_registry
from tests.tasks.moving.doubles import Gateway, MemoryTarget, memory_place

SERVICE = RECIPE.name
CREDIT = Recipe.model_validate({**RECIPE.model_dump(), "expectations": "", "tests": [Floor("accuracy", 0.5)]})


def place_with(store: Store, shown: ModelRegistry) -> Environment:
    place = memory_place(store, MemoryTarget(Gateway()))
    place.use(store, place.target, shown)
    return place


class Story:
    """Releases on their way, in an environment whose target is in memory and whose registry is real."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        store = Store(url=str(folder / "store"))
        ReleaseLog(store, "local").begin({})
        self.place = place_with(store, new_registry(folder / "first"))

    def register(self, seed: int, **params: Any) -> tuple[str, str]:
        """Train, test and register a model; returns the release and the commit of its data."""
        store, path = self.place.store_block, self.folder / f"{seed}.csv"
        recipe = CREDIT.model_copy(update={"seed": seed, "params": {**CREDIT.params, **params}})
        census(600, seed=seed).to_csv(path, index=False)
        commit = snapshot_data.fn(store, path)
        candidate = test_model.fn(store, recipe, train_model.fn(store, recipe, commit.snapshot)).need_passed()
        return register_model.fn(store, self.place.registry_block, candidate), commit.id

    def release(self, seed: int, **params: Any) -> str:
        """Have one live, as `release_model` does."""
        release, _ = self.register(seed, **params)
        number = len(self.place.log().state().service(SERVICE).numbers) + 1
        self.place.log().append(lambda _: Draft(Released(release=release, number=number), (SERVICE,), begins=True))
        self.move(release)
        return release

    def candidate(self, seed: int) -> str:
        """Have one that waits, as `train_candidate` does."""
        release, commit = self.register(seed)
        log, branch = self.place.log(), Branch(self.place.store_block, "main")
        taken = taking.take(log, SERVICE, branch, lease=timedelta(hours=1), fate=lambda run: "unknown")
        assert taken is not None
        taking.release(log, taken, release, commit)
        show_standing(self.place.registry_block, log, SERVICE)
        return release

    def move(self, *live: str, kind: Any = "advance") -> None:
        split = Split.of(live[0]) if live else Split()
        shift_traffic.fn(self.place, SERVICE, split, move_kind=kind)
        show_standing(self.place.registry_block, self.place.log(), SERVICE)

    def aliases(self) -> dict[str, str]:
        """The release that each alias points at."""
        client = self.place.registry_block.client()
        pointed = client.get_registered_model(SERVICE).aliases
        return {alias: client.get_model_version(SERVICE, str(at)).tags["release"] for alias, at in pointed.items()}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Story, list[str]]:
    """Two releases, a rollback, and a candidate that waits."""
    story = Story(tmp_path_factory.mktemp("story"))
    first = story.release(1)
    second = story.release(2, C=3)
    story.move(first, kind="rollback")
    return story, [first, second, story.candidate(3)]


def test_what_a_killed_process_had_begun_to_show_is_shown_whole(told: tuple[Story, list[str]], tmp_path: Path) -> None:
    story, releases = told
    shown = new_registry(tmp_path / "killed")
    client = shown.client()
    experiment = client.create_experiment(shown.experiment, shown.artifacts)
    run = client.create_run(experiment, run_name="credit", tags={"release": releases[0]}).info.run_id
    client.create_logged_model(experiment, name="model", source_run_id=run)
    show_all(place_with(story.place.store_block, shown))
    runs, models = client.search_runs([experiment]), client.search_logged_models([experiment])
    assert sorted(one.data.tags["release"] for one in runs) == sorted(releases)
    assert {one.info.status for one in runs} == {"FINISHED"}
    assert [str(one.status) for one in models] == ["READY"] * len(releases)


def test_an_empty_registry_is_filled_again_and_shows_the_same(told: tuple[Story, list[str]], tmp_path: Path) -> None:
    story, releases = told
    before = everything(story.place.registry_block, SERVICE)
    assert before["aliases"] == {"champion": 1, "challenger": 3}
    again = new_registry(tmp_path / "again")
    assert show_all(place_with(story.place.store_block, again)) == {
        SERVICE: {f"credit-v{number}": number for number in (1, 2, 3)}
    }
    assert everything(again, SERVICE) == before
    assert [before[number]["tags"]["release"] for number in (1, 2, 3)] == releases


def test_it_shows_what_training_was_told_and_what_came_of_it(told: tuple[Story, list[str]]) -> None:
    story, releases = told
    shown = everything(story.place.registry_block, SERVICE)[2]
    document = story.place.store_block.release(releases[1])
    model = {f"model/{file.path}": file.digest for file in story.place.store_block.snapshot(document.model).files}
    assert f"sha256:{shown['files']['model/model.pkl']}" == model["model/model.pkl"], "the very bytes that are served"
    assert shown["params"] == {
        "C": "3",
        "holdout_percent": "20",
        "ignore": str(CREDIT.params["ignore"]),
        "seed": "2",
        "target": "income",
        "train": RECIPE.train,
    }
    assert set(shown["metrics"]) == {"accuracy", "roc_auc"}
    assert shown["tags"] == {
        **{part: getattr(document, part) for part in ("data", "code", "runtime", "model", "tests", "probes")},
        "release": releases[1],
        "name": "credit-v2",
        "entry": shown["tags"]["entry"],
    }
    assert {"plots/roc.png", "plots/calibration.png", "code/code.json", "code/creditco.py"} <= set(shown["files"])
    assert {"runtime/installed.txt", "tests.json", "signature.json", "model/model.pkl"} <= set(shown["files"])


def test_filling_it_again_changes_nothing(told: tuple[Story, list[str]]) -> None:
    story, _ = told
    before = everything(story.place.registry_block, SERVICE)
    show_all(story.place)
    assert everything(story.place.registry_block, SERVICE) == before


def test_aliases_follow_the_log(tmp_path: Path) -> None:
    story = Story(tmp_path)
    first = story.release(1)
    waiting = story.candidate(2)
    assert story.aliases() == {"champion": first, "challenger": waiting}
    story.move(waiting)
    assert story.aliases() == {"champion": waiting}, "what answers does not challenge any more"
    story.move(first, kind="rollback")
    assert story.aliases() == {"champion": first}
    story.move(kind="rollback")
    assert story.aliases() == {}


def test_what_people_changed_by_hand_is_put_right(told: tuple[Story, list[str]]) -> None:
    story, _ = told
    shown = story.place.registry_block
    before = everything(shown, SERVICE)
    shown.client().set_registered_model_alias(SERVICE, "champion", "2")
    shown.client().set_model_version_tag(SERVICE, "1", "name", "credit-v9")
    show_all(story.place)
    assert everything(shown, SERVICE) == before
